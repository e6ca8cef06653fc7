/* The small routes that tell about the server and its model, in llama-server's shapes where it has them. */
#include "server/api/api_internal.h"
#include "server/request/chat_request.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool api_health(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    (void)r;
    (void)err;
    static const char ok[] = "{\"status\":\"ok\"}", loading[] = "{\"status\":\"loading\"}";
    if (a->engine)
        exchange_reply(x, 200, "", api_json_type, ok, sizeof ok - 1);
    else
        exchange_reply(x, 503, "Retry-After: 1\r\n", api_json_type, loading, sizeof loading - 1);
    return true;
}

static void put_text(struct json_writer *w, const char *key, const char *text)
{
    json_key(w, key);
    json_text(w, text);
}

static void put_int(struct json_writer *w, const char *key, int64_t n)
{
    json_key(w, key);
    json_int(w, n);
}

/* 0.7 as 0.7, not as the float nearest to it. */
static void put_number(struct json_writer *w, const char *key, float f)
{
    char text[32];
    snprintf(text, sizeof text, "%.7g", (double)f);
    json_key(w, key);
    json_double(w, strtod(text, NULL));
}

/* ---- /v1/models ---- */

static void write_model(struct json_writer *w, const struct api *a)
{
    enum { VOCAB_TYPE_BPE = 2 }; /* as llama.cpp numbers them */
    const struct engine_info *info = engine_info(a->engine);
    json_begin_object(w);
    put_text(w, "id", a->options.model);
    put_text(w, "object", "model");
    put_int(w, "created", a->started);
    put_text(w, "owned_by", "quern");
    json_key(w, "meta");
    json_begin_object(w);
    put_text(w, "name", info->name);
    put_int(w, "vocab_type", VOCAB_TYPE_BPE);
    put_int(w, "n_vocab", info->n_vocab);
    put_int(w, "n_ctx", info->n_ctx);
    put_int(w, "n_ctx_train", info->n_ctx_train);
    put_int(w, "n_embd", info->n_embd);
    put_int(w, "n_params", (int64_t)info->n_params);
    put_int(w, "size", (int64_t)info->model_bytes);
    json_end_object(w);
    json_end_object(w);
}

bool api_models(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    (void)r;
    (void)err;
    struct json_writer w = {0};
    json_begin_object(&w);
    put_text(&w, "object", "list");
    json_key(&w, "data");
    json_begin_array(&w);
    write_model(&w, a);
    json_end_array(&w);
    json_end_object(&w);
    api_send_json(x, &w);
    return true;
}

bool api_model(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    const char *name = strstr(r->path, "/models/") + 8;
    if (strcmp(name, a->options.model) != 0)
        return api_fail(err, 404, "model_not_found", "model", "There is no model '%.128s' here; this server has '%.128s'.", name,
            a->options.model);
    struct json_writer w = {0};
    write_model(&w, a);
    api_send_json(x, &w);
    return true;
}

/* ---- /props, /version ---- */

/* The values that a request gets which does not give its own. */
static void write_settings(struct json_writer *w, const struct api *a)
{
    const struct sampling *s = &a->options.sampling;
    json_begin_object(w);
    put_int(w, "n_ctx", engine_info(a->engine)->n_ctx);
    json_key(w, "params");
    json_begin_object(w);
    put_int(w, "seed", -1); /* another one for each request */
    put_number(w, "temperature", s->temperature);
    put_int(w, "top_k", s->top_k);
    put_number(w, "top_p", s->top_p);
    put_number(w, "min_p", s->min_p);
    put_number(w, "repeat_penalty", 1);
    put_number(w, "presence_penalty", 0);
    put_number(w, "frequency_penalty", 0);
    put_int(w, "n_predict", -1); /* until the context is full */
    json_end_object(w);
    json_end_object(w);
}

bool api_props(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    (void)r;
    (void)err;
    const struct engine_info *info = engine_info(a->engine);
    const char *slash = strrchr(a->options.model_path, '/');
    struct json_writer w = {0};
    json_begin_object(&w);
    json_key(&w, "default_generation_settings");
    write_settings(&w, a);
    put_int(&w, "total_slots", info->n_parallel);
    put_text(&w, "model_alias", a->options.model);
    put_text(&w, "model_path", slash ? slash + 1 : a->options.model_path); /* where it lies is nobody's business */
    put_text(&w, "chat_template", info->chat_template);
    put_text(&w, "build_info", "quern-" QUERN_VERSION);
    json_end_object(&w);
    api_send_json(x, &w);
    return true;
}

bool api_version(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    (void)r;
    (void)err;
    struct json_writer w = {0};
    json_begin_object(&w);
    put_text(&w, "version", QUERN_VERSION);
    put_text(&w, "kernels", a->options.kernel_level);
    json_end_object(&w);
    api_send_json(x, &w);
    return true;
}

/* ---- /apply-template ---- */

/* Takes what /v1/chat/completions takes, and tells the prompt that it would make. */
bool api_apply_template(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    struct chat_request request;
    bool ok = chat_request_read(&request, body, &a->options.sampling, engine_info(a->engine)->n_vocab, err);
    if (ok) {
        size_t length = 0;
        char *prompt = chat_render(&request.chat, &length);
        ok = prompt || api_out_of_memory(err);
        if (ok) {
            struct json_writer w = {0};
            json_begin_object(&w);
            json_key(&w, "prompt");
            json_string(&w, prompt, length);
            json_end_object(&w);
            api_send_json(x, &w);
        }
        free(prompt);
    }
    chat_request_free(&request);
    return ok;
}

/* ---- /metrics ---- */

/* A 404 when it is off, as for any address that is not served: nothing is broken that an alarm on 5xx should tell. */
bool api_metrics(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    (void)r;
    if (!a->options.metrics)
        return api_fail(
            err, 404, "metrics_disabled", NULL, "Metrics are off; start quern-server with --metrics to have them here.");
    struct engine_stats stats;
    if (a->engine)
        engine_get_stats(a->engine, &stats);
    struct json_writer w = {0};
    metrics_write(&a->metrics, a->engine ? &stats : NULL, &w);
    bool ok = !w.failed;
    if (ok)
        exchange_reply(x, 200, "", metrics_content_type, w.data, w.length);
    json_writer_free(&w);
    return ok || api_out_of_memory(err);
}
