#include "server/api/chat_reply.h"
#include "server/api/api_internal.h"

#include <stdlib.h>

struct reply *chat_reply_new(const char *model, bool include_usage, bool logprobs)
{
    struct reply *r = malloc(sizeof *r);
    if (!r)
        return NULL;
    reply_init(r, "chatcmpl-", model);
    r->object = "chat.completion";
    r->chunk = "chat.completion.chunk";
    r->include_usage = include_usage;
    r->logprobs = logprobs;
    return r;
}

static void write_token(struct json_writer *w, const struct tokenizer *t, const struct token_logprob *l)
{
    struct gguf_string bytes = tok_bytes(t, l->token);
    json_key(w, "token");
    json_string(w, bytes.data, bytes.length);
    json_key(w, "logprob");
    reply_logprob(w, l->logprob);
    json_key(w, "bytes");
    json_begin_array(w);
    for (size_t i = 0; i < bytes.length; i++)
        json_int(w, (unsigned char)bytes.data[i]);
    json_end_array(w);
}

/* "logprobs": of the tokens that the choice has gathered, which are then forgotten. */
static void write_logprobs(struct json_writer *w, struct answer_choice *c)
{
    const struct reply *r = c->answer->state;
    const struct tokenizer *t = engine_tokenizer(c->answer->api->engine);
    json_key(w, "logprobs");
    if (!r->logprobs) {
        json_null(w);
        return;
    }
    json_begin_object(w);
    json_key(w, "content");
    json_begin_array(w);
    for (int i = 0; i < c->n_tokens; i++) {
        const struct token_choice *token = &c->tokens[i];
        json_begin_object(w);
        write_token(w, t, &token->chosen);
        json_key(w, "top_logprobs");
        json_begin_array(w);
        for (int k = 0; k < token->n_top; k++) {
            json_begin_object(w);
            write_token(w, t, &token->top[k]);
            json_end_object(w);
        }
        json_end_array(w);
        json_end_object(w);
    }
    json_end_array(w);
    json_key(w, "refusal");
    json_null(w);
    json_end_object(w);
    c->n_tokens = 0;
}

/* ---- whole ---- */

static void write_calls(struct json_writer *w, const struct answer_choice *c)
{
    json_key(w, "tool_calls");
    json_begin_array(w);
    for (int i = 0; i < c->n_calls; i++) {
        json_begin_object(w);
        json_key(w, "id");
        json_text(w, c->calls[i].id);
        json_key(w, "type");
        json_text(w, "function");
        json_key(w, "function");
        json_begin_object(w);
        json_key(w, "name");
        json_text(w, c->calls[i].name);
        json_key(w, "arguments");
        json_string(w, c->calls[i].arguments, c->calls[i].n_arguments);
        json_end_object(w);
        json_end_object(w);
    }
    json_end_array(w);
}

static void write_choice(struct json_writer *w, struct answer_choice *c)
{
    json_begin_object(w);
    json_key(w, "index");
    json_int(w, c->index);
    json_key(w, "message");
    json_begin_object(w);
    json_key(w, "role");
    json_text(w, "assistant");
    json_key(w, "content");
    if (c->content.length == 0 && c->n_calls > 0)
        json_null(w);
    else
        json_string(w, c->content.data ? c->content.data : "", c->content.length);
    json_key(w, "refusal");
    json_null(w);
    if (c->n_calls > 0)
        write_calls(w, c);
    json_end_object(w);
    write_logprobs(w, c);
    json_key(w, "finish_reason");
    json_text(w, reply_finish_name(c->finish));
    json_end_object(w);
}

static void whole(struct answer *a, struct json_writer *w)
{
    reply_begin(w, a->state, false);
    for (int i = 0; i < a->n_choices; i++)
        write_choice(w, &a->choices[i]);
    json_end_array(w);
    reply_usage(w, a);
    reply_timings(w, a);
    json_end_object(w);
}

/* ---- streamed ---- */

static void begin_delta(struct answer_choice *c, struct json_writer *w)
{
    reply_begin_chunk(w, c->answer->state, c->index);
    json_key(w, "delta");
    json_begin_object(w);
}

static void end_delta(struct answer_choice *c, struct json_writer *w)
{
    json_end_object(w);
    write_logprobs(w, c);
    reply_end_choice(w, c->answer->state, NULL);
    reply_end_chunk(w);
}

static void begin(struct answer *a, struct json_writer *w)
{
    for (int i = 0; i < a->n_choices; i++) {
        begin_delta(&a->choices[i], w);
        json_key(w, "role");
        json_text(w, "assistant");
        json_key(w, "content");
        json_text(w, "");
        json_key(w, "refusal");
        json_null(w);
        json_end_object(w);
        json_key(w, "logprobs");
        json_null(w);
        reply_end_choice(w, a->state, NULL);
        reply_end_chunk(w);
    }
}

static void content(struct answer_choice *c, const char *text, size_t length, struct json_writer *w)
{
    begin_delta(c, w);
    json_key(w, "content");
    json_string(w, text, length);
    end_delta(c, w);
}

static void call(struct answer_choice *c, const struct tool_event *e, struct json_writer *w)
{
    if (e->kind == TOOL_CALL_END)
        return;
    begin_delta(c, w);
    json_key(w, "tool_calls");
    json_begin_array(w);
    json_begin_object(w);
    json_key(w, "index");
    json_int(w, e->index);
    if (e->kind == TOOL_CALL_START) {
        json_key(w, "id");
        json_text(w, e->id);
        json_key(w, "type");
        json_text(w, "function");
    }
    json_key(w, "function");
    json_begin_object(w);
    if (e->kind == TOOL_CALL_START) {
        json_key(w, "name");
        json_text(w, e->name);
    }
    json_key(w, "arguments");
    json_string(w, e->text, e->length);
    json_end_object(w);
    json_end_object(w);
    json_end_array(w);
    end_delta(c, w);
}

static void done(struct answer_choice *c, struct json_writer *w)
{
    begin_delta(c, w);
    json_end_object(w);
    write_logprobs(w, c);
    reply_end_choice(w, c->answer->state, reply_finish_name(c->finish));
    reply_timings(w, c->answer);
    reply_end_chunk(w);
}

static void end(struct answer *a, struct json_writer *w)
{
    reply_end_stream(w, a->state, a);
}

const struct answer_schema chat_schema = {
    .begin = begin, .content = content, .call = call, .done = done, .end = end, .whole = whole, .free = free};
