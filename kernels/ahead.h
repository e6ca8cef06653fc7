/* Asking memory for weights before they are needed. A kernel that works on one token waits for memory and nothing else, and reads
 * every byte of its panels once, in order; the hardware's own prefetchers stop at the end of every 4 KiB page. */
#ifndef QUERN_AHEAD_H
#define QUERN_AHEAD_H

#include "kernels/panel.h"

/* Bytes between what is asked for and what is in use. Into the second-level cache, where the hardware fetches it from in time,
 * and far ahead: measured on x86 against 8 KiB into the first level, this leaves more requests under way while the kernel
 * computes. */
#ifndef AHEAD
#define AHEAD 12288
#endif

/* Bytes of a panel that belong to a group of 32 columns: quants and its part of the scales. */
static inline size_t panel_group_bytes(enum gguf_type type)
{
    switch (type) {
    case GGUF_TYPE_Q4_K: return sizeof(struct panel_q4_k) / GROUPS_PER_K;
    case GGUF_TYPE_Q5_K: return sizeof(struct panel_q5_k) / GROUPS_PER_K;
    case GGUF_TYPE_Q6_K: return sizeof(struct group_q6) + 36;
    case GGUF_TYPE_Q4_0: return sizeof(struct group_q4_0) + 32;
    case GGUF_TYPE_Q5_0: return sizeof(struct group_q5_0) + 32;
    default: return sizeof(struct group_q8_0) + 32;
    }
}

/* Asks for bytes [from, from + bytes), unless they reach beyond end: what follows belongs to another thread. */
static inline __attribute__((always_inline)) void ask_for(const char *from, size_t bytes, const char *end)
{
    if (from + bytes <= end)
        for (size_t i = 0; i < bytes; i += LINE)
            __builtin_prefetch(from + i, 0, 2);
}

/* The same for a loop that only reads: all the first-level cache has room for. */
static inline __attribute__((always_inline)) void ask_for_line(const char *at, const char *end)
{
    if (at + 8192 < end)
        __builtin_prefetch(at + 8192, 0, 3);
}

#endif
