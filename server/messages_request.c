#include "server/messages_request.h"
#include "server/messages_content.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>

enum { MAX_STOP_BYTES = 256 };

struct reader {
    struct messages_request *r;
    const struct json_value *system, *messages; /* NULL: absent */
    struct api_error *err;
    bool no_tools;
};

typedef bool read_parameter(struct reader *s, const struct json_value *v);

static bool read_messages(struct reader *s, const struct json_value *v)
{
    s->messages = v;
    return true;
}

static bool read_system(struct reader *s, const struct json_value *v)
{
    s->system = v;
    return true;
}

static bool read_tools(struct reader *s, const struct json_value *v)
{
    return messages_read_tools(&s->r->chat, v, s->err);
}

static bool read_max_tokens(struct reader *s, const struct json_value *v)
{
    int64_t n;
    if (!param_int(v, 1, INT64_MAX, "an integer, 1 or more", &n, s->err))
        return false;
    s->r->chat.max_tokens = n > INT_MAX ? INT_MAX : (int)n;
    return true;
}

static bool read_stops(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_ARRAY)
        return api_wrong_type(s->err, v->key, "an array of strings", v);
    if (v->count > ENGINE_MAX_STOPS)
        return api_wrong_value(s->err, v->key, "an array of at most 16 strings");
    for (const struct json_value *e = v->first; e; e = e->next) {
        if (e->kind != JSON_STRING)
            return api_wrong_type(s->err, v->key, "an array of strings", e);
        if (e->count == 0 || e->count > MAX_STOP_BYTES || memchr(e->text, '\0', e->count))
            return api_wrong_value(s->err, v->key, "made of strings of 1 to 256 bytes without NUL");
        s->r->stops[s->r->n_stops++] = e->text;
    }
    return true;
}

static bool unknown_member(struct reader *s, const struct json_value *object, const struct json_value *member)
{
    char param[96];
    snprintf(param, sizeof param, "%s.%s", object->key, member->key);
    return api_fail(s->err, 400, "unknown_parameter", param, "Unknown or unsupported parameter: '%s'.", param);
}

static bool read_tool_choice(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, v->key, "an object", v);
    for (const struct json_value *m = v->first; m; m = m->next) {
        if (m->kind == JSON_NULL)
            continue;
        if (json_key_is(m, "disable_parallel_tool_use")) {
            if (m->kind != JSON_BOOL)
                return api_wrong_type(s->err, "tool_choice.disable_parallel_tool_use", "a boolean", m);
            s->r->chat.one_call = m->count;
        } else if (!json_key_is(m, "type")) {
            return unknown_member(s, v, m);
        }
    }
    const struct json_value *type = json_get(v, "type");
    if (json_is(type, "none"))
        s->no_tools = true;
    else if (!json_is(type, "auto"))
        return api_wrong_value(s->err, "tool_choice.type", "\"auto\" or \"none\": this server cannot yet make the model call a tool");
    return true;
}

static bool read_thinking(struct reader *s, const struct json_value *v)
{
    return json_is(json_get(v, "type"), "disabled") || param_unsupported(v, "{\"type\":\"disabled\"}", s->err);
}

/* Objects of which nothing can be asked. */
static bool only_empty(struct reader *s, const struct json_value *v)
{
    for (const struct json_value *m = v->kind == JSON_OBJECT ? v->first : NULL; m; m = m->next)
        if (m->kind != JSON_NULL)
            return api_fail(s->err, 400, "unsupported_parameter", v->key, "'%.64s.%.64s' is not supported by this server; leave it out.", v->key, m->key);
    return v->kind == JSON_OBJECT || api_wrong_type(s->err, v->key, "an object", v);
}

static bool only_standard(struct reader *s, const struct json_value *v)
{
    return json_is(v, "standard") || param_unsupported(v, "\"standard\"", s->err);
}

static bool never(struct reader *s, const struct json_value *v)
{
    return param_unsupported(v, NULL, s->err);
}

/* As server/params.h has them. */
static bool common(struct reader *s, const struct json_value *v)
{
    return params_take(&s->r->chat.params, v, s->err) == PARAM_TAKEN;
}

static const struct {
    const char *name;
    read_parameter *read; /* NULL: accepted and ignored */
} parameters[] = {
    {"messages", read_messages},
    {"system", read_system},
    {"max_tokens", read_max_tokens},
    {"stop_sequences", read_stops},
    {"tools", read_tools},
    {"tool_choice", read_tool_choice},
    {"thinking", read_thinking},
    {"model", common},
    {"stream", common},
    {"temperature", common},
    {"top_p", common},
    {"top_k", common},
    {"min_p", common},
    {"seed", common},
    {"presence_penalty", common},
    {"frequency_penalty", common},
    {"repetition_penalty", common},
    {"logit_bias", common},
    {"metadata", NULL},
    {"service_tier", NULL},
    {"cache_control", NULL},
    {"speed", only_standard},
    {"output_config", only_empty},
    {"output_format", never},
    {"container", never},
    {"context_management", never},
    {"diagnostics", never},
    {"inference_geo", never},
    {"mcp_servers", never},
};

static bool read_member(struct reader *s, const struct json_value *m)
{
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++)
        if (json_key_is(m, parameters[i].name))
            return m->kind == JSON_NULL || !parameters[i].read || parameters[i].read(s, m);
    return param_unknown(m, s->err);
}

static bool missing(struct reader *s, const char *name)
{
    return api_fail(s->err, 400, "missing_required_parameter", name, "Missing required parameter: '%s'.", name);
}

bool messages_request_read(struct messages_request *r, const struct json_value *root, const struct sampling *defaults, int n_vocab, bool counting,
                           struct api_error *err)
{
    struct reader s = {.r = r, .err = err};
    *r = (struct messages_request){0};
    params_init(&r->chat.params, defaults, n_vocab);
    r->chat.chat.add_generation_prompt = true;
    if (!param_root(root, err))
        return false;
    for (const struct json_value *m = root->first; m; m = m->next)
        if (!read_member(&s, m))
            return false;
    if (!s.messages)
        return missing(&s, "messages");
    if (!r->chat.max_tokens && !counting)
        return missing(&s, "max_tokens");
    if (!messages_read(&r->chat, s.system, s.messages, &r->prefill, err))
        return false;
    if (s.no_tools)
        r->chat.chat.n_tools = 0;
    return params_check(&r->chat.params, err);
}

void messages_request_free(struct messages_request *r)
{
    chat_request_free(&r->chat);
}
