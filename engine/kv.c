#include "engine/kv.h"
#include "kernels/kernels.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

struct kv_pool {
    uint16_t *data; /* [n_blocks][n_layers][n_kv_heads][2][KV_BLOCK * head_dim], f16 */
    size_t bytes;
    size_t head_stride;  /* elements from the keys of one head to those of the next: 2 * KV_BLOCK * head_dim */
    size_t layer_stride; /* elements of one layer in a block */
    size_t block_stride; /* elements of one block */
    int n_blocks;
    int n_free;
    int32_t *free_blocks; /* [n_free]: a stack. Starts with block 0 on top, so that few sequences
                           * keep to the beginning of the memory */
};

struct kv_pool *kv_pool_new(int n_layers, int n_kv_heads, int head_dim, int n_positions, struct error *err)
{
    if (n_layers < 1 || n_kv_heads < 1 || head_dim < 16 || head_dim % 16 || n_positions < 1) {
        error_set(err, "a KV cache of %d layers, %d heads of %d numbers and %d positions makes no sense", n_layers, n_kv_heads,
            head_dim, n_positions);
        return NULL;
    }
    int n_blocks = n_positions / KV_BLOCK + (n_positions % KV_BLOCK != 0);
    size_t head = 2 * (size_t)KV_BLOCK * (size_t)head_dim;
    size_t layer, block, elements, bytes;
    if (__builtin_mul_overflow(head, (size_t)n_kv_heads, &layer) || __builtin_mul_overflow(layer, (size_t)n_layers, &block) ||
        __builtin_mul_overflow(block, (size_t)n_blocks, &elements) ||
        __builtin_mul_overflow(elements, sizeof(uint16_t), &bytes) || bytes > PTRDIFF_MAX) {
        error_set(err, "a KV cache of %d positions is larger than the address space", n_positions);
        return NULL;
    }
    struct kv_pool *p = calloc(1, sizeof *p);
    int32_t *free_blocks = p ? malloc((size_t)n_blocks * sizeof *free_blocks) : NULL;
    if (!free_blocks) {
        free(p);
        error_set(err, "out of memory for the list of a KV cache of %d positions", n_positions);
        return NULL;
    }
    void *data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
        error_set(err, "cannot reserve %zu MiB for a KV cache of %d positions: %s; use a smaller context", bytes >> 20,
            n_positions, strerror(errno));
        free(free_blocks);
        free(p);
        return NULL;
    }
#ifdef MADV_HUGEPAGE
    /* Attention walks all of it in every layer: fewer, larger pages. Only a wish. */
    madvise(data, bytes, MADV_HUGEPAGE);
#endif
    for (int i = 0; i < n_blocks; i++)
        free_blocks[i] = n_blocks - 1 - i;
    *p = (struct kv_pool){.data = data, .bytes = bytes, .head_stride = head, .layer_stride = layer, .block_stride = block,
                          .n_blocks = n_blocks, .n_free = n_blocks, .free_blocks = free_blocks};
    return p;
}

void kv_pool_free(struct kv_pool *p)
{
    if (!p)
        return;
    munmap(p->data, p->bytes);
    free(p->free_blocks);
    free(p);
}

size_t kv_pool_bytes(const struct kv_pool *p)
{
    return p->bytes;
}

size_t kv_position_bytes(const struct kv_pool *p)
{
    return p->block_stride * sizeof(uint16_t) / KV_BLOCK;
}

int kv_pool_blocks(const struct kv_pool *p)
{
    return p->n_blocks;
}

int kv_pool_free_blocks(const struct kv_pool *p)
{
    return p->n_free;
}

void kv_sequence_init(struct kv_sequence *s, struct kv_pool *p)
{
    *s = (struct kv_sequence){.pool = p};
}

bool kv_reserve(struct kv_sequence *s, int n_positions)
{
    if (n_positions <= 0)
        return true;
    struct kv_pool *p = s->pool;
    int wanted = n_positions / KV_BLOCK + (n_positions % KV_BLOCK != 0);
    if (wanted <= s->n_blocks)
        return true;
    if (wanted - s->n_blocks > p->n_free)
        return false;
    if (wanted > s->capacity) {
        /* Doubling, so that a sequence that grows by the token stays linear; never more than the pool has. */
        int capacity = s->capacity > p->n_blocks / 2 ? p->n_blocks : 2 * s->capacity;
        if (capacity < wanted)
            capacity = wanted;
        int32_t *blocks = realloc(s->blocks, (size_t)capacity * sizeof *blocks);
        if (!blocks)
            return false;
        s->blocks = blocks;
        s->capacity = capacity;
    }
    while (s->n_blocks < wanted)
        s->blocks[s->n_blocks++] = p->free_blocks[--p->n_free];
    return true;
}

void kv_sequence_clear(struct kv_sequence *s)
{
    struct kv_pool *p = s->pool;
    while (s->n_blocks > 0) /* last first: the next sequence gets them in the same order again */
        p->free_blocks[p->n_free++] = s->blocks[--s->n_blocks];
    free(s->blocks);
    kv_sequence_init(s, p);
}

uint16_t *kv_keys(const struct kv_pool *p, int layer, int kv_head, int32_t block)
{
    return p->data + (size_t)block * p->block_stride + (size_t)layer * p->layer_stride + (size_t)kv_head * p->head_stride;
}

uint16_t *kv_values(const struct kv_pool *p, int layer, int kv_head, int32_t block)
{
    return kv_keys(p, layer, kv_head, block) + p->head_stride / 2;
}
