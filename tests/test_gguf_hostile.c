/* gguf/: damaged and hostile files are refused with a sentence that names the key or tensor and the byte
 * offset, in bounded time and memory. Good ones are in test_gguf.c. Runs in the project's root.
 * QUERN_TESTS=quick takes larger steps, for slow tools such as valgrind. */
#include "gguf/gguf.h"
#include "tests/gguf_image.h"

#include <check.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* Texts with numbers in them, for image_refused; alive until eight more were made. */
static const char *text(const char *format, ...) __attribute__((format(printf, 1, 2)));
static const char *text(const char *format, ...)
{
    static char ring[8][256];
    static int next;
    char *to = ring[next++ % 8];
    va_list args;
    va_start(args, format);
    vsnprintf(to, sizeof ring[0], format, args);
    va_end(args);
    return to;
}

static bool quick(void)
{
    const char *mode = getenv("QUERN_TESTS");
    return mode && strcmp(mode, "quick") == 0;
}

/* ---- header ---- */

START_TEST(header)
{
    struct image im;
    image_begin(&im, 1, 0, 0);
    image_refused(&im, "GGUF version 1", "byte 4", NULL);
    image_free(&im);
    image_begin(&im, 0, 0, 0);
    image_refused(&im, "GGUF version 0", "byte 4", NULL);
    image_free(&im);
    image_begin(&im, 4, 0, 0);
    image_refused(&im, "GGUF version 4", "only versions 2 and 3", NULL);
    image_free(&im);
    image_begin(&im, 3u << 24, 0, 0);
    image_refused(&im, "big-endian", "version 3", NULL);
    image_free(&im);
    image_begin(&im, 3, 0, 0);
    image_accepted(&im);
    for (size_t size = 0; size < im.size; size++) {
        struct opened o = image_open(&im, size);
        ck_assert_ptr_null(o.g);
        ck_assert_msg(strstr(o.err.text, size < 4 ? "not a GGUF file" : "cut short") != NULL, "%s", o.err.text);
        image_close(&o);
    }
    image_free(&im);

    static const uint64_t counts[] = {1, 2, 1000, 1 << 20, UINT32_MAX, (uint64_t)1 << 32, INT64_MAX, UINT64_MAX / 13, UINT64_MAX};
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        image_begin(&im, 3, counts[i], 0);
        image_refused(&im, text("claims %" PRIu64 " tensors (byte 8)", counts[i]), "the 0 bytes that are left", NULL);
        image_free(&im);
        image_begin(&im, 3, 0, counts[i]);
        image_refused(&im, text("claims %" PRIu64 " metadata entries (byte 16)", counts[i]), NULL);
        image_free(&im);
    }
    /* Even where there would be room for so many. */
    image_begin(&im, 3, 0, (1 << 20) + 1);
    image_zeros(&im, 13 * ((1 << 20) + 1));
    image_refused(&im, "claims 0 tensors (byte 8) and 1048577 metadata entries (byte 16); no model has more", NULL);
    image_free(&im);
}
END_TEST

/* ---- metadata ---- */

/* An image with one metadata entry whose value the caller appends. */
static size_t one_key(struct image *im, const char *key, uint32_t kind)
{
    image_begin(im, 3, 0, 1);
    image_key(im, key, kind);
    return im->size;
}

START_TEST(keys)
{
    struct image im;
    static const uint64_t lengths[] = {6, 100, UINT32_MAX, INT64_MAX, UINT64_MAX - 8, UINT64_MAX};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        image_begin(&im, 3, 0, 1);
        image_u64(&im, lengths[i]);
        image_bytes(&im, "abcde", 5);
        image_refused(
            &im, "metadata: the key at byte 24", text("length of %" PRIu64 " bytes, but only 5 are left", lengths[i]), NULL);
        image_free(&im);
    }
    image_begin(&im, 3, 0, 2);
    size_t first = image_key(&im, "twice", GGUF_KIND_UINT8);
    image_u8(&im, 1);
    size_t second = image_key(&im, "twice", GGUF_KIND_STRING);
    image_string(&im, "other kind, same name");
    image_refused(
        &im, text("metadata key \"twice\" at byte %zu is a duplicate", second), text("stands at byte %zu", first), NULL);
    image_free(&im);

    /* Names that do not print are escaped, long ones cut: a message is one line for a terminal, whatever the file says. */
    one_key(&im, "a\"b\\\n\x1b[31m\xc3\xa4", 99);
    image_zeros(&im, 8);
    image_refused(&im, "\"a\\x22b\\x5c\\x0a\\x1b[31m\\xc3\\xa4\"", "unknown kind 99", NULL);
    image_free(&im);
    char longer[400];
    memset(longer, '\x01', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    one_key(&im, longer, 99);
    image_zeros(&im, 8);
    image_refused(&im, "\\x01\\x01\"... (399 bytes)", "unknown kind 99", NULL);
    image_free(&im);
}
END_TEST

START_TEST(values)
{
    struct image im;
    static const uint32_t unknown[] = {13, 14, 255, 256, 1u << 31, UINT32_MAX};
    size_t at;

    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        at = one_key(&im, "k", unknown[i]);
        image_zeros(&im, 64);
        image_refused(&im, "metadata key \"k\"", text("byte %zu", at - 4), text("unknown kind %" PRIu32, unknown[i]), NULL);
        image_free(&im);

        at = one_key(&im, "k", GGUF_KIND_ARRAY);
        image_u32(&im, unknown[i]);
        image_u64(&im, 1);
        image_zeros(&im, 64);
        image_refused(&im, "metadata key \"k\"", text("array at byte %zu", at), text("unknown kind %" PRIu32, unknown[i]), NULL);
        image_free(&im);
    }
    for (int b = 2; b < 256; b++) {
        at = one_key(&im, "flag", GGUF_KIND_BOOL);
        image_u8(&im, (uint8_t)b);
        image_refused(&im, "metadata key \"flag\"", text("BOOL at byte %zu is %d", at, b), NULL);
        image_free(&im);
    }
    at = one_key(&im, "flags", GGUF_KIND_ARRAY);
    image_u32(&im, GGUF_KIND_BOOL);
    image_u64(&im, 3);
    image_u8(&im, 0), image_u8(&im, 1), image_u8(&im, 2);
    image_refused(&im, "metadata key \"flags\"", text("BOOL at byte %zu is 2", at + 14), NULL);
    image_free(&im);

    at = one_key(&im, "nested", GGUF_KIND_ARRAY);
    image_u32(&im, GGUF_KIND_ARRAY);
    image_u64(&im, 1);
    image_zeros(&im, 32);
    image_refused(&im, text("metadata key \"nested\" at byte %zu is an array of arrays", at), NULL);
    image_free(&im);

    at = one_key(&im, "s", GGUF_KIND_STRING);
    image_u64(&im, UINT64_MAX);
    image_refused(
        &im, "metadata key \"s\"", text("at byte %zu", at), "claims a length of 18446744073709551615 bytes, but only 0", NULL);
    image_free(&im);
}
END_TEST

START_TEST(arrays_too_long)
{
    static const uint64_t counts[] = {
        9, 1000, UINT32_MAX, UINT64_MAX / 8, UINT64_MAX / 8 + 1, UINT64_MAX / 4 + 1, UINT64_MAX / 2 + 1, UINT64_MAX};
    struct image im;

    for (uint32_t kind = 0; kind <= GGUF_KIND_FLOAT64; kind++) {
        for (size_t i = 0; i < sizeof counts / sizeof *counts && kind != GGUF_KIND_ARRAY; i++) {
            size_t at = one_key(&im, "list", GGUF_KIND_ARRAY);
            image_u32(&im, kind);
            image_u64(&im, counts[i]);
            image_zeros(&im, 8);
            image_refused(&im, "metadata key \"list\"", text("array at byte %zu claims %" PRIu64 " elements", at, counts[i]),
                "only 8 bytes are left", NULL);
            image_free(&im);
        }
    }
    /* A string inside that reaches beyond the end. */
    image_begin(&im, 3, 0, 1);
    image_array(&im, "words", GGUF_KIND_STRING, 2);
    image_string(&im, "fine");
    size_t at = image_u64(&im, 7);
    image_bytes(&im, "sixsix", 6);
    image_refused(&im, "metadata key \"words\"",
        text("a string of its array at byte %zu claims a length of 7 bytes, but only 6", at), NULL);
    image_free(&im);
}
END_TEST

START_TEST(alignment)
{
    static const uint32_t bad[] = {0, 1, 2, 4, 3, 24, 33, 48, 0x80000001, UINT32_MAX};
    struct image im;
    size_t at;

    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        at = one_key(&im, "general.alignment", GGUF_KIND_UINT32);
        image_u32(&im, bad[i]);
        image_refused(&im, "\"general.alignment\"", text("byte %zu is %" PRIu32, at, bad[i]), "power of two", NULL);
        image_free(&im);
    }
    at = one_key(&im, "general.alignment", GGUF_KIND_UINT64);
    image_u64(&im, 32);
    image_refused(&im, "\"general.alignment\"", text("byte %zu is of kind UINT64", at), "must be UINT32", NULL);
    image_free(&im);
    one_key(&im, "general.alignment", GGUF_KIND_ARRAY);
    image_u32(&im, GGUF_KIND_UINT32), image_u64(&im, 1), image_u32(&im, 32);
    image_refused(&im, "\"general.alignment\"", "ARRAY", NULL);
    image_free(&im);

    /* The largest power of two: fine by itself, but then the tensors begin far beyond the end. */
    image_begin(&im, 3, 1, 1);
    image_key(&im, "general.alignment", GGUF_KIND_UINT32), image_u32(&im, 1u << 31);
    image_tensor(&im, "t", GGUF_TYPE_F32, 1, (uint64_t[]){1}, 0);
    size_t end = im.size;
    image_zeros(&im, 100);
    image_refused(
        &im, text("directory ends at byte %zu", end), "begin at byte 2147483648", text("ends at byte %zu", im.size), NULL);
    image_free(&im);
}
END_TEST

/* ---- tensors ---- */

/* An image whose one tensor is as given, with `n` bytes of data. */
static size_t one_tensor(struct image *im, uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset, size_t n)
{
    image_begin(im, 3, 1, 0);
    size_t at = image_tensor(im, "weights", type, n_dims, dims, offset);
    image_align(im, 32);
    image_zeros(im, n);
    return at;
}

START_TEST(dimensions)
{
    struct image im;
    size_t at, dims = 24 + 8 + 7 + 4; /* where the first dimension stands */

    one_tensor(&im, GGUF_TYPE_F32, 2, (uint64_t[]){4, 2}, 0, 32);
    image_accepted(&im);
    image_free(&im);
    for (uint32_t n = 0; n < 10; n += n == 0 ? 5 : 1) {
        one_tensor(&im, GGUF_TYPE_F32, n, (uint64_t[]){1, 1, 1, 1, 1, 1, 1, 1, 1, 1}, 0, 64);
        image_refused(&im, text("tensor \"weights\" has %" PRIu32 " dimensions (byte %zu)", n, dims - 4), NULL);
        image_free(&im);
    }
    one_tensor(&im, GGUF_TYPE_F32, 1, (uint64_t[]){1}, 0, 64);
    memset(im.data + dims - 4, 0xff, 4);
    image_refused(&im, "tensor \"weights\" has 4294967295 dimensions", NULL);
    image_free(&im);
    for (uint32_t zero = 0; zero < 4; zero++) {
        uint64_t d[4] = {2, 2, 2, 2};
        d[zero] = 0;
        one_tensor(&im, GGUF_TYPE_F32, 4, d, 0, 64);
        image_refused(&im, text("tensor \"weights\": dimension %" PRIu32 " at byte %zu is 0", zero, dims + 8 * zero), NULL);
        image_free(&im);
    }
    static const uint64_t products[][4] = {
        {UINT64_MAX, 1, 1, 1}, {(uint64_t)1 << 63, 1, 1, 1},
        {(uint64_t)1 << 32, (uint64_t)1 << 32, 1, 1}, {(uint64_t)1 << 32, (uint64_t)1 << 31, 1, 1}, {65536, 65536, 65536, 65536},
        {3, UINT64_MAX / 3 + 1, 1, 1}, {UINT64_MAX, UINT64_MAX, 1, 1}, {1, 1, 2, UINT64_MAX / 2 + 1},
    };
    for (size_t i = 0; i < sizeof products / sizeof *products; i++) {
        one_tensor(&im, GGUF_TYPE_F32, 4, products[i], 0, 64);
        image_refused(&im, "tensor \"weights\": dimension", "does not fit 63 bits", NULL);
        image_free(&im);
    }
    /* The elements still fit, their bytes do not. */
    one_tensor(&im, GGUF_TYPE_F32, 1, (uint64_t[]){(uint64_t)1 << 62}, 0, 64);
    image_refused(&im, "tensor \"weights\": the bytes of 4611686018427387904 elements of type F32", "do not fit", NULL);
    image_free(&im);
    one_tensor(&im, 28, 1, (uint64_t[]){(uint64_t)1 << 61}, 0, 64); /* F64: 2^64 bytes */
    image_refused(&im, "tensor \"weights\": the bytes", "type F64", NULL);
    image_free(&im);
    /* And where both fit, the file is too short. */
    at = one_tensor(&im, GGUF_TYPE_F32, 1, (uint64_t[]){(uint64_t)1 << 60}, 0, 64);
    image_refused(
        &im, text("tensor \"weights\" (entry at byte %zu) has 4611686018427387904 bytes of data", at), "cut short", NULL);
    image_free(&im);
}
END_TEST

START_TEST(tensor_types)
{
    static const uint32_t unknown[] = {4, 5, 31, 33, 36, 38, 40, 63, 64, 65, 1000, 1u << 31, UINT32_MAX};
    struct image im;

    for (size_t i = 0; i < sizeof unknown / sizeof *unknown; i++) {
        one_tensor(&im, unknown[i], 1, (uint64_t[]){256}, 0, 4096);
        image_refused(&im, text("tensor \"weights\" has the unknown type %" PRIu32 " (byte 51)", unknown[i]), NULL);
        image_free(&im);
    }
    for (uint32_t type = 0; type < GGUF_TYPE_LIMIT; type++) {
        const struct gguf_type_traits *t = gguf_type_traits(type);
        if (!t->name)
            continue;
        one_tensor(&im, type, 2, (uint64_t[]){t->block_size, 3}, 0, 3 * t->block_bytes);
        image_accepted(&im);
        im.size--;
        image_refused(&im, "tensor \"weights\" (entry at byte 24)", "cut short", NULL);
        image_free(&im);
        if (t->block_size == 1)
            continue;
        /* Rows, not only the whole, must be whole blocks. */
        one_tensor(&im, type, 2, (uint64_t[]){t->block_size / 2, 2}, 0, 4096);
        image_refused(&im, text("tensor \"weights\": its rows of %" PRIu32 " elements cannot be of type %s (byte 59)",
            t->block_size / 2, t->name), NULL);
        image_free(&im);
    }
}
END_TEST

START_TEST(places)
{
    struct image im;
    static const uint64_t misaligned[] = {1, 8, 16, 31, 33, UINT64_MAX};
    static const uint64_t outside[] = {32, 64, (uint64_t)1 << 32, (uint64_t)1 << 63, UINT64_MAX - 31};

    for (size_t i = 0; i < sizeof misaligned / sizeof *misaligned; i++) {
        one_tensor(&im, GGUF_TYPE_F32, 1, (uint64_t[]){1}, misaligned[i], 64);
        image_refused(&im, text("tensor \"weights\": its offset %" PRIu64 " (byte 55) is not a multiple of the alignment 32",
            misaligned[i]), NULL);
        image_free(&im);
    }
    for (size_t i = 0; i < sizeof outside / sizeof *outside; i++) {
        one_tensor(&im, GGUF_TYPE_F32, 1, (uint64_t[]){1}, outside[i], 32);
        image_refused(&im, "tensor \"weights\" (entry at byte 24) has 4 bytes of data",
            text("at offset %" PRIu64 " from byte 64", outside[i]), "ends at byte 96", NULL);
        image_free(&im);
    }
    static const uint64_t overlaps[][2] = {{0, 0}, {0, 32}, {32, 0}, {64, 32}};
    for (size_t i = 0; i < sizeof overlaps / sizeof *overlaps; i++) {
        image_begin(&im, 3, 2, 0);
        size_t one = image_tensor(&im, "one", GGUF_TYPE_F32, 1, (uint64_t[]){9}, overlaps[i][0]); /* 36 bytes */
        size_t two = image_tensor(&im, "two", GGUF_TYPE_F32, 1, (uint64_t[]){9}, overlaps[i][1]);
        image_align(&im, 32);
        image_zeros(&im, 256);
        image_refused(&im, "overlaps", text("\"one\" (entry at byte %zu)", one), text("\"two\" (entry at byte %zu)", two), NULL);
        image_free(&im);
    }
    image_begin(&im, 3, 3, 0); /* the third lies inside the first, and the second in order between them */
    image_tensor(&im, "wide", GGUF_TYPE_F32, 1, (uint64_t[]){64}, 0);
    image_tensor(&im, "far", GGUF_TYPE_F32, 1, (uint64_t[]){8}, 512);
    image_tensor(&im, "inside", GGUF_TYPE_F32, 1, (uint64_t[]){1}, 96);
    image_align(&im, 32);
    image_zeros(&im, 1024);
    image_refused(&im, "tensor \"inside\"", "overlaps tensor \"wide\"", NULL);
    image_free(&im);

    image_begin(&im, 3, 2, 0);
    size_t first = image_tensor(&im, "same", GGUF_TYPE_F32, 1, (uint64_t[]){1}, 0);
    size_t second = image_tensor(&im, "same", GGUF_TYPE_F16, 1, (uint64_t[]){1}, 32);
    image_align(&im, 32);
    image_zeros(&im, 64);
    image_refused(&im, text("tensor \"same\" at byte %zu is a duplicate", second), text("stands at byte %zu", first), NULL);
    image_free(&im);

    image_begin(&im, 3, 1, 0);
    image_u64(&im, UINT64_MAX);
    image_zeros(&im, 100);
    image_refused(&im, "tensors: the name at byte 24 claims a length of 18446744073709551615", NULL);
    image_free(&im);
}
END_TEST

/* ---- every damage ---- */

/* A small file with a bit of everything. */
static void small_file(struct image *im, uint32_t version)
{
    image_begin(im, version, 3, 9);
    image_key(im, "general.alignment", GGUF_KIND_UINT32), image_u32(im, 32);
    image_key(im, "general.name", GGUF_KIND_STRING), image_string(im, "small");
    image_array(im, "words", GGUF_KIND_STRING, 3), image_string(im, "a"), image_string(im, ""), image_string(im, "word");
    image_array(im, "flags", GGUF_KIND_BOOL, 3), image_u8(im, 0), image_u8(im, 1), image_u8(im, 1);
    image_array(im, "floats", GGUF_KIND_FLOAT32, 2), image_f32(im, 1.0f), image_f32(im, -2.0f);
    image_key(im, "a", GGUF_KIND_UINT64), image_u64(im, 77);
    image_key(im, "b", GGUF_KIND_BOOL), image_u8(im, 1);
    image_key(im, "c", GGUF_KIND_INT16), image_u16(im, 5);
    image_key(im, "d", GGUF_KIND_FLOAT64), image_f64(im, 0.5);
    image_tensor(im, "norm", GGUF_TYPE_F32, 1, (uint64_t[]){4}, 0);
    image_tensor(im, "matrix", GGUF_TYPE_Q8_0, 2, (uint64_t[]){32, 2}, 32);
    image_tensor(im, "half", GGUF_TYPE_F16, 2, (uint64_t[]){2, 2}, 128);
    image_align(im, 32);
    image_zeros(im, 136);
}

START_TEST(every_single_byte_change)
{
    struct image im;
    int step = quick() ? 37 : 1;
    size_t refused = 0, accepted = 0;

    small_file(&im, (uint32_t)_i);
    image_accepted(&im);
    for (size_t at = 0; at < im.size; at++) {
        unsigned char was = im.data[at];
        for (int change = 1; change < 256; change += step) {
            im.data[at] = (unsigned char)(was ^ change);
            struct opened o = image_open(&im, im.size);
            if (o.g) {
                gguf_touch_all(o.g);
                accepted++;
            } else {
                if (o.err.text[0] == '\0')
                    ck_abort_msg("byte %zu changed: refused without a word", at);
                refused++;
            }
            image_close(&o);
        }
        im.data[at] = was;
    }
    /* Names, numbers and tensor data may be anything; structure may not. */
    ck_assert_uint_gt(refused, accepted / 2);
    ck_assert_uint_gt(accepted, 0);
    image_free(&im);
}
END_TEST

START_TEST(every_truncation_of_a_small_file)
{
    struct image im;
    small_file(&im, 3);
    for (size_t size = 0; size < im.size; size++) {
        struct opened o = image_open(&im, size);
        ck_assert_msg(!o.g, "%zu of %zu bytes were accepted", size, im.size);
        ck_assert_msg(size < 4 || strstr(o.err.text, "byte") != NULL, "%s", o.err.text);
        image_close(&o);
    }
    image_free(&im);
}
END_TEST

static bool cut_is_refused(const unsigned char *image, size_t size)
{
    struct error err = {{0}};
    struct gguf *g = gguf_open_memory(image, size, &err);
    bool refused = !g && err.text[0] != '\0';
    gguf_close(g);
    return refused;
}

START_TEST(every_truncation_of_the_shipped_model)
{
    FILE *f = fopen("models/quern-tiny-q4_k_m.gguf", "rb");
    ck_assert_ptr_nonnull(f);
    static _Alignas(64) unsigned char whole[5795840];
    ck_assert_uint_eq(fread(whole, 1, sizeof whole, f), sizeof whole);
    fclose(f);
    struct gguf *g = gguf_open_memory(whole, sizeof whole, NULL);
    ck_assert_ptr_nonnull(g);
    size_t directory = (size_t)(gguf_tensor_at(g, 0)->data - whole);
    gguf_close(g);

    /* Bytes beyond the cut become poison as far as the parser goes: huge lengths
     * and counts, so that whoever reads on is caught. */
    static _Alignas(64) unsigned char cut[sizeof whole];
    memset(cut, 0xff, sizeof cut);
    size_t step = quick() ? 997 : UNDER_ASAN ? 13 : 1, accepted = 0;
    for (size_t size = 0; size < directory; size++) {
        if (size % step == 0 || size < 2048 || size + 8192 > directory)
            accepted += !cut_is_refused(cut, size);
        cut[size] = whole[size];
    }
    ck_assert_uint_eq(accepted, 0);
    /* In its data: the last tensor that is cut is named. */
    for (size_t size = directory; size < sizeof whole; size += (sizeof whole - directory) / 300)
        accepted += !cut_is_refused(whole, size);
    accepted += !cut_is_refused(whole, sizeof whole - 1 - 31); /* less than the padding behind the last tensor would be fine */
    ck_assert_uint_eq(accepted, 0);
}
END_TEST

/* ---- time and memory ---- */

/* Runs `body` in a child that may take no more than `extra` bytes of address space beyond what it has. */
static void with_little_memory(void (*body)(void), size_t extra)
{
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        unsigned long pages = 0;
        FILE *f = fopen("/proc/self/statm", "r");
        if (!f || fscanf(f, "%lu", &pages) != 1)
            _exit(10);
        fclose(f);
        rlim_t limit = (rlim_t)pages * (rlim_t)sysconf(_SC_PAGESIZE) + extra;
        if (!UNDER_ASAN && setrlimit(RLIMIT_AS, &(struct rlimit){limit, limit}) != 0)
            _exit(11);
        body();
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %d", status);
}

static struct image hostile[64];
static size_t n_hostile;

static void open_hostile_images(void)
{
    for (size_t i = 0; i < n_hostile; i++) {
        struct error err = {{0}};
        struct gguf *g = gguf_open_memory(hostile[i].data, hostile[i].size, &err);
        if (g || strstr(err.text, "memory while"))
            _exit(20 + (int)i);
    }
}

START_TEST(memory_does_not_follow_claims)
{
    /* 1 MiB files that claim as much as the checks at the header let through, and then end or turn bad. */
    for (int variant = 0; variant < 6; variant++) {
        struct image *im = &hostile[n_hostile++];
        switch (variant) {
        case 0: /* metadata by the header; the first key takes the rest */
            image_begin(im, 3, 0, ((1 << 20) - 24) / 13);
            image_u64(im, (1 << 20) - 32);
            break;
        case 1: /* tensors by the header */
            image_begin(im, 3, ((1 << 20) - 24) / 32, 0);
            image_u64(im, (1 << 20) - 32);
            break;
        case 2: /* an array of as many strings as the file can hold, all empty but the last, which is too long */
            image_begin(im, 3, 0, 1);
            image_array(im, "8 bytes.", GGUF_KIND_STRING, ((1 << 20) - 56) / 8);
            break;
        case 3: /* more numbers than there are bytes */
            image_begin(im, 3, 0, 1);
            image_array(im, "numbers", GGUF_KIND_UINT8, (uint64_t)1 << 40);
            break;
        case 4: /* a tensor of an exabyte */
            image_begin(im, 3, 1, 0);
            image_tensor(im, "huge", GGUF_TYPE_F32, 4, (uint64_t[]){1 << 14, 1 << 14, 1 << 14, 1 << 14}, 0);
            break;
        default: /* the largest alignment */
            image_begin(im, 3, 1, 1);
            image_key(im, "general.alignment", GGUF_KIND_UINT32), image_u32(im, 1u << 31);
            image_tensor(im, "t", GGUF_TYPE_F32, 1, (uint64_t[]){1}, 0);
            break;
        }
        image_zeros(im, (1 << 20) - 8 - im->size);
        image_u64(im, UINT64_MAX);
    }
    with_little_memory(open_hostile_images, 1 << 20);
}
END_TEST

static struct image many;

static void open_many(void)
{
    struct error err = {{0}};
    if (gguf_open_memory(many.data, many.size, &err) || !strstr(err.text, "is a duplicate"))
        _exit(20);
}

static void key_of(struct image *im, uint32_t i)
{
    image_u64(im, 4);
    image_u32(im, i);
    image_u32(im, GGUF_KIND_UINT8);
    image_u8(im, 1);
}

START_TEST(a_million_keys)
{
    /* The most entries that are read at all, the last one a duplicate of the first: time grows with n,
     * and memory stays a small multiple of the file. */
    uint32_t n = quick() ? 1 << 14 : 1 << 20;
    image_begin(&many, 3, 0, n);
    for (uint32_t i = 0; i < n - 1; i++)
        key_of(&many, i);
    key_of(&many, 0);
    with_little_memory(open_many, (size_t)192 << 20);
    image_free(&many);
}
END_TEST

START_TEST(many_tensors_in_reverse)
{
    uint32_t n = quick() ? 1 << 12 : 1 << 18;
    struct image im;
    char name[16];
    image_begin(&im, 3, n, 0);
    for (uint32_t i = 0; i < n; i++) {
        snprintf(name, sizeof name, "%" PRIu32, i);
        image_tensor(&im, name, GGUF_TYPE_F32, 1, (uint64_t[]){8}, (uint64_t)(n - 1 - i) * 32);
    }
    image_align(&im, 32);
    image_zeros(&im, (size_t)n * 32);
    image_accepted(&im);
    image_free(&im);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gguf-hostile");
    TCase *c = tcase_create("refusals");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, header);
    tcase_add_test(c, keys);
    tcase_add_test(c, values);
    tcase_add_test(c, arrays_too_long);
    tcase_add_test(c, alignment);
    tcase_add_test(c, dimensions);
    tcase_add_test(c, tensor_types);
    tcase_add_test(c, places);
    suite_add_tcase(s, c);
    c = tcase_create("damage");
    tcase_set_timeout(c, 600);
    tcase_add_loop_test(c, every_single_byte_change, 2, 4);
    tcase_add_test(c, every_truncation_of_a_small_file);
    tcase_add_test(c, every_truncation_of_the_shipped_model);
    suite_add_tcase(s, c);
    c = tcase_create("bounds");
    tcase_set_timeout(c, 300);
    tcase_add_test(c, memory_does_not_follow_claims);
    tcase_add_test(c, a_million_keys);
    tcase_add_test(c, many_tensors_in_reverse);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
