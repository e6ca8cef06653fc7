/* POST /v1/chat/completions: from the request to the engine. What comes back is server/api/chat_reply.c's. */
#include "server/api/api_internal.h"
#include "server/api/chat_reply.h"
#include "server/request/chat_request.h"

static bool start(
    struct api *a, struct exchange *x, const struct chat_request *r, const struct tok_ids *ids, struct api_error *err)
{
    struct answer_request request = {
        .schema = &chat_schema,
        .state = chat_reply_new(a->options.model, r->params.include_usage, r->logprobs),
        .stream = r->params.stream,
        .prompts = ids,
        .n_prompts = 1,
        .n = r->params.n,
        .generation = {.max_tokens = r->max_tokens, .logprobs = r->logprobs, .top_logprobs = r->top_logprobs,
            .grammar = r->grammar},
        .prompt_param = "messages",
        .tool_names = r->tool_names,
        .n_tools = r->chat.n_tools,
        .one_call = r->one_call,
    };
    if (!request.state)
        return api_out_of_memory(err);
    params_apply(&r->params, &request.generation);
    return answer_start(a, x, &request, err);
}

bool api_chat(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    struct chat_request r;
    struct tok_ids ids = {0};
    struct error problem;
    bool ok = chat_request_read(&r, body, &a->options.sampling, engine_info(a->engine)->n_vocab, err);
    if (ok && !chat_encode(engine_tokenizer(a->engine), &r.chat, &ids, &problem))
        ok = api_fail(err, 500, NULL, NULL, "The conversation could not be tokenised: %s.", problem.text);
    ok = ok && start(a, x, &r, &ids, err);
    tok_ids_free(&ids);
    chat_request_free(&r);
    return ok;
}
