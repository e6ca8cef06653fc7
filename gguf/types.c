/* The table of element types. Block sizes follow from the block layouts in the GGUF specification and ggml's ggml-common.h:
 * a block is its scales (and minima) plus its packed values, with no padding. */
#include "gguf/types.h"

static const struct gguf_type_traits unknown;

static const struct gguf_type_traits table[GGUF_TYPE_LIMIT] = {
    [GGUF_TYPE_F32] = {"F32", 1, 4},
    [GGUF_TYPE_F16] = {"F16", 1, 2},
    [GGUF_TYPE_Q4_0] = {"Q4_0", 32, 18},
    [3] = {"Q4_1", 32, 20},
    /* 4 and 5 (Q4_2, Q4_3) were withdrawn before GGUF existed */
    [GGUF_TYPE_Q5_0] = {"Q5_0", 32, 22},
    [7] = {"Q5_1", 32, 24},
    [GGUF_TYPE_Q8_0] = {"Q8_0", 32, 34},
    [9] = {"Q8_1", 32, 36},
    [10] = {"Q2_K", 256, 84},
    [11] = {"Q3_K", 256, 110},
    [GGUF_TYPE_Q4_K] = {"Q4_K", 256, 144},
    [GGUF_TYPE_Q5_K] = {"Q5_K", 256, 176},
    [GGUF_TYPE_Q6_K] = {"Q6_K", 256, 210},
    [15] = {"Q8_K", 256, 292},
    [16] = {"IQ2_XXS", 256, 66},
    [17] = {"IQ2_XS", 256, 74},
    [18] = {"IQ3_XXS", 256, 98},
    [19] = {"IQ1_S", 256, 50},
    [20] = {"IQ4_NL", 32, 18},
    [21] = {"IQ3_S", 256, 110},
    [22] = {"IQ2_S", 256, 82},
    [23] = {"IQ4_XS", 256, 136},
    [24] = {"I8", 1, 1},
    [25] = {"I16", 1, 2},
    [26] = {"I32", 1, 4},
    [27] = {"I64", 1, 8},
    [28] = {"F64", 1, 8},
    [29] = {"IQ1_M", 256, 56},
    [GGUF_TYPE_BF16] = {"BF16", 1, 2},
    /* 31 to 33 and 36 to 38 (interleaved Q4_0 and IQ4_NL) were withdrawn */
    [34] = {"TQ1_0", 256, 54},
    [35] = {"TQ2_0", 256, 66},
    [39] = {"MXFP4", 32, 17},
};

const struct gguf_type_traits *gguf_type_traits(uint32_t type)
{
    return type < GGUF_TYPE_LIMIT ? &table[type] : &unknown;
}
