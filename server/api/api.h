/* The HTTP API: routes, and who may use them. Sits between server/http/net (connections) and engine/engine (generations).
 *
 *   GET  /health                 {"status":"ok"}; 503 and {"status":"loading"} until the model is ready. Needs no key.
 *   GET  /v1/models, /v1/models/NAME, /props, /version   server/api/api_info.c
 *   POST /v1/chat/completions    server/request/chat_request.h has the parameters
 *   POST /v1/completions         server/request/completions.h has the parameters
 *   POST /v1/responses           server/request/responses_request.h has the parameters
 *   POST /v1/messages, /v1/messages/count_tokens         server/request/messages_request.h has the parameters
 *   POST /apply-template         the body of a chat; tells the prompt it makes
 *   POST /tokenize, /detokenize  server/api/api_tokens.c
 *   GET  /                       the chat page, server/page/page.h. Needs no key: it asks for one
 *   GET  /metrics                server/api/metrics.h; 404 unless it is switched on
 *
 * /models, /models/NAME, /chat/completions and /responses are there without /v1 too. HEAD works wherever GET does;
 * OPTIONS tells the methods. Every error is an OpenAI error object, but under /v1/messages it is one of Anthropic's.
 *
 * Threads: everything runs on the network thread but api_engine_ready and api_engine_failed,
 * and the events queue that the engine thread fills. */
#ifndef QUERN_API_H
#define QUERN_API_H

#include "engine/engine.h"
#include "server/http/net.h"

struct api;

struct api_options {
    const char *model;   /* the name the model goes by; kept */
    const char *model_path; /* kept */
    const char *const *hosts; /* [n_hosts] names it answers to besides localhost: what it was told
                               * to listen on, and those it was told; kept */
    int n_hosts;
    const char *cors_origin; /* the web pages that may use it: an origin, or "*"; NULL: none; kept */
    const char *key;     /* NULL: none needed; kept */
    const char *kernel_level; /* for /metrics; kept */
    bool metrics;        /* answer /metrics */
    bool wait_for_engine; /* what needs the model waits while that is being loaded; false: a 503 */
    bool log;            /* a line on stderr for each request */
    struct sampling sampling; /* for what a request does not say; its seed is not used */
};

struct api *api_new(const struct api_options *options);
void api_free(struct api *a); /* after net_close and after the engine thread has ended; NULL is allowed */

/* What net_open wants; then the net itself. */
struct net_handler api_handler(struct api *a);
void api_attach(struct api *a, struct net *net);

/* Any thread, one of them, once: the model is loaded; or it cannot be, and what waits for it is told so. */
void api_engine_ready(struct api *a, struct engine *engine);
void api_engine_failed(struct api *a);

#endif
