#include "server/request/chat_request.h"
#include "server/request/chat_messages.h"
#include "server/request/constrain.h"

#include <limits.h>
#include <string.h>

struct reader {
    struct chat_request *r;
    struct api_error *err;
    int64_t max_tokens, max_completion_tokens; /* 0: not given */
    bool no_tools;
    struct constrain form; /* what is asked of the answer's form */
};

typedef bool read_parameter(struct reader *s, const struct json_value *v);

static bool read_messages(struct reader *s, const struct json_value *v)
{
    return chat_read_messages(s->r, v, s->err);
}

static bool read_tools(struct reader *s, const struct json_value *v)
{
    return chat_read_tools(s->r, v, s->err);
}

static bool read_max_tokens(struct reader *s, const struct json_value *v)
{
    return param_int(v, 1, INT64_MAX, "an integer, 1 or more",
        json_key_is(v, "max_tokens") ? &s->max_tokens : &s->max_completion_tokens, s->err);
}

static bool read_tool_choice(struct reader *s, const struct json_value *v)
{
    const struct json_value *name = json_get(json_get(v, "function"), "name");
    if (json_is(v, "none"))
        s->no_tools = true;
    else if (json_is(v, "required"))
        s->form.must_call = true;
    else if (json_is(json_get(v, "type"), "function") && name && name->kind == JSON_STRING)
        s->form.named = name->text;
    else if (!json_is(v, "auto"))
        return api_wrong_value(
            s->err, "tool_choice", "\"auto\", \"none\", \"required\", or {\"type\":\"function\",\"function\":{\"name\":...}}");
    return true;
}

static bool read_parallel_tool_calls(struct reader *s, const struct json_value *v)
{
    bool parallel = true;
    if (!param_bool(v, &parallel, s->err))
        return false;
    s->r->one_call = !parallel;
    return true;
}

static bool read_logprobs(struct reader *s, const struct json_value *v)
{
    return param_bool(v, &s->r->logprobs, s->err);
}

static bool read_top_logprobs(struct reader *s, const struct json_value *v)
{
    int64_t n;
    if (!param_int(v, 0, LOGPROBS_MAX_TOP, "an integer from 0 to 20", &n, s->err))
        return false;
    s->r->top_logprobs = (int)n;
    return true;
}

static bool only_medium(struct reader *s, const struct json_value *v)
{
    return json_is(v, "medium") || param_unsupported(v, "\"medium\"", s->err);
}

static bool only_none(struct reader *s, const struct json_value *v)
{
    return json_is(v, "none") || param_unsupported(v, "\"none\"", s->err);
}

static bool only_text_modality(struct reader *s, const struct json_value *v)
{
    return (v->kind == JSON_ARRAY && v->count == 1 && json_is(v->first, "text")) || param_unsupported(v, "[\"text\"]", s->err);
}

static bool read_response_format(struct reader *s, const struct json_value *v)
{
    return constrain_response_format(&s->form, v, s->err);
}

static bool never(struct reader *s, const struct json_value *v)
{
    return param_unsupported(v, NULL, s->err);
}

static const struct {
    const char *name;
    read_parameter *read;
} parameters[] = {
    {"messages", read_messages},
    {"max_tokens", read_max_tokens},
    {"max_completion_tokens", read_max_tokens},
    {"tools", read_tools},
    {"tool_choice", read_tool_choice},
    {"parallel_tool_calls", read_parallel_tool_calls},
    {"logprobs", read_logprobs},
    {"top_logprobs", read_top_logprobs},
    {"response_format", read_response_format},
    {"modalities", only_text_modality},
    {"verbosity", only_medium},
    {"reasoning_effort", only_none},
    {"audio", never},
    {"functions", never},
    {"function_call", never},
    {"prediction", never},
    {"web_search_options", never},
};

static bool read_member(struct reader *s, const struct json_value *m)
{
    enum param_result common = params_take(&s->r->params, m, s->err);
    if (common != PARAM_UNKNOWN)
        return common == PARAM_TAKEN;
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++)
        if (json_key_is(m, parameters[i].name))
            return m->kind == JSON_NULL || parameters[i].read(s, m);
    return param_unknown(m, s->err);
}

/* What concerns several parameters at once. */
static bool check_together(struct reader *s, const struct json_value *root)
{
    struct chat_request *r = s->r;
    if (!r->messages)
        return api_fail(s->err, 400, "missing_required_parameter", "messages", "Missing required parameter: 'messages'.");
    if (s->max_tokens && s->max_completion_tokens && s->max_tokens != s->max_completion_tokens)
        return api_fail(s->err, 400, "invalid_value", "max_tokens",
            "'max_tokens' and 'max_completion_tokens' mean the same and differ: give one.");
    int64_t max = s->max_tokens ? s->max_tokens : s->max_completion_tokens;
    r->max_tokens = max > INT_MAX ? INT_MAX : (int)max;
    if (r->top_logprobs > 0 && !r->logprobs)
        return api_fail(s->err, 400, "invalid_value", "top_logprobs", "'top_logprobs' needs 'logprobs': set it to true.");
    const struct json_value *choice = json_get(root, "tool_choice");
    if (choice && choice->kind != JSON_NULL && !s->no_tools && r->chat.n_tools == 0)
        return api_fail(s->err, 400, "invalid_value", "tool_choice", "'tool_choice' needs 'tools'.");
    if (s->no_tools)
        r->chat.n_tools = 0;
    s->form.tools = r->chat.n_tools > 0 ? json_get(root, "tools") : NULL;
    s->form.one_call = r->one_call;
    return params_check(&r->params, s->err) && constrain_build(&s->form, &r->grammar, s->err);
}

bool chat_request_read(
    struct chat_request *r, const struct json_value *root, const struct sampling *defaults, int n_vocab, struct api_error *err)
{
    struct reader s = {.r = r, .err = err, .form = {.content = SCHEMA_CONTENT_TEXT}};
    *r = (struct chat_request){0};
    params_init(&r->params, defaults, n_vocab);
    r->chat.add_generation_prompt = true;
    if (!param_root(root, err))
        return false;
    for (const struct json_value *m = root->first; m; m = m->next)
        if (!read_member(&s, m))
            return false;
    return check_together(&s, root);
}
