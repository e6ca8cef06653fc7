/* What the tokenizer's tests share: files of the repository, and Qwen2.5's whole vocabulary.
 * Programs run in the project's root folder. */
#ifndef QUERN_TESTS_TOK_FIXTURE_H
#define QUERN_TESTS_TOK_FIXTURE_H

#include "gguf/write.h"
#include "tokenizer/tokenizer.h"

/* A whole file, malloc'd, with a NUL behind it. Ends the program with a message if it cannot be read. */
char *fixture_read(const char *path, size_t *size);

/* The tokenizer of the official models: 151,643 tokens, 22 added tokens, padded to 151,936; made from
 * tests/data/qwen2.5-merges.bin and qwen2.5-added-tokens.tsv by way of a GGUF image. For tok_free. */
struct tokenizer *fixture_qwen(void);

/* The tokenizer of models/quern-tiny-q4_k_m.gguf. For tok_free. */
struct tokenizer *fixture_tiny(void);

/* Loads a tokenizer from what is in w, and frees w. */
struct tokenizer *fixture_load(struct gguf_writer *w, struct error *err);

/* The bytes of ids, one after another; malloc'd. */
char *fixture_decode(const struct tokenizer *t, const struct tok_ids *ids, size_t *length);

/* xorshift64*: the same numbers on every machine. */
struct random {
    uint64_t state;
};
uint32_t random_below(struct random *r, uint32_t limit);

#endif
