/* From the metadata of a GGUF file to a tokenizer. */
#include "tokenizer/utf8.h"
#include "tokenizer/vocabulary.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* tokenizer.ggml.token_type */
enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4 };

/* GPT-2's way of writing bytes as characters: the printable ones of Latin-1 stand for themselves,
 * the others, in order, are U+0100 and up. */
enum { ALPHABET_LIMIT = 0x100 + 68 };

struct alphabet {
    int16_t byte_of[ALPHABET_LIMIT]; /* -1: stands for no byte */
    uint16_t character_of[256];
};

static void alphabet_init(struct alphabet *a)
{
    memset(a->byte_of, 0xFF, sizeof a->byte_of);
    uint16_t next = 0x100;
    for (int b = 0; b < 256; b++) {
        bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
        a->character_of[b] = printable ? (uint16_t)b : next++;
        a->byte_of[a->character_of[b]] = (int16_t)b;
    }
}

/* Writes the bytes that a token's text stands for. A text with a character outside the alphabet stands for itself. */
static size_t alphabet_decode(const struct alphabet *a, struct gguf_string text, char *out)
{
    const unsigned char *p = (const unsigned char *)text.data, *end = p + text.length;
    size_t n = 0;
    while (p < end) {
        uint32_t code;
        p += utf8_decode(p, end, &code);
        if (code >= ALPHABET_LIMIT || a->byte_of[code] < 0) {
            memcpy(out, text.data, text.length);
            return text.length;
        }
        out[n++] = (char)a->byte_of[code];
    }
    return n;
}

/* Token texts as they stand in the file, and a hash table from the text of a normal token to its id. Only while loading. */
struct texts {
    struct gguf_string *all; /* [n_vocab] */
    struct text_slot {
        uint32_t tag;
        int32_t id; /* -1: empty */
    } *slots;
    size_t mask;
    uint64_t seed;
    bool distinct; /* no two normal tokens have the same text */
};

static uint64_t hash_text(const struct texts *texts, struct gguf_string s)
{
    uint64_t h = texts->seed ^ s.length * 0x9E3779B97F4A7C15;
    const char *p = s.data;
    size_t rest = s.length;
    for (; rest >= 8; rest -= 8, p += 8) {
        uint64_t word;
        memcpy(&word, p, 8);
        h = (h ^ word) * 0xD6E8FEB86659FD93;
        h ^= h >> 32;
    }
    uint64_t word = 0;
    memcpy(&word, p, rest);
    h = (h ^ word) * 0xD6E8FEB86659FD93;
    h ^= h >> 32;
    return h * 0xD6E8FEB86659FD93;
}

/* The slot of a text: the one that holds it, or the empty one where it belongs. */
static struct text_slot *text_slot(const struct texts *texts, struct gguf_string s)
{
    uint64_t h = hash_text(texts, s);
    uint32_t tag = (uint32_t)h;
    for (size_t i = (size_t)(h >> 32) & texts->mask;; i = (i + 1) & texts->mask) {
        struct text_slot *slot = &texts->slots[i];
        if (slot->id < 0) {
            slot->tag = tag;
            return slot;
        }
        if (slot->tag == tag) {
            struct gguf_string other = texts->all[slot->id];
            if (other.length == s.length && memcmp(other.data, s.data, s.length) == 0) {
                return slot;
            }
        }
    }
}

static void texts_free(struct texts *texts)
{
    free(texts->all);
    free(texts->slots);
}

static bool out_of_memory(struct error *err)
{
    return error_set(err, "Out of memory while loading the vocabulary");
}

static int32_t type_of(const struct gguf_array *types, int32_t id)
{
    int32_t type = TYPE_NORMAL;
    if (types->data) {
        memcpy(&type, types->data + (size_t)id * sizeof type, sizeof type);
    }
    return type;
}

static bool load_tokens(struct tokenizer *t, const struct gguf_array *tokens, const struct gguf_array *types,
    const struct alphabet *a, struct texts *texts, struct error *err)
{
    size_t n = (size_t)t->n_vocab, total = 0, cursor = 0, n_slots = 16;
    texts->all = malloc((n + 1) * sizeof *texts->all);
    while (n_slots < n * 2) {
        n_slots *= 2;
    }
    texts->slots = malloc(n_slots * sizeof *texts->slots);
    t->offsets = malloc((n + 1) * sizeof *t->offsets);
    if (!texts->all || !texts->slots || !t->offsets) {
        return out_of_memory(err);
    }
    memset(texts->slots, 0xFF, n_slots * sizeof *texts->slots);
    texts->mask = n_slots - 1;
    texts->distinct = true;
    for (size_t i = 0; i < n; i++) {
        if (!gguf_array_next_string(tokens, &cursor, &texts->all[i])) {
            return error_set(err, "tokenizer.ggml.tokens ends before its %zu tokens", n);
        }
        total += texts->all[i].length;
    }
    if (total > UINT32_MAX) {
        return error_set(err, "tokenizer.ggml.tokens is %zu bytes of text; at most 4 GiB are supported", total);
    }
    t->bytes = malloc(total + 1);
    if (!t->bytes) {
        return out_of_memory(err);
    }
    uint32_t offset = 0;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        struct gguf_string text = texts->all[id];
        t->offsets[id] = offset;
        int32_t type = type_of(types, id);
        if (type != TYPE_NORMAL) {
            memcpy(t->bytes + offset, text.data, text.length);
            offset += (uint32_t)text.length;
            t->n_specials += (type == TYPE_CONTROL || type == TYPE_USER_DEFINED) && text.length > 0;
            continue;
        }
        offset += (uint32_t)alphabet_decode(a, text, t->bytes + offset);
        struct text_slot *slot = text_slot(texts, text);
        if (slot->id < 0) {
            slot->id = id; /* of two tokens with one text the first is the one that text becomes */
        } else {
            texts->distinct = false;
        }
    }
    t->offsets[t->n_vocab] = offset;
    return true;
}

static bool load_specials(struct tokenizer *t, const struct gguf_array *types, struct error *err)
{
    t->specials = malloc((t->n_specials + 1) * sizeof *t->specials);
    if (!t->specials) {
        return out_of_memory(err);
    }
    uint32_t n = 0;
    for (int32_t id = 0; id < t->n_vocab; id++) {
        int32_t type = type_of(types, id);
        if ((type == TYPE_CONTROL || type == TYPE_USER_DEFINED) && t->offsets[id + 1] > t->offsets[id]) {
            t->specials[n++] = id;
        }
    }
    special_index(t);
    return true;
}

static void load_bytes(struct tokenizer *t, const struct alphabet *a, const struct texts *texts)
{
    for (int b = 0; b < 256; b++) {
        char text[4];
        int length = utf8_write(a->character_of[b], text);
        t->byte_ids[b] = text_slot(texts, (struct gguf_string){text, (size_t)length})->id;
    }
}

/* The id of left and right written together, or -1. */
static int32_t find_joined(const struct texts *texts, const struct gguf_string *left, const struct gguf_string *right,
    int32_t guess, int32_t n_vocab, char **joined, size_t *capacity)
{
    size_t length = left->length + right->length;
    /* Vocabularies are written in the order of their merges: the 256 bytes,
     * then what each merge makes. Looking there first spares a search. */
    if (texts->distinct && guess < n_vocab) {
        struct gguf_string g = texts->all[guess];
        if (g.length == length && memcmp(g.data, left->data, left->length) == 0 &&
            memcmp(g.data + left->length, right->data, right->length) == 0) {
            return guess;
        }
    }
    if (length > *capacity) {
        char *grown = realloc(*joined, length * 2);
        if (!grown) {
            return -2;
        }
        *joined = grown;
        *capacity = length * 2;
    }
    memcpy(*joined, left->data, left->length);
    memcpy(*joined + left->length, right->data, right->length);
    return text_slot(texts, (struct gguf_string){*joined, length})->id;
}

static bool load_merges(struct tokenizer *t, const struct gguf_array *merges, const struct texts *texts, struct error *err)
{
    if (merges->count >= UINT32_MAX) {
        return error_set(err, "tokenizer.ggml.merges has %" PRIu64 " entries; fewer than 2^32 are supported", merges->count);
    }
    if (!bpe_init(&t->bpe, (size_t)merges->count)) {
        return out_of_memory(err);
    }
    char *joined = NULL;
    size_t capacity = 0, cursor = 0;
    bool ok = true;
    struct gguf_string merge;
    for (uint32_t rank = 0; ok && rank < merges->count; rank++) {
        ok = gguf_array_next_string(merges, &cursor, &merge);
        const char *space = ok ? memchr(merge.data, ' ', merge.length) : NULL;
        if (!space || memchr(space + 1, ' ', merge.length - (size_t)(space - merge.data) - 1)) {
            ok = error_set(err, "tokenizer.ggml.merges[%" PRIu32 "] is not two tokens with one space between them", rank);
            break;
        }
        struct gguf_string left = {merge.data, (size_t)(space - merge.data)};
        struct gguf_string right = {space + 1, merge.length - left.length - 1};
        int32_t left_id = text_slot(texts, left)->id, right_id = text_slot(texts, right)->id;
        int32_t guess = rank < (uint32_t)INT32_MAX - 256 ? (int32_t)rank + 256 : INT32_MAX;
        int32_t id = find_joined(texts, &left, &right, guess, t->n_vocab, &joined, &capacity);
        if (id == -2) {
            ok = out_of_memory(err);
        } else if (left_id < 0 || right_id < 0 || id < 0) {
            ok = error_set(err, "tokenizer.ggml.merges[%" PRIu32 "] %s not a normal token of tokenizer.ggml.tokens", rank,
                left_id < 0    ? "merges a left part that is"
                : right_id < 0 ? "merges a right part that is"
                               : "makes a text that is");
        } else {
            bpe_add(&t->bpe, left_id, right_id, rank, id);
        }
    }
    free(joined);
    return ok;
}

/* An optional id of the file; *id stays as it is if the key is absent. */
static bool get_id(const struct gguf *g, const char *key, int32_t n_vocab, int32_t *id, struct error *err)
{
    uint64_t value;
    if (!gguf_has(g, key)) {
        return true;
    }
    if (!gguf_get_u64(g, key, &value, err)) {
        return false;
    }
    if (value >= (uint64_t)n_vocab) {
        return error_set(err, "%s is %" PRIu64 ", but the vocabulary has %" PRId32 " tokens", key, value, n_vocab);
    }
    *id = (int32_t)value;
    return true;
}

static void add_end(struct tokenizer *t, int32_t id)
{
    if (id >= 0) {
        t->ends[t->n_ends++] = id;
    }
}

static bool load_ends(struct tokenizer *t, const struct gguf *g, struct error *err)
{
    int32_t eot = -1;
    t->eos = -1;
    if (!get_id(g, "tokenizer.ggml.eos_token_id", t->n_vocab, &t->eos, err) ||
        !get_id(g, "tokenizer.ggml.eot_token_id", t->n_vocab, &eot, err)) {
        return false;
    }
    add_end(t, t->eos);
    add_end(t, eot);
    add_end(t, tok_special(t, "<|im_end|>"));
    add_end(t, tok_special(t, "<|endoftext|>"));
    return true;
}

static bool string_is(struct gguf_string s, const char *text)
{
    return s.length == strlen(text) && memcmp(s.data, text, s.length) == 0;
}

static bool require(const struct gguf *g, const char *key, const char *wanted, struct error *err)
{
    struct gguf_string found;
    if (!gguf_get_string(g, key, &found, err)) {
        return false;
    }
    return string_is(found, wanted) || error_set(err, "%s is not \"%s\", the only tokenizer quern has", key, wanted);
}

static bool load(struct tokenizer *t, const struct gguf *g, struct texts *texts, struct error *err)
{
    struct gguf_array tokens, merges, types = {0};
    bool add_bos = false;
    if (!require(g, "tokenizer.ggml.model", "gpt2", err) || !require(g, "tokenizer.ggml.pre", "qwen2", err) ||
        !gguf_get_array(g, "tokenizer.ggml.tokens", GGUF_KIND_STRING, &tokens, err) ||
        !gguf_get_array(g, "tokenizer.ggml.merges", GGUF_KIND_STRING, &merges, err) ||
        (gguf_has(g, "tokenizer.ggml.token_type") &&
         !gguf_get_array(g, "tokenizer.ggml.token_type", GGUF_KIND_INT32, &types, err)) ||
        (gguf_has(g, "tokenizer.ggml.add_bos_token") && !gguf_get_bool(g, "tokenizer.ggml.add_bos_token", &add_bos, err))) {
        return false;
    }
    if (add_bos) {
        return error_set(err, "tokenizer.ggml.add_bos_token is true; Qwen2 models begin with no such token");
    }
    if (tokens.count == 0 || tokens.count >= INT32_MAX) {
        return error_set(err, "tokenizer.ggml.tokens has %" PRIu64 " tokens; 1 to 2147483646 are supported", tokens.count);
    }
    if (types.data && types.count != tokens.count) {
        return error_set(
            err, "tokenizer.ggml.token_type has %" PRIu64 " entries for %" PRIu64 " tokens", types.count, tokens.count);
    }
    t->n_vocab = (int32_t)tokens.count;
    struct alphabet alphabet;
    alphabet_init(&alphabet);
    if (!load_tokens(t, &tokens, &types, &alphabet, texts, err) || !load_specials(t, &types, err) ||
        !load_merges(t, &merges, texts, err)) {
        return false;
    }
    load_bytes(t, &alphabet, texts);
    return load_ends(t, g, err);
}

struct tokenizer *tok_load(const struct gguf *g, struct error *err)
{
    struct texts texts = {0};
    struct tokenizer *t = calloc(1, sizeof *t);
    if (!t) {
        out_of_memory(err);
        return NULL;
    }
    if (getrandom(&texts.seed, sizeof texts.seed, GRND_NONBLOCK) != (ssize_t)sizeof texts.seed) {
        texts.seed = 0; /* before the system has entropy; only speed on a hostile file depends on it */
    }
    bool ok = load(t, g, &texts, err);
    texts_free(&texts);
    if (!ok) {
        tok_free(t);
        return NULL;
    }
    return t;
}

void tok_free(struct tokenizer *t)
{
    if (t) {
        bpe_free(&t->bpe);
        free(t->bytes);
        free(t->offsets);
        free(t->specials);
        free(t);
    }
}
