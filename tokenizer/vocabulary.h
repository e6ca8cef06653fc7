/* What a tokenizer holds. Private to tokenizer/: load.c fills it, tokenizer.c and special.c read it. */
#ifndef QUERN_VOCABULARY_H
#define QUERN_VOCABULARY_H

#include "tokenizer/bpe.h"
#include "tokenizer/tokenizer.h"

struct tokenizer {
    int32_t n_vocab;
    int32_t eos; /* -1: none */
    int32_t ends[4];
    int n_ends;
    char *bytes;       /* what the tokens stand for, one after another */
    uint32_t *offsets; /* [n_vocab + 1] into bytes */
    int32_t byte_ids[256]; /* the token of each single byte; -1: the vocabulary has none */
    struct bpe bpe;
    int32_t *specials; /* [n_specials] control and user-defined tokens, ordered by their text, then by id */
    uint32_t n_specials;
    uint32_t special_start[257]; /* those that begin with byte b are specials[special_start[b]..special_start[b + 1] - 1] */
};

static inline const char *vocabulary_bytes(const struct tokenizer *t, int32_t id, size_t *length)
{
    *length = t->offsets[id + 1] - t->offsets[id];
    return t->bytes + t->offsets[id];
}

/* Orders t->specials and fills special_start. */
void special_index(struct tokenizer *t);

/* The longest special token that begins at p < end: its length in bytes and *id, or 0. */
size_t special_match(const struct tokenizer *t, const char *p, const char *end, int32_t *id);

/* The next special token at or behind p: its place, *length and *id; NULL if there is none up to end. */
const char *special_find(const struct tokenizer *t, const char *p, const char *end, size_t *length, int32_t *id);

#endif
