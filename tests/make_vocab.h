/* Vocabularies for made models: taken from a GGUF file, or from a tokenizer.json as published beside models. */
#ifndef QUERN_TESTS_MAKE_VOCAB_H
#define QUERN_TESTS_MAKE_VOCAB_H

#include "gguf/write.h"

struct vocab_special {
    const char *key; /* of the metadata */
    bool present;
    uint32_t id;
};

enum { VOCAB_EOS, VOCAB_PADDING, VOCAB_BOS, VOCAB_SPECIALS };

struct vocab {
    struct gguf_string model, pre; /* "gpt2", "qwen2" */
    struct gguf_string *tokens;    /* [n_tokens] */
    int32_t *types;                /* [n_tokens] 1 normal, 3 control, 4 user defined, 5 unused */
    uint32_t n_tokens;
    struct gguf_string *merges; /* [n_merges] "left right" */
    uint32_t n_merges;
    struct vocab_special specials[VOCAB_SPECIALS];
    bool has_add_bos, add_bos;
    struct gguf_string chat_template; /* data is NULL if there is none */

    /* what the strings above point into */
    struct gguf *file;
    struct json *tokenizer, *config;
    char *padding, *joined;
};

bool vocab_from_gguf(struct vocab *v, const char *path, struct error *err);
/* `folder` holds tokenizer.json and tokenizer_config.json. */
bool vocab_from_json(struct vocab *v, const char *folder, struct error *err);

/* Makes n_tokens of them: ids that have no token yet, those behind the last one above all, become unused tokens "[PADn]",
 * n being the id; existing ids stay. An error if there are more tokens already. Called once, before vocab_write. */
bool vocab_pad(struct vocab *v, uint32_t n_tokens, struct error *err);

void vocab_write(const struct vocab *v, struct gguf_writer *w);
void vocab_free(struct vocab *v);

#endif
