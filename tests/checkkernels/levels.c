/* Which levels are checked, and whether the choice among them can be trusted. */
#include "tests/checkkernels/check.h"

#include <string.h>

#if defined(__x86_64__)
#include "kernels/x86/features.h"

#include <cpuid.h>

extern const struct kernels kernels_avxvnni_evex, kernels_avxvnni_model; /* see kernels/x86/avxvnni.c */
extern const struct kernels kernels_avx512_model, kernels_amx_model;     /* see kernels/x86/amx.c */
#endif

int levels_under_test(const struct kernels *levels[], int max, bool models)
{
    const char *names[16];
    int n = kernels_available(names, max < (int)COUNT_OF(names) ? max : (int)COUNT_OF(names));
    for (int i = 0; i < n; i++)
        levels[i] = kernels_by_name(names[i], NULL);
#if defined(__x86_64__)
    if (n < max && kernels_by_name("avx512", NULL))
        levels[n++] = &kernels_avxvnni_evex;
    const struct kernels *model[] = {
        kernels_by_name("avx2", NULL) ? &kernels_avxvnni_model : NULL, &kernels_avx512_model, &kernels_amx_model};
    for (size_t i = 0; models && i < COUNT_OF(model) && n < max; i++)
        if (model[i])
            levels[n++] = model[i];
#else
    (void)models;
#endif
    return n;
}

#if defined(__x86_64__)
/* The bits by their numbers in Intel's manual, once more: a wrong constant in features.c must not go unseen. */
enum { FEATURES = 13 };
static const struct feature {
    const char *name;
    int word, bit;                     /* word: 0 leaf 1 ECX, 1 leaf 7 EBX, 2 leaf 7 ECX, 3 leaf 7 subleaf 1 EAX, 4 leaf 7 EDX */
    bool avx2, avxvnni, avx512, amx;   /* needed for */
} features[FEATURES] = {
    {"OSXSAVE", 0, 27, true, true, true, true},      {"AVX", 0, 28, true, true, true, true},
    {"FMA", 0, 12, true, true, true, true},          {"F16C", 0, 29, true, true, true, true},
    {"AVX2", 1, 5, true, true, true, true},          {"AVX-VNNI", 3, 4, false, true, false, false},
    {"AVX512F", 1, 16, false, false, true, true},    {"AVX512BW", 1, 30, false, false, true, true},
    {"AVX512VL", 1, 31, false, false, true, true},   {"AVX512VNNI", 2, 11, false, false, true, true},
    {"AMX-TILE", 4, 24, false, false, false, true},  {"AMX-INT8", 4, 25, false, false, false, true},
    {"AMX-BF16", 4, 22, false, false, false, true},
};

/* What Sapphire Rapids answers. */
enum { TILES_OF_64_BYTES = 8 << 16 | 64, ROWS = 16, MULTIPLIER = 64 << 8 | 16, SAVES_ALL = 0x600E7 };

/* A CPU that has all of the features but one. */
static struct x86_words answers_without(int without)
{
    uint32_t words[5] = {0};
    for (int i = 0; i < FEATURES; i++)
        if (i != without)
            words[features[i].word] |= UINT32_C(1) << features[i].bit;
    return (struct x86_words){.leaf1_ecx = words[0], .leaf7_ebx = words[1], .leaf7_ecx = words[2], .leaf7_1_eax = words[3],
        .leaf7_edx = words[4], .leaf1d_1_ebx = TILES_OF_64_BYTES, .leaf1d_1_ecx = ROWS, .leaf1e_ebx = MULTIPLIER,
        .xcr0 = SAVES_ALL};
}

static void check_answers(const struct x86_words *w, const char *what, bool avx2, bool avxvnni, bool avx512, bool amx)
{
    const bool has_amx = !x86_lacks_for_amx(w);
    if (x86_has_avx2(w) != avx2 || x86_has_avxvnni(w) != avxvnni || x86_has_avx512(w) != avx512 || has_amx != amx)
        fail("%s: avx2 %d, avxvnni %d, avx512 %d, amx %d; expected %d, %d, %d, %d", what, x86_has_avx2(w), x86_has_avxvnni(w),
            x86_has_avx512(w), has_amx, avx2, avxvnni, avx512, amx);
}

/* Tiles of other shapes than the kernels use: less of anything is no AMX, more is. */
static void check_tile_shapes(void)
{
    static const struct {
        uint32_t tiles, row_bytes, rows, most_rows, most_bytes;
        bool amx;
    } shapes[] = {
        {8, 64, 16, 16, 64, true},
        {0, 0, 0, 0, 0, false},
        {7, 64, 16, 16, 64, false},
        {8, 63, 16, 16, 64, false},
        {8, 64, 15, 16, 64, false},
        {8, 64, 16, 7, 64, false},
        {8, 64, 16, 16, 32, false},
        {16, 128, 32, 32, 128, true},
        {8, 64, 0, 16, 64, false},
        {0, 64, 16, 16, 64, false},
    };
    for (size_t i = 0; i < COUNT_OF(shapes); i++) {
        struct x86_words w = answers_without(-1);
        w.leaf1d_1_ebx = shapes[i].tiles << 16 | shapes[i].row_bytes;
        w.leaf1d_1_ecx = shapes[i].rows;
        w.leaf1e_ebx = shapes[i].most_bytes << 8 | shapes[i].most_rows;
        char what[32];
        snprintf(what, sizeof what, "tile shape %zu", i);
        check_answers(&w, what, true, true, true, shapes[i].amx);
    }
}

/* A CPU with everything, from which one thing at a time is taken; then with less and less saved by the system. */
void check_features(const struct kernels *k, int unused)
{
    (void)k;
    (void)unused;
    for (int without = -1; without < FEATURES; without++) {
        const struct x86_words w = answers_without(without);
        const struct feature *f = without < 0 ? NULL : &features[without];
        char what[32];
        snprintf(what, sizeof what, "without %s", f ? f->name : "nothing");
        check_answers(&w, what, !f || !f->avx2, !f || !f->avxvnni, !f || !f->avx512, !f || !f->amx);
    }
    check_tile_shapes();
    /* The CPU says yes to all, and more than all. */
    for (unsigned low = 0; low < 0x100; low++)
        for (unsigned tiles = 0; tiles < 4; tiles++) {
            struct x86_words w;
            memset(&w, 0xFF, sizeof w);
            w.xcr0 = tiles << 17 | low;
            bool ymm = (low & 4) && (low & 2), zmm = ymm && (low >> 5 & 7) == 7;
            char what[32];
            snprintf(what, sizeof what, "XCR0 %#x", tiles << 17 | low);
            check_answers(&w, what, ymm, ymm, zmm, zmm && tiles == 3);
        }
    /* This CPU: the compiler's own runtime, where it knows the name, must agree. */
    const struct x86_words w = x86_ask();
    __builtin_cpu_init();
    if (x86_has_avx2(&w) && (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")))
        fail("avx2 is found where the compiler's runtime does not find it");
    if (x86_has_avx512(&w) != (x86_has_avx2(&w) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                               __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni")))
        fail("avx512 is found %d, otherwise than by the compiler's runtime", x86_has_avx512(&w));
    const struct {
        const char *name;
        bool usable;
    } levels[] = {{"scalar", true},
                  {"avx2", x86_has_avx2(&w)},
                  {"avxvnni", x86_has_avxvnni(&w)},
                  {"avx512", x86_has_avx512(&w)},
                  {"amx", !x86_lacks_for_amx(&w) && x86_may_use_tiles()}};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct error err = {""};
        if (!!kernels_by_name(levels[i].name, &err) != levels[i].usable)
            fail("level %s: %s", levels[i].name, levels[i].usable ? err.text : "given out, but not usable");
        else if (!levels[i].usable && !strstr(err.text, "it needs"))
            fail("level %s is refused without a reason: %s", levels[i].name, err.text);
    }
}

/* Whether this thread carries no tiles now, after the kernels of a level have run: XINUSE (XGETBV 1), where the CPU has it. */
void check_tiles_released(const struct kernels *k, int unused)
{
    (void)k;
    (void)unused;
    const struct x86_words w = x86_ask();
    unsigned a, b, c, d;
    if (x86_lacks_for_amx(&w) || !__get_cpuid_count(0xD, 1, &a, &b, &c, &d) || !(a & 4))
        return;
    uint32_t low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(1));
    if (low & 3U << 17)
        fail("states in use: %#x", low);
}
#else
void check_features(const struct kernels *k, int unused)
{
    (void)k;
    (void)unused;
}
void check_tiles_released(const struct kernels *k, int unused)
{
    (void)k;
    (void)unused;
}
#endif
