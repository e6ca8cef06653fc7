#include "gguf/synthetic.h"

#include "gguf/directory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

/* ---- shapes ---- */

bool synthetic_shape_named(const char *name, struct synthetic_shape *shape)
{
    static const struct {
        const char *name;
        uint32_t n_layers, n_embd, n_ff, n_heads, n_kv_heads;
    } known[] = {
        {"0.5b", 24, 896, 4864, 14, 2},
        {"1.5b", 28, 1536, 8960, 12, 2},
        {"3b", 36, 2048, 11008, 16, 2},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t length = strlen(known[i].name);
        if (strncmp(name, known[i].name, length) != 0 || (name[length] != '\0' && strcmp(name + length, "-tied") != 0))
            continue;
        *shape = (struct synthetic_shape){
            .n_layers = known[i].n_layers,
            .n_embd = known[i].n_embd,
            .n_ff = known[i].n_ff,
            .n_heads = known[i].n_heads,
            .n_kv_heads = known[i].n_kv_heads,
            .head_dim = known[i].n_embd / known[i].n_heads,
            .n_vocab = 151936,
            .n_ctx = 32768,
            .rope_base = 1e6f,
            .rms_eps = 1e-6f,
            .tied = name[length] != '\0',
            .mix = SYNTHETIC_Q4_K_M,
            .seed = 5,
        };
        return true;
    }
    return false;
}

bool synthetic_shape_check(const struct synthetic_shape *s, struct error *err)
{
    const struct {
        const char *name;
        uint32_t value, limit;
    } sizes[] = {
        {"layers", s->n_layers, 1024},             {"embedding length", s->n_embd, 1 << 17},
        {"feed-forward length", s->n_ff, 1 << 20}, {"heads", s->n_heads, 1024},
        {"KV heads", s->n_kv_heads, 1024},         {"head dimension", s->head_dim, 1024},
        {"vocabulary", s->n_vocab, 1 << 22},       {"context", s->n_ctx, 1 << 30},
    };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value == 0 || sizes[i].value > sizes[i].limit)
            return error_set(err, "%s: %" PRIu32 " is not between 1 and %" PRIu32, sizes[i].name, sizes[i].value, sizes[i].limit);
    if (s->n_heads % s->n_kv_heads != 0)
        return error_set(err, "%" PRIu32 " heads cannot be shared out among %" PRIu32 " KV heads", s->n_heads, s->n_kv_heads);
    if (s->head_dim % 2 != 0)
        return error_set(err, "a head dimension of %" PRIu32 " is odd; the rotary embedding turns pairs", s->head_dim);
    if (!(s->rope_base > 0.0f) || !(s->rms_eps > 0.0f) || isinf(s->rope_base) || isinf(s->rms_eps))
        return error_set(err, "the rotary base and the epsilon must be positive numbers");
    return true;
}

bool synthetic_mix_named(const char *name, struct synthetic_shape *shape, struct error *err)
{
    static const enum gguf_type types[] = {GGUF_TYPE_F32,  GGUF_TYPE_F16,  GGUF_TYPE_BF16, GGUF_TYPE_Q4_0, GGUF_TYPE_Q5_0,
                                           GGUF_TYPE_Q8_0, GGUF_TYPE_Q4_K, GGUF_TYPE_Q5_K, GGUF_TYPE_Q6_K};

    if (strcasecmp(name, "q4_k_m") == 0) {
        shape->mix = SYNTHETIC_Q4_K_M;
        return true;
    }
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (strcasecmp(name, gguf_type_traits(types[i])->name) == 0) {
            shape->mix = SYNTHETIC_SINGLE;
            shape->type = types[i];
            return true;
        }
    return error_set(err, "\"%s\" is no type mix: q4_k_m, f32, f16, bf16, q4_0, q5_0, q8_0, q4_k, q5_k and q6_k are", name);
}

/* ---- types ---- */

/* The first and the last eighth of the layers and every third between them keep attn_v and ffn_down in more bits. */
static bool more_bits(uint32_t layer, uint32_t n_layers)
{
    uint32_t eighth = n_layers / 8;
    return layer < eighth || layer >= 7 * n_layers / 8 || (layer - eighth) % 3 == 2;
}

static enum gguf_type fitting(enum gguf_type want, uint64_t columns)
{
    if (columns % gguf_type_traits(want)->block_size == 0)
        return want;
    if (columns % 32 != 0)
        return GGUF_TYPE_F16;
    return want == GGUF_TYPE_Q4_K ? GGUF_TYPE_Q5_0 : GGUF_TYPE_Q8_0;
}

static void add_vector(struct gguf_writer *w, const char *name, uint64_t length)
{
    gguf_writer_tensor(w, name, GGUF_TYPE_F32, 1, &length);
}

static void add_matrix(
    struct gguf_writer *w, const struct synthetic_shape *s, const char *name, uint64_t columns, uint64_t rows, bool more)
{
    enum gguf_type want = s->mix == SYNTHETIC_SINGLE ? s->type : more ? GGUF_TYPE_Q6_K : GGUF_TYPE_Q4_K;
    gguf_writer_tensor(w, name, fitting(want, columns), 2, (uint64_t[]){columns, rows});
}

/* ---- metadata and tensors ---- */

/* general.file_type, by the numbers of llama.cpp's llama_ftype. */
static uint32_t file_type(const struct synthetic_shape *s)
{
    static const uint32_t types[GGUF_TYPE_LIMIT] = {
        [GGUF_TYPE_F32] = 0,  [GGUF_TYPE_F16] = 1,   [GGUF_TYPE_Q4_0] = 2,  [GGUF_TYPE_Q8_0] = 7, [GGUF_TYPE_Q5_0] = 8,
        [GGUF_TYPE_Q4_K] = 14, [GGUF_TYPE_Q5_K] = 16, [GGUF_TYPE_Q6_K] = 18, [GGUF_TYPE_BF16] = 32,
    };
    return s->mix == SYNTHETIC_Q4_K_M ? 15 : types[s->type];
}

void synthetic_metadata(struct gguf_writer *w, const struct synthetic_shape *s, const char *model_name)
{
    gguf_writer_string(w, "general.architecture", "qwen2");
    gguf_writer_string(w, "general.type", "model");
    gguf_writer_string(w, "general.name", model_name);
    gguf_writer_u32(w, "qwen2.block_count", s->n_layers);
    gguf_writer_u32(w, "qwen2.context_length", s->n_ctx);
    gguf_writer_u32(w, "qwen2.embedding_length", s->n_embd);
    gguf_writer_u32(w, "qwen2.feed_forward_length", s->n_ff);
    gguf_writer_u32(w, "qwen2.attention.head_count", s->n_heads);
    gguf_writer_u32(w, "qwen2.attention.head_count_kv", s->n_kv_heads);
    if (s->head_dim * s->n_heads != s->n_embd) { /* where they are absent, head_dim is n_embd / n_heads */
        gguf_writer_u32(w, "qwen2.attention.key_length", s->head_dim);
        gguf_writer_u32(w, "qwen2.attention.value_length", s->head_dim);
    }
    gguf_writer_f32(w, "qwen2.rope.freq_base", s->rope_base);
    gguf_writer_f32(w, "qwen2.attention.layer_norm_rms_epsilon", s->rms_eps);
    gguf_writer_u32(w, "general.file_type", file_type(s));
    gguf_writer_u32(w, "general.quantization_version", 2);
}

void synthetic_tensors(struct gguf_writer *w, const struct synthetic_shape *s)
{
    uint64_t embd = s->n_embd, q = (uint64_t)s->n_heads * s->head_dim, kv = (uint64_t)s->n_kv_heads * s->head_dim;
    char name[64];
#define LAYER(part) (snprintf(name, sizeof name, "blk.%" PRIu32 "." part, i), name)

    if (!s->tied)
        add_matrix(w, s, "output.weight", embd, s->n_vocab, true);
    add_vector(w, "output_norm.weight", embd);
    add_matrix(w, s, "token_embd.weight", embd, s->n_vocab, s->tied);
    for (uint32_t i = 0; i < s->n_layers; i++) {
        bool more = more_bits(i, s->n_layers);
        add_vector(w, LAYER("attn_k.bias"), kv);
        add_matrix(w, s, LAYER("attn_k.weight"), embd, kv, false);
        add_vector(w, LAYER("attn_norm.weight"), embd);
        add_matrix(w, s, LAYER("attn_output.weight"), q, embd, false);
        add_vector(w, LAYER("attn_q.bias"), q);
        add_matrix(w, s, LAYER("attn_q.weight"), embd, q, false);
        add_vector(w, LAYER("attn_v.bias"), kv);
        add_matrix(w, s, LAYER("attn_v.weight"), embd, kv, more);
        add_matrix(w, s, LAYER("ffn_down.weight"), s->n_ff, embd, more);
        add_matrix(w, s, LAYER("ffn_gate.weight"), embd, s->n_ff, false);
        add_vector(w, LAYER("ffn_norm.weight"), embd);
        add_matrix(w, s, LAYER("ffn_up.weight"), embd, s->n_ff, false);
    }
#undef LAYER
}

/* ---- weights ---- */

/* splitmix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014): spreads a seed over the state. */
static uint64_t splitmix(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* xoshiro256** (Blackman and Vigna, "Scrambled linear pseudorandom number generators", 2021). */
static inline uint64_t next(uint64_t s[4])
{
    uint64_t x = s[1] * 5, result = (x << 7 | x >> 57) * 9, t = s[1] << 17;

    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = s[3] << 45 | s[3] >> 19;
    return result;
}

static inline void random_bytes(uint64_t s[4], unsigned char *to, size_t n_words)
{
    for (size_t i = 0; i < n_words; i++) {
        uint64_t word = next(s);
        memcpy(to + 8 * i, &word, 8);
    }
}

/* The float nearest to x in IEEE half precision (round to nearest even); x must be below 65504. */
static uint16_t to_f16(float x)
{
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    float magnitude = fabsf(x);
    int exponent;

    if (magnitude < 0x1p-14f) /* subnormal: a multiple of 2^-24 */
        return (uint16_t)(sign | (uint16_t)lrintf(magnitude * 0x1p24f));
    float fraction = frexpf(magnitude, &exponent); /* 0.5 .. 1 */
    /* The 11 significant bits, whose first one adds itself to the exponent. */
    return (uint16_t)(sign + (uint16_t)((exponent + 13) * 1024 + (int)lrintf(fraction * 2048.0f)));
}

static uint16_t to_bf16(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

static const float weight_std = 0.02f;

/* Sums of four random bytes are about normal: mean 510, standard deviation 147.8. */
static const float sum_mean = 510.0f, sum_std = 147.8f;

static inline uint32_t sum4(uint32_t x)
{
    return (x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24);
}

static void fill_f32(uint64_t s[4], unsigned char *to, size_t n, float mean, float std)
{
    float scale = std / sum_std;

    for (size_t i = 0; i < n; i += 2) {
        uint64_t word = next(s);
        float pair[2] = {mean + scale * ((float)sum4((uint32_t)word) - sum_mean),
            mean + scale * ((float)sum4((uint32_t)(word >> 32)) - sum_mean)};
        memcpy(to + 4 * i, pair, n - i >= 2 ? 8 : 4);
    }
}

static void fill_16(uint64_t s[4], unsigned char *to, size_t n, const uint16_t table[1021])
{
    for (size_t i = 0; i < n; i += 2) {
        uint64_t word = next(s);
        uint16_t pair[2] = {table[sum4((uint32_t)word)], table[sum4((uint32_t)(word >> 32))]};
        memcpy(to + 2 * i, pair, n - i >= 2 ? 4 : 2);
    }
}

/* Q4_0, Q5_0: a scale, then random values, which lie half a step off centre: so the scale's sign is random too. */
static void fill_signed_scale(uint64_t s[4], unsigned char *to, size_t n_blocks, size_t block_bytes, float scale)
{
    uint16_t d = to_f16(scale);
    uint64_t signs = 0;

    for (size_t i = 0; i < n_blocks; i++, to += block_bytes, signs >>= 1) {
        unsigned char last[8];
        if (i % 64 == 0)
            signs = next(s);
        uint16_t signed_d = (uint16_t)(d | (signs & 1) << 15);
        memcpy(to, &signed_d, 2);
        random_bytes(s, to + 2, 2);
        if (block_bytes == 22) { /* Q5_0: four more bytes */
            random_bytes(s, last, 1);
            memcpy(to + 18, last, 4);
        }
    }
}

static void fill_q8_0(uint64_t s[4], unsigned char *to, size_t n_blocks)
{
    uint16_t d = to_f16(weight_std / 73.3f);

    for (size_t i = 0; i < n_blocks; i++, to += 34) {
        memcpy(to, &d, 2);
        random_bytes(s, to + 2, 4);
        for (size_t j = 2; j < 34; j++) /* -128 is no value that a quantiser writes */
            to[j] = to[j] == 0x80 ? 0x81 : to[j];
    }
}

/* Q4_K, Q5_K: eight 6-bit scales and eight 6-bit minima in 12 bytes. With equal scale and minimum, and d : dmin as
 * 1 : half the largest value, the weights centre on zero. */
static void fill_k_scales(uint64_t s[4], unsigned char *to, uint16_t d, uint16_t dmin)
{
    unsigned char scale[8];

    random_bytes(s, scale, 1);
    for (int j = 0; j < 8; j++)
        scale[j] = (unsigned char)((scale[j] & 31) | 32);
    memcpy(to, &d, 2);
    memcpy(to + 2, &dmin, 2);
    for (int j = 0; j < 4; j++) {
        unsigned char low = scale[j], high = scale[j + 4];
        to[4 + j] = to[8 + j] = (unsigned char)(low | high >> 4 << 6);
        to[12 + j] = (unsigned char)((high & 15) * 0x11);
    }
}

static void fill_q4_k(uint64_t s[4], unsigned char *to, size_t n_blocks)
{
    float d = weight_std / (48.4f * 4.61f);
    uint16_t half_d = to_f16(d), half_dmin = to_f16(7.5f * d);

    for (size_t i = 0; i < n_blocks; i++, to += 144) {
        fill_k_scales(s, to, half_d, half_dmin);
        random_bytes(s, to + 16, 16);
    }
}

static void fill_q5_k(uint64_t s[4], unsigned char *to, size_t n_blocks)
{
    float d = weight_std / (48.4f * 9.23f);
    uint16_t half_d = to_f16(d), half_dmin = to_f16(15.5f * d);

    for (size_t i = 0; i < n_blocks; i++, to += 176) {
        fill_k_scales(s, to, half_d, half_dmin);
        random_bytes(s, to + 16, 20);
    }
}

/* Q6_K: values, sixteen int8 scales of random sign, d. */
static void fill_q6_k(uint64_t s[4], unsigned char *to, size_t n_blocks)
{
    uint16_t d = to_f16(weight_std / (66.1f * 18.5f));

    for (size_t i = 0; i < n_blocks; i++, to += 210) {
        random_bytes(s, to, 26);
        for (size_t j = 192; j < 208; j++) { /* 32 .. 95, or its negative */
            unsigned char magnitude = (unsigned char)(32 + (to[j] & 63));
            to[j] = to[j] & 128 ? (unsigned char)-magnitude : magnitude;
        }
        memcpy(to + 208, &d, 2);
    }
}

void synthetic_weights_init(struct synthetic_weights *weights, const struct synthetic_shape *shape)
{
    memset(weights, 0, sizeof *weights);
    weights->seed = shape->seed;
}

/* Starts the random numbers of a tensor: they depend on the seed and its name only. */
static void begin_tensor(struct synthetic_weights *weights, const struct gguf_tensor *t)
{
    uint64_t x = 0xcbf29ce484222325; /* FNV-1a */
    for (size_t i = 0; i < t->name.length; i++)
        x = (x ^ (unsigned char)t->name.data[i]) * 0x100000001b3;
    x += splitmix(&(uint64_t){weights->seed});
    for (int i = 0; i < 4; i++)
        weights->state[i] = splitmix(&x);

    for (uint32_t sum = 0; sum < 1021 && (t->type == GGUF_TYPE_F16 || t->type == GGUF_TYPE_BF16); sum++) {
        float value = weight_std / sum_std * ((float)sum - sum_mean);
        weights->halves[sum] = t->type == GGUF_TYPE_F16 ? to_f16(value) : to_bf16(value);
    }
}

static bool ends_with(struct gguf_string name, const char *end)
{
    size_t length = strlen(end);
    return name.length >= length && memcmp(name.data + name.length - length, end, length) == 0;
}

bool synthetic_fill(void *context, const struct gguf_tensor *t, uint64_t offset, void *to, size_t n_bytes, struct error *err)
{
    struct synthetic_weights *weights = context;
    size_t n_blocks = n_bytes / gguf_type_traits(t->type)->block_bytes;

    if (offset == 0)
        begin_tensor(weights, t);
    switch (t->type) {
    case GGUF_TYPE_F32:
        if (ends_with(t->name, ".bias"))
            fill_f32(weights->state, to, n_blocks, 0.0f, 0.3f);
        else if (t->n_dims == 1)
            fill_f32(weights->state, to, n_blocks, 1.0f, 0.1f);
        else
            fill_f32(weights->state, to, n_blocks, 0.0f, weight_std);
        return true;
    case GGUF_TYPE_F16:
    case GGUF_TYPE_BF16:
        fill_16(weights->state, to, n_blocks, weights->halves);
        return true;
    case GGUF_TYPE_Q4_0:
        fill_signed_scale(weights->state, to, n_blocks, 18, weight_std / 4.64f);
        return true;
    case GGUF_TYPE_Q5_0:
        fill_signed_scale(weights->state, to, n_blocks, 22, weight_std / 9.25f);
        return true;
    case GGUF_TYPE_Q8_0:
        fill_q8_0(weights->state, to, n_blocks);
        return true;
    case GGUF_TYPE_Q4_K:
        fill_q4_k(weights->state, to, n_blocks);
        return true;
    case GGUF_TYPE_Q5_K:
        fill_q5_k(weights->state, to, n_blocks);
        return true;
    case GGUF_TYPE_Q6_K:
        fill_q6_k(weights->state, to, n_blocks);
        return true;
    case GGUF_TYPE_LIMIT:
        break;
    }
    return error_set(err, "tensor %s: random weights of type %u are not known", gguf_quote(t->name).text, (unsigned)t->type);
}

void *synthetic_image(const struct synthetic_shape *shape, size_t *size, struct error *err)
{
    struct synthetic_weights weights;
    struct gguf_writer *w = gguf_writer_new();

    if (!synthetic_shape_check(shape, err)) {
        gguf_writer_free(w);
        return NULL;
    }
    synthetic_metadata(w, shape, "synthetic");
    synthetic_tensors(w, shape);
    synthetic_weights_init(&weights, shape);
    void *image = gguf_writer_image(w, synthetic_fill, &weights, size, err);
    gguf_writer_free(w);
    return image;
}
