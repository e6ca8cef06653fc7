/* Tensor element types of GGUF, with the numbers that stand in files.
 * Source: the GGUF specification (ggml repository, docs/gguf.md, "ggml_type"). */
#ifndef QUERN_GGUF_TYPES_H
#define QUERN_GGUF_TYPES_H

#include <stddef.h>
#include <stdint.h>

enum gguf_type {
    GGUF_TYPE_F32 = 0,
    GGUF_TYPE_F16 = 1,
    GGUF_TYPE_Q4_0 = 2,
    GGUF_TYPE_Q5_0 = 6,
    GGUF_TYPE_Q8_0 = 8,
    GGUF_TYPE_Q4_K = 12,
    GGUF_TYPE_Q5_K = 13,
    GGUF_TYPE_Q6_K = 14,
    GGUF_TYPE_BF16 = 30,
    GGUF_TYPE_LIMIT = 64 /* one past every number any table here is indexed by */
};

struct gguf_type_traits {
    const char *name;     /* as users write it: "Q4_K"; NULL for a number this program does not know */
    uint32_t block_size;  /* elements in a block */
    uint32_t block_bytes; /* bytes of a block */
};

/* Traits of a type number; never NULL: unknown numbers (any uint32) give {NULL, 0, 0}.
 * Every type of the specification is known by name and size, also those quern has no kernels for. */
const struct gguf_type_traits *gguf_type_traits(uint32_t type);

#endif
