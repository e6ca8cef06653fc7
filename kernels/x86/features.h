/* What an x86-64 CPU can do and the operating system lets it do, from CPUID and XGETBV (Intel SDM volume 1 chapters 13.3 and
 * 14.3, volume 2A "CPUID").
 *
 * An instruction may be used if CPUID names it and if the system saves the registers it works in when it switches tasks: OSXSAVE
 * says that XGETBV may be asked, and XCR0 which registers are saved. A hypervisor or a kernel that forgets either half gets a
 * lesser level and not a crash. */
#ifndef QUERN_X86_FEATURES_H
#define QUERN_X86_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

/* The words of CPUID that matter here; those of leaves that the CPU does not have are 0. */
struct x86_words {
    uint32_t leaf1_ecx;
    uint32_t leaf7_ebx, leaf7_ecx, leaf7_edx; /* subleaf 0 */
    uint32_t leaf7_1_eax;                     /* subleaf 1 */
    uint32_t leaf1d_1_ebx, leaf1d_1_ecx;      /* subleaf 1, the tiles of palette 1: bytes of a row, tiles << 16; rows */
    uint32_t leaf1e_ebx;                      /* what the tile multiplier takes at most: rows of B, bytes of a row << 8 */
    uint64_t xcr0;                            /* 0 unless OSXSAVE is set */
};

/* As this CPU answers. */
struct x86_words x86_ask(void);

/* What the answers allow: each includes the ones a level with it builds on. */
bool x86_has_avx2(const struct x86_words *w);    /* AVX2, FMA, F16C; YMM saved */
bool x86_has_avxvnni(const struct x86_words *w); /* and AVX-VNNI */
bool x86_has_avx512(const struct x86_words *w);  /* AVX2's, and AVX-512 F, BW, VL and VNNI; ZMM and opmasks saved */

/* What is missing for AMX on top of AVX-512: NULL, or what goes on after "it needs". Tiles, int8 and bf16, 8 tiles of 16 rows of
 * 64 bytes, tiles saved. */
const char *x86_lacks_for_amx(const struct x86_words *w);

/* Asks Linux to let this process use tiles, which it must before it touches one: the registers have 8 KiB, and are saved for
 * those only who asked (arch_prctl, Linux 5.16). Holds for all threads, those to come too. False if it is refused. */
bool x86_may_use_tiles(void);

#endif
