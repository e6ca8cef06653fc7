/* The tables of the instruction sets, one per file. Which of them this build has depends on the architecture it is for. */
#ifndef QUERN_LEVELS_H
#define QUERN_LEVELS_H

#include "kernels/kernels.h"

extern const struct kernels kernels_scalar;
#if defined(__x86_64__)
extern const struct kernels kernels_avx2;
extern const struct kernels kernels_avxvnni;
extern const struct kernels kernels_avx512;
extern const struct kernels kernels_amx;
#elif defined(__aarch64__)
extern const struct kernels kernels_neon;
extern const struct kernels kernels_dotprod;
extern const struct kernels kernels_i8mm;
#endif

#endif
