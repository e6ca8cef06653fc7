/* dump-logits MODEL IDS_FILE OUT.f32 [--batch N] [--threads N]
 *
 * Reads token ids separated by white space from IDS_FILE ("-": standard input), runs them as one sequence,
 * and writes the logits of every position to OUT.f32: float32 in the machine's byte order, n_vocab per
 * position, so that quern can be compared with another engine number by number.
 * --batch N computes N positions at a time (default 64), --threads N by so many threads (default: one for
 * each usable core); the numbers must not depend on either. */
#include "engine/model.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct ids {
    int32_t *data;
    int count;
};

static bool read_ids(const char *path, int n_vocab, int most, struct ids *ids, struct error *err)
{
    FILE *f = strcmp(path, "-") ? fopen(path, "re") : stdin;
    if (!f)
        return error_set(err, "cannot open %s: %s", path, strerror(errno));
    bool good =
        (ids->data = malloc((size_t)most * sizeof *ids->data)) != NULL || error_set(err, "out of memory for %d ids", most);
    char word[32];
    while (good && fscanf(f, "%31s", word) == 1) {
        char *end;
        long id = strtol(word, &end, 10);
        if (*end || end == word)
            good = error_set(err, "%s: \"%s\" is not a token id", path, word);
        else if (id < 0 || id >= n_vocab)
            good = error_set(err, "%s: id %ld is outside the vocabulary of %d", path, id, n_vocab);
        else if (ids->count == most)
            good = error_set(err, "%s has more than %d ids, the model's context", path, most);
        else
            ids->data[ids->count++] = (int32_t)id;
    }
    if (good && ferror(f))
        good = error_set(err, "cannot read %s: %s", path, strerror(errno));
    else if (good && ids->count == 0)
        good = error_set(err, "%s holds no ids", path);
    if (f != stdin)
        fclose(f);
    return good;
}

static bool dump(const struct model *m, struct threads *pool, const struct ids *ids, int batch, FILE *out, struct error *err)
{
    const struct model_shape *shape = model_shape(m);
    const size_t n_vocab = (size_t)shape->n_vocab;
    struct kv_pool *kv = kv_pool_new(shape->n_layers, shape->n_kv_heads, shape->head_dim, ids->count, err);
    struct forward *forward = kv ? forward_new(m, kv, pool, batch, err) : NULL;
    struct row *rows = malloc((size_t)batch * sizeof *rows);
    float *logits = malloc((size_t)batch * n_vocab * sizeof *logits);
    struct kv_sequence sequence = {0};
    bool good = forward != NULL;
    if (good && (!rows || !logits))
        good = error_set(err, "out of memory for the logits of %d positions; try a smaller --batch", batch);
    if (good) {
        kv_sequence_init(&sequence, kv);
        good = kv_grow(&sequence, ids->count) || error_set(err, "out of memory for %d positions", ids->count);
    }
    for (int first = 0; good && first < ids->count; first += batch) {
        int n = ids->count - first < batch ? ids->count - first : batch;
        for (int i = 0; i < n; i++)
            rows[i] = (struct row){.token = ids->data[first + i], .position = first + i, .sequence = &sequence,
                .logits = logits + (size_t)i * n_vocab};
        forward_run(forward, rows, n);
        if (fwrite(logits, sizeof *logits, (size_t)n * n_vocab, out) != (size_t)n * n_vocab)
            good = error_set(err, "cannot write the logits: %s", strerror(errno));
    }
    if (sequence.pool)
        kv_sequence_clear(&sequence);
    free(logits);
    free(rows);
    forward_free(forward);
    kv_pool_free(kv);
    return good;
}

static bool run(const char *model_path, const char *ids_path, const char *out_path, int batch, int n_threads, struct error *err)
{
    struct ids ids = {0};
    struct threads *pool = NULL;
    struct model *model = NULL;
    FILE *out = NULL;
    const struct kernels *kernels = kernels_select(err);
    struct gguf *file = kernels ? gguf_open(model_path, &(struct gguf_options){0}, err) : NULL;
    bool good = file && (pool = threads_new(n_threads, err)) && (model = model_load(file, kernels, pool, err)) &&
                read_ids(ids_path, model_shape(model)->n_vocab, model_shape(model)->n_ctx_train, &ids, err);
    if (good) {
        out = fopen(out_path, "wbe");
        good = out ? dump(model, pool, &ids, batch, out, err) : error_set(err, "cannot create %s: %s", out_path, strerror(errno));
    }
    if (out && fclose(out) != 0 && good)
        good = error_set(err, "cannot write %s: %s", out_path, strerror(errno));
    if (out && !good)
        remove(out_path);
    free(ids.data);
    model_free(model);
    threads_free(pool);
    gguf_close(file);
    return good;
}

int main(int argc, char **argv)
{
    long batch = 64, n_threads = threads_usable_cores();
    bool good = argc >= 4 && argc % 2 == 0;
    for (int i = 4; good && i < argc; i += 2) {
        long *number = !strcmp(argv[i], "--batch") ? &batch : !strcmp(argv[i], "--threads") ? &n_threads : NULL;
        char *end = "";
        if (number)
            *number = strtol(argv[i + 1], &end, 10);
        good = number && !*end;
    }
    if (!good || batch < 1 || batch > 65536 || n_threads < 1 || n_threads > 1024) {
        fputs("Usage: dump-logits MODEL IDS_FILE OUT.f32 [--batch N] [--threads N]\n", stderr);
        return 2;
    }
    struct error err;
    if (run(argv[1], argv[2], argv[3], (int)batch, (int)n_threads, &err))
        return EXIT_SUCCESS;
    fprintf(stderr, "dump-logits: %s\n", err.text);
    return EXIT_FAILURE;
}
