#include "server/request/messages_content.h"
#include "server/request/chat_messages.h"
#include "server/request/turns.h"

#include <string.h>

static bool present(const struct json_value *v)
{
    return v && v->kind != JSON_NULL;
}

static bool missing(const char *path, const char *name, struct api_error *err)
{
    char param[CHAT_PATH_BYTES];
    chat_path(param, "%s.%s", path, name);
    return api_fail(err, 400, "missing_required_parameter", param, "Missing required parameter: '%s'.", param);
}

static bool read_type(const struct json_value *block, const char *path, const struct json_value **type, struct api_error *err)
{
    *type = json_get(block, "type");
    if (block->kind != JSON_OBJECT)
        return api_wrong_type(err, path, "an object", block);
    if (!present(*type) || (*type)->kind != JSON_STRING)
        return missing(path, "type", err);
    return true;
}

static bool unsupported_block(const char *path, const struct json_value *type, struct api_error *err)
{
    return api_fail(err, 400, "unsupported_content", path,
        "'%s' is of type \"%.40s\", which this server does not take there; its model reads text only.", path, type->text);
}

/* ---- text ---- */

/* A text block, into the writer. first: nothing is in it that a line feed would have to follow. */
static bool add_text(struct json_writer *w, const struct json_value *block, const char *path, bool first, struct api_error *err)
{
    static const char *const known[] = {"type", "text", "cache_control", "citations", NULL};
    const struct json_value *text = json_get(block, "text");
    if (!present(text))
        return missing(path, "text", err);
    if (text->kind != JSON_STRING)
        return api_wrong_type(err, path, "a block whose text is a string", text);
    if (!chat_check_members(block, known, path, err))
        return false;
    if (!first)
        json_raw(w, "\n", 1);
    json_raw(w, text->text, text->count);
    return true;
}

static bool add_texts(struct json_writer *w, const struct json_value *blocks, const char *path, struct api_error *err)
{
    size_t i = 0;
    for (const struct json_value *b = blocks->first; b; b = b->next, i++) {
        const struct json_value *type;
        char at[CHAT_PATH_BYTES];
        chat_path(at, "%s[%zu]", path, i);
        if (!read_type(b, at, &type, err))
            return false;
        if (!json_is(type, "text"))
            return unsupported_block(at, type, err);
        if (!add_text(w, b, at, i == 0, err))
            return false;
    }
    return true;
}

/* A string, or nothing but text blocks. before: what stands before the text. */
static bool read_text(struct chat_request *r, const struct json_value *v, const char *path, const char *before,
    struct chat_text *out, struct api_error *err)
{
    struct json_writer w = {0};
    if (v->kind != JSON_STRING && v->kind != JSON_ARRAY)
        return api_wrong_type(err, path, "a string or an array of blocks", v);
    json_raw(&w, before, strlen(before));
    if (v->kind == JSON_STRING)
        json_raw(&w, v->text, v->count);
    if (v->kind == JSON_ARRAY && !add_texts(&w, v, path, err)) {
        json_writer_free(&w);
        return false;
    }
    return turns_text(r, &w, out, err);
}

/* ---- blocks of a message ---- */

struct message_reader {
    struct turns *t;
    enum chat_role role;
    struct json_writer text; /* of the text blocks since the last one of another kind */
    bool any_text;
    bool any_call;
    struct api_error *err;
};

/* The text so far becomes a message. */
static bool flush(struct message_reader *m)
{
    struct chat_text text;
    if (!m->any_text)
        return true;
    m->any_text = false;
    return turns_text(m->t->r, &m->text, &text, m->err) && turns_message(m->t, m->role, text, m->err);
}

static bool read_use(struct message_reader *m, const struct json_value *block, const char *path)
{
    static const char *const known[] = {"type", "id", "name", "input", "cache_control", "caller", NULL};
    const struct json_value *input = json_get(block, "input");
    char param[CHAT_PATH_BYTES];
    chat_path(param, "%s.input", path);
    if (present(input) && input->kind != JSON_OBJECT)
        return api_wrong_type(m->err, param, "an object", input);
    m->any_call = true;
    return chat_check_members(block, known, path, m->err) && flush(m) && turns_call(m->t, block, "id", "input", path, m->err);
}

static bool read_result(struct message_reader *m, const struct json_value *block, const char *path)
{
    static const char *const known[] = {"type", "tool_use_id", "content", "is_error", "cache_control", NULL};
    const struct json_value *content = json_get(block, "content"), *is_error = json_get(block, "is_error");
    struct chat_text text = {"", 0};
    char param[CHAT_PATH_BYTES];
    chat_path(param, "%s.is_error", path);
    if (present(is_error) && is_error->kind != JSON_BOOL)
        return api_wrong_type(m->err, param, "a boolean", is_error);
    const char *before = present(is_error) && is_error->count ? "Error: " : "";
    static const struct json_value nothing = {.kind = JSON_STRING, .text = ""};
    chat_path(param, "%s.content", path);
    return chat_check_members(block, known, path, m->err) && flush(m) &&
           read_text(m->t->r, present(content) ? content : &nothing, param, before, &text, m->err) &&
           turns_result(m->t, block, "tool_use_id", text, path, m->err);
}

static bool read_block(struct message_reader *m, const struct json_value *block, const char *path)
{
    const struct json_value *type;
    if (!read_type(block, path, &type, m->err))
        return false;
    if (json_is(type, "text")) {
        bool first = !m->any_text;
        m->any_text = true;
        return add_text(&m->text, block, path, first, m->err);
    }
    if (json_is(type, "tool_use") && m->role == CHAT_ASSISTANT)
        return read_use(m, block, path);
    if (json_is(type, "tool_result") && m->role == CHAT_USER)
        return read_result(m, block, path);
    if ((json_is(type, "thinking") || json_is(type, "redacted_thinking")) && m->role == CHAT_ASSISTANT)
        return true;
    return unsupported_block(path, type, m->err);
}

static bool read_blocks(struct message_reader *m, const struct json_value *blocks, const char *path)
{
    size_t i = 0;
    for (const struct json_value *b = blocks->first; b; b = b->next, i++) {
        char at[CHAT_PATH_BYTES];
        chat_path(at, "%s[%zu]", path, i);
        if (!read_block(m, b, at))
            return false;
    }
    return flush(m);
}

static bool read_message(struct turns *t, const struct json_value *v, const char *path, bool *any_call, struct api_error *err)
{
    static const char *const known[] = {"role", "content", NULL};
    struct message_reader m = {.t = t, .err = err};
    char param[CHAT_PATH_BYTES];
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, path, "an object", v);
    const struct json_value *role = json_get(v, "role"), *content = json_get(v, "content");
    if (!present(role))
        return missing(path, "role", err);
    chat_path(param, "%s.role", path);
    if (!json_is(role, "user") && !json_is(role, "assistant") && !json_is(role, "system"))
        return api_wrong_value(err, param, "\"user\", \"assistant\" or \"system\"");
    m.role = json_is(role, "user") ? CHAT_USER : json_is(role, "assistant") ? CHAT_ASSISTANT : CHAT_SYSTEM;
    if (!present(content))
        return missing(path, "content", err);
    chat_path(param, "%s.content", path);
    if (!chat_check_members(v, known, path, err))
        return false;
    if (content->kind == JSON_STRING)
        return turns_message(t, m.role, (struct chat_text){content->text, content->count}, err);
    if (content->kind != JSON_ARRAY)
        return api_wrong_type(err, param, "a string or an array of blocks", content);
    if (content->count == 0)
        return api_wrong_value(err, param, "a string, or an array of at least one block");
    bool ok = read_blocks(&m, content, param);
    json_writer_free(&m.text);
    *any_call = m.any_call;
    return ok;
}

/* ---- all of them ---- */

static bool read_all(struct turns *t, const struct json_value *system, const struct json_value *messages,
    struct chat_text *prefill, struct api_error *err)
{
    struct chat_text text;
    if (system && (!read_text(t->r, system, "system", "", &text, err) || !turns_message(t, CHAT_SYSTEM, text, err)))
        return false;
    size_t i = 0, before = 0;
    bool any_call = false;
    char path[CHAT_PATH_BYTES] = "";
    for (const struct json_value *v = messages->first; v; v = v->next, i++) {
        chat_path(path, "messages[%zu]", i);
        before = t->r->chat.n_messages;
        any_call = false;
        if (!read_message(t, v, path, &any_call, err))
            return false;
    }
    if (t->r->chat.n_messages == (system ? 1u : 0u)) /* nothing but thinking */
        return api_wrong_value(err, "messages", "an array with at least one text or call");
    if (!turns_end(t, err))
        return false;
    const struct chat_message *last = &t->r->messages[t->r->chat.n_messages - 1];
    if (last->role != CHAT_ASSISTANT)
        return true;
    if (any_call || last->n_tool_calls > 0)
        return api_fail(err, 400, "invalid_value", path,
            "'%s' is the last message and calls a tool: the results of the calls must follow it.", path);
    if (t->r->chat.n_messages > before) {
        *prefill = last->content;
        t->r->chat.n_messages--;
    }
    return true;
}

bool messages_read(struct chat_request *r, const struct json_value *system, const struct json_value *messages,
    struct chat_text *prefill, struct api_error *err)
{
    if (messages->kind != JSON_ARRAY)
        return api_wrong_type(err, "messages", "an array", messages);
    if (messages->count == 0)
        return api_wrong_value(err, "messages", "an array of at least one message");
    struct turns t;
    turns_init(&t, r);
    bool ok = read_all(&t, system, messages, prefill, err);
    turns_free(&t);
    return ok;
}

/* ---- tools ---- */

/* A boolean. why: only false, because ... */
static bool read_flag(const struct json_value *tool, const char *name, const char *path, const char *why, struct api_error *err)
{
    char param[CHAT_PATH_BYTES];
    const struct json_value *v = json_get(tool, name);
    chat_path(param, "%s.%s", path, name);
    if (present(v) && v->kind != JSON_BOOL)
        return api_wrong_type(err, param, "a boolean", v);
    if (why && present(v) && v->count)
        return api_fail(err, 400, "unsupported_value", param, "'%s' can only be false: %s.", param, why);
    return true;
}

static bool read_tool(struct chat_request *r, const struct json_value *v, const char *path, struct api_error *err)
{
    static const char *const known[] = {
        "type", "name", "description", "input_schema", "strict", "cache_control", "eager_input_streaming", "defer_loading", NULL};
    char param[CHAT_PATH_BYTES];
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, path, "an object", v);
    const struct json_value *type = json_get(v, "type");
    chat_path(param, "%s.type", path);
    if (present(type) && type->kind != JSON_STRING)
        return api_wrong_type(err, param, "a string", type);
    if (present(type) && !json_is(type, "custom"))
        return api_fail(err, 400, "unsupported_value", param,
            "'%s' is \"%.40s\"; this server has no tools of its own, only those that the client runs.", param, type->text);
    if (!present(json_get(v, "input_schema")))
        return missing(path, "input_schema", err);
    return read_flag(v, "strict", path, NULL, err) && read_flag(v, "defer_loading", path, "all tools stand in the prompt", err) &&
           chat_check_members(v, known, path, err) &&
           turns_tool(r, v, "input_schema", path, err);
}

bool messages_read_tools(struct chat_request *r, const struct json_value *v, struct api_error *err)
{
    return turns_tools(r, v, read_tool, err);
}
