/* Puts the parts together: what engine_open loads, and the loop that engine_run turns. */
#include "engine/engine.h"
#include "engine/model.h"
#include "engine/scheduler.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct engine {
    const struct kernels *kernels;
    struct gguf *file;
    struct tokenizer *tokenizer;
    struct threads *pool;
    struct model *model;
    struct kv_pool *kv;
    struct forward *forward;
    struct scheduler *scheduler;
    struct vocabulary vocabulary;
    struct trie *trie; /* for vocabulary */
    bool *silent;      /* [n_vocab], for vocabulary */
    struct row *rows;  /* [scheduler_max_rows] */
    float *logits;     /* [scheduler_max_logits][n_vocab] */
    char *architecture, *name, *chat_template;
    struct engine_info info;
    /* Written by the engine thread, for engine_get_stats. */
    atomic_uint_least64_t n_batches, n_batch_sequences, n_preemptions;
    atomic_int n_kv_reserved, n_kv_filled;
};

enum {
    DEFAULT_CTX = 2048,
    DEFAULT_BATCH = 512,
    DEFAULT_PARALLEL = 4,
    DEFAULT_QUEUE = 64,
    /* More is a mistake in a number, not a wish. */
    MOST_BATCH = 65536,
    MOST_PARALLEL = 1024,
    MOST_QUEUE = 1 << 20
};

/* ---- opening ---- */

static bool choose(int *out, const char *what, int wanted, int fallback, int least, int most, struct error *err)
{
    *out = wanted ? wanted : fallback;
    if (*out < least || *out > most)
        return error_set(err, "%s is %d: it must be from %d to %d", what, *out, least, most);
    return true;
}

/* A copy of a string of the file's metadata as C knows strings; "" if there is none. */
static char *metadata_string(const struct gguf *g, const char *key)
{
    struct gguf_string s;
    if (!gguf_get_string(g, key, &s, NULL))
        s = (struct gguf_string){"", 0};
    return strndup(s.data, s.length);
}

/* Which tokens are never text: control and unused ones, by the types in the file (GGUF specification:
 * 3 and 5), and ids the tokenizer does not know. */
static bool find_silent_tokens(struct engine *e, int n_vocab, struct error *err)
{
    enum { TYPE_CONTROL = 3, TYPE_UNUSED = 5 };
    struct gguf_array types;
    if (!gguf_get_array(e->file, "tokenizer.ggml.token_type", GGUF_KIND_INT32, &types, err))
        return false;
    e->silent = malloc((size_t)n_vocab * sizeof *e->silent);
    if (!e->silent)
        return error_set(err, "out of memory for a vocabulary of %d tokens", n_vocab);
    for (int i = 0; i < n_vocab; i++) {
        int32_t type = TYPE_UNUSED;
        if ((uint64_t)i < types.count)
            memcpy(&type, types.data + 4 * (size_t)i, sizeof type);
        e->silent[i] = type == TYPE_CONTROL || type == TYPE_UNUSED;
    }
    return true;
}

static bool open_file(struct engine *e, const struct engine_options *o, struct error *err)
{
    /* Not locked here: most of the file is given back once the weights are repacked, and those are locked then. */
    const struct gguf_options how = {.no_mmap = o->no_mmap};
    e->kernels = kernels_select(err);
    if (!e->kernels)
        return false;
    if (!(e->file = gguf_open(o->model_path, &how, err)) || !(e->tokenizer = tok_load(e->file, err)))
        return false;
    e->architecture = metadata_string(e->file, "general.architecture");
    e->name = metadata_string(e->file, "general.name");
    e->chat_template = metadata_string(e->file, "tokenizer.chat_template");
    return e->architecture && e->name && e->chat_template ? true : error_set(err, "out of memory for the model's name");
}

static bool open_model(struct engine *e, const struct engine_options *o, struct error *err)
{
    int n_threads;
    if (!choose(&n_threads, "the number of threads", o->n_threads, threads_usable_cores(), 1, 4096, err))
        return false;
    if (!(e->pool = threads_new(n_threads, err)) || !(e->model = model_load(e->file, e->kernels, e->pool, err)) ||
        (o->mlock && !model_lock(e->model, err)))
        return false;
    const struct model_shape *shape = model_shape(e->model);
    if (tok_n_vocab(e->tokenizer) > shape->n_vocab)
        return error_set(err, "the tokenizer has %d tokens, but token_embd.weight has rows for %d only",
            tok_n_vocab(e->tokenizer), shape->n_vocab);
    return find_silent_tokens(e, shape->n_vocab, err);
}

static bool open_run(struct engine *e, const struct engine_options *o, struct error *err)
{
    const struct model_shape *shape = model_shape(e->model);
    int n_ctx, n_batch, n_parallel, n_draft, n_kv, max_queue;
    if (o->n_ctx > shape->n_ctx_train)
        return error_set(
            err, "a context of %d tokens was asked for, but this model was trained for %d", o->n_ctx, shape->n_ctx_train);
    if (!choose(&n_ctx, "the context size", o->n_ctx, shape->n_ctx_train < DEFAULT_CTX ? shape->n_ctx_train : DEFAULT_CTX, 2,
            shape->n_ctx_train, err) ||
        !choose(&n_batch, "the batch size", o->n_batch, DEFAULT_BATCH, 1, MOST_BATCH, err) ||
        !choose(&n_parallel, "the number of parallel sequences", o->n_parallel, DEFAULT_PARALLEL, 1, MOST_PARALLEL, err) ||
        !choose(&n_draft, "the number of guessed tokens", o->n_draft < 0 ? 0 : o->n_draft,
            o->n_draft < 0 ? 0 : e->kernels->cheap_rows - 1, 0, DRAFT_MOST, err) ||
        !choose(&n_kv, "the size of the KV cache", o->n_kv, n_ctx, n_ctx, INT32_MAX - KV_BLOCK, err) ||
        !choose(&max_queue, "the length of the queue", o->max_queue, DEFAULT_QUEUE, 1, MOST_QUEUE, err))
        return false;
    if (n_draft > n_batch - 1)
        n_draft = n_batch - 1; /* a step's rows are computed together */
    if (!(e->kv = kv_pool_new(shape->n_layers, shape->n_kv_heads, shape->head_dim, n_kv, err)) ||
        !(e->forward = forward_new(e->model, e->kv, e->pool, n_batch, err)) ||
        !(e->scheduler = scheduler_new(e->kv, n_parallel, n_batch, n_draft, max_queue, err)))
        return false;
    e->rows = malloc((size_t)scheduler_max_rows(e->scheduler) * sizeof *e->rows);
    e->logits = malloc((size_t)scheduler_max_logits(e->scheduler) * (size_t)shape->n_vocab * sizeof *e->logits);
    if (!e->rows || !e->logits)
        return error_set(err, "out of memory for batches of %d rows and the logits of %d sequences", n_batch, n_parallel);
    e->trie = trie_new(e->tokenizer, shape->n_vocab, e->silent);
    if (!e->trie)
        return error_set(err, "out of memory for a vocabulary of %d tokens", shape->n_vocab);
    e->vocabulary =
        (struct vocabulary){.tokenizer = e->tokenizer, .n_vocab = shape->n_vocab, .silent = e->silent, .trie = e->trie};
    e->info = (struct engine_info){
        .kernel_level = e->kernels->level, .architecture = e->architecture, .name = e->name, .chat_template = e->chat_template,
        .n_threads = threads_count(e->pool), .n_ctx = n_ctx, .n_ctx_train = shape->n_ctx_train,
        .n_parallel = n_parallel, .max_queue = max_queue,
        .n_layers = shape->n_layers, .n_embd = shape->n_embd, .n_vocab = shape->n_vocab,
        .n_params = model_n_params(e->model), .model_bytes = model_tensor_bytes(e->model), .kv_bytes = kv_pool_bytes(e->kv),
    };
    return true;
}

struct engine *engine_open(const struct engine_options *options, struct error *err)
{
    struct timespec begin, end;
    clock_gettime(CLOCK_MONOTONIC, &begin);
    struct engine *e = calloc(1, sizeof *e);
    if (!e) {
        error_set(err, "out of memory");
        return NULL;
    }
    if (!open_file(e, options, err) || !open_model(e, options, err) || !open_run(e, options, err)) {
        engine_close(e);
        return NULL;
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    e->info.load_seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec);
    return e;
}

void engine_close(struct engine *e)
{
    if (!e)
        return;
    scheduler_free(e->scheduler); /* gives KV blocks back: before the pool */
    forward_free(e->forward);
    kv_pool_free(e->kv);
    model_free(e->model);
    threads_free(e->pool);
    trie_free(e->trie);
    tok_free(e->tokenizer);
    gguf_close(e->file);
    free(e->silent);
    free(e->rows);
    free(e->logits);
    free(e->architecture);
    free(e->name);
    free(e->chat_template);
    free(e);
}

const struct engine_info *engine_info(const struct engine *e)
{
    return &e->info;
}

const struct tokenizer *engine_tokenizer(const struct engine *e)
{
    return e->tokenizer;
}

/* ---- any thread ---- */

struct engine_pulse engine_pulse(const struct engine *e)
{
    int n_running, n_waiting;
    scheduler_count(e->scheduler, &n_running, &n_waiting);
    return (struct engine_pulse){.progress = forward_progress(e->forward), .idle = n_running == 0 && n_waiting == 0};
}

enum submit_result engine_submit(struct engine *e, const struct generation *g, uint64_t *id, struct error *err)
{
    enum submit_result result;
    struct sequence *s = sequence_new(g, &e->vocabulary, e->info.n_ctx, &result, err);
    if (!s)
        return result;
    result = scheduler_submit(e->scheduler, s, id, err);
    if (result != SUBMIT_OK)
        sequence_free(s);
    return result;
}

void engine_cancel(struct engine *e, uint64_t id)
{
    scheduler_cancel(e->scheduler, id);
}

void engine_stop(struct engine *e)
{
    scheduler_stop(e->scheduler);
}

void engine_get_stats(struct engine *e, struct engine_stats *stats)
{
    *stats = (struct engine_stats){
        .n_batches = atomic_load_explicit(&e->n_batches, memory_order_relaxed),
        .n_batch_sequences = atomic_load_explicit(&e->n_batch_sequences, memory_order_relaxed),
        .n_preemptions = atomic_load_explicit(&e->n_preemptions, memory_order_relaxed),
        .n_kv = kv_pool_blocks(e->kv) * KV_BLOCK,
        .n_kv_reserved = atomic_load_explicit(&e->n_kv_reserved, memory_order_relaxed),
        .n_kv_filled = atomic_load_explicit(&e->n_kv_filled, memory_order_relaxed),
    };
    scheduler_count(e->scheduler, &stats->n_running, &stats->n_waiting);
}

/* ---- the engine thread ---- */

/* The state of the KV cache, for engine_get_stats. */
static void note_kv(struct engine *e)
{
    atomic_store_explicit(&e->n_preemptions, scheduler_n_preemptions(e->scheduler), memory_order_relaxed);
    atomic_store_explicit(&e->n_kv_filled, kv_pool_filled(e->kv).held, memory_order_relaxed);
    atomic_store_explicit(
        &e->n_kv_reserved, (kv_pool_blocks(e->kv) - kv_pool_free_blocks(e->kv)) * KV_BLOCK, memory_order_relaxed);
}

static void note_batch(struct engine *e)
{
    uint64_t busy = 0;
    for (int i = 0; i < scheduler_n_running(e->scheduler); i++)
        busy += scheduler_running(e->scheduler, i)->n_planned > 0;
    atomic_fetch_add_explicit(&e->n_batches, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&e->n_batch_sequences, busy, memory_order_relaxed);
}

static void end_cancelled(struct engine *e)
{
    struct sequence *s;
    while ((s = scheduler_take_cancelled(e->scheduler))) {
        sequence_finish(s, FINISH_CANCELLED, NULL);
        sequence_free(s);
    }
}

/* One batch: plan, compute, sample. */
static void step(struct engine *e)
{
    int n_rows = scheduler_plan(e->scheduler, e->rows, e->logits, e->info.n_vocab);
    if (n_rows == 0)
        return;
    forward_run(e->forward, e->rows, n_rows);
    note_batch(e);
    for (int i = 0; i < scheduler_n_running(e->scheduler);) {
        struct sequence *s = scheduler_running(e->scheduler, i);
        s->n_computed += s->n_planned;
        /* One that was cancelled meanwhile says nothing more; its end comes with the next step. */
        bool goes_on = !s->logits || atomic_load(&s->cancelled) || sequence_accept(s);
        kv_publish(&s->kv, s->tokens, s->n_computed);
        if (goes_on) {
            i++;
            continue;
        }
        scheduler_remove(e->scheduler, i);
        sequence_free(s);
    }
}

void engine_run(struct engine *e)
{
    while (scheduler_wait(e->scheduler)) {
        struct sequence *s;
        end_cancelled(e);
        while ((s = scheduler_admit(e->scheduler)))
            sequence_start(s);
        note_kv(e); /* a long prompt's batch takes its time */
        step(e);
        note_kv(e);
    }
    end_cancelled(e);
    note_kv(e);
}
