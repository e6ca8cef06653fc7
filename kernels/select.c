/* Which level to use: the features of the CPU, and the wish in QUERN_CPU. */
#include "kernels/levels.h"

#include <stdlib.h>
#include <string.h>

struct level {
    const struct kernels *kernels;
    bool (*usable)(void);
    const char *needs; /* for the sentence that says why not */
};

static bool always(void)
{
    return true;
}

#if defined(__x86_64__)
#include "kernels/x86/features.h"
static bool has_avx2(void)
{
    const struct x86_words w = x86_ask();
    return x86_has_avx2(&w);
}
static bool has_avxvnni(void)
{
    const struct x86_words w = x86_ask();
    return x86_has_avxvnni(&w);
}
static bool has_avx512(void)
{
    const struct x86_words w = x86_ask();
    return x86_has_avx512(&w);
}
static const struct level levels[] = {
    {&kernels_scalar, always, ""},
    {&kernels_avx2, has_avx2, "AVX2, FMA and F16C"},
    {&kernels_avxvnni, has_avxvnni, "AVX2, FMA, F16C and AVX-VNNI"},
    {&kernels_avx512, has_avx512, "AVX-512 F, BW, VL and VNNI"},
};
#elif defined(__aarch64__)
#include <sys/auxv.h>
static bool has_dotprod(void)
{
    return getauxval(AT_HWCAP) & (1UL << 20); /* HWCAP_ASIMDDP of the kernel's <asm/hwcap.h> */
}
static bool has_i8mm(void)
{
    return has_dotprod() && getauxval(AT_HWCAP2) & (1UL << 13); /* HWCAP2_I8MM */
}
static const struct level levels[] = {
    {&kernels_scalar, always, ""},
    {&kernels_neon, always, ""},
    {&kernels_dotprod, has_dotprod, "the dot product instructions (asimddp)"},
    {&kernels_i8mm, has_i8mm, "the 8-bit matrix multiply instructions (i8mm)"},
};
#else
static const struct level levels[] = {{&kernels_scalar, always, ""}};
#endif

enum { N_LEVELS = sizeof levels / sizeof levels[0] };

int kernels_available(const char **names, int max)
{
    int n = 0;
    for (int i = 0; i < N_LEVELS && n < max; i++)
        if (levels[i].usable())
            names[n++] = levels[i].kernels->level;
    return n;
}

const struct kernels *kernels_by_name(const char *name, struct error *err)
{
    char known[256] = "";
    for (int i = 0; i < N_LEVELS; i++) {
        if (strcmp(name, levels[i].kernels->level) == 0) {
            if (levels[i].usable())
                return levels[i].kernels;
            error_set(err, "this CPU cannot run kernel level '%s': it needs %s", name, levels[i].needs);
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
        if (levels[i].usable())
            return levels[i].kernels;
    return &kernels_scalar;
}

size_t attention_scratch(int n_rows, int head_dim)
{
    /* As attention() in lanes.h shares it out: a step of 2 blocks, and for each row its weights, its output, 16 sums and a maximum. */
    const int step = 2 * KV_BLOCK, wide = head_dim > step ? head_dim : step;
    return (size_t)n_rows * (size_t)(step + head_dim + 16 + 1) + (size_t)(16 * wide);
}
