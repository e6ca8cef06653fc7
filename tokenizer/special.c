/* Finding control and user-defined tokens in text: at each place the longest one, as Hugging Face's added tokens are matched. */
#include "tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

static int compare(const void *a, const void *b, void *context)
{
    const struct tokenizer *t = context;
    int32_t ids[2] = {*(const int32_t *)a, *(const int32_t *)b};
    size_t n[2];
    const char *text[2] = {vocabulary_bytes(t, ids[0], &n[0]), vocabulary_bytes(t, ids[1], &n[1])};
    int c = memcmp(text[0], text[1], n[0] < n[1] ? n[0] : n[1]);
    if (c == 0) {
        c = (n[0] > n[1]) - (n[0] < n[1]);
    }
    return c != 0 ? c : (ids[0] > ids[1]) - (ids[0] < ids[1]);
}

void special_index(struct tokenizer *t)
{
    if (t->n_specials > 0) {
        qsort_r(t->specials, t->n_specials, sizeof *t->specials, compare, t);
    }
    uint32_t i = 0;
    for (unsigned b = 0; b < 256; b++) {
        t->special_start[b] = i;
        while (i < t->n_specials && (unsigned char)t->bytes[t->offsets[t->specials[i]]] == b) {
            i++;
        }
    }
    t->special_start[256] = i;
}

/* Byte `depth` of a special token, -1 behind its end: the order that compare() sorts by. */
static int byte_at(const struct tokenizer *t, uint32_t index, size_t depth)
{
    size_t length;
    const char *text = vocabulary_bytes(t, t->specials[index], &length);
    return depth < length ? (unsigned char)text[depth] : -1;
}

/* The first of specials[low..high-1], which agree in `depth` bytes, whose next byte is at least `byte`. */
static uint32_t lower_bound(const struct tokenizer *t, uint32_t low, uint32_t high, size_t depth, int byte)
{
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (byte_at(t, mid, depth) < byte) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low;
}

size_t special_match(const struct tokenizer *t, const char *p, const char *end, int32_t *id)
{
    uint32_t low = t->special_start[(unsigned char)*p], high = t->special_start[(unsigned char)*p + 1];
    size_t matched = 0;
    for (size_t depth = 1; low < high; depth++) {
        if (byte_at(t, low, depth) < 0) {
            matched = depth;
            *id = t->specials[low];
        }
        if (p + depth == end) {
            break;
        }
        int byte = (unsigned char)p[depth];
        low = lower_bound(t, low, high, depth, byte);
        high = lower_bound(t, low, high, depth, byte + 1);
    }
    return matched;
}

const char *special_find(const struct tokenizer *t, const char *p, const char *end, size_t *length, int32_t *id)
{
    for (; p < end; p++) {
        unsigned char b = (unsigned char)*p;
        if (t->special_start[b] != t->special_start[b + 1]) {
            *length = special_match(t, p, end, id);
            if (*length > 0) {
                return p;
            }
        }
    }
    return NULL;
}
