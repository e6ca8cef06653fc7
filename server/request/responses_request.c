#include "server/request/responses_request.h"
#include "server/request/chat_messages.h"
#include "server/request/constrain.h"
#include "server/request/responses_items.h"

#include <stdio.h>
#include <string.h>

/* Instructions, tools and the like that are longer than this do not come back in the answer: a stream says them three times. */
enum { MAX_ECHO = 256 * 1024 };

struct reader {
    struct responses_request *r;
    const struct json_value *instructions, *input; /* NULL: absent */
    struct api_error *err;
    bool no_tools;
    struct constrain form; /* what is asked of the answer's form */
};

typedef bool read_parameter(struct reader *s, const struct json_value *v);

/* A member of a parameter that is unknown, or (with `only`) can have no other value. */
static bool member_error(struct reader *s, const struct json_value *object, const struct json_value *member, const char *only)
{
    char param[96];
    snprintf(param, sizeof param, "%s.%s", object->key, member->key);
    if (!only)
        return api_fail(s->err, 400, "unknown_parameter", param, "Unknown or unsupported parameter: '%s'.", param);
    return api_fail(s->err, 400, "unsupported_parameter", param,
        "'%s' is not supported by this server; leave it out, or set it to %s.", param, only);
}

static bool read_input(struct reader *s, const struct json_value *v)
{
    s->input = v;
    return true;
}

static bool read_instructions(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_STRING)
        return api_wrong_type(s->err, v->key, "a string", v);
    s->instructions = v;
    return true;
}

static bool read_tools(struct reader *s, const struct json_value *v)
{
    return responses_read_tools(&s->r->chat, v, s->err);
}

static bool read_max_output_tokens(struct reader *s, const struct json_value *v)
{
    return param_max_tokens(v, &s->r->chat.max_tokens, s->err);
}

static bool read_tool_choice(struct reader *s, const struct json_value *v)
{
    const struct json_value *name = json_get(v, "name");
    if (json_is(v, "none"))
        s->no_tools = true;
    else if (json_is(v, "required"))
        s->form.must_call = true;
    else if (json_is(json_get(v, "type"), "function") && name && name->kind == JSON_STRING && v->count == 2)
        s->form.named = name->text;
    else if (!json_is(v, "auto"))
        return api_wrong_value(s->err, "tool_choice", "\"auto\", \"none\", \"required\" or {\"type\":\"function\",\"name\":...}");
    return true;
}

static bool read_parallel_tool_calls(struct reader *s, const struct json_value *v)
{
    bool parallel = true;
    if (!param_bool(v, &parallel, s->err))
        return false;
    s->r->chat.one_call = !parallel;
    return true;
}

/* {"type":"json_schema","name","schema","strict","description"}: enforced, strict or not. */
static bool read_schema(struct reader *s, const struct json_value *v)
{
    static const char *const known[] = {"type", "name", "schema", "strict", "description", NULL};
    const struct json_value *name = json_get(v, "name"), *schema = json_get(v, "schema"), *strict = json_get(v, "strict"),
                            *description = json_get(v, "description");
    if (!chat_check_members(v, known, "text.format", s->err))
        return false;
    if (!name || name->kind != JSON_STRING || !chat_is_tool_name(name))
        return api_wrong_value(s->err, "text.format.name", "a string of 1 to 64 letters, digits, _ and -");
    if (strict && strict->kind != JSON_BOOL && strict->kind != JSON_NULL)
        return api_wrong_type(s->err, "text.format.strict", "a boolean", strict);
    if (description && description->kind != JSON_STRING && description->kind != JSON_NULL)
        return api_wrong_type(s->err, "text.format.description", "a string", description);
    if (!schema || schema->kind == JSON_NULL)
        return api_fail(
            s->err, 400, "missing_required_parameter", "text.format.schema", "Missing required parameter: 'text.format.schema'.");
    s->form.content = SCHEMA_CONTENT_SCHEMA;
    s->form.schema = schema;
    s->form.schema_param = "text.format.schema";
    return true;
}

static bool read_format(struct reader *s, const struct json_value *v)
{
    static const char *const known[] = {"type", NULL};
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, "text.format", "an object", v);
    const struct json_value *type = json_get(v, "type");
    if (json_is(type, "json_schema"))
        return read_schema(s, v);
    if (!json_is(type, "text") && !json_is(type, "json_object"))
        return api_wrong_value(s->err, "text.format.type", "\"text\", \"json_object\" or \"json_schema\"");
    s->form.content = json_is(type, "text") ? SCHEMA_CONTENT_TEXT : SCHEMA_CONTENT_OBJECT;
    return chat_check_members(v, known, "text.format", s->err);
}

static bool read_text(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, v->key, "an object", v);
    for (const struct json_value *m = v->first; m; m = m->next) {
        if (m->kind == JSON_NULL)
            continue;
        if (json_key_is(m, "format")) {
            if (!read_format(s, m))
                return false;
        } else if (json_key_is(m, "verbosity")) {
            if (!json_is(m, "medium"))
                return member_error(s, v, m, "\"medium\"");
        } else {
            return member_error(s, v, m, NULL);
        }
    }
    return true;
}

static bool read_reasoning(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, v->key, "an object", v);
    for (const struct json_value *m = v->first; m; m = m->next) {
        if (m->kind == JSON_NULL)
            continue;
        if (json_key_is(m, "effort")) {
            if (!json_is(m, "none"))
                return member_error(s, v, m, "\"none\": this model does not reason before it answers");
        } else if (json_key_is(m, "summary") || json_key_is(m, "generate_summary")) {
            if (!json_is(m, "auto"))
                return member_error(s, v, m, "\"auto\"");
        } else {
            return member_error(s, v, m, NULL);
        }
    }
    return true;
}

static bool read_include(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_ARRAY)
        return api_wrong_type(s->err, v->key, "an array of strings", v);
    size_t i = 0;
    for (const struct json_value *e = v->first; e; e = e->next, i++) {
        char param[32];
        snprintf(param, sizeof param, "include[%zu]", i);
        if (e->kind != JSON_STRING)
            return api_wrong_type(s->err, param, "a string", e);
        if (!json_is(e, "reasoning.encrypted_content"))
            return api_fail(s->err, 400, "unsupported_value", param, "'%s' asks for \"%.64s\", which this server does not have.",
                param, e->text);
    }
    return true;
}

static bool read_metadata(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, v->key, "an object", v);
    for (const struct json_value *m = v->first; m; m = m->next)
        if (m->kind != JSON_STRING)
            return api_wrong_value(s->err, v->key, "an object whose members are strings");
    return true;
}

static bool read_store(struct reader *s, const struct json_value *v)
{
    bool store;
    return param_bool(v, &store, s->err);
}

static bool read_background(struct reader *s, const struct json_value *v)
{
    bool background;
    if (!param_bool(v, &background, s->err))
        return false;
    return !background || param_unsupported(v, "false", s->err);
}

static bool read_truncation(struct reader *s, const struct json_value *v)
{
    return json_is(v, "disabled") || param_unsupported(v, "\"disabled\"", s->err);
}

static bool read_stream_options(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, v->key, "an object", v);
    for (const struct json_value *m = v->first; m; m = m->next) {
        if (m->kind == JSON_NULL)
            continue;
        if (!json_key_is(m, "include_obfuscation"))
            return member_error(s, v, m, NULL);
        if (m->kind != JSON_BOOL || m->count)
            return member_error(s, v, m, "false");
    }
    return true;
}

static bool read_top_logprobs(struct reader *s, const struct json_value *v)
{
    int64_t n;
    return (json_get_int(v, &n) && n == 0) || param_unsupported(v, "0", s->err);
}

static bool not_stored(struct reader *s, const struct json_value *v)
{
    return api_fail(s->err, 400, "unsupported_parameter", v->key,
        "'%.64s' is not supported: this server stores no conversations. Send all of the conversation as 'input'.", v->key);
}

static bool never(struct reader *s, const struct json_value *v)
{
    return param_unsupported(v, NULL, s->err);
}

/* Before those of server/request/params.h, which has some under the same name. */
static const struct {
    const char *name;
    read_parameter *read;
} parameters[] = {
    {"input", read_input},
    {"instructions", read_instructions},
    {"tools", read_tools},
    {"tool_choice", read_tool_choice},
    {"parallel_tool_calls", read_parallel_tool_calls},
    {"max_output_tokens", read_max_output_tokens},
    {"text", read_text},
    {"reasoning", read_reasoning},
    {"include", read_include},
    {"metadata", read_metadata},
    {"store", read_store},
    {"background", read_background},
    {"truncation", read_truncation},
    {"stream_options", read_stream_options},
    {"top_logprobs", read_top_logprobs},
    {"previous_response_id", not_stored},
    {"conversation", not_stored},
    {"prompt", never},
    {"context_management", never},
    {"max_tool_calls", never},
    {"moderation", never},
    {"n", never},
};

static bool read_member(struct reader *s, const struct json_value *m)
{
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++)
        if (json_key_is(m, parameters[i].name))
            return m->kind == JSON_NULL || parameters[i].read(s, m);
    enum param_result common = params_take(&s->r->chat.params, m, s->err);
    return common == PARAM_UNKNOWN ? param_unknown(m, s->err) : common == PARAM_TAKEN;
}

/* ---- what the answer says about the request ---- */

static void echo_value(struct json_writer *w, const struct json_value *root, const char *name, const char *otherwise)
{
    const struct json_value *v = json_get(root, name);
    json_key(w, name);
    if (v && v->kind != JSON_NULL) {
        json_value(w, v);
    } else {
        json_raw(w, otherwise, strlen(otherwise));
        w->comma = true;
    }
}

static void echo_number(struct json_writer *w, const struct json_value *root, const char *name, float value)
{
    char text[32];
    snprintf(text, sizeof text, "%.7g", (double)value); /* the default as it was given, not its nearest double */
    echo_value(w, root, name, text);
}

static void write_echo(struct reader *s, const struct json_value *root, const struct json_value *texts)
{
    struct json_writer *w = &s->r->echo;
    const struct params *p = &s->r->chat.params;
    echo_value(w, texts, "instructions", "null");
    echo_value(w, texts, "tools", "[]");
    echo_value(w, texts, "metadata", "{}");
    echo_value(w, texts, "user", "null");
    echo_value(w, texts, "safety_identifier", "null");
    echo_value(w, texts, "prompt_cache_key", "null");
    echo_value(w, root, "tool_choice", "\"auto\"");
    json_key(w, "parallel_tool_calls");
    json_bool(w, !s->r->chat.one_call);
    echo_value(w, root, "max_output_tokens", "null");
    echo_number(w, root, "temperature", p->sampling.temperature);
    echo_number(w, root, "top_p", p->sampling.top_p);
    const struct json_value *format = json_get(json_get(texts, "text"), "format"); /* its schema comes back too */
    json_key(w, "text");
    json_begin_object(w);
    json_key(w, "format");
    if (format && format->kind == JSON_OBJECT) {
        json_value(w, format);
    } else {
        json_begin_object(w);
        json_key(w, "type");
        json_text(w, "text");
        json_end_object(w);
    }
    json_key(w, "verbosity");
    json_text(w, "medium");
    json_end_object(w);
    static const char fixed[] =
        ",\"background\":false,\"conversation\":null,\"max_tool_calls\":null,\"previous_response_id\":null,\"prompt\":null,"
        "\"reasoning\":{\"effort\":null,\"summary\":null},\"service_tier\":\"default\",\"store\":false,"
        "\"top_logprobs\":0,\"truncation\":\"disabled\"";
    json_raw(w, fixed, sizeof fixed - 1);
}

static bool echo(struct reader *s, const struct json_value *root)
{
    static const struct json_value none = {0}; /* null: nothing is found in it */
    write_echo(s, root, root);
    if (s->r->echo.length > MAX_ECHO) {
        json_writer_free(&s->r->echo);
        write_echo(s, root, &none);
    }
    return !s->r->echo.failed || api_out_of_memory(s->err);
}

/* ---- all of it ---- */

static bool check_together(struct reader *s, const struct json_value *root)
{
    struct chat_request *r = &s->r->chat;
    if (!s->input)
        return api_fail(s->err, 400, "missing_required_parameter", "input", "Missing required parameter: 'input'.");
    if (!responses_read_input(r, s->instructions, s->input, s->err) || !echo(s, root))
        return false;
    if ((s->form.must_call || s->form.named) && r->chat.n_tools == 0)
        return api_fail(s->err, 400, "invalid_value", "tool_choice", "'tool_choice' needs 'tools'.");
    if (s->no_tools)
        r->chat.n_tools = 0;
    s->form.tools = r->chat.n_tools > 0 ? json_get(root, "tools") : NULL;
    s->form.tool_schema = "parameters";
    s->form.one_call = r->one_call;
    return params_check(&r->params, s->err) && constrain_build(&s->form, &r->grammar, s->err);
}

bool responses_request_read(struct responses_request *r, const struct json_value *root, const struct sampling *defaults,
    int n_vocab, struct api_error *err)
{
    struct reader s = {.r = r, .err = err, .form = {.content = SCHEMA_CONTENT_TEXT}};
    *r = (struct responses_request){0};
    params_init(&r->chat.params, defaults, n_vocab);
    r->chat.chat.add_generation_prompt = true;
    if (!param_root(root, err))
        return false;
    for (const struct json_value *m = root->first; m; m = m->next)
        if (!read_member(&s, m))
            return false;
    return check_together(&s, root);
}

void responses_request_free(struct responses_request *r)
{
    chat_request_free(&r->chat);
    json_writer_free(&r->echo);
}
