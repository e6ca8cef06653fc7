#include "server/request/params.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

enum { MAX_STOP_BYTES = 256 };

/* ---- one value ---- */

bool param_bool(const struct json_value *v, bool *out, struct api_error *err)
{
    if (v->kind != JSON_BOOL)
        return api_wrong_type(err, v->key, "a boolean", v);
    *out = v->count;
    return true;
}

bool param_int(const struct json_value *v, int64_t low, int64_t high, const char *must, int64_t *out, struct api_error *err)
{
    if (v->kind != JSON_NUMBER)
        return api_wrong_type(err, v->key, "an integer", v);
    if (!json_get_int(v, out) || *out < low || *out > high)
        return api_wrong_value(err, v->key, must);
    return true;
}

bool param_max_tokens(const struct json_value *v, int *out, struct api_error *err)
{
    int64_t n;
    if (!param_int(v, 1, INT64_MAX, "an integer, 1 or more", &n, err))
        return false;
    *out = n > INT_MAX ? INT_MAX : (int)n;
    return true;
}

bool param_number(const struct json_value *v, double low, double high, const char *must, float *out, struct api_error *err)
{
    double d;
    if (v->kind != JSON_NUMBER)
        return api_wrong_type(err, v->key, "a number", v);
    if (!json_get_double(v, &d) || !(d >= low && d <= high))
        return api_wrong_value(err, v->key, must);
    *out = (float)d;
    return true;
}

bool param_unsupported(const struct json_value *v, const char *only, struct api_error *err)
{
    return api_fail(err, 400, "unsupported_parameter", v->key, "'%.64s' is not supported by this server; leave it out%s%s.",
        v->key, only ? ", or set it to " : "", only ? only : "");
}

bool param_unknown(const struct json_value *v, struct api_error *err)
{
    return api_fail(err, 400, "unknown_parameter", v->key, "Unknown parameter: '%.64s'.", v->key);
}

bool param_root(const struct json_value *root, struct api_error *err)
{
    if (root->kind == JSON_OBJECT)
        return true;
    return api_fail(err, 400, "invalid_type", NULL, "The body must be a JSON object, not %s.", json_kind_name(root->kind));
}

/* ---- the common ones ---- */

typedef bool read_parameter(struct params *p, const struct json_value *v, struct api_error *err);

static bool read_model(struct params *p, const struct json_value *v, struct api_error *err)
{
    (void)p;
    return v->kind == JSON_STRING || api_wrong_type(err, v->key, "a string", v);
}

static bool read_temperature(struct params *p, const struct json_value *v, struct api_error *err)
{
    return param_number(v, 0, 2, "a number from 0 to 2", &p->sampling.temperature, err);
}

static bool read_top_p(struct params *p, const struct json_value *v, struct api_error *err)
{
    return param_number(v, 0, 1, "a number from 0 to 1", &p->sampling.top_p, err);
}

static bool read_min_p(struct params *p, const struct json_value *v, struct api_error *err)
{
    return param_number(v, 0, 1, "a number from 0 to 1", &p->sampling.min_p, err);
}

static bool read_top_k(struct params *p, const struct json_value *v, struct api_error *err)
{
    int64_t n;
    if (!param_int(v, -1, INT_MAX, "an integer: how many of the likeliest tokens to keep, 0 or -1 for all", &n, err))
        return false;
    p->sampling.top_k = n < 0 ? 0 : (int)n;
    return true;
}

static bool read_seed(struct params *p, const struct json_value *v, struct api_error *err)
{
    int64_t n;
    if (!param_int(v, INT64_MIN, INT64_MAX, "an integer of 64 bits", &n, err))
        return false;
    p->sampling.seed = (uint64_t)n;
    p->have_seed = true;
    return true;
}

static bool read_presence(struct params *p, const struct json_value *v, struct api_error *err)
{
    return param_number(v, -2, 2, "a number from -2 to 2", &p->sampling.presence_penalty, err);
}

static bool read_frequency(struct params *p, const struct json_value *v, struct api_error *err)
{
    return param_number(v, -2, 2, "a number from -2 to 2", &p->sampling.frequency_penalty, err);
}

static bool read_repetition(struct params *p, const struct json_value *v, struct api_error *err)
{
    static const char must[] = "a number above 0, at most 10";
    float f = 0;
    if (!param_number(v, 0, 10, must, &f, err))
        return false;
    if (!(f > 0))
        return api_wrong_value(err, v->key, must);
    p->sampling.repetition_penalty = f;
    return true;
}

static bool read_biases(struct params *p, const struct json_value *v, struct api_error *err)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, v->key, "an object", v);
    if (v->count > PARAMS_MAX_BIASES)
        return api_wrong_value(err, v->key, "an object of at most 1024 members");
    if (v->count == 0)
        return true;
    struct token_bias *biases = calloc(v->count, sizeof *biases);
    if (!biases)
        return api_out_of_memory(err);
    p->sampling.biases = biases;
    for (const struct json_value *m = v->first; m; m = m->next) {
        char param[96], *end;
        snprintf(param, sizeof param, "logit_bias.%s", m->key);
        unsigned long id = strtoul(m->key, &end, 10);
        bool digits = m->key_count > 0 && m->key_count <= 10 && strspn(m->key, "0123456789") == m->key_count;
        if (!digits || *end != '\0' || id >= (unsigned long)p->n_vocab)
            return api_fail(err, 400, "invalid_value", param,
                "Invalid parameter '%s': the keys of 'logit_bias' are token ids from 0 to %d.", param, p->n_vocab - 1);
        double bias;
        if (m->kind != JSON_NUMBER)
            return api_wrong_type(err, param, "a number", m);
        if (!json_get_double(m, &bias) || !(bias >= -100 && bias <= 100))
            return api_wrong_value(err, param, "a number from -100 to 100");
        biases[p->sampling.n_biases++] = (struct token_bias){(int32_t)id, (float)bias};
    }
    return true;
}

bool param_stops(
    const struct json_value *v, bool single, int most, const char **stops, int *n, struct api_error *err)
{
    const char *what = single ? "a string or an array of strings" : "an array of strings";
    const bool array = v->kind == JSON_ARRAY;
    char at_most[64];
    snprintf(at_most, sizeof at_most, "%san array of at most %d strings", single ? "a string or " : "", most);
    if (!array && !(single && v->kind == JSON_STRING))
        return api_wrong_type(err, v->key, what, v);
    if (array && v->count > (size_t)most)
        return api_wrong_value(err, v->key, at_most);
    for (const struct json_value *e = array ? v->first : v; e; e = array ? e->next : NULL) {
        if (e->kind != JSON_STRING)
            return api_wrong_type(err, v->key, what, e);
        if (e->count == 0 || e->count > MAX_STOP_BYTES || memchr(e->text, '\0', e->count))
            return api_wrong_value(err, v->key, "made of strings of 1 to 256 bytes without NUL");
        stops[(*n)++] = e->text;
    }
    return true;
}

static bool read_stop(struct params *p, const struct json_value *v, struct api_error *err)
{
    return param_stops(v, true, PARAMS_MAX_STOPS, p->stops, &p->n_stops, err);
}

static bool read_n(struct params *p, const struct json_value *v, struct api_error *err)
{
    int64_t n;
    if (!param_int(v, 1, PARAMS_MAX_CHOICES, "an integer from 1 to 64", &n, err))
        return false;
    p->n = (int)n;
    return true;
}

static bool read_stream(struct params *p, const struct json_value *v, struct api_error *err)
{
    return param_bool(v, &p->stream, err);
}

static bool read_stream_options(struct params *p, const struct json_value *v, struct api_error *err)
{
    if (v->kind != JSON_OBJECT)
        return api_wrong_type(err, v->key, "an object", v);
    for (const struct json_value *m = v->first; m; m = m->next) {
        bool is_usage = json_key_is(m, "include_usage");
        if (m->kind == JSON_NULL || (json_key_is(m, "include_obfuscation") && m->kind == JSON_BOOL && !m->count))
            continue;
        char param[96];
        snprintf(param, sizeof param, "stream_options.%s", m->key);
        if (!is_usage)
            return api_fail(err, 400, "unknown_parameter", param, "Unknown or unsupported parameter: '%s'.", param);
        if (m->kind != JSON_BOOL)
            return api_wrong_type(err, param, "a boolean", m);
        p->include_usage = m->count;
    }
    return true;
}

static const struct {
    const char *name;
    read_parameter *read; /* NULL: accepted and ignored */
} parameters[] = {
    {"model", read_model},
    {"temperature", read_temperature},
    {"top_p", read_top_p},
    {"top_k", read_top_k},
    {"min_p", read_min_p},
    {"seed", read_seed},
    {"presence_penalty", read_presence},
    {"frequency_penalty", read_frequency},
    {"repetition_penalty", read_repetition},
    {"repeat_penalty", read_repetition},
    {"logit_bias", read_biases},
    {"stop", read_stop},
    {"n", read_n},
    {"stream", read_stream},
    {"stream_options", read_stream_options},
    {"user", NULL},
    {"metadata", NULL},
    {"store", NULL},
    {"service_tier", NULL},
    {"safety_identifier", NULL},
    {"prompt_cache_key", NULL},
    {"prompt_cache_retention", NULL},
    {"cache_prompt", NULL},
};

void params_init(struct params *p, const struct sampling *defaults, int n_vocab)
{
    *p = (struct params){.sampling = *defaults, .n_vocab = n_vocab, .n = 1};
    p->sampling.biases = NULL;
    p->sampling.n_biases = 0;
}

void params_free(struct params *p)
{
    free((struct token_bias *)p->sampling.biases);
    p->sampling.biases = NULL;
}

enum param_result params_take(struct params *p, const struct json_value *m, struct api_error *err)
{
    for (size_t i = 0; i < sizeof parameters / sizeof *parameters; i++)
        if (json_key_is(m, parameters[i].name))
            return m->kind == JSON_NULL || !parameters[i].read || parameters[i].read(p, m, err) ? PARAM_TAKEN : PARAM_FAILED;
    return PARAM_UNKNOWN;
}

bool params_check(struct params *p, struct api_error *err)
{
    if (p->include_usage && !p->stream)
        return api_fail(err, 400, "invalid_value", "stream_options", "'stream_options' is for streams: set 'stream' to true.");
    if (!p->have_seed && getrandom(&p->sampling.seed, sizeof p->sampling.seed, 0) != (ssize_t)sizeof p->sampling.seed)
        return api_fail(err, 500, NULL, NULL, "The system has no random numbers for a seed.");
    return true;
}

void params_apply(const struct params *p, struct generation *g)
{
    g->sampling = p->sampling;
    g->n_stops = p->n_stops;
    for (int i = 0; i < p->n_stops; i++)
        g->stops[i] = p->stops[i];
}
