/* Which level to use: the features of the CPU, and the wish in QUERN_CPU. */
#include "kernels/levels.h"

#include <stdlib.h>
#include <string.h>

struct level {
    const struct kernels *kernels;
    const char *(*lacks)(void); /* NULL if it can be used here, or what goes on after "it needs" */
};

static const char *nothing(void)
{
    return NULL;
}

#if defined(__x86_64__)
#include "kernels/x86/features.h"
static const char *lacks_for_avx2(void)
{
    const struct x86_words w = x86_ask();
    return x86_has_avx2(&w) ? NULL : "AVX2, FMA and F16C";
}
static const char *lacks_for_avxvnni(void)
{
    const struct x86_words w = x86_ask();
    return x86_has_avxvnni(&w) ? NULL : "AVX2, FMA, F16C and AVX-VNNI";
}
static const char *lacks_for_avx512(void)
{
    const struct x86_words w = x86_ask();
    return x86_has_avx512(&w) ? NULL : "AVX-512 F, BW, VL and VNNI";
}
static const char *lacks_for_amx(void)
{
    const struct x86_words w = x86_ask();
    const char *lacks = x86_lacks_for_amx(&w);
    if (lacks || x86_may_use_tiles())
        return lacks;
    return "Linux's permission to use tile registers, which was refused (arch_prctl; a sandbox's filter of system calls may be "
           "the reason)";
}
static const struct level levels[] = {
    {&kernels_scalar, nothing},
    {&kernels_avx2, lacks_for_avx2},
    {&kernels_avxvnni, lacks_for_avxvnni},
    {&kernels_avx512, lacks_for_avx512},
    {&kernels_amx, lacks_for_amx},
};
#elif defined(__aarch64__)
#include <sys/auxv.h>
static const char *lacks_for_dotprod(void)
{
    const bool has = getauxval(AT_HWCAP) & (1UL << 20); /* HWCAP_ASIMDDP of the kernel's <asm/hwcap.h> */
    return has ? NULL : "the dot product instructions (asimddp)";
}
static const char *lacks_for_i8mm(void)
{
    const bool has = !lacks_for_dotprod() && getauxval(AT_HWCAP2) & (1UL << 13); /* HWCAP2_I8MM */
    return has ? NULL : "the 8-bit matrix multiply instructions (i8mm)";
}
static const struct level levels[] = {
    {&kernels_scalar, nothing},
    {&kernels_neon, nothing},
    {&kernels_dotprod, lacks_for_dotprod},
    {&kernels_i8mm, lacks_for_i8mm},
};
#else
static const struct level levels[] = {{&kernels_scalar, nothing}};
#endif

enum { N_LEVELS = sizeof levels / sizeof levels[0] };

int kernels_available(const char **names, int max)
{
    int n = 0;
    for (int i = 0; i < N_LEVELS && n < max; i++)
        if (!levels[i].lacks())
            names[n++] = levels[i].kernels->level;
    return n;
}

const struct kernels *kernels_by_name(const char *name, struct error *err)
{
    char known[256] = "";
    for (int i = 0; i < N_LEVELS; i++) {
        if (strcmp(name, levels[i].kernels->level) == 0) {
            const char *lacks = levels[i].lacks();
            if (!lacks)
                return levels[i].kernels;
            error_set(err, "this machine cannot run kernel level '%s': it needs %s", name, lacks);
            return NULL;
        }
        strcat(known, i ? ", " : "");
        strcat(known, levels[i].kernels->level);
    }
    error_set(err, "unknown kernel level '%.32s'; this build has: %s", name, known);
    return NULL;
}

const struct kernels *kernels_select(struct error *err)
{
    const char *wish = getenv("QUERN_CPU");
    if (wish && *wish) {
        struct error why;
        const struct kernels *k = kernels_by_name(wish, &why);
        if (!k)
            error_set(err, "QUERN_CPU: %s", why.text);
        return k;
    }
    for (int i = N_LEVELS - 1; i > 0; i--)
        if (!levels[i].lacks())
            return levels[i].kernels;
    return &kernels_scalar;
}

size_t attention_scratch(int n_rows, int head_dim)
{
    /* As attention_begin() in lanes.h shares it out: a step of 2 blocks; for each row its weights, output, 16 sums and a
     * maximum. */
    const int step = 2 * KV_BLOCK, wide = head_dim > step ? head_dim : step, rows = (n_rows + 15) / 16 * 16;
    const size_t floats = (size_t)rows * (size_t)(step + head_dim + 16 + 1) + (size_t)(16 * wide);
#if defined(__x86_64__)
    /* amx_attention.h: queries and weights once more, and a step's keys or values; in tiles of 32 or 4 * 16 dimensions. */
    const int tiles = (head_dim + 31) / 32 * 32, strips = (head_dim + 63) / 64 * 64;
    return floats + (size_t)rows * (size_t)(tiles + step) + (size_t)(step * strips);
#else
    return floats;
#endif
}
