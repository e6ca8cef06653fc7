/* Text <-> token ids: byte-level BPE with Qwen2's pre-tokenisation, NFC first, from the vocabulary in a GGUF file.
 * Sources: Qwen2.5's tokenizer.json (normaliser NFC, the split pattern, byte-level BPE); Unicode Standard Annex #15 (NFC).
 *
 * Ownership: a tokenizer copies what it needs from the file; the file may be closed afterwards.
 * Threads: read-only after tok_load; any number of threads may use one at the same time. */
#ifndef QUERN_TOKENIZER_H
#define QUERN_TOKENIZER_H

#include "gguf/error.h"
#include "gguf/gguf.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

/* NULL with a sentence that names the key if the file has no vocabulary quern understands: tokenizer.ggml.model "gpt2",
 * tokenizer.ggml.pre "qwen2", no add_bos_token, every merge of two normal tokens (token_type 1, or no token_type at all)
 * and into one. Of two normal tokens with the same text the first is the one that text becomes; a byte without a token
 * is no error until it is met. The whole vocabulary of Qwen2.5 takes 6 MB and less than 0.1 s. */
struct tokenizer *tok_load(const struct gguf *g, struct error *err);
void tok_free(struct tokenizer *t); /* NULL is allowed */

int tok_n_vocab(const struct tokenizer *t);
int32_t tok_eos(const struct tokenizer *t); /* tokenizer.ggml.eos_token_id; -1 if none */
/* True for the ids that end a turn: eos, <|im_end|>, <|endoftext|>, and the file's eot id where given. */
bool tok_is_end(const struct tokenizer *t, int32_t id);
/* The id of a control or user-defined token by its exact text, or -1. */
int32_t tok_special(const struct tokenizer *t, const char *text);

/* A growing list of ids; {0} is an empty one. */
struct tok_ids {
    int32_t *data;
    size_t count, capacity;
};
void tok_ids_free(struct tok_ids *ids);
bool tok_ids_push(struct tok_ids *ids, int32_t id); /* false: out of memory */

/* Appends the ids of text[length] to out. With parse_special, control and user-defined tokens written in the text become those
 * tokens; without, everything is plain text and only normal tokens come out. Bytes that are not UTF-8 are kept: they become byte
 * tokens, NFC leaves them alone, and for the split pattern each maximal ill-formed part is one character that is no letter,
 * number or white space. NFC is applied to each stretch between special tokens by itself.
 * Time: O(n log n) for any input; memory: a few bytes for each byte of text, up to about 120 for one endless word of
 * characters that NFC spells out; returned at the end. False: out of memory, a byte the vocabulary has no token for,
 * or a text beyond 512 MiB; nothing is then added to out. */
bool tok_encode(
    const struct tokenizer *t, const char *text, size_t length, bool parse_special, struct tok_ids *out, struct error *err);

/* The bytes a token stands for (control tokens: their text). Not NUL-terminated; lives as long as the tokenizer.
 * Ids outside 0..n_vocab-1 give an empty string. */
struct gguf_string tok_bytes(const struct tokenizer *t, int32_t id);

/* Streaming detokenisation. Holds back the bytes of a character that is not complete yet; bytes that can never become a character
 * are replaced by U+FFFD, one for each maximal subpart (Unicode 15, section 3.9). {0} is the initial state. */
struct tok_stream {
    unsigned char pending[4];
    int n_pending;
};
/* Feeds bytes[length]; writes whole characters to out, which has room for 3 * (length + 3) bytes; returns the bytes written. */
size_t tok_stream_feed(struct tok_stream *s, const char *bytes, size_t length, char *out);
/* The end: an incomplete character becomes one U+FFFD. out has room for 3 bytes. */
size_t tok_stream_end(struct tok_stream *s, char *out);

#endif
