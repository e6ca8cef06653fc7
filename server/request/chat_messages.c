#include "server/request/chat_messages.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOOL_NAME = 64 };

void chat_path(char out[CHAT_PATH_BYTES], const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(out, CHAT_PATH_BYTES, format, args);
    va_end(args);
}

/* Memory that lives as long as the request: a list, each with its bytes behind it. */
struct chat_owned {
    struct chat_owned *next;
    void *memory;
};

void *chat_own(struct chat_request *r, void *memory)
{
    struct chat_owned *o = memory ? malloc(sizeof *o) : NULL;
    if (!o) {
        free(memory);
        return NULL;
    }
    o->memory = memory;
    o->next = r->owned;
    r->owned = o;
    return memory;
}

void chat_request_free(struct chat_request *r)
{
    while (r->owned) {
        struct chat_owned *next = r->owned->next;
        free(r->owned->memory);
        free(r->owned);
        r->owned = next;
    }
    free(r->messages);
    free(r->tools);
    free(r->names);
    params_free(&r->params);
    grammar_free(r->grammar);
    *r = (struct chat_request){0};
}

static bool present(const struct json_value *v)
{
    return v && v->kind != JSON_NULL;
}

static struct chat_text text_of(const struct json_value *v)
{
    return (struct chat_text){v->text, v->count};
}

bool chat_rewrite(struct chat_request *r, const struct json_value *v, struct chat_text *out, struct api_error *err)
{
    struct json_writer w = {.spaced = true};
    json_value(&w, v);
    if (w.failed) {
        json_writer_free(&w);
        return api_out_of_memory(err);
    }
    if (!chat_own(r, w.data))
        return api_out_of_memory(err);
    *out = (struct chat_text){w.data, w.length};
    return true;
}

bool chat_check_members(const struct json_value *object, const char *const *known, const char *path, struct api_error *err)
{
    for (const struct json_value *m = object->first; m; m = m->next) {
        bool found = m->kind == JSON_NULL;
        for (size_t i = 0; !found && known[i]; i++)
            found = json_key_is(m, known[i]);
        if (!found) {
            char param[CHAT_PATH_BYTES];
            chat_path(param, "%s.%s", path, m->key);
            return api_fail(err, 400, "unknown_parameter", param, "Unknown or unsupported parameter: '%s'.", param);
        }
    }
    return true;
}

/* [{"type":"text","text":"..."}, ...], joined by line feeds. */
static bool read_parts(
    struct chat_request *r, const struct json_value *parts, const char *path, struct chat_text *out, struct api_error *err)
{
    static const char *const known[] = {"type", "text", NULL};
    char param[CHAT_PATH_BYTES];
    size_t total = 0, i = 0;
    for (const struct json_value *p = parts->first; p; p = p->next, i++) {
        chat_path(param, "%s[%zu]", path, i);
        if (p->kind != JSON_OBJECT)
            return api_wrong_type(err, param, "an object", p);
        const struct json_value *type = json_get(p, "type"), *text = json_get(p, "text");
        if (!present(type) || type->kind != JSON_STRING)
            return api_fail(err, 400, "missing_required_parameter", param, "'%s' must have a type.", param);
        if (!json_is(type, "text"))
            return api_fail(err, 400, "unsupported_content", param, "'%s' is of type \"%.32s\"; this model reads text only.",
                param, type->text);
        if (!present(text) || text->kind != JSON_STRING)
            return api_fail(err, 400, "missing_required_parameter", param, "'%s' must have a text, which is a string.", param);
        if (!chat_check_members(p, known, param, err))
            return false;
        total += text->count + 1u;
    }
    if (total == 0)
        return api_wrong_value(err, path, "a string, or at least one part");
    char *joined = chat_own(r, malloc(total));
    if (!joined)
        return api_out_of_memory(err);
    size_t n = 0;
    for (const struct json_value *p = parts->first; p; p = p->next) {
        const struct json_value *text = json_get(p, "text");
        if (n)
            joined[n++] = '\n';
        memcpy(joined + n, text->text, text->count);
        n += text->count;
    }
    *out = (struct chat_text){joined, n};
    return true;
}

bool chat_read_arguments(struct chat_request *r, const struct json_value *v, struct chat_text *out, struct api_error *err)
{
    if (v->kind == JSON_STRING) {
        struct json *inner = json_parse(v->text, v->count, NULL, NULL);
        bool ok = chat_rewrite(r, inner ? json_root(inner) : v, out, err);
        json_free(inner);
        return ok;
    }
    return chat_rewrite(r, v, out, err);
}

static bool read_tool_calls(
    struct chat_request *r, const struct json_value *v, const char *path, struct chat_message *m, struct api_error *err)
{
    static const char *const known[] = {"id", "type", "function", "index", NULL};
    static const char *const known_function[] = {"name", "arguments", NULL};
    if (v->kind != JSON_ARRAY)
        return api_wrong_type(err, path, "an array", v);
    if (v->count == 0)
        return true;
    struct chat_tool_call *calls = chat_own(r, calloc(v->count, sizeof *calls));
    if (!calls)
        return api_out_of_memory(err);
    size_t i = 0;
    for (const struct json_value *c = v->first; c; c = c->next, i++) {
        char param[CHAT_PATH_BYTES];
        chat_path(param, "%s[%zu]", path, i);
        if (c->kind != JSON_OBJECT)
            return api_wrong_type(err, param, "an object", c);
        const struct json_value *type = json_get(c, "type"), *function = json_get(c, "function");
        if (present(type) && !json_is(type, "function"))
            return api_fail(err, 400, "unsupported_value", param,
                "'%s' is no function call, which is the only type this model knows.", param);
        const struct json_value *name = json_get(function, "name"), *arguments = json_get(function, "arguments");
        if (!name || name->kind != JSON_STRING || !present(arguments) ||
            (arguments->kind != JSON_STRING && arguments->kind != JSON_OBJECT))
            return api_fail(err, 400, "missing_required_parameter", param,
                            "'%s' must have a function with a name and arguments, which is a string of JSON.", param);
        if (!chat_check_members(c, known, param, err) || !chat_check_members(function, known_function, param, err))
            return false;
        calls[i].name = text_of(name);
        if (!chat_read_arguments(r, arguments, &calls[i].arguments, err))
            return false;
    }
    m->tool_calls = calls;
    m->n_tool_calls = v->count;
    return true;
}

static bool read_role(const struct json_value *message, const char *path, enum chat_role *role, struct api_error *err)
{
    static const struct {
        const char *name;
        enum chat_role role;
    } roles[] = {{"system", CHAT_SYSTEM}, {"developer", CHAT_SYSTEM}, {"user", CHAT_USER}, {"assistant", CHAT_ASSISTANT},
        {"tool", CHAT_TOOL}};
    const struct json_value *v = json_get(message, "role");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        if (json_is(v, roles[i].name)) {
            *role = roles[i].role;
            return true;
        }
    }
    char param[CHAT_PATH_BYTES];
    chat_path(param, "%s.role", path);
    if (!present(v))
        return api_fail(err, 400, "missing_required_parameter", param, "Missing required parameter: '%s'.", param);
    return api_wrong_value(err, param, "\"system\", \"developer\", \"user\", \"assistant\" or \"tool\"");
}

/* Members that OpenAI's own clients send back with an assistant's message, and that are
 * empty when nothing is lost without them. */
static bool is_empty_leftover(const struct json_value *m)
{
    bool name = json_key_is(m, "refusal") || json_key_is(m, "annotations") || json_key_is(m, "audio") ||
                json_key_is(m, "reasoning_content");
    bool empty = m->kind == JSON_NULL || ((m->kind == JSON_ARRAY || m->kind == JSON_STRING) && m->count == 0);
    return name && empty;
}

static bool read_message(
    struct chat_request *r, const struct json_value *v, const char *path, struct chat_message *m, struct api_error *err)
{
    char param[CHAT_PATH_BYTES];
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, path, "an object", v);
    if (!read_role(v, path, &m->role, err))
        return false;
    for (const struct json_value *f = v->first; f; f = f->next) {
        chat_path(param, "%s.%s", path, f->key);
        if (f->kind == JSON_NULL || json_key_is(f, "role")) {
            continue;
        } else if (json_key_is(f, "content")) {
            if (f->kind == JSON_STRING)
                m->content = text_of(f);
            else if (f->kind != JSON_ARRAY)
                return api_wrong_type(err, param, "a string or an array of parts", f);
            else if (!read_parts(r, f, param, &m->content, err))
                return false;
        } else if (json_key_is(f, "tool_calls") && m->role == CHAT_ASSISTANT) {
            if (!read_tool_calls(r, f, param, m, err))
                return false;
        } else if (m->role == CHAT_TOOL && (json_key_is(f, "tool_call_id") || json_key_is(f, "name"))) {
            if (f->kind != JSON_STRING) /* the template has no place for them: answers stand in the order of the calls */
                return api_wrong_type(err, param, "a string", f);
        } else if (m->role != CHAT_ASSISTANT || !is_empty_leftover(f)) {
            return api_fail(err, 400, "unknown_parameter", param, "Unknown or unsupported parameter: '%s'.", param);
        }
    }
    if (!m->content.data && m->n_tool_calls == 0) {
        chat_path(param, "%s.content", path);
        return api_fail(err, 400, "missing_required_parameter", param, "Missing required parameter: '%s'.", param);
    }
    return true;
}

bool chat_read_messages(struct chat_request *r, const struct json_value *v, struct api_error *err)
{
    if (v->kind != JSON_ARRAY)
        return api_wrong_type(err, "messages", "an array", v);
    if (v->count == 0)
        return api_wrong_value(err, "messages", "an array of at least one message");
    r->messages = calloc(v->count, sizeof *r->messages);
    if (!r->messages)
        return api_out_of_memory(err);
    size_t i = 0;
    for (const struct json_value *m = v->first; m; m = m->next, i++) {
        char path[CHAT_PATH_BYTES];
        chat_path(path, "messages[%zu]", i);
        if (!read_message(r, m, path, &r->messages[i], err))
            return false;
    }
    r->chat.messages = r->messages;
    r->chat.n_messages = v->count;
    return true;
}

bool chat_is_tool_name(const struct json_value *v)
{
    if (v->count == 0 || v->count > MAX_TOOL_NAME)
        return false;
    return strspn(v->text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == v->count;
}

static bool read_tool(struct chat_request *r, const struct json_value *v, const char *path, struct chat_text *out,
    struct chat_text *out_name, struct api_error *err)
{
    static const char *const known[] = {"type", "function", NULL};
    static const char *const known_function[] = {"name", "description", "parameters", "strict", NULL};
    char param[CHAT_PATH_BYTES];
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, path, "an object", v);
    if (!json_is(json_get(v, "type"), "function")) {
        chat_path(param, "%s.type", path);
        return api_wrong_value(err, param, "\"function\"");
    }
    const struct json_value *f = json_get(v, "function"), *name = json_get(f, "name"), *description = json_get(f, "description");
    const struct json_value *parameters = json_get(f, "parameters"), *strict = json_get(f, "strict");
    chat_path(param, "%s.function.name", path);
    if (!name || name->kind != JSON_STRING || !chat_is_tool_name(name))
        return api_wrong_value(err, param, "a string of 1 to 64 letters, digits, _ and -");
    chat_path(param, "%s.function.description", path);
    if (present(description) && description->kind != JSON_STRING)
        return api_wrong_type(err, param, "a string", description);
    chat_path(param, "%s.function.parameters", path);
    if (present(parameters) && parameters->kind != JSON_OBJECT)
        return api_wrong_type(err, param, "an object", parameters);
    chat_path(param, "%s.function.strict", path);
    if (present(strict) && strict->kind != JSON_BOOL)
        return api_wrong_type(err, param, "a boolean", strict);
    chat_path(param, "%s.function", path);
    if (!chat_check_members(v, known, path, err) || !chat_check_members(f, known_function, param, err))
        return false;
    *out_name = text_of(name);
    return chat_rewrite(r, v, out, err);
}

bool chat_read_tools(struct chat_request *r, const struct json_value *v, struct api_error *err)
{
    if (v->kind != JSON_ARRAY)
        return api_wrong_type(err, "tools", "an array", v);
    if (v->count > CHAT_MAX_TOOLS)
        return api_wrong_value(err, "tools", "an array of at most 128 tools");
    if (v->count == 0)
        return true;
    r->tools = calloc(v->count, sizeof *r->tools);
    r->names = calloc(v->count, sizeof *r->names);
    if (!r->tools || !r->names)
        return api_out_of_memory(err);
    size_t i = 0;
    for (const struct json_value *t = v->first; t; t = t->next, i++) {
        char path[CHAT_PATH_BYTES];
        chat_path(path, "tools[%zu]", i);
        if (!read_tool(r, t, path, &r->tools[i], &r->names[i], err))
            return false;
        for (size_t k = 0; k < i; k++)
            if (r->names[k].length == r->names[i].length && memcmp(r->names[k].data, r->names[i].data, r->names[i].length) == 0)
                return api_fail(
                    err, 400, "invalid_value", path, "'%s' has the name of an earlier tool, '%s'.", path, r->names[i].data);
    }
    r->tool_names = r->names;
    r->chat.tools = r->tools;
    r->chat.n_tools = v->count;
    return true;
}
