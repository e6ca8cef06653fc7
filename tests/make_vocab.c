#include "tests/make_vocab.h"

#include "server/json/json.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TYPE_NORMAL = 1, TYPE_CONTROL = 3, TYPE_USER_DEFINED = 4, TYPE_UNUSED = 5 };

enum { MAX_TOKENS = 1 << 22 };

static void vocab_init(struct vocab *v)
{
    *v = (struct vocab){.specials = {{.key = "tokenizer.ggml.eos_token_id"},
                                     {.key = "tokenizer.ggml.padding_token_id"},
                                     {.key = "tokenizer.ggml.bos_token_id"}}};
}

static bool out_of_memory(struct error *err)
{
    return error_set(err, "out of memory for the vocabulary");
}

/* ---- from a GGUF file ---- */

static struct gguf_string *collect(const struct gguf_array *array)
{
    struct gguf_string *strings = calloc((size_t)array->count + 1, sizeof *strings);
    size_t cursor = 0;

    for (size_t i = 0; strings && gguf_array_next_string(array, &cursor, &strings[i]); i++)
        continue;
    return strings;
}

bool vocab_from_gguf(struct vocab *v, const char *path, struct error *err)
{
    struct gguf_array tokens, types, merges;

    vocab_init(v);
    v->file = gguf_open(path, NULL, err);
    if (!v->file || !gguf_get_string(v->file, "tokenizer.ggml.model", &v->model, err) ||
        !gguf_get_string(v->file, "tokenizer.ggml.pre", &v->pre, err) ||
        !gguf_get_array(v->file, "tokenizer.ggml.tokens", GGUF_KIND_STRING, &tokens, err) ||
        !gguf_get_array(v->file, "tokenizer.ggml.token_type", GGUF_KIND_INT32, &types, err) ||
        !gguf_get_array(v->file, "tokenizer.ggml.merges", GGUF_KIND_STRING, &merges, err))
        return false;
    if (tokens.count != types.count || tokens.count > MAX_TOKENS || merges.count > MAX_TOKENS)
        return error_set(err, "%s: %" PRIu64 " tokens, %" PRIu64 " token types and %" PRIu64 " merges do not make a vocabulary",
            path, tokens.count, types.count, merges.count);
    v->n_tokens = (uint32_t)tokens.count;
    v->n_merges = (uint32_t)merges.count;
    v->tokens = collect(&tokens);
    v->merges = collect(&merges);
    v->types = calloc((size_t)types.count + 1, sizeof *v->types);
    if (!v->tokens || !v->merges || !v->types)
        return out_of_memory(err);
    memcpy(v->types, types.data, types.n_bytes);
    for (int i = 0; i < VOCAB_SPECIALS; i++) {
        uint64_t id;
        struct vocab_special *s = &v->specials[i];
        if (!gguf_has(v->file, s->key))
            continue;
        if (!gguf_get_u64(v->file, s->key, &id, err))
            return false;
        s->present = true;
        s->id = (uint32_t)id;
    }
    if (gguf_has(v->file, "tokenizer.ggml.add_bos_token")) {
        v->has_add_bos = true;
        if (!gguf_get_bool(v->file, "tokenizer.ggml.add_bos_token", &v->add_bos, err))
            return false;
    }
    return !gguf_has(v->file, "tokenizer.chat_template") ||
           gguf_get_string(v->file, "tokenizer.chat_template", &v->chat_template, err);
}

/* ---- from tokenizer.json and tokenizer_config.json ---- */

static struct json *load_json(const char *folder, const char *name, struct error *err)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "rb");
    if (!f) {
        error_set(err, "%s: cannot open: %s", path, strerror(errno));
        return NULL;
    }
    char *text = NULL;
    size_t length = 0, capacity = 0;
    for (size_t n = 1; n > 0; length += n) {
        if (length == capacity) {
            capacity = capacity ? capacity * 2 : 1 << 20;
            char *moved = realloc(text, capacity);
            if (!moved)
                break;
            text = moved;
        }
        n = fread(text + length, 1, capacity - length, f);
    }
    bool ok = !ferror(f) && feof(f);
    fclose(f);
    struct json *doc = NULL;
    struct json_error why;
    struct json_limits limits = {.max_values = 4 << 20};
    if (!ok)
        error_set(err, "%s: cannot be read whole", path);
    else if (!(doc = json_parse(text, length, &limits, &why)))
        error_set(err, "%s: line %zu, column %zu: %s", path, why.line, why.column, why.text);
    free(text);
    return doc;
}

static struct gguf_string key_of(const struct json_value *member)
{
    return (struct gguf_string){member->key, member->key_count};
}

static struct gguf_string text_of(const struct json_value *v)
{
    return v && v->kind == JSON_STRING ? (struct gguf_string){v->text, v->count} : (struct gguf_string){NULL, 0};
}

static bool token_id(const struct json_value *v, uint32_t *id)
{
    int64_t n;
    if (!json_get_int(v, &n) || n < 0 || n >= MAX_TOKENS)
        return false;
    *id = (uint32_t)n;
    return true;
}

static bool place_token(struct vocab *v, uint32_t id, struct gguf_string text, int32_t type, struct error *err)
{
    if (!text.data)
        return error_set(err, "token %" PRIu32 " has no text", id);
    v->tokens[id] = text;
    v->types[id] = type;
    if (id >= v->n_tokens)
        v->n_tokens = id + 1;
    return true;
}

static bool read_tokens(struct vocab *v, struct error *err)
{
    const struct json_value *root = json_root(v->tokenizer), *model = json_get(root, "model");
    const struct json_value *entries = json_get(model, "vocab"), *added = json_get(root, "added_tokens");
    uint32_t id;

    if (!entries || entries->kind != JSON_OBJECT)
        return error_set(err, "tokenizer.json has no object model.vocab");
    v->tokens = calloc(MAX_TOKENS, sizeof *v->tokens); /* pages that are not touched cost nothing */
    v->types = calloc(MAX_TOKENS, sizeof *v->types);
    if (!v->tokens || !v->types)
        return out_of_memory(err);
    for (const struct json_value *e = entries->first; e; e = e->next)
        if (!token_id(e, &id) || !place_token(v, id, key_of(e), TYPE_NORMAL, err))
            return error_set(err, "tokenizer.json: model.vocab has a bad id at byte %" PRIu32, e->offset);
    for (const struct json_value *e = added ? added->first : NULL; e; e = e->next) {
        const struct json_value *special = json_get(e, "special");
        bool control = special && special->kind == JSON_BOOL && special->count == 1;
        if (!token_id(json_get(e, "id"), &id) ||
            !place_token(v, id, text_of(json_get(e, "content")), control ? TYPE_CONTROL : TYPE_USER_DEFINED, err))
            return error_set(err, "tokenizer.json: a bad entry in added_tokens at byte %" PRIu32, e->offset);
    }
    return true;
}

static bool is_pair(const struct json_value *v)
{
    return v->kind == JSON_ARRAY && v->count == 2 && v->first->kind == JSON_STRING && v->first->next->kind == JSON_STRING;
}

/* A merge is "left right", or in newer files ["left", "right"]. */
static bool read_merges(struct vocab *v, struct error *err)
{
    const struct json_value *merges = json_get(json_get(json_root(v->tokenizer), "model"), "merges");
    size_t joined = 0;

    if (!merges || merges->kind != JSON_ARRAY)
        return error_set(err, "tokenizer.json has no array model.merges");
    for (const struct json_value *m = merges->first; m; m = m->next)
        if (is_pair(m))
            joined += (size_t)m->first->count + 1 + m->first->next->count;
        else if (m->kind != JSON_STRING)
            return error_set(
                err, "tokenizer.json: a merge at byte %" PRIu32 " is neither a string nor a pair of strings", m->offset);

    v->merges = calloc((size_t)merges->count + 1, sizeof *v->merges);
    char *to = v->joined = malloc(joined + 1);
    if (!v->merges || !v->joined)
        return out_of_memory(err);
    for (const struct json_value *m = merges->first; m; m = m->next) {
        struct gguf_string *merge = &v->merges[v->n_merges++];
        *merge = text_of(m);
        if (is_pair(m)) {
            const struct json_value *left = m->first, *right = left->next;
            *merge = (struct gguf_string){to, (size_t)left->count + 1 + right->count};
            memcpy(to, left->text, left->count);
            to[left->count] = ' ';
            memcpy(to + left->count + 1, right->text, right->count);
            to += merge->length;
        }
    }
    return true;
}

static void find_special(struct vocab *v, int which, const struct json_value *name)
{
    struct gguf_string text = text_of(name && name->kind == JSON_OBJECT ? json_get(name, "content") : name);

    for (uint32_t i = 0; text.data && i < v->n_tokens; i++)
        if (v->tokens[i].length == text.length && memcmp(v->tokens[i].data, text.data, text.length) == 0) {
            v->specials[which].present = true;
            v->specials[which].id = i;
        }
}

bool vocab_from_json(struct vocab *v, const char *folder, struct error *err)
{
    vocab_init(v);
    v->model = (struct gguf_string){"gpt2", 4};
    v->pre = (struct gguf_string){"qwen2", 5};
    v->tokenizer = load_json(folder, "tokenizer.json", err);
    v->config = v->tokenizer ? load_json(folder, "tokenizer_config.json", err) : NULL;
    if (!v->config || !read_tokens(v, err) || !read_merges(v, err))
        return false;

    const struct json_value *config = json_root(v->config), *add_bos = json_get(config, "add_bos_token");
    find_special(v, VOCAB_EOS, json_get(config, "eos_token"));
    find_special(v, VOCAB_PADDING, json_get(config, "pad_token"));
    find_special(v, VOCAB_BOS, json_get(config, "bos_token"));
    if (!v->specials[VOCAB_BOS].present) { /* Qwen2.5 has none; its GGUF files name <|endoftext|>, which is its padding */
        v->specials[VOCAB_BOS].present = v->specials[VOCAB_PADDING].present;
        v->specials[VOCAB_BOS].id = v->specials[VOCAB_PADDING].id;
    }
    v->has_add_bos = true;
    v->add_bos = add_bos && add_bos->kind == JSON_BOOL && add_bos->count == 1;
    v->chat_template = text_of(json_get(config, "chat_template"));
    return true;
}

/* ---- common ---- */

bool vocab_pad(struct vocab *v, uint32_t n_tokens, struct error *err)
{
    enum { WIDTH = 16 }; /* "[PAD4194303]" */

    if (n_tokens < v->n_tokens)
        return error_set(
            err, "the tokenizer has %" PRIu32 " tokens; a vocabulary of %" PRIu32 " is too small for it", v->n_tokens, n_tokens);
    struct gguf_string *tokens = realloc(v->tokens, ((size_t)n_tokens + 1) * sizeof *tokens);
    if (tokens)
        v->tokens = tokens;
    int32_t *types = realloc(v->types, ((size_t)n_tokens + 1) * sizeof *types);
    if (types)
        v->types = types;
    char *padding = calloc((size_t)n_tokens + 1, WIDTH);
    if (!tokens || !types || !padding) {
        free(padding);
        return out_of_memory(err);
    }
    for (uint32_t i = 0; i < n_tokens; i++) {
        if (i < v->n_tokens && v->tokens[i].data)
            continue;
        char *name = padding + (size_t)i * WIDTH;
        v->tokens[i] = (struct gguf_string){name, (size_t)snprintf(name, WIDTH, "[PAD%" PRIu32 "]", i)};
        v->types[i] = TYPE_UNUSED;
    }
    v->padding = padding;
    v->n_tokens = n_tokens;
    return true;
}

void vocab_write(const struct vocab *v, struct gguf_writer *w)
{
    gguf_writer_string_bytes(w, "tokenizer.ggml.model", v->model);
    gguf_writer_string_bytes(w, "tokenizer.ggml.pre", v->pre);
    gguf_writer_strings(w, "tokenizer.ggml.tokens", v->tokens, v->n_tokens);
    gguf_writer_array(w, "tokenizer.ggml.token_type", GGUF_KIND_INT32, v->types, v->n_tokens);
    gguf_writer_strings(w, "tokenizer.ggml.merges", v->merges, v->n_merges);
    for (int i = 0; i < VOCAB_SPECIALS; i++)
        if (v->specials[i].present)
            gguf_writer_u32(w, v->specials[i].key, v->specials[i].id);
    if (v->has_add_bos)
        gguf_writer_bool(w, "tokenizer.ggml.add_bos_token", v->add_bos);
    if (v->chat_template.data)
        gguf_writer_string_bytes(w, "tokenizer.chat_template", v->chat_template);
}

void vocab_free(struct vocab *v)
{
    free(v->tokens);
    free(v->types);
    free(v->merges);
    free(v->padding);
    free(v->joined);
    json_free(v->tokenizer);
    json_free(v->config);
    gguf_close(v->file);
    vocab_init(v);
}
