/* gguf/: good files are read as they are. Damaged and hostile ones are in test_gguf_hostile.c. Runs in the project's root. */
#include "gguf/gguf.h"
#include "tests/gguf_image.h"

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char tiny[] = "models/quern-tiny-q4_k_m.gguf";

static void assert_has(const struct error *err, const char *text)
{
    ck_assert_msg(strstr(err->text, text) != NULL, "\"%s\" is not in the message: %s", text, err->text);
}

static struct gguf *open_tiny(bool no_mmap, bool lock)
{
    struct error err = {{0}};
    struct gguf *g = gguf_open(tiny, &(struct gguf_options){.no_mmap = no_mmap, .mlock = lock}, &err);
    ck_assert_msg(g != NULL, "%s", err.text);
    return g;
}

/* ---- values ---- */

START_TEST(every_kind_of_value)
{
    struct image im;
    image_begin(&im, (uint32_t)_i, 0, 17);
    image_key(&im, "u8", GGUF_KIND_UINT8), image_u8(&im, 200);
    image_key(&im, "i8", GGUF_KIND_INT8), image_u8(&im, 0x80);
    image_key(&im, "u16", GGUF_KIND_UINT16), image_u16(&im, 65535);
    image_key(&im, "i16", GGUF_KIND_INT16), image_u16(&im, 32767);
    image_key(&im, "u32", GGUF_KIND_UINT32), image_u32(&im, 4294967295);
    image_key(&im, "i32", GGUF_KIND_INT32), image_u32(&im, (uint32_t)-7);
    image_key(&im, "f32", GGUF_KIND_FLOAT32), image_f32(&im, 1e-6f);
    image_key(&im, "yes", GGUF_KIND_BOOL), image_u8(&im, 1);
    image_key(&im, "no", GGUF_KIND_BOOL), image_u8(&im, 0);
    image_key(&im, "text", GGUF_KIND_STRING), image_string(&im, "h\xc3\xa4llo");
    image_key(&im, "empty", GGUF_KIND_STRING), image_string(&im, "");
    image_key(&im, "u64", GGUF_KIND_UINT64), image_u64(&im, UINT64_MAX);
    image_key(&im, "i64", GGUF_KIND_INT64), image_u64(&im, INT64_MAX);
    image_key(&im, "f64", GGUF_KIND_FLOAT64), image_f64(&im, 0.1);
    image_array(&im, "words", GGUF_KIND_STRING, 3), image_string(&im, "one"), image_string(&im, ""), image_string(&im, "three");
    image_array(&im, "numbers", GGUF_KIND_INT32, 2), image_u32(&im, 1), image_u32(&im, (uint32_t)-1);
    image_array(&im, "none", GGUF_KIND_STRING, 0);

    struct opened o = image_open(&im, im.size);
    struct gguf *g = o.g;
    struct error err = {{0}};
    uint64_t u;
    double d;
    bool b;
    struct gguf_string s;
    struct gguf_array a;
    ck_assert_msg(g != NULL, "%s", o.err.text);
    ck_assert_uint_eq(gguf_version(g), (uint32_t)_i);
    ck_assert_uint_eq(gguf_file_size(g), im.size);
    ck_assert_uint_eq(gguf_n_tensors(g), 0);
    ck_assert_ptr_null(gguf_tensor_at(g, 0));
    ck_assert_ptr_null(gguf_find_tensor(g, "x"));

    ck_assert(gguf_get_u64(g, "u8", &u, &err) && u == 200);
    ck_assert(gguf_get_u64(g, "u16", &u, &err) && u == 65535);
    ck_assert(gguf_get_u64(g, "i16", &u, &err) && u == 32767);
    ck_assert(gguf_get_u64(g, "u32", &u, &err) && u == 4294967295);
    ck_assert(gguf_get_u64(g, "u64", &u, &err) && u == UINT64_MAX);
    ck_assert(gguf_get_u64(g, "i64", &u, &err) && u == INT64_MAX);
    u = 99;
    ck_assert(!gguf_get_u64(g, "i8", &u, &err));
    assert_has(&err, "\"i8\" is -128");
    ck_assert(!gguf_get_u64(g, "i32", &u, &err));
    assert_has(&err, "\"i32\" is -7");
    ck_assert_uint_eq(u, 99);
    ck_assert(gguf_get_f64(g, "f32", &d, &err) && d == (double)1e-6f);
    ck_assert(gguf_get_f64(g, "f64", &d, &err) && d == 0.1);
    ck_assert(gguf_get_bool(g, "yes", &b, &err) && b);
    ck_assert(gguf_get_bool(g, "no", &b, &err) && !b);
    ck_assert(gguf_get_string(g, "text", &s, &err) && s.length == 6 && memcmp(s.data, "h\xc3\xa4llo", 6) == 0);
    ck_assert(gguf_get_string(g, "empty", &s, &err) && s.length == 0);

    ck_assert(gguf_get_array(g, "words", GGUF_KIND_STRING, &a, &err) && a.count == 3);
    size_t cursor = 0;
    ck_assert(gguf_array_next_string(&a, &cursor, &s) && s.length == 3 && memcmp(s.data, "one", 3) == 0);
    ck_assert(gguf_array_next_string(&a, &cursor, &s) && s.length == 0);
    ck_assert(gguf_array_next_string(&a, &cursor, &s) && s.length == 5 && memcmp(s.data, "three", 5) == 0);
    ck_assert(!gguf_array_next_string(&a, &cursor, &s));
    ck_assert(!gguf_array_next_string(&a, &cursor, &s));
    ck_assert(gguf_get_array(g, "numbers", GGUF_KIND_INT32, &a, &err) && a.count == 2 && a.n_bytes == 8 && a.data[4] == 0xff);
    cursor = 0;
    ck_assert(!gguf_array_next_string(&a, &cursor, &s));
    ck_assert(gguf_get_array(g, "none", GGUF_KIND_STRING, &a, &err) && a.count == 0);
    ck_assert(!gguf_array_next_string(&a, &cursor, &s));
    ck_assert(gguf_has(g, "none") && !gguf_has(g, "non") && !gguf_has(g, "nonee") && !gguf_has(g, ""));

    /* Wrong kinds and missing keys say what is there and what is wanted. */
    ck_assert(!gguf_get_u64(g, "f32", &u, &err));
    assert_has(&err, "\"f32\" is of kind FLOAT32; a non-negative integer is wanted");
    ck_assert(!gguf_get_u64(g, "words", &u, &err));
    assert_has(&err, "\"words\" is an array of STRING; a non-negative integer is wanted");
    ck_assert(!gguf_get_u64(g, "yes", &u, &err));
    assert_has(&err, "BOOL");
    ck_assert(!gguf_get_f64(g, "u8", &d, &err));
    assert_has(&err, "\"u8\" is of kind UINT8; FLOAT32 or FLOAT64 is wanted");
    ck_assert(!gguf_get_bool(g, "u8", &b, &err));
    assert_has(&err, "BOOL is wanted");
    ck_assert(!gguf_get_string(g, "words", &s, &err));
    assert_has(&err, "STRING is wanted");
    ck_assert(!gguf_get_array(g, "words", GGUF_KIND_INT32, &a, &err));
    assert_has(&err, "\"words\" is an array of STRING; an array of INT32 is wanted");
    ck_assert(!gguf_get_array(g, "text", GGUF_KIND_STRING, &a, &err));
    assert_has(&err, "\"text\" is of kind STRING; an array of STRING is wanted");
    ck_assert(!gguf_get_u64(g, "nowhere", &u, &err));
    assert_has(&err, "no metadata key \"nowhere\" (a non-negative integer is wanted)");
    ck_assert(!gguf_get_u64(g, "nowhere", &u, NULL));

    image_close(&o);
    image_free(&im);
}
END_TEST

START_TEST(tensors)
{
    struct image im;
    image_begin(&im, (uint32_t)_i, 3, 1);
    image_key(&im, "general.alignment", GGUF_KIND_UINT32), image_u32(&im, 64);
    /* Not in the order of their data, and with a hole between them: both are allowed. */
    image_tensor(&im, "late", GGUF_TYPE_Q4_K, 2, (uint64_t[]){512, 3}, 128);
    image_tensor(&im, "early", GGUF_TYPE_F32, 4, (uint64_t[]){1, 2, 3, 1}, 0);
    image_tensor(&im, "unsupported but known", 10, 1, (uint64_t[]){256}, 1024); /* Q2_K */
    size_t base = image_align(&im, 64);
    image_zeros(&im, 1024 + 84);
    im.data[base] = 11;
    im.data[base + 128] = 22;
    im.data[base + 128 + 864 - 1] = 33;

    struct opened o = image_open(&im, im.size);
    ck_assert_msg(o.g != NULL, "%s", o.err.text);
    ck_assert_uint_eq(gguf_n_tensors(o.g), 3);
    const struct gguf_tensor *late = gguf_find_tensor(o.g, "late"), *early = gguf_find_tensor(o.g, "early");
    ck_assert_ptr_eq(late, gguf_tensor_at(o.g, 0));
    ck_assert_ptr_eq(early, gguf_tensor_at(o.g, 1));
    ck_assert_ptr_null(gguf_tensor_at(o.g, 3));
    ck_assert_ptr_null(gguf_find_tensor(o.g, "lat"));
    ck_assert_uint_eq(late->n_elements, 1536);
    ck_assert_uint_eq(late->n_bytes, 864);
    ck_assert_uint_eq(late->n_dims, 2);
    ck_assert_uint_eq(late->dims[0], 512);
    ck_assert_uint_eq(late->dims[1], 3);
    ck_assert_uint_eq(late->dims[2], 1);
    ck_assert_uint_eq(late->dims[3], 1);
    ck_assert_uint_eq(late->data[0], 22);
    ck_assert_uint_eq(late->data[863], 33);
    ck_assert_uint_eq(early->n_elements, 6);
    ck_assert_uint_eq(early->data[0], 11);
    ck_assert_uint_eq(gguf_tensor_at(o.g, 2)->n_bytes, 84);
    gguf_touch_all(o.g);
    image_close(&o);
    image_free(&im);
}
END_TEST

START_TEST(many_names_are_found)
{
    enum { N = 20000 };
    struct image im;
    char name[32];
    int found = 0;
    image_begin(&im, 3, 0, N);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "key.%d", i);
        image_key(&im, name, GGUF_KIND_UINT32), image_u32(&im, (uint32_t)i * 3);
    }
    struct opened o = image_open(&im, im.size);
    ck_assert_msg(o.g != NULL, "%s", o.err.text);
    for (int i = 0; i < N; i++) {
        uint64_t u;
        snprintf(name, sizeof name, "key.%d", i);
        found += gguf_get_u64(o.g, name, &u, NULL) && u == (uint64_t)i * 3;
    }
    ck_assert_int_eq(found, N);
    ck_assert(!gguf_has(o.g, "key.20000"));
    image_close(&o);
    image_free(&im);
}
END_TEST

START_TEST(types)
{
    ck_assert_str_eq(gguf_type_traits(GGUF_TYPE_Q4_K)->name, "Q4_K");
    ck_assert_uint_eq(gguf_type_traits(GGUF_TYPE_Q6_K)->block_bytes, 210);
    ck_assert_uint_eq(gguf_type_traits(GGUF_TYPE_Q5_0)->block_size, 32);
    for (uint32_t type = 0; type < 200; type++) {
        const struct gguf_type_traits *t = gguf_type_traits(type);
        ck_assert_ptr_nonnull(t);
        ck_assert((t->name != NULL) == (t->block_size != 0) && (t->name != NULL) == (t->block_bytes != 0));
    }
    ck_assert_ptr_null(gguf_type_traits(4)->name);
    ck_assert_ptr_null(gguf_type_traits(GGUF_TYPE_LIMIT)->name);
    ck_assert_ptr_null(gguf_type_traits(UINT32_MAX)->name);
}
END_TEST

/* ---- the shipped model ---- */

START_TEST(shipped_model)
{
    struct gguf *g = open_tiny(false, false);
    struct gguf_string s;
    struct gguf_array a;
    uint64_t u;
    double d;
    ck_assert_uint_eq(gguf_version(g), 3);
    ck_assert_uint_eq(gguf_n_tensors(g), 98);
    ck_assert_uint_eq(gguf_file_size(g), 5795840);
    ck_assert(gguf_get_string(g, "general.architecture", &s, NULL) && s.length == 5 && memcmp(s.data, "qwen2", 5) == 0);
    ck_assert(gguf_get_u64(g, "qwen2.block_count", &u, NULL) && u == 8);
    ck_assert(gguf_get_u64(g, "tokenizer.ggml.eos_token_id", &u, NULL) && u == 8172);
    ck_assert(gguf_get_f64(g, "qwen2.rope.freq_base", &d, NULL) && d == 10000.0);
    ck_assert(gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_KIND_STRING, &a, NULL) && a.count == 8192);
    size_t cursor = 0;
    uint64_t n = 0;
    for (; gguf_array_next_string(&a, &cursor, &s); n++)
        if (n == 8172)
            ck_assert(s.length == 10 && memcmp(s.data, "<|im_end|>", 10) == 0);
    ck_assert_uint_eq(n, 8192);
    const struct gguf_tensor *t = gguf_find_tensor(g, "token_embd.weight");
    ck_assert(t && t->type == GGUF_TYPE_Q6_K && t->dims[0] == 256 && t->dims[1] == 8192);
    ck_assert_uint_eq((uintptr_t)t->data % 32, 0);
    gguf_close(g);
    gguf_close(NULL);
}
END_TEST

START_TEST(mapped_and_read_are_the_same)
{
    struct gguf *mapped = open_tiny(false, false), *copy = open_tiny(true, false);
    ck_assert_uint_eq(gguf_n_tensors(mapped), gguf_n_tensors(copy));
    ck_assert(gguf_touch_all(mapped) == gguf_touch_all(copy));
    for (size_t i = 0; i < gguf_n_tensors(mapped); i++) {
        const struct gguf_tensor *a = gguf_tensor_at(mapped, i), *b = gguf_tensor_at(copy, i);
        ck_assert(a->n_bytes == b->n_bytes && a->type == b->type && a->name.length == b->name.length);
        ck_assert(a->data != b->data && memcmp(a->data, b->data, (size_t)a->n_bytes) == 0);
        ck_assert(memcmp(a->name.data, b->name.data, a->name.length) == 0);
    }
    gguf_close(mapped);
    gguf_close(copy);
}
END_TEST

START_TEST(release_gives_back_whole_pages_only)
{
    struct gguf *mapped = open_tiny(false, false), *copy = open_tiny(true, false);
    size_t n = gguf_n_tensors(mapped), page = (size_t)sysconf(_SC_PAGESIZE), zeroed = 0, wrong = 0;

    for (size_t i = 0; i < n; i += 2) {
        gguf_release(mapped, gguf_tensor_at(mapped, i));
        gguf_release(copy, gguf_tensor_at(copy, i));
    }
    for (size_t i = 0; i < n; i++) {
        const struct gguf_tensor *a = gguf_tensor_at(mapped, i), *b = gguf_tensor_at(copy, i);
        for (size_t k = 0; k < a->n_bytes; k++) {
            /* In private memory a byte is zero now if its whole page lies inside a released tensor; all else is as it was. */
            uintptr_t start = (uintptr_t)(b->data + k) & ~(page - 1);
            bool gone = i % 2 == 0 && start >= (uintptr_t)b->data && start + page <= (uintptr_t)b->data + b->n_bytes;
            wrong += b->data[k] != (gone ? 0 : a->data[k]);
            zeroed += gone;
        }
    }
    ck_assert_uint_eq(wrong, 0);
    ck_assert_uint_gt(zeroed, 1 << 20);
    gguf_close(mapped);
    gguf_close(copy);
}
END_TEST

START_TEST(released_pages_leave_memory)
{
    struct gguf *g = open_tiny(false, false);
    const struct gguf_tensor *t = gguf_find_tensor(g, "token_embd.weight");
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    uintptr_t from = ((uintptr_t)t->data + page - 1) & ~(page - 1), to = ((uintptr_t)t->data + t->n_bytes) & ~(page - 1);
    gguf_touch_all(g);

    /* The pages of this process, not of the page cache: bit 63 of an entry of /proc/self/pagemap. */
    int map = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    ck_assert_int_ge(map, 0);
    for (int round = 0; round < 2; round++) {
        size_t present = 0;
        for (uintptr_t p = from; p < to; p += page) {
            uint64_t entry = 0;
            ck_assert_int_eq(pread(map, &entry, 8, (off_t)(p / page * 8)), 8);
            present += entry >> 63;
        }
        if (round == 0)
            ck_assert_uint_eq(present, (to - from) / page);
        else
            ck_assert_uint_eq(present, 0);
        gguf_release(g, t);
    }
    close(map);
    gguf_close(g);
}
END_TEST

/* ---- locking ---- */

START_TEST(locked_files_stay)
{
    unsigned char *probe = mmap(NULL, 8 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    bool may_lock = probe != MAP_FAILED && mlock(probe, 8 << 20) == 0;
    munmap(probe, 8 << 20);
    if (!may_lock)
        return; /* the other test shows the refusal */
    struct gguf *locked = open_tiny(true, true), *mapped = open_tiny(false, false);
    for (size_t i = 0; i < gguf_n_tensors(locked); i++) {
        const struct gguf_tensor *a = gguf_tensor_at(locked, i), *b = gguf_tensor_at(mapped, i);
        gguf_release(locked, a);
        ck_assert(memcmp(a->data, b->data, (size_t)a->n_bytes) == 0);
    }
    gguf_close(mapped);
    gguf_close(locked);
}
END_TEST

START_TEST(lock_refused)
{
    if (UNDER_ASAN) /* which turns mlock into nothing */
        return;
    /* In a child, which may give up root for good. */
    pid_t child = fork();
    if (child == 0) {
        struct error err = {{0}};
        struct rlimit none = {0, 0};
        if (setrlimit(RLIMIT_MEMLOCK, &none) != 0 || (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0))
            _exit(10);
        struct gguf *g = gguf_open(tiny, &(struct gguf_options){.mlock = true}, &err);
        if (g)
            _exit(11);
        if (!strstr(err.text, tiny))
            _exit(12);
        _exit(strstr(err.text, "RLIMIT_MEMLOCK") && strstr(err.text, "5795840") ? 0 : 13);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child ended with status %d", status);
}
END_TEST

/* ---- what is no file to read ---- */

static void refused_path(const char *path, const char *text)
{
    for (int no_mmap = 0; no_mmap < 2; no_mmap++) {
        struct error err = {{0}};
        ck_assert_ptr_null(gguf_open(path, &(struct gguf_options){.no_mmap = no_mmap}, &err));
        assert_has(&err, text);
        ck_assert_ptr_null(gguf_open(path, NULL, NULL));
    }
}

START_TEST(no_model_files)
{
    char folder[] = "/tmp/quern-test-XXXXXX", path[64], text[128];
    ck_assert_ptr_nonnull(mkdtemp(folder));

    refused_path("", "the name of the model file is empty");
    refused_path(folder, "is a directory, not a model file");
    refused_path("/dev/null", "is not a regular file");
    snprintf(path, sizeof path, "%s/missing", folder);
    snprintf(text, sizeof text, "%s: there is no such file", path);
    refused_path(path, text);
    snprintf(path, sizeof path, "%s/bad\nname\x1b[31m", folder);
    snprintf(text, sizeof text, "%s/bad?name?[31m: there is no such file", folder);
    refused_path(path, text);

    snprintf(path, sizeof path, "%s/pipe", folder);
    ck_assert_int_eq(mkfifo(path, 0600), 0);
    refused_path(path, "is a pipe"); /* and does not wait for a writer */
    unlink(path);

    snprintf(path, sizeof path, "%s/empty", folder);
    FILE *f = fopen(path, "w");
    fclose(f);
    refused_path(path, "is empty (0 bytes)");

    static const struct {
        const char *content, *text;
    } others[] = {
        {"G", "begins with \"G\", not with \"GGUF\""},
        {"hello, world", "begins with \"hell\", not with \"GGUF\""},
        {"\x1f\x8b\x08\x01 gz", "begins with \"\\x1f\\x8b\\x08\\x01\""},
        {"<!DOCTYPE html><html>404", "web page"},
        {"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"},
        {"PK\003\004....", "zip archive"},
        {"tjgg\003", "older GGJT format"},
        {"GGUF", "cut short"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        f = fopen(path, "w");
        fputs(others[i].content, f);
        fclose(f);
        refused_path(path, others[i].text);
        refused_path(path, path);
    }
    if (geteuid() == 0) /* root reads everything: ask as somebody else */
        ck_assert_int_eq(chmod(folder, 0755), 0);
    ck_assert_int_eq(chmod(path, 0), 0);
    pid_t child = fork();
    if (child == 0) {
        struct error err = {{0}};
        if (geteuid() == 0 && setresuid(65534, 65534, 65534) != 0)
            _exit(10);
        _exit(!gguf_open(path, NULL, &err) && strstr(err.text, "permission denied") ? 0 : 11);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    unlink(path);
    rmdir(folder);
}
END_TEST

START_TEST(long_paths_keep_their_end)
{
    char path[3000];
    struct error err = {{0}};
    memset(path, 'x', sizeof path);
    memcpy(path + sizeof path - 12, "/model.gguf", 12);
    ck_assert_ptr_null(gguf_open(path, NULL, &err));
    assert_has(&err, "xxx/model.gguf: cannot open: File name too long");
    ck_assert(memcmp(err.text, "...xxx", 6) == 0);
}
END_TEST

START_TEST(misaligned_memory)
{
    static const _Alignas(16) unsigned char data[64] = "?GGUF";
    struct error err = {{0}};
    ck_assert_ptr_null(gguf_open_memory(data + 1, 40, &err));
    assert_has(&err, "not a multiple of 8");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("gguf");
    TCase *c = tcase_create("gguf");
    tcase_set_timeout(c, 120);
    tcase_add_loop_test(c, every_kind_of_value, 2, 4);
    tcase_add_loop_test(c, tensors, 2, 4);
    tcase_add_test(c, many_names_are_found);
    tcase_add_test(c, types);
    tcase_add_test(c, shipped_model);
    tcase_add_test(c, mapped_and_read_are_the_same);
    tcase_add_test(c, release_gives_back_whole_pages_only);
    tcase_add_test(c, released_pages_leave_memory);
    tcase_add_test(c, locked_files_stay);
    tcase_add_test(c, lock_refused);
    tcase_add_test(c, no_model_files);
    tcase_add_test(c, long_paths_keep_their_end);
    tcase_add_test(c, misaligned_memory);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
