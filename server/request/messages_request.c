#include "server/request/messages_request.h"
#include "server/request/chat_messages.h"
#include "server/request/constrain.h"
#include "server/request/messages_content.h"

#include <stdio.h>
#include <string.h>

struct reader {
    struct messages_request *r;
    const struct json_value *system, *messages; /* NULL: absent */
    struct api_error *err;
    bool no_tools;
    struct constrain form; /* what is asked of the answer's form */
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
    return param_max_tokens(v, &s->r->chat.max_tokens, s->err);
}

static bool read_stops(struct reader *s, const struct json_value *v)
{
    return param_stops(v, false, ENGINE_MAX_STOPS, s->r->stops, &s->r->n_stops, s->err);
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
        } else if (!json_key_is(m, "type") && !json_key_is(m, "name")) {
            return unknown_member(s, v, m);
        }
    }
    const struct json_value *type = json_get(v, "type"), *name = json_get(v, "name");
    if (json_is(type, "tool")) {
        if (!name || name->kind != JSON_STRING)
            return api_wrong_value(s->err, "tool_choice.name", "the name of a tool");
        s->form.named = name->text;
        return true;
    }
    if (name && name->kind != JSON_NULL)
        return unknown_member(s, v, name);
    if (json_is(type, "none"))
        s->no_tools = true;
    else if (json_is(type, "any"))
        s->form.must_call = true;
    else if (!json_is(type, "auto"))
        return api_wrong_value(s->err, "tool_choice.type", "\"auto\", \"any\", \"tool\" or \"none\"");
    return true;
}

static bool read_thinking(struct reader *s, const struct json_value *v)
{
    return json_is(json_get(v, "type"), "disabled") || param_unsupported(v, "{\"type\":\"disabled\"}", s->err);
}

/* {"type":"json_schema","schema":{...}} */
static bool read_format(struct reader *s, const struct json_value *v, const char *param)
{
    static const char *const known[] = {"type", "schema", NULL};
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, param, "an object", v);
    const struct json_value *schema = json_get(v, "schema");
    if (!json_is(json_get(v, "type"), "json_schema") || !schema || schema->kind == JSON_NULL)
        return api_wrong_value(s->err, param, "{\"type\":\"json_schema\",\"schema\":{...}}");
    s->form.content = SCHEMA_CONTENT_SCHEMA;
    s->form.schema = schema;
    s->form.schema_param = param;
    return chat_check_members(v, known, param, s->err);
}

static bool read_output_config(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, v->key, "an object", v);
    for (const struct json_value *m = v->first; m; m = m->next) {
        if (m->kind == JSON_NULL)
            continue;
        if (!json_key_is(m, "format"))
            return unknown_member(s, v, m);
        if (!read_format(s, m, "output_config.format"))
            return false;
    }
    return true;
}

static bool only_standard(struct reader *s, const struct json_value *v)
{
    return json_is(v, "standard") || param_unsupported(v, "\"standard\"", s->err);
}

/* Conversations that the server keeps. The code is what the official client looks for:
 * it then sends the whole conversation each time. */
static bool no_thread(struct reader *s, const struct json_value *v)
{
    return api_fail(s->err, 400, MESSAGES_NO_THREAD, v->key,
        "'thread' is not supported: this server stores no conversations. Send all of the conversation as 'messages'.");
}

static bool never(struct reader *s, const struct json_value *v)
{
    return param_unsupported(v, NULL, s->err);
}

/* As server/request/params.h has them. */
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
    {"output_config", read_output_config},
    {"output_format", never},
    {"container", never},
    {"context_management", never},
    {"diagnostics", never},
    {"inference_geo", never},
    {"mcp_servers", never},
    {"thread", no_thread},
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

static bool check_together(struct reader *s, const struct json_value *root)
{
    struct chat_request *r = &s->r->chat;
    bool must_call = s->form.must_call || s->form.named;
    if (must_call && r->chat.n_tools == 0)
        return api_fail(s->err, 400, "invalid_value", "tool_choice", "'tool_choice' needs 'tools'.");
    if (s->r->prefill.data && (must_call || s->form.content == SCHEMA_CONTENT_SCHEMA))
        return api_fail(s->err, 400, "invalid_value", must_call ? "tool_choice" : s->form.schema_param,
                        "'%s' holds the whole answer to a form, so 'messages' cannot end with the beginning of the answer.",
                        must_call ? "tool_choice" : s->form.schema_param);
    if (s->no_tools)
        r->chat.n_tools = 0;
    s->form.tools = r->chat.n_tools > 0 ? json_get(root, "tools") : NULL;
    s->form.tool_schema = "input_schema";
    s->form.one_call = r->one_call;
    return params_check(&r->params, s->err) && constrain_build(&s->form, &r->grammar, s->err);
}

bool messages_request_read(struct messages_request *r, const struct json_value *root, const struct sampling *defaults,
    int n_vocab, bool counting, struct api_error *err)
{
    struct reader s = {.r = r, .err = err, .form = {.content = SCHEMA_CONTENT_TEXT}};
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
    return check_together(&s, root);
}

void messages_request_free(struct messages_request *r)
{
    chat_request_free(&r->chat);
}
