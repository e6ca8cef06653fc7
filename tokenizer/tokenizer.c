#include "tokenizer/tokenizer.h"

#include "tokenizer/pretokenize.h"
#include "tokenizer/unicode.h"
#include "tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

int tok_n_vocab(const struct tokenizer *t)
{
    return t->n_vocab;
}

int32_t tok_eos(const struct tokenizer *t)
{
    return t->eos;
}

bool tok_is_end(const struct tokenizer *t, int32_t id)
{
    for (int i = 0; i < t->n_ends; i++) {
        if (t->ends[i] == id) {
            return true;
        }
    }
    return false;
}

int32_t tok_special(const struct tokenizer *t, const char *text)
{
    int32_t id;
    size_t length = strlen(text);
    return length > 0 && special_match(t, text, text + length, &id) == length ? id : -1;
}

struct gguf_string tok_bytes(const struct tokenizer *t, int32_t id)
{
    struct gguf_string s = {"", 0};
    if (id >= 0 && id < t->n_vocab) {
        s.data = vocabulary_bytes(t, id, &s.length);
    }
    return s;
}

void tok_ids_free(struct tok_ids *ids)
{
    free(ids->data);
    *ids = (struct tok_ids){0};
}

static bool reserve(struct tok_ids *ids, size_t more)
{
    if (more <= ids->capacity - ids->count) {
        return true;
    }
    size_t capacity = ids->capacity * 2 > ids->count + more ? ids->capacity * 2 : ids->count + more + 32;
    int32_t *data = capacity <= SIZE_MAX / sizeof *data ? realloc(ids->data, capacity * sizeof *data) : NULL;
    if (!data) {
        return false;
    }
    ids->data = data;
    ids->capacity = capacity;
    return true;
}

bool tok_ids_push(struct tok_ids *ids, int32_t id)
{
    if (!reserve(ids, 1)) {
        return false;
    }
    ids->data[ids->count++] = id;
    return true;
}

static bool out_of_memory(struct error *err)
{
    return error_set(err, "Out of memory while tokenising");
}

/* Merges within one piece: the ids of its bytes are written to the end of out and merged there. */
static bool encode_piece(
    const struct tokenizer *t, const unsigned char *piece, size_t length, struct tok_ids *out, struct error *err)
{
    if (!reserve(out, length)) {
        return out_of_memory(err);
    }
    int32_t *ids = out->data + out->count;
    for (size_t i = 0; i < length; i++) {
        ids[i] = t->byte_ids[piece[i]];
        if (ids[i] < 0) {
            return error_set(err, "The vocabulary has no token for the byte 0x%02X", piece[i]);
        }
    }
    if (!bpe_merge(&t->bpe, ids, &length)) {
        return out_of_memory(err);
    }
    out->count += length;
    return true;
}

static bool encode_text(const struct tokenizer *t, const char *text, size_t length, struct tok_ids *out, struct error *err)
{
    struct unicode_text nfc;
    if (!unicode_nfc(text, length, &nfc)) {
        return out_of_memory(err);
    }
    const unsigned char *p = (const unsigned char *)nfc.data, *end = p + nfc.length;
    bool ok = true;
    while (ok && p < end) {
        const unsigned char *next = pretokenize_next(p, end);
        ok = encode_piece(t, p, (size_t)(next - p), out, err);
        p = next;
    }
    free(nfc.owned);
    return ok;
}

static bool encode(
    const struct tokenizer *t, const char *text, size_t length, bool parse_special, struct tok_ids *out, struct error *err)
{
    const char *p = text, *end = text + length;
    while (p < end) {
        size_t special_length = 0;
        int32_t id = -1;
        const char *special = parse_special ? special_find(t, p, end, &special_length, &id) : NULL;
        const char *stop = special ? special : end;
        /* Each stretch between special tokens is brought to NFC by itself: a combining mark behind one does not reach over it. */
        if (stop > p && !encode_text(t, p, (size_t)(stop - p), out, err)) {
            return false;
        }
        if (special && !tok_ids_push(out, id)) {
            return out_of_memory(err);
        }
        p = stop + special_length;
    }
    return true;
}

bool tok_encode(
    const struct tokenizer *t, const char *text, size_t length, bool parse_special, struct tok_ids *out, struct error *err)
{
    enum { LIMIT = 1 << 29 }; /* NFC makes at most three bytes of one, and positions in a piece are 31 bits */
    if (length > LIMIT) {
        return error_set(err, "A text of %zu bytes is too long to tokenise; at most %d are supported", length, LIMIT);
    }
    size_t count = out->count;
    if (length > 0 && !encode(t, text, length, parse_special, out, err)) {
        out->count = count;
        return false;
    }
    return true;
}
