#include "server/api_internal.h"
#include "server/access.h"
#include "server/page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const char json_type[] = "application/json; charset=utf-8";

struct api *api_new(const struct api_options *options)
{
    struct api *a = calloc(1, sizeof *a);
    if (a) {
        a->options = *options;
        a->started = time(NULL);
        metrics_init(&a->metrics, options->kernel_level, options->model);
    }
    return a;
}

static void wake_network(void *net)
{
    net_wake(net);
}

void api_attach(struct api *a, struct net *net)
{
    a->net = net;
    events_init(&a->events, wake_network, net);
}

void api_free(struct api *a)
{
    if (!a)
        return;
    if (a->net)
        events_free(&a->events);
    free(a);
}

void api_engine_ready(struct api *a, struct engine *engine)
{
    atomic_store(&a->ready, engine);
    net_wake(a->net);
}

/* ---- answers ---- */

void api_send_error(struct exchange *x, const struct api_error *err)
{
    struct json_writer w = {0};
    api_error_write(&w, err);
    const char *headers = err->status == 401 ? "WWW-Authenticate: Bearer\r\n" : err->status == 503 ? "Retry-After: 1\r\n" : "";
    static const char fallback[] = "{\"error\":{\"message\":\"The server is out of memory.\",\"type\":\"server_error\",\"param\":null,\"code\":null}}";
    if (w.failed)
        exchange_reply(x, 503, headers, json_type, fallback, sizeof fallback - 1);
    else
        exchange_reply(x, err->status, headers, json_type, w.data, w.length);
    json_writer_free(&w);
}

void api_send_json(struct exchange *x, struct json_writer *w)
{
    api_send_status(x, 200, w);
}

void api_send_status(struct exchange *x, int status, struct json_writer *w)
{
    struct api_error err;
    if (w->failed) {
        api_out_of_memory(&err);
        api_send_error(x, &err);
    } else {
        exchange_reply(x, status, "", json_type, w->data, w->length);
    }
    json_writer_free(w);
}

/* ---- small routes ---- */

static void send_health(const struct api *a, struct exchange *x)
{
    static const char ok[] = "{\"status\":\"ok\"}", loading[] = "{\"status\":\"loading\"}";
    if (a->engine)
        exchange_reply(x, 200, "", json_type, ok, sizeof ok - 1);
    else
        exchange_reply(x, 503, "Retry-After: 1\r\n", json_type, loading, sizeof loading - 1);
}

static void write_model(struct json_writer *w, const struct api *a)
{
    const struct engine_info *info = engine_info(a->engine);
    json_begin_object(w);
    json_key(w, "id");
    json_text(w, a->options.model);
    json_key(w, "object");
    json_text(w, "model");
    json_key(w, "created");
    json_int(w, a->started);
    json_key(w, "owned_by");
    json_text(w, "quern");
    json_key(w, "meta");
    json_begin_object(w);
    json_key(w, "name");
    json_text(w, info->name);
    json_key(w, "n_ctx");
    json_int(w, info->n_ctx);
    json_key(w, "n_ctx_train");
    json_int(w, info->n_ctx_train);
    json_key(w, "n_embd");
    json_int(w, info->n_embd);
    json_key(w, "n_vocab");
    json_int(w, info->n_vocab);
    json_key(w, "n_params");
    json_int(w, (int64_t)info->n_params);
    json_key(w, "size");
    json_int(w, (int64_t)info->model_bytes);
    json_end_object(w);
    json_end_object(w);
}

static void send_models(const struct api *a, struct exchange *x)
{
    struct json_writer w = {0};
    json_begin_object(&w);
    json_key(&w, "object");
    json_text(&w, "list");
    json_key(&w, "data");
    json_begin_array(&w);
    write_model(&w, a);
    json_end_array(&w);
    json_end_object(&w);
    api_send_json(x, &w);
}

static bool send_model(const struct api *a, struct exchange *x, const char *name, struct api_error *err)
{
    if (strcmp(name, a->options.model) != 0)
        return api_fail(err, 404, "model_not_found", "model", "There is no model '%.128s' here; this server has '%.128s'.", name, a->options.model);
    struct json_writer w = {0};
    write_model(&w, a);
    api_send_json(x, &w);
    return true;
}

/* A 404 when it is off, as for any address that is not served: nothing is broken that an alarm on 5xx should tell. */
static bool send_metrics(const struct api *a, struct exchange *x, struct api_error *err)
{
    if (!a->options.metrics)
        return api_fail(err, 404, "metrics_disabled", NULL, "Metrics are off; start quern-server with --metrics to have them here.");
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

/* ---- routing ---- */

enum route { ROUTE_NONE, ROUTE_PAGE, ROUTE_HEALTH, ROUTE_METRICS, ROUTE_MODELS, ROUTE_MODEL, ROUTE_CHAT, ROUTE_TOKENIZE, ROUTE_DETOKENIZE };

static const char model_prefix[] = "/v1/models/";

static const struct {
    const char *path;
    enum route route;
} routes[] = {{"/", ROUTE_PAGE}, {"/health", ROUTE_HEALTH}, {"/metrics", ROUTE_METRICS}, {"/v1/models", ROUTE_MODELS},
              {"/v1/chat/completions", ROUTE_CHAT}, {"/tokenize", ROUTE_TOKENIZE}, {"/detokenize", ROUTE_DETOKENIZE}};

/* A path's name in the metrics: whatever paths are asked for, there are few of these. */
static const char *route_label(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (strcmp(path, routes[i].path) == 0)
            return routes[i].path;
    return strncmp(path, model_prefix, sizeof model_prefix - 1) == 0 ? "/v1/models/{id}" : "other";
}

static enum route find_route(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++)
        if (strcmp(path, routes[i].path) == 0)
            return routes[i].route;
    return strncmp(path, model_prefix, sizeof model_prefix - 1) == 0 && path[sizeof model_prefix - 1] ? ROUTE_MODEL : ROUTE_NONE;
}

static bool is_post(enum route route)
{
    return route >= ROUTE_CHAT;
}

/* The JSON of the body; NULL with err filled. */
static struct json *read_body(const struct http_parser *r, struct api_error *err)
{
    const char *type = http_get(r, "Content-Type");
    size_t length = type ? strcspn(type, "; \t") : 0;
    if (length != 16 || strncasecmp(type, "application/json", 16) != 0) {
        api_fail(err, 415, "unsupported_media_type", NULL, "The body must be JSON and say so: send the header 'Content-Type: application/json'.");
        return NULL;
    }
    struct json_error problem;
    struct json *body = json_parse(r->body, r->body_length, NULL, &problem);
    if (!body)
        api_fail(err, 400, "invalid_json", NULL, "The body is not valid JSON: %s, at line %zu, column %zu (byte %zu).", problem.text, problem.line,
                 problem.column, problem.offset);
    return body;
}

/* May this request be answered at all? */
static bool check_access(const struct api *a, const struct http_parser *r, enum route route, struct api_error *err)
{
    /* A page that rebinds its name cannot know the key, so with a key any name (a reverse proxy's, say) is as good as another. */
    if (!a->options.key && !access_host(r->host, a->options.host, net_is_loopback(a->net)))
        return api_fail(err, 403, "forbidden_host", NULL,
                        "This server does not answer to the host name in this request; use localhost or the address it listens on.");
    if (a->options.key && route != ROUTE_HEALTH && route != ROUTE_PAGE && !access_key(http_get(r, "Authorization"), a->options.key))
        return api_fail(err, 401, "invalid_api_key", NULL, "This server needs its API key: send the header 'Authorization: Bearer KEY'.");
    return true;
}

static bool post(struct api *a, struct exchange *x, const struct http_parser *r, enum route route, struct api_error *err)
{
    struct json *body = read_body(r, err);
    if (!body)
        return false;
    const struct json_value *root = json_root(body);
    bool ok;
    if (route == ROUTE_CHAT)
        ok = api_chat(a, x, root, err);
    else if (route == ROUTE_TOKENIZE)
        ok = api_tokenize(a, x, root, err);
    else
        ok = api_detokenize(a, x, root, err);
    json_free(body);
    return ok;
}

static bool answer(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    enum route route = find_route(r->path);
    if (!check_access(a, r, route, err))
        return false;
    bool is_get = strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0, options = strcmp(r->method, "OPTIONS") == 0;
    if (route == ROUTE_NONE && !(options && strcmp(r->path, "*") == 0))
        return api_fail(err, 404, "not_found", NULL, "There is nothing at '%.200s'.", r->path);
    const char *allow = route == ROUTE_NONE ? "Allow: GET, HEAD, POST, OPTIONS\r\n" :
                        is_post(route)      ? "Allow: POST, OPTIONS\r\n" :
                                              "Allow: GET, HEAD, OPTIONS\r\n";
    if (options) {
        exchange_reply(x, 204, allow, NULL, "", 0);
        return true;
    }
    if (is_post(route) ? strcmp(r->method, "POST") != 0 : !is_get) {
        struct json_writer w = {0};
        api_fail(err, 405, "method_not_allowed", NULL, "%.32s is not a method of '%.200s'; it takes %s.", r->method, r->path,
                 is_post(route) ? "POST" : "GET");
        api_error_write(&w, err);
        exchange_reply(x, 405, allow, json_type, w.failed ? "" : w.data, w.failed ? 0 : w.length);
        json_writer_free(&w);
        return true;
    }
    if (route == ROUTE_HEALTH) {
        send_health(a, x);
        return true;
    }
    if (route == ROUTE_PAGE) {
        page_send(x, r);
        return true;
    }
    if (route == ROUTE_METRICS)
        return send_metrics(a, x, err);
    if (!a->engine)
        return api_fail(err, 503, "model_loading", NULL, "The model is still being loaded; try again in a moment.");
    if (route == ROUTE_MODELS) {
        send_models(a, x);
        return true;
    }
    if (route == ROUTE_MODEL)
        return send_model(a, x, r->path + sizeof model_prefix - 1, err);
    return post(a, x, r, route, err);
}

/* ---- what server/net calls ---- */

static void on_request(void *user, struct exchange *x, const struct http_parser *r)
{
    struct api_error err;
    if (!answer(user, x, r, &err))
        api_send_error(x, &err);
}

static void on_refused(void *user, struct exchange *x, int status, const char *reason)
{
    (void)user;
    struct api_error err;
    api_fail(&err, status, NULL, NULL, "%s", reason);
    api_send_error(x, &err);
}

static void on_gone(void *user, struct exchange *x)
{
    answer_gone(user, x);
}

static void on_wake(void *user)
{
    struct api *a = user;
    if (!a->engine)
        a->engine = atomic_load(&a->ready);
    answer_events(a);
}

static void on_cut(void *user)
{
    answer_cut(user);
}

static void on_finished(void *user, const struct net_record *record)
{
    struct api *a = user;
    metrics_count_request(&a->metrics, route_label(record->path), record->status);
    if (!a->options.log)
        return;
    char tokens[64] = "";
    if (record->note) {
        struct token_note note;
        memcpy(&note, record->note, sizeof note);
        snprintf(tokens, sizeof tokens, " %d+%d tokens", note.n_prompt, note.n_generated);
    }
    /* Method and path hold visible ASCII only, which the parser saw to. */
    fprintf(stderr, "%.16s %.200s %d %.0f ms%s%s\n", record->method, record->path, record->status, record->seconds * 1000, tokens,
            record->complete ? "" : " (client gone)");
}

struct net_handler api_handler(struct api *a)
{
    return (struct net_handler){.user = a, .request = on_request, .refused = on_refused, .gone = on_gone,
                                .wake = on_wake, .cut = on_cut, .finished = on_finished};
}
