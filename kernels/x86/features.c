#include "kernels/x86/features.h"

#include <cpuid.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

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
    /* leaf 7 subleaf 0, EDX */
    AMX_BF16 = 1 << 22,
    AMX_TILE = 1 << 24,
    AMX_INT8 = 1 << 25,
    /* leaf 7 subleaf 1, EAX */
    AVX_VNNI = 1 << 4,
    /* XCR0 */
    SAVES_YMM = 0x06, /* XMM and the upper halves of YMM */
    SAVES_ZMM = 0xE6, /* those, opmasks, the upper halves of ZMM, ZMM16 and up */
    SAVES_TILES = 3 << 17,
    /* arch_prctl of the kernel's <asm/prctl.h>, and the number of the state in question */
    REQUEST_PERMISSION = 0x1023,
    TILE_DATA = 18
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
        w.leaf7_edx = d;
        if (a >= 1 && __get_cpuid_count(7, 1, &a, &b, &c, &d)) /* EAX of subleaf 0: the last subleaf there is */
            w.leaf7_1_eax = a;
    }
    if (__get_cpuid_count(0x1D, 1, &a, &b, &c, &d)) {
        w.leaf1d_1_ebx = b;
        w.leaf1d_1_ecx = c;
    }
    if (__get_cpuid_count(0x1E, 0, &a, &b, &c, &d))
        w.leaf1e_ebx = b;
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
    return x86_has_avx2(w) && all(w->xcr0, SAVES_ZMM) && all(w->leaf7_ebx, AVX512F | AVX512BW | AVX512VL) &&
           all(w->leaf7_ecx, AVX512_VNNI);
}

const char *x86_lacks_for_amx(const struct x86_words *w)
{
    if (!x86_has_avx512(w))
        return "AVX-512 F, BW, VL and VNNI besides AMX";
    if (!all(w->leaf7_edx, AMX_TILE | AMX_INT8 | AMX_BF16))
        return "AMX-TILE, AMX-INT8 and AMX-BF16, and the CPU does not name all of them";
    const uint32_t row_bytes = w->leaf1d_1_ebx & 0xFFFF, tiles = w->leaf1d_1_ebx >> 16, rows = w->leaf1d_1_ecx & 0xFFFF;
    const uint32_t most_rows = w->leaf1e_ebx & 0xFF, most_bytes = w->leaf1e_ebx >> 8 & 0xFFFF;
    if (row_bytes < 64 || tiles < 8 || rows < 16 || most_rows < 8 || most_bytes < 64)
        return "8 tiles of 16 rows of 64 bytes, and the CPU says that it has others";
    if (!all(w->xcr0, SAVES_TILES))
        return "an operating system that saves tile registers (Linux 5.16 or later; in a virtual machine, its host too)";
    return NULL;
}

bool x86_may_use_tiles(void)
{
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}
