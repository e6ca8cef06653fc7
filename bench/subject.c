#include "bench/subject.h"
#include "engine/sampler.h"

#include <stdlib.h>
#include <string.h>

static int round_up(int n)
{
    return (n + KV_BLOCK - 1) / KV_BLOCK * KV_BLOCK;
}

bool subject_init(
    struct subject *s, const struct model *m, struct threads *pool, const struct subject_room *room, struct error *err)
{
    const struct model_shape *shape = model_shape(m);
    const struct sampling greedy = {.temperature = 0};
    const int longest = room->prompt > room->answer ? room->prompt : room->answer;
    *s = (struct subject){.model = m, .n_vocab = shape->n_vocab};
    s->kv = kv_pool_new(shape->n_layers, shape->n_kv_heads, shape->head_dim,
                        round_up(room->prompt) + round_up(room->answer) + (room->n_answers - 1) * round_up(room->others), err);
    s->forward = s->kv ? forward_new(m, s->kv, pool, room->n_batch, err) : NULL;
    if (!s->forward)
        return false;
    kv_sequence_init(&s->prompt, s->kv);
    for (int i = 0; i < SUBJECT_MOST_ANSWERS; i++)
        kv_sequence_init(&s->answers[i], s->kv);
    s->rows = malloc((size_t)(longest + SUBJECT_MOST_ANSWERS) * sizeof *s->rows);
    s->logits = malloc((size_t)shape->n_vocab * (size_t)room->n_answers * sizeof *s->logits);
    s->sampler = sampler_new(&greedy, shape->n_vocab);
    bool good =
        s->rows && s->logits && s->sampler && kv_grow(&s->prompt, room->prompt) && kv_grow(&s->answers[0], room->answer);
    for (int i = 1; good && i < room->n_answers; i++)
        good = kv_grow(&s->answers[i], room->others);
    return good ? true : error_set(err, "out of memory for %d tokens", longest);
}

void subject_end(struct subject *s)
{
    if (s->kv && s->forward) {
        kv_sequence_clear(&s->prompt);
        for (int i = 0; i < SUBJECT_MOST_ANSWERS; i++)
            kv_sequence_clear(&s->answers[i]);
    }
    forward_free(s->forward);
    kv_pool_free(s->kv);
    free(s->rows);
    free(s->logits);
    sampler_free(s->sampler);
}

void subject_prefill(struct subject *s, struct kv_sequence *sequence, int n)
{
    for (int i = 0; i < n; i++)
        s->rows[i] = (struct row){
            .token = (int32_t)((uint32_t)i * 2654435761u % (uint32_t)s->n_vocab), .position = i, .sequence = sequence};
    s->rows[n - 1].logits = s->logits;
    forward_run(s->forward, s->rows, n);
}

void subject_decode(struct subject *s, int n_answers, int depth, int n)
{
    int32_t tokens[SUBJECT_MOST_ANSWERS] = {0};
    for (int i = 0; i < n; i++) {
        for (int a = 0; a < n_answers; a++)
            s->rows[a] = (struct row){.token = tokens[a], .position = depth + i, .sequence = &s->answers[a],
                                      .logits = s->logits + (size_t)a * (size_t)s->n_vocab};
        forward_run(s->forward, s->rows, n_answers);
        for (int a = 0; a < n_answers; a++)
            tokens[a] = sampler_next(s->sampler, s->logits + (size_t)a * (size_t)s->n_vocab);
    }
}

void subject_deepen(struct subject *s, int done, int n)
{
    const struct model_shape *shape = model_shape(s->model);
    const size_t bytes = (size_t)KV_BLOCK * (size_t)shape->head_dim * sizeof(uint16_t);
    const struct kv_sequence *a = &s->answers[0];
    const int n_done = done / KV_BLOCK, n_blocks = round_up(n) / KV_BLOCK;
    for (int b = n_done; n_done > 0 && b < n_blocks; b++)
        for (int layer = 0; layer < shape->n_layers; layer++)
            for (int head = 0; head < shape->n_kv_heads; head++) {
                int32_t from = a->blocks[b % n_done], to = a->blocks[b];
                memcpy(kv_keys(s->kv, layer, head, to), kv_keys(s->kv, layer, head, from), bytes);
                memcpy(kv_values(s->kv, layer, head, to), kv_values(s->kv, layer, head, from), bytes);
            }
}
