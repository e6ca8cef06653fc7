/* POST /v1/responses: from the request to the engine. What comes back is server/api/responses_reply.c's. */
#include "server/api/api_internal.h"
#include "server/api/responses_reply.h"
#include "server/request/responses_request.h"

static bool start(
    struct api *a, struct exchange *x, struct responses_request *r, const struct tok_ids *ids, struct api_error *err)
{
    const struct chat_request *chat = &r->chat;
    struct answer_request request = {
        .schema = &responses_schema,
        .state = responses_reply_new(a->options.model, &r->echo),
        .stream = chat->params.stream,
        .prompts = ids,
        .n_prompts = 1,
        .n = 1,
        .generation = {.max_tokens = chat->max_tokens, .grammar = chat->grammar},
        .prompt_param = "input",
        .tool_names = chat->tool_names,
        .n_tools = chat->chat.n_tools,
        .one_call = chat->one_call,
    };
    if (!request.state)
        return api_out_of_memory(err);
    params_apply(&chat->params, &request.generation);
    return answer_start(a, x, &request, err);
}

bool api_responses(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    struct responses_request r;
    struct tok_ids ids = {0};
    struct error problem;
    bool ok = responses_request_read(&r, body, &a->options.sampling, engine_info(a->engine)->n_vocab, err);
    if (ok && !chat_encode(engine_tokenizer(a->engine), &r.chat.chat, &ids, &problem))
        ok = api_fail(err, 500, NULL, NULL, "The conversation could not be tokenised: %s.", problem.text);
    ok = ok && start(a, x, &r, &ids, err);
    tok_ids_free(&ids);
    responses_request_free(&r);
    return ok;
}
