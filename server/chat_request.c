#include "server/chat_request.h"
#include "server/chat_messages.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

enum { MAX_STOP_BYTES = 256 };

struct reader {
    struct chat_request *r;
    struct api_error *err;
    int64_t max_tokens, max_completion_tokens; /* 0: not given */
    bool have_seed, no_tools, one_tool_call;
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

static bool read_model(struct reader *s, const struct json_value *v)
{
    return v->kind == JSON_STRING || api_wrong_type(s->err, v->key, "a string", v);
}

static bool read_bool(struct reader *s, const struct json_value *v, bool *out)
{
    if (v->kind != JSON_BOOL)
        return api_wrong_type(s->err, v->key, "a boolean", v);
    *out = v->count;
    return true;
}

static bool read_int(struct reader *s, const struct json_value *v, int64_t low, int64_t high, const char *must, int64_t *out)
{
    if (v->kind != JSON_NUMBER)
        return api_wrong_type(s->err, v->key, "an integer", v);
    if (!json_get_int(v, out) || *out < low || *out > high)
        return api_wrong_value(s->err, v->key, must);
    return true;
}

static bool read_number(struct reader *s, const struct json_value *v, double high, const char *must, float *out)
{
    double d;
    if (v->kind != JSON_NUMBER)
        return api_wrong_type(s->err, v->key, "a number", v);
    if (!json_get_double(v, &d) || !(d >= 0 && d <= high))
        return api_wrong_value(s->err, v->key, must);
    *out = (float)d;
    return true;
}

static bool read_max_tokens(struct reader *s, const struct json_value *v)
{
    return read_int(s, v, 1, INT64_MAX, "an integer, 1 or more",
                    json_key_is(v, "max_tokens") ? &s->max_tokens : &s->max_completion_tokens);
}

static bool read_temperature(struct reader *s, const struct json_value *v)
{
    return read_number(s, v, 2, "a number from 0 to 2", &s->r->sampling.temperature);
}

static bool read_top_p(struct reader *s, const struct json_value *v)
{
    return read_number(s, v, 1, "a number from 0 to 1", &s->r->sampling.top_p);
}

static bool read_min_p(struct reader *s, const struct json_value *v)
{
    return read_number(s, v, 1, "a number from 0 to 1", &s->r->sampling.min_p);
}

static bool read_top_k(struct reader *s, const struct json_value *v)
{
    int64_t n;
    if (!read_int(s, v, -1, INT_MAX, "an integer: how many of the likeliest tokens to keep, 0 or -1 for all", &n))
        return false;
    s->r->sampling.top_k = n < 0 ? 0 : (int)n;
    return true;
}

static bool read_seed(struct reader *s, const struct json_value *v)
{
    int64_t n;
    if (!read_int(s, v, INT64_MIN, INT64_MAX, "an integer of 64 bits", &n))
        return false;
    s->r->sampling.seed = (uint64_t)n;
    s->have_seed = true;
    return true;
}

static bool read_stop(struct reader *s, const struct json_value *v)
{
    struct chat_request *r = s->r;
    if (v->kind != JSON_STRING && v->kind != JSON_ARRAY)
        return api_wrong_type(s->err, "stop", "a string or an array of strings", v);
    if (v->kind == JSON_ARRAY && v->count > CHAT_MAX_STOPS)
        return api_wrong_value(s->err, "stop", "a string or an array of at most 4 strings");
    for (const struct json_value *e = v->kind == JSON_ARRAY ? v->first : v; e; e = v->kind == JSON_ARRAY ? e->next : NULL) {
        if (e->kind != JSON_STRING)
            return api_wrong_type(s->err, "stop", "a string or an array of strings", e);
        if (e->count == 0 || e->count > MAX_STOP_BYTES || memchr(e->text, '\0', e->count))
            return api_wrong_value(s->err, "stop", "made of strings of 1 to 256 bytes without NUL");
        r->stops[r->n_stops++] = e->text;
    }
    return true;
}

static bool read_stream(struct reader *s, const struct json_value *v)
{
    return read_bool(s, v, &s->r->stream);
}

static bool read_stream_options(struct reader *s, const struct json_value *v)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(s->err, "stream_options", "an object", v);
    for (const struct json_value *m = v->first; m; m = m->next) {
        bool is_usage = json_key_is(m, "include_usage");
        if (m->kind == JSON_NULL || (json_key_is(m, "include_obfuscation") && m->kind == JSON_BOOL && !m->count))
            continue;
        char param[96];
        snprintf(param, sizeof param, "stream_options.%s", m->key);
        if (!is_usage)
            return api_fail(s->err, 400, "unknown_parameter", param, "Unknown or unsupported parameter: '%s'.", param);
        if (m->kind != JSON_BOOL)
            return api_wrong_type(s->err, param, "a boolean", m);
        s->r->include_usage = m->count;
    }
    return true;
}

static bool read_n(struct reader *s, const struct json_value *v)
{
    int64_t n;
    return read_int(s, v, 1, 1, "1: this server gives one answer to a request", &n);
}

static bool read_tool_choice(struct reader *s, const struct json_value *v)
{
    if (json_is(v, "none"))
        s->no_tools = true;
    else if (!json_is(v, "auto"))
        return api_wrong_value(s->err, "tool_choice", "\"auto\" or \"none\": this server cannot yet make the model call a tool");
    return true;
}

static bool read_parallel_tool_calls(struct reader *s, const struct json_value *v)
{
    bool parallel = true;
    if (!read_bool(s, v, &parallel))
        return false;
    s->one_tool_call = !parallel;
    return true;
}

static bool refuse(struct reader *s, const struct json_value *v, const char *only)
{
    return api_fail(s->err, 400, "unsupported_parameter", v->key, "'%s' is not supported by this server; leave it out%s%s.", v->key,
                    only ? ", or set it to " : "", only ? only : "");
}

static bool is_number(const struct json_value *v, double n)
{
    double d;
    return json_get_double(v, &d) && d == n;
}

static bool only_false(struct reader *s, const struct json_value *v)
{
    return (v->kind == JSON_BOOL && !v->count) || refuse(s, v, "false");
}

static bool only_zero(struct reader *s, const struct json_value *v)
{
    return is_number(v, 0) || refuse(s, v, "0");
}

static bool only_one(struct reader *s, const struct json_value *v)
{
    return is_number(v, 1) || refuse(s, v, "1");
}

static bool only_empty_object(struct reader *s, const struct json_value *v)
{
    return (v->kind == JSON_OBJECT && v->count == 0) || refuse(s, v, "{}");
}

static bool only_medium(struct reader *s, const struct json_value *v)
{
    return json_is(v, "medium") || refuse(s, v, "\"medium\"");
}

static bool only_none(struct reader *s, const struct json_value *v)
{
    return json_is(v, "none") || refuse(s, v, "\"none\"");
}

static bool only_text_modality(struct reader *s, const struct json_value *v)
{
    return (v->kind == JSON_ARRAY && v->count == 1 && json_is(v->first, "text")) || refuse(s, v, "[\"text\"]");
}

static bool only_text_format(struct reader *s, const struct json_value *v)
{
    return (v->count == 1 && json_is(json_get(v, "type"), "text")) || refuse(s, v, "{\"type\":\"text\"}");
}

static bool never(struct reader *s, const struct json_value *v)
{
    return refuse(s, v, NULL);
}

static const struct {
    const char *name;
    read_parameter *read; /* NULL: accepted and ignored */
} parameters[] = {
    {"messages", read_messages},
    {"model", read_model},
    {"max_tokens", read_max_tokens},
    {"max_completion_tokens", read_max_tokens},
    {"temperature", read_temperature},
    {"top_p", read_top_p},
    {"top_k", read_top_k},
    {"min_p", read_min_p},
    {"seed", read_seed},
    {"stop", read_stop},
    {"stream", read_stream},
    {"stream_options", read_stream_options},
    {"n", read_n},
    {"tools", read_tools},
    {"tool_choice", read_tool_choice},
    {"parallel_tool_calls", read_parallel_tool_calls},
    {"response_format", only_text_format},
    {"logprobs", only_false},
    {"top_logprobs", only_zero},
    {"logit_bias", only_empty_object},
    {"presence_penalty", only_zero},
    {"frequency_penalty", only_zero},
    {"repeat_penalty", only_one},
    {"modalities", only_text_modality},
    {"verbosity", only_medium},
    {"reasoning_effort", only_none},
    {"audio", never},
    {"functions", never},
    {"function_call", never},
    {"prediction", never},
    {"web_search_options", never},
    {"user", NULL},
    {"metadata", NULL},
    {"store", NULL},
    {"service_tier", NULL},
    {"safety_identifier", NULL},
    {"prompt_cache_key", NULL},
    {"prompt_cache_retention", NULL},
    {"cache_prompt", NULL},
};

static bool read_member(struct reader *s, const struct json_value *m)
{
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++) {
        if (!json_key_is(m, parameters[i].name))
            continue;
        return m->kind == JSON_NULL || !parameters[i].read || parameters[i].read(s, m);
    }
    return api_fail(s->err, 400, "unknown_parameter", m->key, "Unknown parameter: '%.64s'.", m->key);
}

/* What concerns several parameters at once. */
static bool check_together(struct reader *s, const struct json_value *root)
{
    struct chat_request *r = s->r;
    if (!r->messages)
        return api_fail(s->err, 400, "missing_required_parameter", "messages", "Missing required parameter: 'messages'.");
    if (s->max_tokens && s->max_completion_tokens && s->max_tokens != s->max_completion_tokens)
        return api_fail(s->err, 400, "invalid_value", "max_tokens", "'max_tokens' and 'max_completion_tokens' mean the same and differ: give one.");
    int64_t max = s->max_tokens ? s->max_tokens : s->max_completion_tokens;
    r->max_tokens = max > INT_MAX ? INT_MAX : (int)max;
    if (r->include_usage && !r->stream)
        return api_fail(s->err, 400, "invalid_value", "stream_options", "'stream_options' is for streams: set 'stream' to true.");
    const struct json_value *choice = json_get(root, "tool_choice");
    if (choice && choice->kind != JSON_NULL && !s->no_tools && r->chat.n_tools == 0)
        return api_fail(s->err, 400, "invalid_value", "tool_choice", "'tool_choice' needs 'tools'.");
    if (s->one_tool_call && r->chat.n_tools > 0 && !s->no_tools)
        return api_fail(s->err, 400, "unsupported_parameter", "parallel_tool_calls",
                        "'parallel_tool_calls' can only be true with tools: this server cannot yet hold the model to one call.");
    if (s->no_tools)
        r->chat.n_tools = 0;
    return true;
}

bool chat_request_read(struct chat_request *r, const struct json_value *root, const struct sampling *defaults, struct api_error *err)
{
    struct reader s = {.r = r, .err = err};
    *r = (struct chat_request){.sampling = *defaults};
    r->chat.add_generation_prompt = true;
    if (root->kind != JSON_OBJECT)
        return api_fail(err, 400, "invalid_type", NULL, "The body must be a JSON object, not %s.", json_kind_name(root->kind));
    for (const struct json_value *m = root->first; m; m = m->next)
        if (!read_member(&s, m))
            return false;
    if (!check_together(&s, root))
        return false;
    if (!s.have_seed && getrandom(&r->sampling.seed, sizeof r->sampling.seed, 0) != (ssize_t)sizeof r->sampling.seed)
        return api_fail(err, 500, NULL, NULL, "The system has no random numbers for a seed.");
    return true;
}
