#include "server/request/turns.h"
#include "server/request/chat_messages.h"

#include <stdlib.h>
#include <string.h>

static bool present(const struct json_value *v)
{
    return v && v->kind != JSON_NULL;
}

void turns_init(struct turns *t, struct chat_request *r)
{
    *t = (struct turns){.r = r};
}

void turns_free(struct turns *t)
{
    free(t->order);
    free(t->calls);
    *t = (struct turns){0};
}

/* ---- messages ---- */

static bool make_room(struct turns *t)
{
    if (t->r->chat.n_messages < t->capacity)
        return true;
    size_t capacity = t->capacity ? 2 * t->capacity : 8;
    struct chat_message *messages = realloc(t->r->messages, capacity * sizeof *messages);
    if (messages)
        t->r->messages = messages;
    size_t *order = messages ? realloc(t->order, capacity * sizeof *order) : NULL;
    if (!order)
        return false;
    t->order = order;
    t->capacity = capacity;
    return true;
}

bool turns_message(struct turns *t, enum chat_role role, struct chat_text text, struct api_error *err)
{
    if (!make_room(t))
        return api_out_of_memory(err);
    size_t i = t->r->chat.n_messages++;
    t->r->messages[i] = (struct chat_message){.role = role, .content = text};
    t->order[i] = 0;
    return true;
}

static bool read_id(
    const struct json_value *item, const char *name, const char *path, const struct json_value **id, struct api_error *err)
{
    char param[CHAT_PATH_BYTES];
    chat_path(param, "%s.%s", path, name);
    *id = json_get(item, name);
    if (!present(*id))
        return api_fail(err, 400, "missing_required_parameter", param, "Missing required parameter: '%s'.", param);
    if ((*id)->kind != JSON_STRING)
        return api_wrong_type(err, param, "a string", *id);
    return (*id)->count > 0 || api_wrong_value(err, param, "a string that is not empty");
}

static bool same(const struct json_value *a, const struct json_value *b)
{
    return a->count == b->count && memcmp(a->text, b->text, a->count) == 0;
}

/* The latest call with that id; n_calls: there is none. */
static size_t find_call(const struct turns *t, const struct json_value *id)
{
    for (size_t i = t->n_calls; i > 0; i--)
        if (same(t->calls[i - 1].id, id))
            return i - 1;
    return t->n_calls;
}

bool turns_call(struct turns *t, const struct json_value *item, const char *id_name, const char *arguments_name, const char *path,
    struct api_error *err)
{
    char param[CHAT_PATH_BYTES];
    const struct json_value *name = json_get(item, "name"), *arguments = json_get(item, arguments_name);
    struct turn_call call = {0};
    if (!read_id(item, id_name, path, &call.id, err))
        return false;
    chat_path(param, "%s.name", path);
    if (!present(name) || name->kind != JSON_STRING || name->count == 0)
        return api_wrong_value(err, param, "the name of a function");
    chat_path(param, "%s.%s", path, arguments_name);
    if (!present(arguments))
        return api_fail(err, 400, "missing_required_parameter", param, "Missing required parameter: '%s'.", param);
    if (arguments->kind != JSON_STRING && arguments->kind != JSON_OBJECT)
        return api_wrong_type(err, param, "an object, or a string of JSON", arguments);
    if (!chat_read_arguments(t->r, arguments, &call.call.arguments, err))
        return false;
    if (t->n_calls == TURNS_MAX_CALLS)
        return api_fail(
            err, 400, "invalid_value", path, "The conversation has more than %d calls, at '%s'.", TURNS_MAX_CALLS, path);
    call.call.name = (struct chat_text){name->text, name->count};
    size_t n = t->r->chat.n_messages;
    if ((n == 0 || t->r->messages[n - 1].role != CHAT_ASSISTANT) && !turns_message(t, CHAT_ASSISTANT, (struct chat_text){0}, err))
        return false;
    call.message = t->r->chat.n_messages - 1;
    if (t->n_calls == t->calls_capacity) {
        size_t capacity = t->calls_capacity ? 2 * t->calls_capacity : 8;
        struct turn_call *calls = realloc(t->calls, capacity * sizeof *calls);
        if (!calls)
            return api_out_of_memory(err);
        t->calls = calls;
        t->calls_capacity = capacity;
    }
    t->calls[t->n_calls++] = call;
    t->r->messages[call.message].n_tool_calls++;
    return true;
}

bool turns_result(struct turns *t, const struct json_value *item, const char *id_name, struct chat_text text, const char *path,
    struct api_error *err)
{
    const struct json_value *id;
    if (!read_id(item, id_name, path, &id, err))
        return false;
    size_t call = find_call(t, id);
    if (call == t->n_calls) {
        char param[CHAT_PATH_BYTES];
        chat_path(param, "%s.%s", path, id_name);
        return api_fail(err, 400, "invalid_value", param, "'%s' names the call '%.64s', but there is no such call before it.",
            param, id->text);
    }
    if (!turns_message(t, CHAT_TOOL, text, err))
        return false;
    t->order[t->r->chat.n_messages - 1] = call;
    return true;
}

struct result {
    size_t order, place;
    struct chat_message message;
};

static int by_order(const void *a, const void *b)
{
    const struct result *x = a, *y = b;
    if (x->order != y->order)
        return x->order < y->order ? -1 : 1;
    return x->place < y->place ? -1 : x->place > y->place;
}

/* Puts a run of results into the order of their calls. */
static bool sort_results(struct turns *t, size_t from, size_t to)
{
    struct result *run = malloc((to - from) * sizeof *run);
    if (!run)
        return false;
    for (size_t i = from; i < to; i++)
        run[i - from] = (struct result){t->order[i], i, t->r->messages[i]};
    qsort(run, to - from, sizeof *run, by_order);
    for (size_t i = from; i < to; i++)
        t->r->messages[i] = run[i - from].message;
    free(run);
    return true;
}

bool turns_end(struct turns *t, struct api_error *err)
{
    struct chat_request *r = t->r;
    for (size_t i = 0, end; i < r->chat.n_messages; i = end) {
        for (end = i + 1;
             end < r->chat.n_messages && r->messages[i].role == CHAT_TOOL && r->messages[end].role == CHAT_TOOL; end++)
            continue;
        if (end > i + 1 && !sort_results(t, i, end))
            return api_out_of_memory(err);
    }
    struct chat_tool_call *calls = t->n_calls ? chat_own(r, calloc(t->n_calls, sizeof *calls)) : NULL;
    if (t->n_calls && !calls)
        return api_out_of_memory(err);
    for (size_t i = 0; i < t->n_calls; i++) { /* those of one message stand together */
        struct chat_message *m = &r->messages[t->calls[i].message];
        calls[i] = t->calls[i].call;
        if (!m->tool_calls)
            m->tool_calls = &calls[i];
    }
    r->chat.messages = r->messages;
    return true;
}

bool turns_text(struct chat_request *r, struct json_writer *w, struct chat_text *out, struct api_error *err)
{
    struct json_writer text = *w;
    *w = (struct json_writer){0};
    if (text.failed) {
        json_writer_free(&text);
        return api_out_of_memory(err);
    }
    if (text.data && !chat_own(r, text.data))
        return api_out_of_memory(err);
    *out = (struct chat_text){text.data ? text.data : "", text.length};
    return true;
}

/* ---- tools ---- */

static bool make_room_for_tools(struct chat_request *r, size_t n, struct api_error *err)
{
    r->tools = calloc(n, sizeof *r->tools);
    r->names = calloc(n, sizeof *r->names);
    if (!r->tools || !r->names)
        return api_out_of_memory(err);
    r->tool_names = r->names;
    r->chat.tools = r->tools;
    return true;
}

bool turns_tools(struct chat_request *r, const struct json_value *tools, turns_read_tool *read_tool, struct api_error *err)
{
    if (tools->kind != JSON_ARRAY)
        return api_wrong_type(err, "tools", "an array", tools);
    if (tools->count > CHAT_MAX_TOOLS)
        return api_wrong_value(err, "tools", "an array of at most 128 tools");
    if (tools->count > 0 && !make_room_for_tools(r, tools->count, err))
        return false;
    size_t i = 0;
    for (const struct json_value *t = tools->first; t; t = t->next, i++) {
        char path[CHAT_PATH_BYTES];
        chat_path(path, "tools[%zu]", i);
        if (!read_tool(r, t, path, err))
            return false;
    }
    return true;
}

/* As the chat API has it, which is what the template expects. */
static bool render(struct chat_request *r, const struct json_value *name, const struct json_value *description,
    const struct json_value *schema, struct chat_text *out, struct api_error *err)
{
    struct json_writer w = {.spaced = true};
    json_begin_object(&w);
    json_key(&w, "type");
    json_text(&w, "function");
    json_key(&w, "function");
    json_begin_object(&w);
    json_key(&w, "name");
    json_value(&w, name);
    if (present(description)) {
        json_key(&w, "description");
        json_value(&w, description);
    }
    if (present(schema)) {
        json_key(&w, "parameters");
        json_value(&w, schema);
    }
    json_end_object(&w);
    json_end_object(&w);
    return turns_text(r, &w, out, err);
}

bool turns_tool(
    struct chat_request *r, const struct json_value *tool, const char *schema_name, const char *path, struct api_error *err)
{
    char param[CHAT_PATH_BYTES];
    const struct json_value *name = json_get(tool, "name"), *description = json_get(tool, "description"),
                            *schema = json_get(tool, schema_name);
    chat_path(param, "%s.name", path);
    if (!name || name->kind != JSON_STRING || !chat_is_tool_name(name))
        return api_wrong_value(err, param, "a string of 1 to 64 letters, digits, _ and -");
    chat_path(param, "%s.description", path);
    if (present(description) && description->kind != JSON_STRING)
        return api_wrong_type(err, param, "a string", description);
    chat_path(param, "%s.%s", path, schema_name);
    if (present(schema) && schema->kind != JSON_OBJECT)
        return api_wrong_type(err, param, "an object", schema);
    size_t n = r->chat.n_tools;
    for (size_t i = 0; i < n; i++)
        if (r->names[i].length == name->count && memcmp(r->names[i].data, name->text, name->count) == 0)
            return api_fail(err, 400, "invalid_value", path, "'%s' has the name of an earlier tool, '%s'.", path, name->text);
    if (!render(r, name, description, schema, &r->tools[n], err))
        return false;
    r->names[n] = (struct chat_text){name->text, name->count};
    r->chat.n_tools++;
    return true;
}
