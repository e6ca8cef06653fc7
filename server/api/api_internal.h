/* What the parts of the API share: routing (api.c), chats (api_chat.c), completions (api_completions.c),
 * tokenising (api_tokens.c), small routes (api_info.c). */
#ifndef QUERN_API_INTERNAL_H
#define QUERN_API_INTERNAL_H

#include "server/api/answer.h"
#include "server/api/api.h"
#include "server/api/events.h"
#include "server/api/metrics.h"
#include "server/api/send.h"
#include "server/json/json.h"
#include "server/request/api_error.h"

#include <stdatomic.h>
#include <time.h>

/* A request that waits for the model. */
struct waiting {
    struct exchange *x;
    const struct http_parser *r;
    struct waiting *next;
};

struct api {
    struct api_options options;
    struct net *net;
    struct events events;
    struct engine *engine;         /* NULL until ready */
    _Atomic(struct engine *) ready; /* left here by api_engine_ready for the network thread */
    atomic_bool failed;             /* by api_engine_failed */
    struct metrics metrics;
    struct answer *answers; /* those that the engine works on */
    struct waiting *waiting, **last_waiting; /* in the order they came */
    bool cut; /* nothing waits any more */
    time_t started;
};

/* For the log: tokens of a request. */
struct token_note {
    int n_prompt, n_generated;
};

/* The routes' handlers, which api.c's table names. False: err is to be sent. Those with EARLY there may find no engine. */
bool api_health(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err);
bool api_metrics(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err);
bool api_version(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err);
bool api_props(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err);
bool api_models(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err);
bool api_model(struct api *a, struct exchange *x, const struct http_parser *r, struct api_error *err);

/* body: the parsed JSON. */
bool api_completions(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);
bool api_apply_template(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);
bool api_chat(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);
bool api_messages(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);
bool api_count_tokens(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);
bool api_responses(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);
bool api_tokenize(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);
bool api_detokenize(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err);

#endif
