#include "engine/kv.h"
#include "engine/prefix.h"
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
    int n_unused;          /* blocks that hold nothing */
    int32_t *unused;       /* [n_unused]: a stack. Starts with block 0 on top, so that few sequences
                            * keep to the beginning of the memory */
    int32_t *holders;      /* [n_blocks] sequences that have the block */
    int n_idle;            /* blocks without holders: unused ones, and those that only the cache keeps */
    int n_promised;        /* blocks that sequences have reserved and not taken yet; never more than n_idle */
    struct prefix_tree *prefixes;
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
    int32_t *unused = malloc((size_t)n_blocks * sizeof *unused);
    int32_t *holders = calloc((size_t)n_blocks, sizeof *holders);
    struct prefix_tree *prefixes = prefix_new(n_blocks);
    void *data = MAP_FAILED;
    if (!p || !unused || !holders || !prefixes) {
        error_set(err, "out of memory for the list of a KV cache of %d positions", n_positions);
        goto fail;
    }
    data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) {
        error_set(err, "cannot reserve %zu MiB for a KV cache of %d positions: %s; use a smaller context", bytes >> 20,
            n_positions, strerror(errno));
        goto fail;
    }
#ifdef MADV_HUGEPAGE
    /* Attention walks all of it in every layer: fewer, larger pages. Only a wish. */
    madvise(data, bytes, MADV_HUGEPAGE);
#endif
    for (int i = 0; i < n_blocks; i++)
        unused[i] = n_blocks - 1 - i;
    *p = (struct kv_pool){.data = data, .bytes = bytes, .head_stride = head, .layer_stride = layer, .block_stride = block,
                          .n_blocks = n_blocks, .n_unused = n_blocks, .unused = unused, .holders = holders, .n_idle = n_blocks,
                          .prefixes = prefixes};
    return p;
fail:
    prefix_free(prefixes);
    free(holders);
    free(unused);
    free(p);
    return NULL;
}

void kv_pool_free(struct kv_pool *p)
{
    if (!p)
        return;
    munmap(p->data, p->bytes);
    prefix_free(p->prefixes);
    free(p->holders);
    free(p->unused);
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
    return p->n_idle - p->n_promised;
}

struct kv_filled kv_pool_filled(const struct kv_pool *p)
{
    struct kv_filled filled = {0};
    for (int32_t b = 0; b < p->n_blocks; b++)
        *(p->holders[b] > 0 ? &filled.held : &filled.idle) += prefix_n_tokens(p->prefixes, b);
    return filled;
}

/* ---- blocks and who has them ---- */

static void hold(struct kv_pool *p, int32_t block)
{
    if (p->holders[block]++ == 0)
        p->n_idle--;
}

/* The cache does not keep a block any more that nobody has. */
static void forget(struct kv_pool *p, int32_t block)
{
    prefix_drop(p->prefixes, block);
    p->unused[p->n_unused++] = block;
}

static void let_go(struct kv_pool *p, int32_t block)
{
    if (--p->holders[block] > 0)
        return;
    p->n_idle++;
    if (prefix_n_tokens(p->prefixes, block) == 0)
        p->unused[p->n_unused++] = block;
    else if (prefix_is_covered(p->prefixes, block))
        forget(p, block);
}

/* A block to write into, for one that is promised: there is an idle one then. A block that somebody has is never below one that
 * nobody has, so among those that only the cache keeps, one is without children. */
static int32_t take(struct kv_pool *p)
{
    if (p->n_unused == 0)
        forget(p, prefix_oldest(p->prefixes, p->holders));
    int32_t block = p->unused[--p->n_unused];
    hold(p, block);
    return block;
}

/* ---- sequences ---- */

static int blocks_of(int n_positions)
{
    return n_positions / KV_BLOCK + (n_positions % KV_BLOCK != 0);
}

void kv_sequence_init(struct kv_sequence *s, struct kv_pool *p)
{
    *s = (struct kv_sequence){.pool = p};
}

static bool make_list(struct kv_sequence *s, int wanted)
{
    if (wanted <= s->capacity)
        return true;
    /* Doubling, so that a sequence that grows by the token stays linear; never more than the pool has. */
    int most = s->pool->n_blocks, capacity = s->capacity > most / 2 ? most : 2 * s->capacity;
    if (capacity < wanted)
        capacity = wanted;
    int32_t *blocks = realloc(s->blocks, (size_t)capacity * sizeof *blocks);
    if (!blocks)
        return false;
    s->blocks = blocks;
    s->capacity = capacity;
    return true;
}

/* What has been reserved and not taken. */
static int owed(const struct kv_sequence *s)
{
    return s->n_reserved > s->n_blocks ? s->n_reserved - s->n_blocks : 0;
}

bool kv_reserve(struct kv_sequence *s, int n_positions)
{
    struct kv_pool *p = s->pool;
    int wanted = n_positions > 0 ? blocks_of(n_positions) : 0;
    if (wanted <= s->n_reserved)
        return true;
    int more = wanted - s->n_blocks - owed(s);
    if (more < 0)
        more = 0;
    if (more > kv_pool_free_blocks(p) || !make_list(s, wanted))
        return false;
    p->n_promised += more;
    s->n_reserved = wanted;
    return true;
}

/* One more block at the end of the list, which has room for it. */
static void append(struct kv_sequence *s, int32_t block)
{
    if (owed(s) > 0)
        s->pool->n_promised--;
    s->blocks[s->n_blocks++] = block;
}

bool kv_grow(struct kv_sequence *s, int n_positions)
{
    if (!kv_reserve(s, n_positions))
        return false;
    while (s->n_blocks < blocks_of(n_positions))
        append(s, take(s->pool));
    return true;
}

void kv_sequence_clear(struct kv_sequence *s)
{
    struct kv_pool *p = s->pool;
    p->n_promised -= owed(s);
    for (int i = 0; i < s->n_blocks; i++)
        if (prefix_n_tokens(p->prefixes, s->blocks[i]) > 0)
            prefix_touch(p->prefixes, s->blocks[i]);
    while (s->n_blocks > 0) /* last first: the next sequence gets them in the same order again */
        let_go(p, s->blocks[--s->n_blocks]);
    free(s->blocks);
    kv_sequence_init(s, p);
}

/* ---- the prefix cache ---- */

/* The block before block number i of the list, as the tree has it for a parent. */
static int32_t parent_of(const struct kv_sequence *s, int i)
{
    return i > 0 ? s->blocks[i - 1] : PREFIX_NONE;
}

/* Puts a block that is in the cache in the place of block number i, or at the end of the list. */
static void share(struct kv_sequence *s, int i, int32_t block)
{
    struct kv_pool *p = s->pool;
    hold(p, block);
    prefix_touch(p->prefixes, block);
    if (i == s->n_blocks) {
        append(s, block);
        return;
    }
    let_go(p, s->blocks[i]); /* the beginning, or all, of the one that comes: not kept */
    s->blocks[i] = block;
}

static void copy_block(const struct kv_pool *p, int32_t to, int32_t from)
{
    memcpy(kv_keys(p, 0, 0, to), kv_keys(p, 0, 0, from), p->block_stride * sizeof(uint16_t));
}

/* Whole blocks of the first n tokens from block number i on. Returns the number of the block at which there are no more. */
static int share_blocks(struct kv_sequence *s, const int32_t *tokens, int n, int i)
{
    for (int n_common; (i + 1) * KV_BLOCK <= n && make_list(s, i + 1); i++) {
        const int32_t *wanted = tokens + i * KV_BLOCK;
        int32_t found = prefix_find(s->pool->prefixes, parent_of(s, i), wanted, KV_BLOCK, PREFIX_NONE, &n_common);
        if (n_common < KV_BLOCK)
            break;
        share(s, i, found);
        s->n_published = (i + 1) * KV_BLOCK;
    }
    return i;
}

int kv_match(struct kv_sequence *s, const int32_t *tokens, int n, int n_filled)
{
    struct kv_pool *p = s->pool;
    int i = share_blocks(s, tokens, n, n_filled / KV_BLOCK), first = i * KV_BLOCK, n_common;
    if (n_filled < first)
        n_filled = first;
    int left = n - first < KV_BLOCK ? n - first : KV_BLOCK;
    if (left <= 0 || i >= s->n_reserved)
        return n_filled;
    int32_t found = prefix_find(p->prefixes, parent_of(s, i), tokens + first, left, PREFIX_NONE, &n_common);
    if (found == PREFIX_NONE || first + n_common <= n_filled)
        return n_filled;
    if (i == s->n_blocks)
        append(s, take(p)); /* which can be the very one that was found: it still holds what it held */
    if (s->blocks[i] != found)
        copy_block(p, s->blocks[i], found);
    kv_publish(s, tokens, first + n_common);
    return first + n_common;
}

void kv_publish(struct kv_sequence *s, const int32_t *tokens, int n)
{
    struct kv_pool *p = s->pool;
    while (s->n_published < n) {
        int i = s->n_published / KV_BLOCK, first = i * KV_BLOCK, n_common = 0;
        int count = n - first < KV_BLOCK ? n - first : KV_BLOCK;
        int32_t own = s->blocks[i], other = PREFIX_NONE, part;
        if (count == KV_BLOCK)
            other = prefix_find(p->prefixes, parent_of(s, i), tokens + first, count, own, &n_common);
        if (count == KV_BLOCK && n_common == KV_BLOCK) {
            share(s, i, other);
        } else {
            prefix_set(p->prefixes, own, parent_of(s, i), tokens + first, count);
            while ((part = prefix_find_within(p->prefixes, own, p->holders)) != PREFIX_NONE)
                forget(p, part);
        }
        s->n_published = first + count;
    }
}

int kv_follows(const struct kv_sequence *s, const int32_t *tokens, int n, int n_filled, const struct kv_sequence *other,
    const int32_t *other_tokens, int n_other)
{
    int i = n_filled / KV_BLOCK, at = i * KV_BLOCK, end = at + KV_BLOCK;
    if (other->n_published < at || parent_of(s, i) != parent_of(other, i))
        return 0;
    while (at < end && at < n && at < n_other && tokens[at] == other_tokens[at])
        at++;
    return at > n_filled ? at - n_filled : 0;
}

/* ---- where things lie ---- */

uint16_t *kv_keys(const struct kv_pool *p, int layer, int kv_head, int32_t block)
{
    return p->data + (size_t)block * p->block_stride + (size_t)layer * p->layer_stride + (size_t)kv_head * p->head_stride;
}

uint16_t *kv_values(const struct kv_pool *p, int layer, int kv_head, int32_t block)
{
    return kv_keys(p, layer, kv_head, block) + p->head_stride / 2;
}
