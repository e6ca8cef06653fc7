/* gguf/write and gguf/synthetic: what is written reads back the same, and made models have
 * the shapes, types and value ranges they claim. */
#include "gguf/synthetic.h"
#include "tests/gguf_touch.h"

#include <check.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static void assert_has(const struct error *err, const char *text)
{
    ck_assert_msg(strstr(err->text, text) != NULL, "\"%s\" is not in the message: %s", text, err->text);
}

/* ---- the writer ---- */

/* Every byte of a tensor says where it is. */
static bool fill_position(
    void *context, const struct gguf_tensor *t, uint64_t offset, void *to, size_t n_bytes, struct error *err)
{
    const uint64_t *fail_at = context;
    unsigned char *bytes = to;
    for (size_t i = 0; i < n_bytes; i++)
        bytes[i] = (unsigned char)((offset + i) * 7 + t->name.length + (offset + i) / 1000);
    return offset < *fail_at || error_set(err, "stopped at %llu", (unsigned long long)offset);
}

static struct gguf_writer *sample(void)
{
    struct gguf_writer *w = gguf_writer_new();
    gguf_writer_string(w, "general.name", "sample");
    gguf_writer_u32(w, "u32", 7);
    gguf_writer_f32(w, "f32", 0.5f);
    gguf_writer_bool(w, "bool", true);
    gguf_writer_value(w, "i8", GGUF_KIND_INT8, &(int8_t){100});
    gguf_writer_value(w, "u64", GGUF_KIND_UINT64, &(uint64_t){UINT64_MAX});
    gguf_writer_value(w, "f64", GGUF_KIND_FLOAT64, &(double){0.1});
    gguf_writer_string_bytes(w, "nul", (struct gguf_string){"a\0b", 3});
    gguf_writer_array(w, "numbers", GGUF_KIND_INT32, (int32_t[]){1, -2, 3}, 3);
    gguf_writer_strings(w, "words", (struct gguf_string[]){{"x", 1}, {"", 0}, {"yz", 2}}, 3);
    gguf_writer_array(w, "nothing", GGUF_KIND_FLOAT32, NULL, 0);
    gguf_writer_tensor(w, "one", GGUF_TYPE_F32, 1, (uint64_t[]){3});
    gguf_writer_tensor(w, "blocks", GGUF_TYPE_Q6_K, 2, (uint64_t[]){512, 1500}); /* more than one call to fill */
    gguf_writer_tensor(w, "four", GGUF_TYPE_F16, 4, (uint64_t[]){2, 3, 4, 5});
    return w;
}

static void check_sample(struct gguf *g)
{
    uint64_t u;
    double d;
    bool b;
    struct gguf_string s;
    struct gguf_array a;
    ck_assert_uint_eq(gguf_version(g), 3);
    ck_assert(gguf_get_string(g, "general.name", &s, NULL) && s.length == 6);
    ck_assert(gguf_get_u64(g, "u32", &u, NULL) && u == 7);
    ck_assert(gguf_get_f64(g, "f32", &d, NULL) && d == 0.5);
    ck_assert(gguf_get_bool(g, "bool", &b, NULL) && b);
    ck_assert(gguf_get_u64(g, "i8", &u, NULL) && u == 100);
    ck_assert(gguf_get_u64(g, "u64", &u, NULL) && u == UINT64_MAX);
    ck_assert(gguf_get_f64(g, "f64", &d, NULL) && d == 0.1);
    ck_assert(gguf_get_string(g, "nul", &s, NULL) && s.length == 3 && memcmp(s.data, "a\0b", 3) == 0);
    ck_assert(gguf_get_array(g, "numbers", GGUF_KIND_INT32, &a, NULL) && a.count == 3 && a.data[4] == 0xfe);
    ck_assert(gguf_get_array(g, "words", GGUF_KIND_STRING, &a, NULL) && a.count == 3 && a.n_bytes == 27);
    ck_assert(gguf_get_array(g, "nothing", GGUF_KIND_FLOAT32, &a, NULL) && a.count == 0);
    ck_assert_uint_eq(gguf_n_tensors(g), 3);
    ck_assert_str_eq(gguf_type_traits(gguf_find_tensor(g, "blocks")->type)->name, "Q6_K");
    ck_assert_uint_eq(gguf_find_tensor(g, "blocks")->n_bytes, 2 * 1500 * 210);
    ck_assert_uint_eq(gguf_find_tensor(g, "four")->dims[3], 5);
    size_t wrong = 0;
    for (size_t i = 0; i < 3; i++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, i);
        ck_assert_uint_eq((uintptr_t)t->data % 32, 0);
        for (size_t k = 0; k < t->n_bytes; k++)
            wrong += t->data[k] != (unsigned char)(k * 7 + t->name.length + k / 1000);
    }
    ck_assert_uint_eq(wrong, 0);
}

START_TEST(what_is_written_reads_back)
{
    char folder[] = "/tmp/quern-test-XXXXXX", path[64], part[80];
    struct error err = {{0}};
    uint64_t never = UINT64_MAX;
    size_t size;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/sample.gguf", folder);
    snprintf(part, sizeof part, "%s.part", path);

    struct gguf_writer *w = sample();
    ck_assert_uint_eq(gguf_writer_n_tensors(w), 3);
    ck_assert_msg(gguf_writer_save(w, path, fill_position, &never, &err), "%s", err.text);
    ck_assert_int_ne(access(part, F_OK), 0);
    struct gguf *g = gguf_open(path, NULL, &err);
    ck_assert_msg(g != NULL, "%s", err.text);
    ck_assert_uint_eq(gguf_file_size(g), gguf_writer_size(w));
    check_sample(g);

    unsigned char *image = gguf_writer_image(w, fill_position, &never, &size, &err);
    ck_assert_msg(image != NULL, "%s", err.text);
    ck_assert_uint_eq(size, gguf_writer_size(w));
    struct gguf *in_memory = gguf_open_memory(image, size, &err);
    ck_assert_msg(in_memory != NULL, "%s", err.text);
    check_sample(in_memory);

    /* Byte for byte the same. */
    unsigned char *file = malloc(size);
    FILE *f = fopen(path, "rb");
    ck_assert(f && fread(file, 1, size, f) == size && fgetc(f) == EOF && memcmp(file, image, size) == 0);
    fclose(f);
    free(file);
    gguf_close(in_memory);
    gguf_image_free(image, size);
    gguf_image_free(NULL, 0);
    gguf_close(g);
    gguf_writer_free(w);
    unlink(path);
    ck_assert_int_eq(rmdir(folder), 0);
}
END_TEST

START_TEST(failures_leave_nothing)
{
    char folder[] = "/tmp/quern-test-XXXXXX", path[64];
    struct error err = {{0}};
    uint64_t early = 300000, never = UINT64_MAX;
    size_t size;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/sample.gguf", folder);

    struct gguf_writer *w = sample();
    ck_assert(!gguf_writer_save(w, path, fill_position, &early, &err));
    assert_has(&err, "stopped at ");
    ck_assert_ptr_null(gguf_writer_image(w, fill_position, &early, &size, &err));
    assert_has(&err, "stopped at ");
    ck_assert(!gguf_writer_save(w, "/nonexistent/folder/x.gguf", fill_position, &never, &err));
    assert_has(&err, "/nonexistent/folder/x.gguf.part: cannot create: No such file");
    ck_assert_int_eq(rmdir(folder), 0); /* empty */
    ck_assert(!gguf_writer_save(w, "/dev/full/x", fill_position, &never, &err));
    gguf_writer_free(w);

    /* The first error is kept to the end. */
    static const struct {
        enum gguf_type type;
        uint32_t n_dims;
        uint64_t dims[4];
    } bad[] = {
        {GGUF_TYPE_Q4_K, 2, {128, 2}},
        {GGUF_TYPE_F32, 0, {1}},
        {GGUF_TYPE_F32, 5, {1}},
        {GGUF_TYPE_F32, 2, {4, 0}},
        {GGUF_TYPE_F32, 2, {UINT64_MAX, UINT64_MAX}},
        {GGUF_TYPE_F32, 1, {UINT64_MAX / 4}},
        {(enum gguf_type)5, 1, {32}},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        w = sample();
        gguf_writer_tensor(w, "bad", bad[i].type, bad[i].n_dims, bad[i].dims);
        gguf_writer_tensor(w, "also bad", (enum gguf_type)4, 1, (uint64_t[]){32});
        ck_assert_ptr_null(gguf_writer_image(w, fill_position, &never, &size, &err));
        assert_has(&err, "tensor \"bad\" cannot be written");
        ck_assert_uint_eq(gguf_writer_size(w), 0);
        gguf_writer_free(w);
    }
    w = sample();
    gguf_writer_value(w, "text", GGUF_KIND_STRING, "x");
    ck_assert(!gguf_writer_save(w, path, fill_position, &never, &err));
    assert_has(&err, "scalars only");
    gguf_writer_free(w);
    ck_assert(!gguf_writer_save(NULL, path, fill_position, &never, &err));
    assert_has(&err, "out of memory");
}
END_TEST

/* ---- made models ---- */

static bool fill_nothing(void *context, const struct gguf_tensor *t, uint64_t offset, void *to, size_t n_bytes, struct error *err)
{
    uint64_t *total = context;
    (void)t, (void)offset, (void)to, (void)err;
    *total += n_bytes;
    return true;
}

START_TEST(official_shapes)
{
    /* Tensor bytes of the official files: file sizes less the directories. By type: F32, Q5_0, Q8_0, Q4_K, Q6_K. */
    static const struct {
        const char *name;
        uint64_t bytes;
        size_t n_tensors, by_type[5];
    } known[] = {
        {"0.5b", 485452288, 291, {121, 133, 13, 12, 12}}, {"0.5b-tied", 391859712, 290, {121, 132, 13, 12, 12}},
        {"1.5b", 1111370240, 339, {141, 0, 0, 169, 29}},  {"1.5b-tied", 980097536, 338, {141, 0, 0, 168, 29}},
        {"3b", 2098976768, 435, {181, 0, 0, 217, 37}},
    };
    static const enum gguf_type types[5] = {GGUF_TYPE_F32, GGUF_TYPE_Q5_0, GGUF_TYPE_Q8_0, GGUF_TYPE_Q4_K, GGUF_TYPE_Q6_K};

    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct synthetic_shape shape;
        struct error err;
        size_t size;
        uint64_t total = 0;
        ck_assert(synthetic_shape_named(known[i].name, &shape));
        ck_assert_msg(synthetic_shape_check(&shape, &err), "%s", err.text);
        struct gguf_writer *w = gguf_writer_new();
        synthetic_metadata(w, &shape, known[i].name);
        synthetic_tensors(w, &shape);
        void *image = gguf_writer_image(w, fill_nothing, &total, &size, &err); /* pages that are not touched cost nothing */
        ck_assert_msg(image != NULL, "%s", err.text);
        ck_assert_uint_eq(total, known[i].bytes);
        struct gguf *g = gguf_open_memory(image, size, &err);
        ck_assert_msg(g != NULL, "%s", err.text);
        ck_assert_uint_eq(gguf_n_tensors(g), known[i].n_tensors);
        size_t counts[5] = {0};
        for (size_t k = 0; k < gguf_n_tensors(g); k++)
            for (int t = 0; t < 5; t++)
                counts[t] += gguf_tensor_at(g, k)->type == types[t];
        for (int t = 0; t < 5; t++)
            ck_assert_uint_eq(counts[t], known[i].by_type[t]);
        ck_assert_uint_eq(gguf_find_tensor(g, "token_embd.weight")->dims[1], 151936);
        ck_assert((gguf_find_tensor(g, "output.weight") == NULL) == (strstr(known[i].name, "tied") != NULL));
        gguf_close(g);
        gguf_image_free(image, size);
        gguf_writer_free(w);
    }
    struct synthetic_shape shape;
    ck_assert(!synthetic_shape_named("7b", &shape));
    ck_assert(!synthetic_shape_named("1.5", &shape));
    ck_assert(!synthetic_shape_named("1.5b-", &shape));
    ck_assert(!synthetic_shape_named("1.5b-tied-", &shape));
    ck_assert(!synthetic_shape_named("", &shape));
}
END_TEST

static struct synthetic_shape small_shape(const char *mix)
{
    struct synthetic_shape shape = {.n_layers = 2, .n_embd = 256, .n_ff = 512, .n_heads = 4, .n_kv_heads = 2, .head_dim = 64,
        .n_vocab = 1000, .n_ctx = 128, .rope_base = 1e4f, .rms_eps = 1e-5f, .seed = 1};
    struct error err = {{0}};
    ck_assert_msg(synthetic_mix_named(mix, &shape, &err), "%s", err.text);
    return shape;
}

static struct gguf *make(const struct synthetic_shape *shape, void **image, size_t *size)
{
    struct error err = {{0}};
    *image = synthetic_image(shape, size, &err);
    ck_assert_msg(*image != NULL, "%s", err.text);
    struct gguf *g = gguf_open_memory(*image, *size, &err);
    ck_assert_msg(g != NULL, "%s", err.text);
    return g;
}

START_TEST(same_seed_same_bytes)
{
    struct synthetic_shape shape = small_shape("q4_k_m");
    void *one, *two, *other;
    size_t size, size2, size3;
    struct gguf *a = make(&shape, &one, &size), *b = make(&shape, &two, &size2);
    shape.seed = 2;
    struct gguf *c = make(&shape, &other, &size3);
    ck_assert(size == size2 && size == size3);
    ck_assert(memcmp(one, two, size) == 0);
    ck_assert(memcmp(one, other, size) != 0);
    /* Two matrices of the same shape differ as well. */
    const struct gguf_tensor *gate = gguf_find_tensor(a, "blk.0.ffn_gate.weight"),
                             *up = gguf_find_tensor(a, "blk.0.ffn_up.weight");
    ck_assert(gate->n_bytes == up->n_bytes && memcmp(gate->data, up->data, (size_t)up->n_bytes) != 0);
    gguf_close(a);
    gguf_close(b);
    gguf_close(c);
    gguf_image_free(one, size);
    gguf_image_free(two, size);
    gguf_image_free(other, size);
}
END_TEST

static double from_half(const unsigned char *p)
{
    int bits = p[0] | p[1] << 8, exponent = bits >> 10 & 31, fraction = bits & 1023;
    double magnitude = exponent == 0 ? ldexp(fraction, -24) : ldexp(1024 + fraction, exponent - 25);
    return bits & 0x8000 ? -magnitude : magnitude;
}

/* Values of one block, by the formats' definitions, written here once more and plainly,
 * so that the generator is not measured with its own formulas. */
static void block_values(enum gguf_type type, const unsigned char *b, double *v)
{
    double d = from_half(b), dmin = from_half(b + 2);
    float f;
    uint32_t bits;

    switch (type) {
    case GGUF_TYPE_F32:
        memcpy(&f, b, 4);
        v[0] = (double)f;
        break;
    case GGUF_TYPE_F16:
        v[0] = d;
        break;
    case GGUF_TYPE_BF16:
        bits = (uint32_t)(b[0] | b[1] << 8) << 16;
        memcpy(&f, &bits, 4);
        v[0] = (double)f;
        break;
    case GGUF_TYPE_Q4_0:
        for (int i = 0; i < 32; i++)
            v[i] = d * ((i < 16 ? b[2 + i] & 15 : b[2 + i - 16] >> 4) - 8);
        break;
    case GGUF_TYPE_Q5_0:
        for (int i = 0; i < 32; i++)
            v[i] = d * ((i < 16 ? b[6 + i] & 15 : b[6 + i - 16] >> 4) + 16 * (b[2 + i / 8] >> i % 8 & 1) - 16);
        break;
    case GGUF_TYPE_Q8_0:
        for (int i = 0; i < 32; i++)
            v[i] = d * (signed char)b[2 + i];
        break;
    case GGUF_TYPE_Q4_K:
    case GGUF_TYPE_Q5_K:
        for (int i = 0; i < 256; i++) {
            const unsigned char *s = b + 4, *q = b + (type == GGUF_TYPE_Q4_K ? 16 : 48);
            int j = i / 32;
            int scale = j < 4 ? s[j] & 63 : (s[j + 4] & 15) | s[j - 4] >> 6 << 4;
            int min = j < 4 ? s[j + 4] & 63 : s[j + 4] >> 4 | s[j] >> 6 << 4;
            int low = j % 2 ? q[32 * (j / 2) + i % 32] >> 4 : q[32 * (j / 2) + i % 32] & 15;
            int high = type == GGUF_TYPE_Q5_K ? b[16 + i % 32] >> j & 1 : 0;
            v[i] = d * scale * (low + 16 * high) - dmin * min;
        }
        break;
    case GGUF_TYPE_Q6_K:
        for (int i = 0; i < 256; i++) {
            int half = i / 128, r = i % 128, l = r % 32, quarter = r / 32;
            int low = b[64 * half + 32 * (quarter % 2) + l] >> (quarter / 2 * 4) & 15,
                high = b[128 + 32 * half + l] >> (2 * quarter) & 3;
            v[i] = from_half(b + 208) * (signed char)b[192 + i / 16] * ((low | high << 4) - 32);
        }
        break;
    case GGUF_TYPE_LIMIT:
        ck_abort();
    }
}

static const char *const mixes[] = {"q4_k_m", "F32", "f16", "BF16", "q4_0", "q5_0", "Q8_0", "q4_k", "q5_k", "q6_k"};

START_TEST(weights_have_a_trained_model_s_size)
{
    struct synthetic_shape shape = small_shape(mixes[_i]);
    void *image;
    size_t size;
    struct gguf *g = make(&shape, &image, &size);

    for (size_t k = 0; k < gguf_n_tensors(g); k++) {
        const struct gguf_tensor *t = gguf_tensor_at(g, k);
        const struct gguf_type_traits *traits = gguf_type_traits(t->type);
        double v[256], sum = 0, squares = 0, largest = 0;
        for (uint64_t at = 0; at < t->n_bytes; at += traits->block_bytes) {
            block_values(t->type, t->data + at, v);
            for (uint32_t i = 0; i < traits->block_size; i++) {
                sum += v[i];
                squares += v[i] * v[i];
                largest = fmax(largest, fabs(v[i]));
            }
        }
        double n = (double)t->n_elements, mean = sum / n, deviation = sqrt(squares / n - mean * mean);
        bool bias = memcmp(t->name.data + t->name.length - 4, "bias", 4) == 0;
        double want_mean = t->n_dims == 1 && !bias ? 1.0 : 0.0, want = t->n_dims == 2 ? 0.02 : bias ? 0.3 : 0.1;
        ck_assert_msg(
            fabs(mean - want_mean) < 5 * want / sqrt(n) + 0.01 * want, "%.*s: mean %g", (int)t->name.length, t->name.data, mean);
        ck_assert_msg(fabs(deviation - want) < want * (0.02 + 4 / sqrt(2 * n)), "%.*s: standard deviation %g",
            (int)t->name.length, t->name.data, deviation);
        ck_assert(largest < want_mean + 4 * want);
        if (t->n_dims == 2 && _i > 0)
            ck_assert_int_eq((int)t->type, (int)shape.type);
    }
    gguf_close(g);
    gguf_image_free(image, size);
}
END_TEST

START_TEST(types_fall_back_where_rows_do_not_fit)
{
    static const struct {
        const char *mix;
        uint32_t n_embd;
        enum gguf_type matrix, more;
    } cases[] = {
        {"q4_k_m", 320, GGUF_TYPE_Q5_0, GGUF_TYPE_Q8_0},
        {"q4_k", 320, GGUF_TYPE_Q5_0, GGUF_TYPE_Q5_0},
        {"q5_k", 320, GGUF_TYPE_Q8_0, GGUF_TYPE_Q8_0},
        {"q6_k", 320, GGUF_TYPE_Q8_0, GGUF_TYPE_Q8_0},
        {"q4_k_m", 40, GGUF_TYPE_F16, GGUF_TYPE_F16},
        {"f32", 40, GGUF_TYPE_F32, GGUF_TYPE_F32},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct synthetic_shape shape = small_shape(cases[i].mix);
        void *image;
        size_t size;
        shape.n_embd = cases[i].n_embd;
        struct gguf *g = make(&shape, &image, &size);
        ck_assert_int_eq((int)gguf_find_tensor(g, "blk.0.attn_q.weight")->type, (int)cases[i].matrix);
        ck_assert_int_eq((int)gguf_find_tensor(g, "output.weight")->type, (int)cases[i].more);
        uint64_t u;
        ck_assert(gguf_get_u64(g, "qwen2.attention.key_length", &u, NULL) && u == 64); /* 4 heads of 64 are not the embedding */
        ck_assert_uint_eq(gguf_find_tensor(g, "blk.0.attn_output.weight")->dims[0], 256);
        gguf_close(g);
        gguf_image_free(image, size);
    }
}
END_TEST

START_TEST(impossible_shapes)
{
    struct error err = {{0}};
    size_t size;
    struct synthetic_shape good = small_shape("q4_k_m"), bad = good;
    ck_assert(synthetic_shape_check(&good, &err));
    bad.n_layers = 0;
    ck_assert(!synthetic_shape_check(&bad, &err));
    assert_has(&err, "layers: 0");
    ck_assert_ptr_null(synthetic_image(&bad, &size, &err));
    bad = good, bad.n_kv_heads = 3;
    ck_assert(!synthetic_shape_check(&bad, &err));
    assert_has(&err, "4 heads cannot be shared out among 3 KV heads");
    bad = good, bad.head_dim = 63;
    ck_assert(!synthetic_shape_check(&bad, &err));
    assert_has(&err, "odd");
    bad = good, bad.n_vocab = UINT32_MAX;
    ck_assert(!synthetic_shape_check(&bad, &err));
    assert_has(&err, "vocabulary: 4294967295");
    bad = good, bad.rope_base = NAN;
    ck_assert(!synthetic_shape_check(&bad, &err));
    ck_assert(!synthetic_mix_named("q3_k", &bad, &err));
    assert_has(&err, "\"q3_k\" is no type mix");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gguf-write");
    TCase *c = tcase_create("gguf-write");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, what_is_written_reads_back);
    tcase_add_test(c, failures_leave_nothing);
    tcase_add_test(c, official_shapes);
    tcase_add_test(c, same_seed_same_bytes);
    tcase_add_loop_test(c, weights_have_a_trained_model_s_size, 0, (int)(sizeof mixes / sizeof *mixes));
    tcase_add_test(c, types_fall_back_where_rows_do_not_fit);
    tcase_add_test(c, impossible_shapes);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
