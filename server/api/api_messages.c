/* POST /v1/messages and /v1/messages/count_tokens: from the request to the engine.
 * What comes back is server/api/messages_reply.c's. */
#include "server/api/api_internal.h"
#include "server/api/messages_reply.h"
#include "server/request/messages_request.h"

static bool encode(const struct api *a, const struct messages_request *r, struct tok_ids *ids, struct api_error *err)
{
    const struct tokenizer *t = engine_tokenizer(a->engine);
    struct error problem;
    if (!chat_encode(t, &r->chat.chat, ids, &problem) ||
        (r->prefill.data && !tok_encode(t, r->prefill.data, r->prefill.length, false, ids, &problem)))
        return api_fail(err, 500, NULL, NULL, "The conversation could not be tokenised: %s.", problem.text);
    return true;
}

static bool start(
    struct api *a, struct exchange *x, const struct messages_request *r, const struct tok_ids *ids, struct api_error *err)
{
    struct answer_request request = {
        .schema = &messages_schema,
        .state = messages_reply_new(a->options.model, r),
        .stream = r->chat.params.stream,
        .prompts = ids,
        .n_prompts = 1,
        .n = 1,
        .generation = {.max_tokens = r->chat.max_tokens, .grammar = r->chat.grammar},
        .prompt_param = "messages",
        .tool_names = r->chat.tool_names,
        .n_tools = r->chat.chat.n_tools,
        .one_call = r->chat.one_call,
    };
    if (!request.state)
        return api_out_of_memory(err);
    params_apply(&r->chat.params, &request.generation);
    request.generation.n_stops = r->n_stops;
    for (int i = 0; i < r->n_stops; i++)
        request.generation.stops[i] = r->stops[i];
    return answer_start(a, x, &request, err);
}

bool api_messages(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    struct messages_request r;
    struct tok_ids ids = {0};
    bool ok = messages_request_read(&r, body, &a->options.sampling, engine_info(a->engine)->n_vocab, false, err) &&
              encode(a, &r, &ids, err) && start(a, x, &r, &ids, err);
    tok_ids_free(&ids);
    messages_request_free(&r);
    return ok;
}

bool api_count_tokens(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    struct messages_request r;
    struct tok_ids ids = {0};
    bool ok = messages_request_read(&r, body, &a->options.sampling, engine_info(a->engine)->n_vocab, true, err) &&
              encode(a, &r, &ids, err);
    if (ok) {
        struct json_writer w = {0};
        json_begin_object(&w);
        json_key(&w, "input_tokens");
        json_int(&w, (int64_t)ids.count);
        json_end_object(&w);
        api_send_json(x, &w);
    }
    tok_ids_free(&ids);
    messages_request_free(&r);
    return ok;
}
