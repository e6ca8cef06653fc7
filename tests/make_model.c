/* make-model: writes Qwen2 GGUF files of random weights, of any shape and type mix. */
#include "gguf/synthetic.h"
#include "tests/make_vocab.h"

#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
    "usage: make-model [options] OUT.gguf\n"
    "\n"
    "Writes a Qwen2 model of random weights: for shapes and types that no file at hand has, and for\n"
    "timing a model before downloading it. The weights have a trained model's size, so that speed and\n"
    "memory are real; what such a model says is not. The same options give the same bytes.\n"
    "\n"
    "shape (options are taken in order: put --like first and change it with what follows)\n"
    "  --like NAME        0.5b, 1.5b or 3b: the shape of the official Qwen2.5 Q4_K_M file;\n"
    "                     0.5b-tied, 1.5b-tied, 3b-tied: without output.weight\n"
    "  --layers N         transformer layers (4)\n"
    "  --embd N           embedding length (256)\n"
    "  --ff N             feed-forward length (768)\n"
    "  --heads N          attention heads (4)\n"
    "  --kv-heads N       key/value heads; divides --heads (2)\n"
    "  --head-dim N       length of a head (embd / heads). Others than that are written as\n"
    "                     attention.key_length, which not every engine reads for Qwen2\n"
    "  --vocab N          tokens; more than the tokenizer has are padded with unused ones\n"
    "                     \"[PADn]\" behind its own, whose ids stay (the tokenizer's number)\n"
    "  --ctx N            positions the model claims to be trained for (2048)\n"
    "  --rope-base F      base of the rotary embedding (1e6)\n"
    "  --eps F            epsilon of the norms (1e-6)\n"
    "  --tied             the embedding is the head: no output.weight\n"
    "  --type MIX         q4_k_m (default), or one type for all matrices: f32, f16, bf16, q4_0, q5_0,\n"
    "                     q8_0, q4_k, q5_k, q6_k. Rows that are no multiple of 256 fall back as usual:\n"
    "                     q4_k to Q5_0, q5_k and q6_k to Q8_0; no multiple of 32: to F16\n"
    "  --seed N           of the random weights (5)\n"
    "\n"
    "tokenizer\n"
    "  --tokenizer FILE   taken from this GGUF (models/quern-tiny-q4_k_m.gguf)\n"
    "  --tokenizer-json DIR   taken from DIR/tokenizer.json and DIR/tokenizer_config.json, as published\n"
    "                     beside models: for the full vocabulary\n"
    "  --vocab-only       metadata and tokenizer, no tensors\n"
    "\n"
    "examples\n"
    "  make-model --layers 2 --embd 320 --heads 5 --kv-heads 1 --ff 704 --type q8_0 odd.gguf\n"
    "  make-model --like 1.5b --tokenizer-json DIR standin-1.5b.gguf\n"
    "  make-model --like 1.5b --vocab-only --tokenizer-json DIR vocabulary.gguf\n";

struct job {
    struct synthetic_shape shape;
    char name[64];
    const char *tokenizer, *tokenizer_json, *out;
    bool vocab_only;
};

static bool parse_u64(const char *option, const char *text, uint64_t limit, uint64_t *out, struct error *err)
{
    char *end;
    errno = 0;
    unsigned long long n = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || n > limit)
        return error_set(err, "--%s: \"%s\" is not a number from 0 to %" PRIu64, option, text, limit);
    *out = n;
    return true;
}

static bool parse_u32(const char *option, const char *text, uint32_t *out, struct error *err)
{
    uint64_t n = 0;
    if (!parse_u64(option, text, UINT32_MAX, &n, err))
        return false;
    *out = (uint32_t)n;
    return true;
}

static bool parse_float(const char *option, const char *text, float *out, struct error *err)
{
    char *end;
    *out = strtof(text, &end);
    if (end == text || *end != '\0' || !isfinite(*out))
        return error_set(err, "--%s: \"%s\" is not a number", option, text);
    return true;
}

enum {
    LIKE = 256, LAYERS, EMBD, FF, HEADS, KV_HEADS, HEAD_DIM, VOCAB, CTX, ROPE_BASE, EPS, TIED, TYPE, SEED,
    TOKENIZER, TOKENIZER_JSON, VOCAB_ONLY, HELP
};

static const struct option options[] = {
    {"like", required_argument, NULL, LIKE},
    {"layers", required_argument, NULL, LAYERS},
    {"embd", required_argument, NULL, EMBD},
    {"ff", required_argument, NULL, FF},
    {"heads", required_argument, NULL, HEADS},
    {"kv-heads", required_argument, NULL, KV_HEADS},
    {"head-dim", required_argument, NULL, HEAD_DIM},
    {"vocab", required_argument, NULL, VOCAB},
    {"ctx", required_argument, NULL, CTX},
    {"rope-base", required_argument, NULL, ROPE_BASE},
    {"eps", required_argument, NULL, EPS},
    {"tied", no_argument, NULL, TIED},
    {"type", required_argument, NULL, TYPE},
    {"seed", required_argument, NULL, SEED},
    {"tokenizer", required_argument, NULL, TOKENIZER},
    {"tokenizer-json", required_argument, NULL, TOKENIZER_JSON},
    {"vocab-only", no_argument, NULL, VOCAB_ONLY},
    {"help", no_argument, NULL, HELP},
    {NULL, 0, NULL, 0},
};

static bool take_like(struct job *job, struct error *err)
{
    if (!synthetic_shape_named(optarg, &job->shape))
        return error_set(err, "--like: \"%s\" is not 0.5b, 1.5b or 3b, nor one of them with -tied behind it", optarg);
    snprintf(job->name, sizeof job->name, "qwen2.5-%s-instruct", optarg);
    return true;
}

static bool take(struct job *job, int option, const char *name, struct error *err)
{
    struct synthetic_shape *s = &job->shape;

    switch (option) {
    case LIKE:
        return take_like(job, err);
    case LAYERS:
        return parse_u32(name, optarg, &s->n_layers, err);
    case EMBD:
        s->head_dim = 0;
        return parse_u32(name, optarg, &s->n_embd, err);
    case FF:
        return parse_u32(name, optarg, &s->n_ff, err);
    case HEADS:
        s->head_dim = 0;
        return parse_u32(name, optarg, &s->n_heads, err);
    case KV_HEADS:
        return parse_u32(name, optarg, &s->n_kv_heads, err);
    case HEAD_DIM:
        return parse_u32(name, optarg, &s->head_dim, err);
    case VOCAB:
        return parse_u32(name, optarg, &s->n_vocab, err);
    case CTX:
        return parse_u32(name, optarg, &s->n_ctx, err);
    case ROPE_BASE:
        return parse_float(name, optarg, &s->rope_base, err);
    case EPS:
        return parse_float(name, optarg, &s->rms_eps, err);
    case TIED:
        s->tied = true;
        return true;
    case TYPE:
        return synthetic_mix_named(optarg, s, err);
    case SEED:
        return parse_u64(name, optarg, UINT64_MAX, &s->seed, err);
    case TOKENIZER:
        job->tokenizer = optarg;
        return true;
    case TOKENIZER_JSON:
        job->tokenizer_json = optarg;
        return true;
    case VOCAB_ONLY:
        job->vocab_only = true;
        return true;
    default:
        return error_set(err, "an option is not known or lacks its value; --help lists them");
    }
}

/* Opens what was written, which checks all of it, and says what it is. */
static bool report(const char *path, struct error *err)
{
    size_t by_type[GGUF_TYPE_LIMIT] = {0};
    struct gguf *g = gguf_open(path, NULL, err);

    if (!g)
        return false;
    for (size_t i = 0; i < gguf_n_tensors(g); i++)
        by_type[gguf_tensor_at(g, i)->type]++;
    printf("%s: %" PRIu64 " bytes, %zu tensors", path, gguf_file_size(g), gguf_n_tensors(g));
    for (uint32_t type = 0, n = 0; type < GGUF_TYPE_LIMIT; type++)
        if (by_type[type] > 0)
            printf("%s%zu %s", n++ ? ", " : ": ", by_type[type], gguf_type_traits(type)->name);
    putchar('\n');
    gguf_close(g);
    return true;
}

static bool make(struct job *job, struct vocab *vocab, struct error *err)
{
    struct synthetic_shape *s = &job->shape;

    if (!(job->tokenizer_json ? vocab_from_json(vocab, job->tokenizer_json, err) : vocab_from_gguf(vocab, job->tokenizer, err)))
        return false;
    if (s->n_vocab == 0)
        s->n_vocab = vocab->n_tokens;
    if (s->head_dim == 0 && s->n_heads > 0) {
        if (s->n_embd % s->n_heads != 0)
            return error_set(err, "an embedding of %" PRIu32 " cannot be split into %" PRIu32 " heads; give --head-dim",
                s->n_embd, s->n_heads);
        s->head_dim = s->n_embd / s->n_heads;
    }
    if (!synthetic_shape_check(s, err) || !vocab_pad(vocab, s->n_vocab, err))
        return false;

    struct synthetic_weights weights;
    struct gguf_writer *w = gguf_writer_new();
    synthetic_metadata(w, s, job->name);
    vocab_write(vocab, w);
    if (!job->vocab_only)
        synthetic_tensors(w, s);
    synthetic_weights_init(&weights, s);
    bool ok = gguf_writer_save(w, job->out, synthetic_fill, &weights, err);
    gguf_writer_free(w);
    return ok && report(job->out, err);
}

static int fail(const struct error *err)
{
    fprintf(stderr, "make-model: %s\n", err->text);
    return 1;
}

int main(int argc, char **argv)
{
    struct error err = {{0}};
    struct job job = {
        .shape = {.n_layers = 4, .n_embd = 256, .n_ff = 768, .n_heads = 4, .n_kv_heads = 2, .n_ctx = 2048, .rope_base = 1e6f,
            .rms_eps = 1e-6f, .seed = 5},
        .name = "random",
        .tokenizer = "models/quern-tiny-q4_k_m.gguf",
    };
    int option, index = 0;

    while ((option = getopt_long(argc, argv, "h", options, &index)) != -1) {
        if (option == HELP || option == 'h') {
            fputs(help, stdout);
            return 0;
        }
        if (!take(&job, option, option == '?' ? "" : options[index].name, &err))
            return fail(&err);
    }
    if (optind + 1 != argc) {
        fputs(help, stderr);
        return 2;
    }
    job.out = argv[optind];

    struct vocab vocab = {0};
    bool ok = make(&job, &vocab, &err);
    vocab_free(&vocab);
    return ok ? 0 : fail(&err);
}
