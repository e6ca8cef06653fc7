#include "server/request/completions.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_MAX_TOKENS = 16 };

void completion_request_free(struct completion_request *r)
{
    for (int i = 0; i < r->n_prompts; i++)
        tok_ids_free(&r->prompts[i]);
    free(r->prompts);
    params_free(&r->params);
    *r = (struct completion_request){0};
}

/* ---- prompts ---- */

static bool read_text(
    const struct tokenizer *t, const struct json_value *v, const char *param, struct tok_ids *out, struct api_error *err)
{
    struct error problem;
    if (v->count == 0)
        return api_wrong_value(err, param, "a text that is not empty");
    return tok_encode(t, v->text, v->count, true, out, &problem) ||
           api_fail(err, 500, NULL, param, "The text of '%s' could not be tokenised: %s.", param, problem.text);
}

static bool read_ids(
    const struct tokenizer *t, const struct json_value *v, const char *param, struct tok_ids *out, struct api_error *err)
{
    size_t i = 0;
    for (const struct json_value *e = v->first; e; e = e->next, i++) {
        int64_t id;
        if (!json_get_int(e, &id) || id < 0 || id >= tok_n_vocab(t))
            return api_fail(err, 400, "invalid_value", param,
                "Invalid value for '%s', element %zu: it must be a token id from 0 to %d.", param, i, tok_n_vocab(t) - 1);
        if (!tok_ids_push(out, (int32_t)id))
            return api_out_of_memory(err);
    }
    return v->count > 0 || api_wrong_value(err, param, "an array of at least one token id");
}

static bool read_prompt(
    struct completion_request *r, const struct tokenizer *t, const struct json_value *v, struct api_error *err)
{
    bool several = v->kind == JSON_ARRAY && v->first && v->first->kind != JSON_NUMBER;
    if (v->kind != JSON_STRING && v->kind != JSON_ARRAY)
        return api_wrong_type(err, "prompt", "a string or an array", v);
    if (v->kind == JSON_ARRAY && v->count == 0)
        return api_wrong_value(err, "prompt", "an array that is not empty");
    if (several && v->count > PARAMS_MAX_CHOICES)
        return api_wrong_value(err, "prompt", "an array of at most 64 prompts");
    int n = several ? (int)v->count : 1;
    r->prompts = calloc((size_t)n, sizeof *r->prompts);
    if (!r->prompts)
        return api_out_of_memory(err);
    r->n_prompts = n;
    int i = 0;
    for (const struct json_value *p = several ? v->first : v; i < n; p = p->next, i++) {
        char param[32] = "prompt";
        if (several)
            snprintf(param, sizeof param, "prompt[%d]", i);
        if (p->kind != JSON_STRING && p->kind != JSON_ARRAY)
            return api_wrong_type(err, param, "a string or an array of token ids", p);
        if (!(p->kind == JSON_STRING ? read_text : read_ids)(t, p, param, &r->prompts[i], err))
            return false;
    }
    return true;
}

/* ---- parameters ---- */

static bool read_member(
    struct completion_request *r, const struct tokenizer *t, const struct json_value *m, struct api_error *err)
{
    int64_t n;
    enum param_result common = params_take(&r->params, m, err);
    if (common != PARAM_UNKNOWN)
        return common == PARAM_TAKEN;
    if (json_key_is(m, "prompt"))
        return m->kind == JSON_NULL || read_prompt(r, t, m, err);
    if (json_key_is(m, "max_tokens"))
        return m->kind == JSON_NULL || param_max_tokens(m, &r->max_tokens, err);
    if (json_key_is(m, "echo"))
        return m->kind == JSON_NULL || param_bool(m, &r->echo, err);
    if (json_key_is(m, "logprobs")) {
        if (m->kind == JSON_NULL)
            return true;
        if (!param_int(m, 0, LOGPROBS_MAX_TOP, "an integer from 0 to 20", &n, err))
            return false;
        r->logprobs = (int)n;
        return true;
    }
    if (json_key_is(m, "best_of"))
        return m->kind == JSON_NULL || (json_get_int(m, &n) && n == 1) || param_unsupported(m, "1", err);
    if (json_key_is(m, "suffix"))
        return m->kind == JSON_NULL || json_is(m, "") || param_unsupported(m, "\"\"", err);
    return param_unknown(m, err);
}

bool completion_request_read(struct completion_request *r, const struct json_value *root, const struct sampling *defaults,
    const struct tokenizer *t, struct api_error *err)
{
    *r = (struct completion_request){.max_tokens = DEFAULT_MAX_TOKENS, .logprobs = -1};
    params_init(&r->params, defaults, tok_n_vocab(t));
    if (!param_root(root, err))
        return false;
    for (const struct json_value *m = root->first; m; m = m->next)
        if (!read_member(r, t, m, err))
            return false;
    if (!r->prompts)
        return api_fail(err, 400, "missing_required_parameter", "prompt", "Missing required parameter: 'prompt'.");
    if (r->echo && r->logprobs >= 0)
        return api_fail(err, 400, "unsupported_parameter", "logprobs",
            "'logprobs' together with 'echo' asks for the log probabilities of the prompt, which this server does not compute; "
            "leave one of them out.");
    return params_check(&r->params, err);
}
