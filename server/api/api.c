#include "server/api/api_internal.h"
#include "server/http/access.h"
#include "server/page/page.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

struct api *api_new(const struct api_options *options)
{
    struct api *a = calloc(1, sizeof *a);
    if (a) {
        a->options = *options;
        a->last_waiting = &a->waiting;
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

void api_engine_failed(struct api *a)
{
    atomic_store(&a->failed, true);
    net_wake(a->net);
}

/* ---- routing ---- */

typedef bool get_handler(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err);
typedef bool post_handler(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);

static bool send_page(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    (void)a;
    (void)err;
    page_send(x, r);
    return true;
}

enum {
    OPEN = 1,   /* needs no key */
    EARLY = 2,  /* also while the model is still being loaded */
    PREFIX = 4  /* and everything below it, but not itself */
};

/* The paths without /v1 are those that llama-server has too. */
static const struct route {
    const char *path;
    get_handler *get;   /* one of the two */
    post_handler *post;
    int flags;
    const char *label;  /* in the metrics: whatever paths are asked for, there are few of these */
} routes[] = {
    {"/", send_page, NULL, OPEN | EARLY, "/"},
    {"/health", api_health, NULL, OPEN | EARLY, "/health"},
    {"/metrics", api_metrics, NULL, EARLY, "/metrics"},
    {"/version", api_version, NULL, EARLY, "/version"},
    {"/props", api_props, NULL, 0, "/props"},
    {"/v1/models", api_models, NULL, 0, "/v1/models"},
    {"/models", api_models, NULL, 0, "/v1/models"},
    {"/v1/models/", api_model, NULL, PREFIX, "/v1/models/{id}"},
    {"/models/", api_model, NULL, PREFIX, "/v1/models/{id}"},
    {"/v1/chat/completions", NULL, api_chat, 0, "/v1/chat/completions"},
    {"/chat/completions", NULL, api_chat, 0, "/v1/chat/completions"},
    {"/v1/completions", NULL, api_completions, 0, "/v1/completions"},
    {"/v1/responses", NULL, api_responses, 0, "/v1/responses"},
    {"/responses", NULL, api_responses, 0, "/v1/responses"},
    {"/v1/messages", NULL, api_messages, 0, "/v1/messages"},
    {"/v1/messages/count_tokens", NULL, api_count_tokens, 0, "/v1/messages/count_tokens"},
    {"/apply-template", NULL, api_apply_template, 0, "/apply-template"},
    {"/tokenize", NULL, api_tokenize, 0, "/tokenize"},
    {"/detokenize", NULL, api_detokenize, 0, "/detokenize"},
};

static const struct route *find_route(const char *path)
{
    for (size_t i = 0; i < sizeof routes / sizeof *routes; i++) {
        size_t n = strlen(routes[i].path);
        if (routes[i].flags & PREFIX ? strncmp(path, routes[i].path, n) == 0 && path[n] != '\0'
                                     : strcmp(path, routes[i].path) == 0)
            return &routes[i];
    }
    return NULL;
}

/* The JSON of the body; NULL with err filled. */
static struct json *read_body(const struct http_parser *r, struct api_error *err)
{
    const char *type = http_get(r, "Content-Type");
    size_t length = type ? strcspn(type, "; \t") : 0;
    if (length != 16 || strncasecmp(type, "application/json", 16) != 0) {
        api_fail(err, 415, "unsupported_media_type", NULL,
            "The body must be JSON and say so: send the header 'Content-Type: application/json'.");
        return NULL;
    }
    struct json_error problem;
    struct json *body = json_parse(r->body, r->body_length, NULL, &problem);
    if (!body)
        api_fail(err, 400, "invalid_json", NULL, "The body is not valid JSON: %s, at line %zu, column %zu (byte %zu).",
            problem.text, problem.line, problem.column, problem.offset);
    return body;
}

/* May this request be answered at all? */
static bool check_access(const struct api *a, const struct http_parser *r, const struct route *route, struct api_error *err)
{
    /* A page that rebinds its name cannot know the key, so with a key any name (a reverse proxy's, say) is as good as another. */
    if (!a->options.key && !access_host(r->host, a->options.hosts, a->options.n_hosts, net_is_loopback(a->net)))
        return api_fail(err, 403, "forbidden_host", NULL,
            "This server does not answer to the host name in this request; use localhost or the address it listens on, or start "
            "it with --allowed-host.");
    if (a->options.key && !(route && route->flags & OPEN) && !access_key(http_get(r, "Authorization"), a->options.key) &&
        !access_bare_key(http_get(r, "x-api-key"), a->options.key))
        return api_fail(err, 401, "invalid_api_key", NULL,
            "This server needs its API key: send the header 'Authorization: Bearer KEY' or 'x-api-key: KEY'.");
    return true;
}

static const char *allowed_methods(const struct route *route)
{
    return !route        ? "Allow: GET, HEAD, POST, OPTIONS\r\n"
           : route->post ? "Allow: POST, OPTIONS\r\n"
                         : "Allow: GET, HEAD, OPTIONS\r\n";
}

static void on_request(void *user, struct exchange *x, const struct http_parser *r);

/* ---- requests that came before the model: each is answered as if it had come after it ---- */

static bool wait_for_engine(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    struct waiting *w = malloc(sizeof *w);
    if (!w)
        return api_out_of_memory(err);
    *w = (struct waiting){.x = x, .r = r};
    *a->last_waiting = w;
    a->last_waiting = &w->next;
    return true;
}

static void forget_waiting(struct api *a, const struct exchange *x)
{
    for (struct waiting **p = &a->waiting; *p; p = &(*p)->next) {
        struct waiting *w = *p;
        if (w->x != x)
            continue;
        *p = w->next;
        if (a->last_waiting == &w->next)
            a->last_waiting = p;
        free(w);
        return;
    }
}

/* Each once more: now that the model is there, or will not be. */
static void answer_waiting(struct api *a)
{
    struct waiting *w = a->waiting;
    a->waiting = NULL;
    a->last_waiting = &a->waiting;
    while (w) {
        struct waiting *next = w->next;
        on_request(a, w->x, w->r);
        free(w);
        w = next;
    }
}

static bool answer(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err)
{
    const struct route *route = find_route(r->path);
    bool options = strcmp(r->method, "OPTIONS") == 0;
    /* A browser asks before it sends; it cannot send the key with that. */
    if (access_cors(r, a->options.cors_origin, x) && options && route) {
        if (!a->options.key && !check_access(a, r, route, err))
            return false;
        exchange_reply(x, 204, allowed_methods(route), NULL, "", 0);
        return true;
    }
    if (!check_access(a, r, route, err))
        return false;
    if (!route && !(options && strcmp(r->path, "*") == 0))
        return api_fail(err, 404, "not_found", NULL, "There is nothing at '%.200s'.", r->path);
    if (options) {
        exchange_reply(x, 204, allowed_methods(route), NULL, "", 0);
        return true;
    }
    bool is_get = strcmp(r->method, "GET") == 0 || strcmp(r->method, "HEAD") == 0;
    if (route->post ? strcmp(r->method, "POST") != 0 : !is_get) {
        api_fail(err, 405, "method_not_allowed", NULL, "%.32s is not a method of '%.200s'; it takes %s.", r->method, r->path,
            route->post ? "POST" : "GET");
        api_send_error_with(x, err, allowed_methods(route));
        return true;
    }
    if (!a->engine && !(route->flags & EARLY) && atomic_load(&a->failed))
        return api_fail(err, 503, "model_failed", NULL, "The model cannot be loaded; the server's log says why.");
    if (!a->engine && !(route->flags & EARLY) && a->options.wait_for_engine && !a->cut)
        return wait_for_engine(a, x, r, err);
    if (!a->engine && !(route->flags & EARLY))
        return api_fail(err, 503, "model_loading", NULL, "The model is still being loaded; try again in a moment.");
    if (route->get)
        return route->get(a, x, r, err);
    struct json *body = read_body(r, err);
    if (!body)
        return false;
    bool ok = route->post(a, x, json_root(body), err);
    json_free(body);
    return ok;
}

/* ---- what server/http/net calls ---- */

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
    forget_waiting(user, x);
    answer_gone(user, x);
}

static void on_quiet(void *user, struct exchange *x)
{
    (void)user;
    answer_quiet(x);
}

static void on_wake(void *user)
{
    struct api *a = user;
    if (!a->engine)
        a->engine = atomic_load(&a->ready);
    if (a->engine || atomic_load(&a->failed))
        answer_waiting(a);
    answer_events(a);
}

static void on_cut(void *user)
{
    struct api *a = user;
    a->cut = true;
    answer_waiting(a);
    answer_cut(a);
}

static void on_finished(void *user, const struct net_record *record)
{
    struct api *a = user;
    const struct route *route = find_route(record->path);
    metrics_count_request(&a->metrics, route ? route->label : "other", record->status);
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
                                .quiet = on_quiet, .wake = on_wake, .cut = on_cut, .finished = on_finished};
}
