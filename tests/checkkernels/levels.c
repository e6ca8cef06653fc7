/* Which levels are checked, and whether the choice among them can be trusted. */
#include "tests/checkkernels/check.h"

#include <string.h>

#if defined(__x86_64__)
#include "kernels/x86/features.h"
extern const struct kernels kernels_avxvnni_evex; /* see kernels/x86/avxvnni.c */
#endif

int levels_under_test(const struct kernels *levels[], int max)
{
    const char *names[16];
    int n = kernels_available(names, max < (int)COUNT_OF(names) ? max : (int)COUNT_OF(names));
    for (int i = 0; i < n; i++)
        levels[i] = kernels_by_name(names[i], NULL);
#if defined(__x86_64__)
    if (n < max && kernels_by_name("avx512", NULL))
        levels[n++] = &kernels_avxvnni_evex;
#endif
    return n;
}

#if defined(__x86_64__)
/* The bits by their numbers in Intel's manual, once more: a wrong constant in features.c must not go unseen. */
enum { FEATURES = 10 };
static const struct feature {
    const char *name;
    int word, bit;                 /* word: 0 leaf 1 ECX, 1 leaf 7 EBX, 2 leaf 7 ECX, 3 leaf 7 subleaf 1 EAX */
    bool avx2, avxvnni, avx512;    /* needed for */
} features[FEATURES] = {
    {"OSXSAVE", 0, 27, true, true, true},   {"AVX", 0, 28, true, true, true},       {"FMA", 0, 12, true, true, true},
    {"F16C", 0, 29, true, true, true},      {"AVX2", 1, 5, true, true, true},       {"AVX-VNNI", 3, 4, false, true, false},
    {"AVX512F", 1, 16, false, false, true}, {"AVX512BW", 1, 30, false, false, true}, {"AVX512VL", 1, 31, false, false, true},
    {"AVX512VNNI", 2, 11, false, false, true},
};

static void check_answers(const struct x86_words *w, const char *what, bool avx2, bool avxvnni, bool avx512)
{
    if (x86_has_avx2(w) != avx2 || x86_has_avxvnni(w) != avxvnni || x86_has_avx512(w) != avx512)
        fail("%s: avx2 %d, avxvnni %d, avx512 %d; expected %d, %d, %d", what, x86_has_avx2(w), x86_has_avxvnni(w), x86_has_avx512(w), avx2, avxvnni, avx512);
}

/* A CPU with everything, from which one thing at a time is taken; then with less and less saved by the system. */
void check_features(const struct kernels *k, int unused)
{
    (void)k;
    (void)unused;
    for (int without = -1; without < FEATURES; without++) {
        uint32_t words[4] = {0};
        for (int i = 0; i < FEATURES; i++)
            if (i != without)
                words[features[i].word] |= UINT32_C(1) << features[i].bit;
        const struct x86_words w = {words[0], words[1], words[2], words[3], 0xE7};
        char what[32];
        snprintf(what, sizeof what, "without %s", without < 0 ? "nothing" : features[without].name);
        check_answers(&w, what, without < 0 || !features[without].avx2, without < 0 || !features[without].avxvnni, without < 0 || !features[without].avx512);
    }
    /* The CPU says yes to all, and more than all. */
    for (unsigned xcr0 = 0; xcr0 < 0x100; xcr0++) {
        const struct x86_words w = {UINT32_MAX, UINT32_MAX, UINT32_MAX, UINT32_MAX, xcr0};
        bool ymm = (xcr0 & 4) && (xcr0 & 2), zmm = ymm && (xcr0 >> 5 & 7) == 7;
        char what[32];
        snprintf(what, sizeof what, "XCR0 %#x", xcr0);
        check_answers(&w, what, ymm, ymm, zmm);
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
    } levels[] = {{"scalar", true}, {"avx2", x86_has_avx2(&w)}, {"avxvnni", x86_has_avxvnni(&w)}, {"avx512", x86_has_avx512(&w)}};
    for (size_t i = 0; i < COUNT_OF(levels); i++) {
        struct error err = {""};
        if (!!kernels_by_name(levels[i].name, &err) != levels[i].usable)
            fail("level %s: %s", levels[i].name, levels[i].usable ? err.text : "given out, but not usable");
        else if (!levels[i].usable && !strstr(err.text, "it needs"))
            fail("level %s is refused without a reason: %s", levels[i].name, err.text);
    }
}
#else
void check_features(const struct kernels *k, int unused)
{
    (void)k;
    (void)unused;
}
#endif
