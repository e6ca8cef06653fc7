/* POST /tokenize and /detokenize, in llama-server's shapes.
 *
 *   /tokenize    {"content": text, "add_special": false, "parse_special": true, "with_pieces": false} -> {"tokens": [id, ...]}
 *                with_pieces: [{"id": id, "piece": text, or an array of bytes where they are not UTF-8}, ...]
 *                add_special changes nothing: Qwen2.5's tokenizer puts nothing around a text.
 *   /detokenize  {"tokens": [id, ...]} -> {"content": text} */
#include "server/api/api_internal.h"
#include "tokenizer/utf8.h"

#include <stdlib.h>

static bool read_flag(const struct json_value *v, bool *out, struct api_error *err)
{
    if (v->kind != JSON_BOOL)
        return api_wrong_type(err, v->key, "a boolean", v);
    *out = v->count;
    return true;
}

static bool check_object(const struct json_value *body, struct api_error *err)
{
    if (body->kind == JSON_OBJECT)
        return true;
    return api_fail(err, 400, "invalid_type", NULL, "The body must be a JSON object, not %s.", json_kind_name(body->kind));
}

static bool unknown(const struct json_value *m, struct api_error *err)
{
    return api_fail(err, 400, "unknown_parameter", m->key, "Unknown parameter: '%.64s'.", m->key);
}

static bool is_utf8(const char *data, size_t length)
{
    const unsigned char *p = (const unsigned char *)data, *end = p + length;
    while (p < end) {
        uint32_t code;
        p += utf8_decode(p, end, &code);
        if (code == UTF8_INVALID)
            return false;
    }
    return true;
}

static void write_piece(struct json_writer *w, int32_t id, struct gguf_string piece)
{
    json_begin_object(w);
    json_key(w, "id");
    json_int(w, id);
    json_key(w, "piece");
    if (is_utf8(piece.data, piece.length)) {
        json_string(w, piece.data, piece.length);
    } else {
        json_begin_array(w);
        for (size_t i = 0; i < piece.length; i++)
            json_int(w, (unsigned char)piece.data[i]);
        json_end_array(w);
    }
    json_end_object(w);
}

bool api_tokenize(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    const struct json_value *content = NULL;
    bool add_special = false, parse_special = true, with_pieces = false;
    if (!check_object(body, err))
        return false;
    for (const struct json_value *m = body->first; m; m = m->next) {
        bool ok;
        if (json_key_is(m, "content")) {
            ok = m->kind == JSON_STRING || api_wrong_type(err, "content", "a string", m);
            content = m;
        } else if (json_key_is(m, "add_special")) {
            ok = read_flag(m, &add_special, err);
        } else if (json_key_is(m, "parse_special")) {
            ok = read_flag(m, &parse_special, err);
        } else if (json_key_is(m, "with_pieces")) {
            ok = read_flag(m, &with_pieces, err);
        } else {
            ok = unknown(m, err);
        }
        if (!ok)
            return false;
    }
    if (!content)
        return api_fail(err, 400, "missing_required_parameter", "content", "Missing required parameter: 'content'.");
    const struct tokenizer *t = engine_tokenizer(a->engine);
    struct tok_ids ids = {0};
    struct error problem;
    if (!tok_encode(t, content->text, content->count, parse_special, &ids, &problem)) {
        tok_ids_free(&ids);
        return api_fail(err, 500, NULL, NULL, "The text could not be tokenised: %s.", problem.text);
    }
    struct json_writer w = {0};
    json_begin_object(&w);
    json_key(&w, "tokens");
    json_begin_array(&w);
    for (size_t i = 0; i < ids.count; i++) {
        if (with_pieces)
            write_piece(&w, ids.data[i], tok_bytes(t, ids.data[i]));
        else
            json_int(&w, ids.data[i]);
    }
    json_end_array(&w);
    json_end_object(&w);
    tok_ids_free(&ids);
    api_send_json(x, &w);
    return true;
}

bool api_detokenize(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    const struct tokenizer *t = engine_tokenizer(a->engine);
    const struct json_value *tokens = NULL;
    if (!check_object(body, err))
        return false;
    for (const struct json_value *m = body->first; m; m = m->next) {
        if (!json_key_is(m, "tokens"))
            return unknown(m, err);
        tokens = m;
    }
    if (!tokens)
        return api_fail(err, 400, "missing_required_parameter", "tokens", "Missing required parameter: 'tokens'.");
    if (tokens->kind != JSON_ARRAY)
        return api_wrong_type(err, "tokens", "an array of token ids", tokens);
    struct json_writer text = {0}; /* raw bytes; json_string turns what is not UTF-8 into U+FFFD */
    size_t i = 0;
    for (const struct json_value *v = tokens->first; v; v = v->next, i++) {
        int64_t id;
        if (!json_get_int(v, &id) || id < 0 || id >= tok_n_vocab(t)) {
            json_writer_free(&text);
            return api_fail(err, 400, "invalid_value", "tokens",
                "Invalid value for 'tokens[%zu]': it must be a token id from 0 to %d.", i, tok_n_vocab(t) - 1);
        }
        struct gguf_string piece = tok_bytes(t, (int32_t)id);
        json_raw(&text, piece.data, piece.length);
    }
    struct json_writer w = {0};
    json_begin_object(&w);
    json_key(&w, "content");
    json_string(&w, text.data ? text.data : "", text.length);
    json_end_object(&w);
    w.failed |= text.failed;
    json_writer_free(&text);
    api_send_json(x, &w);
    return true;
}
