/* What an x86-64 CPU can do and the operating system lets it do, from CPUID and XGETBV (Intel SDM volume 1 chapters 13.3 and 14.3, volume 2A "CPUID").
 *
 * An instruction may be used if CPUID names it and if the system saves the registers it works in when it switches tasks: OSXSAVE says that XGETBV may be asked,
 * and XCR0 which registers are saved. A hypervisor or a kernel that forgets either half gets a lesser level and not a crash. */
#ifndef QUERN_X86_FEATURES_H
#define QUERN_X86_FEATURES_H

#include <stdbool.h>
#include <stdint.h>

/* The words of CPUID that matter here; those of leaves that the CPU does not have are 0. */
struct x86_words {
    uint32_t leaf1_ecx;
    uint32_t leaf7_ebx, leaf7_ecx; /* subleaf 0 */
    uint32_t leaf7_1_eax;          /* subleaf 1 */
    uint64_t xcr0;                 /* 0 unless OSXSAVE is set */
};

/* As this CPU answers. */
struct x86_words x86_ask(void);

/* What the answers allow: each includes the ones a level with it builds on. */
bool x86_has_avx2(const struct x86_words *w);    /* AVX2, FMA, F16C; YMM saved */
bool x86_has_avxvnni(const struct x86_words *w); /* and AVX-VNNI */
bool x86_has_avx512(const struct x86_words *w);  /* AVX2's, and AVX-512 F, BW, VL and VNNI; ZMM and opmasks saved */

#endif
