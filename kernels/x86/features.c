#include "kernels/x86/features.h"

#include <cpuid.h>

enum {
    /* leaf 1, ECX */
    FMA = 1 << 12,
    OSXSAVE = 1 << 27,
    AVX = 1 << 28,
    F16C = 1 << 29,
    /* leaf 7 subleaf 0, EBX */
    AVX2 = 1 << 5,
    AVX512F = 1 << 16,
    AVX512BW = 1 << 30,
    /* leaf 7 subleaf 0, ECX */
    AVX512_VNNI = 1 << 11,
    /* leaf 7 subleaf 1, EAX */
    AVX_VNNI = 1 << 4,
    /* XCR0 */
    SAVES_YMM = 0x06, /* XMM and the upper halves of YMM */
    SAVES_ZMM = 0xE6  /* those, opmasks, the upper halves of ZMM, ZMM16 and up */
};
#define AVX512VL (UINT32_C(1) << 31) /* leaf 7 subleaf 0, EBX */

static uint64_t xgetbv0(void)
{
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

struct x86_words x86_ask(void)
{
    struct x86_words w = {0};
    unsigned a, b, c, d;
    if (__get_cpuid(1, &a, &b, &c, &d))
        w.leaf1_ecx = c;
    if (__get_cpuid_count(7, 0, &a, &b, &c, &d)) {
        w.leaf7_ebx = b;
        w.leaf7_ecx = c;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) /* EAX of subleaf 0: the last subleaf there is */
            w.leaf7_1_eax = a;
    }
    if (w.leaf1_ecx & OSXSAVE)
        w.xcr0 = xgetbv0();
    return w;
}

static bool all(uint64_t word, uint64_t bits)
{
    return (word & bits) == bits;
}

bool x86_has_avx2(const struct x86_words *w)
{
    return all(w->leaf1_ecx, OSXSAVE | AVX | FMA | F16C) && all(w->xcr0, SAVES_YMM) && all(w->leaf7_ebx, AVX2);
}

bool x86_has_avxvnni(const struct x86_words *w)
{
    return x86_has_avx2(w) && all(w->leaf7_1_eax, AVX_VNNI);
}

bool x86_has_avx512(const struct x86_words *w)
{
    return x86_has_avx2(w) && all(w->xcr0, SAVES_ZMM) && all(w->leaf7_ebx, AVX512F | AVX512BW | AVX512VL) && all(w->leaf7_ecx, AVX512_VNNI);
}
