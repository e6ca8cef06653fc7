/* POST /v1/completions: from the request to the engine, and the shapes of the answer. */
#include "server/api/api_internal.h"
#include "server/api/reply.h"
#include "server/request/completions.h"
#include "tokenizer/utf8.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The state of an answer. */
struct completion {
    struct reply reply;
    struct json_writer *echoes; /* [n_echoes] the prompts' texts, as raw bytes; none without echo */
    int n_echoes;
    size_t *offsets; /* [n_choices] characters of the choice's tokens that were told */
};

static void free_completion(void *state)
{
    struct completion *c = state;
    for (int i = 0; i < c->n_echoes; i++)
        json_writer_free(&c->echoes[i]);
    free(c->echoes);
    free(c->offsets);
    free(c);
}

static struct completion *completion_new(const struct api *a, const struct completion_request *r)
{
    struct completion *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    reply_init(&c->reply, "cmpl-", a->options.model);
    c->reply.object = c->reply.chunk = "text_completion";
    c->reply.include_usage = r->params.include_usage;
    c->reply.logprobs = r->logprobs >= 0;
    c->offsets = calloc((size_t)r->n_prompts * (size_t)r->params.n, sizeof *c->offsets);
    bool ok = c->offsets != NULL;
    if (ok && r->echo)
        ok = (c->echoes = calloc((size_t)r->n_prompts, sizeof *c->echoes)) != NULL;
    for (int i = 0; ok && r->echo && i < r->n_prompts; i++) {
        c->n_echoes++;
        for (size_t k = 0; k < r->prompts[i].count; k++) {
            struct gguf_string piece = tok_bytes(engine_tokenizer(a->engine), r->prompts[i].data[k]);
            json_raw(&c->echoes[i], piece.data, piece.length);
        }
        ok = !c->echoes[i].failed;
    }
    if (!ok) {
        free_completion(c);
        return NULL;
    }
    return c;
}

static const struct json_writer *echo_of(const struct answer_choice *c)
{
    const struct completion *state = c->answer->state;
    return state->n_echoes > 0 ? &state->echoes[c->index / c->answer->n] : NULL;
}

/* ---- log probabilities ---- */

static bool is_utf8(struct gguf_string s)
{
    const unsigned char *p = (const unsigned char *)s.data, *end = p + s.length;
    while (p < end) {
        uint32_t code;
        p += utf8_decode(p, end, &code);
        if (code == UTF8_INVALID)
            return false;
    }
    return true;
}

/* The token's text, NUL-terminated, in a writer the caller frees. */
static struct json_writer spell(const struct tokenizer *t, int32_t token)
{
    struct json_writer w = {0};
    struct gguf_string bytes = tok_bytes(t, token);
    if (is_utf8(bytes)) {
        json_raw(&w, bytes.data, bytes.length);
        return w;
    }
    json_raw(&w, "bytes:", 6);
    for (size_t i = 0; i < bytes.length; i++) {
        char code[8];
        json_raw(&w, code, (size_t)snprintf(code, sizeof code, "\\x%02X", (unsigned char)bytes.data[i]));
    }
    return w;
}

static void write_spelt(struct json_writer *w, const struct tokenizer *t, int32_t token)
{
    struct json_writer text = spell(t, token);
    json_string(w, text.data ? text.data : "", text.length);
    w->failed |= text.failed;
    json_writer_free(&text);
}

/* One member of an object; a text that is already there (two tokens may look alike) is not written again. */
static void write_top(struct json_writer *w, const struct tokenizer *t, const struct token_choice *token, int k)
{
    const struct token_logprob *l = k < token->n_top ? &token->top[k] : &token->chosen;
    struct gguf_string mine = tok_bytes(t, l->token);
    for (int i = 0; i < k; i++) {
        struct gguf_string other = tok_bytes(t, token->top[i].token);
        if (other.length == mine.length && memcmp(other.data, mine.data, mine.length) == 0)
            return;
    }
    struct json_writer text = spell(t, l->token);
    if (!text.failed && !memchr(text.data ? text.data : "", '\0', text.length)) { /* a key ends at a NUL */
        json_key(w, text.data ? text.data : "");
        reply_logprob(w, l->logprob);
    }
    w->failed |= text.failed;
    json_writer_free(&text);
}

static size_t count_characters(struct gguf_string s)
{
    size_t n = 0;
    for (size_t i = 0; i < s.length; i++)
        n += ((unsigned char)s.data[i] & 0xC0) != 0x80;
    return n;
}

static bool begins_inside(struct gguf_string s)
{
    return s.length > 0 && ((unsigned char)s.data[0] & 0xC0) == 0x80;
}

/* "logprobs": of the tokens that the choice has gathered, which are then forgotten. */
static void write_logprobs(struct json_writer *w, struct answer_choice *c)
{
    struct completion *state = c->answer->state;
    const struct tokenizer *t = engine_tokenizer(c->answer->api->engine);
    json_key(w, "logprobs");
    if (!state->reply.logprobs) {
        json_null(w);
        return;
    }
    json_begin_object(w);
    json_key(w, "tokens");
    json_begin_array(w);
    for (int i = 0; i < c->n_tokens; i++)
        write_spelt(w, t, c->tokens[i].chosen.token);
    json_end_array(w);
    json_key(w, "token_logprobs");
    json_begin_array(w);
    for (int i = 0; i < c->n_tokens; i++)
        reply_logprob(w, c->tokens[i].chosen.logprob);
    json_end_array(w);
    json_key(w, "top_logprobs");
    json_begin_array(w);
    for (int i = 0; i < c->n_tokens; i++) {
        json_begin_object(w);
        for (int k = 0; k <= c->tokens[i].n_top; k++)
            write_top(w, t, &c->tokens[i], k);
        json_end_object(w);
    }
    json_end_array(w);
    json_key(w, "text_offset");
    json_begin_array(w);
    size_t *at = &state->offsets[c->index];
    for (int i = 0; i < c->n_tokens; i++) {
        struct gguf_string bytes = tok_bytes(t, c->tokens[i].chosen.token);
        json_int(w, (int64_t)(*at - (begins_inside(bytes) && *at > 0)));
        *at += count_characters(bytes);
    }
    json_end_array(w);
    json_end_object(w);
    c->n_tokens = 0;
}

/* ---- whole and streamed ---- */

static void whole(struct answer *a, struct json_writer *w)
{
    const struct completion *state = a->state;
    reply_begin(w, &state->reply, false);
    for (int i = 0; i < a->n_choices; i++) {
        struct answer_choice *c = &a->choices[i];
        const struct json_writer *echo = echo_of(c);
        struct json_writer text = {0};
        if (echo && echo->length > 0)
            json_raw(&text, echo->data, echo->length);
        if (c->content.length > 0)
            json_raw(&text, c->content.data, c->content.length);
        json_begin_object(w);
        json_key(w, "index");
        json_int(w, i);
        json_key(w, "text");
        json_string(w, text.data ? text.data : "", text.length);
        write_logprobs(w, c);
        json_key(w, "finish_reason");
        json_text(w, reply_finish_name(c->finish));
        json_end_object(w);
        w->failed |= text.failed;
        json_writer_free(&text);
    }
    json_end_array(w);
    reply_usage(w, a);
    reply_timings(w, a);
    json_end_object(w);
}

static void chunk(struct answer_choice *c, const char *text, size_t length, const char *finish, struct json_writer *w)
{
    const struct completion *state = c->answer->state;
    reply_begin_chunk(w, &state->reply, c->index);
    json_key(w, "text");
    json_string(w, text, length);
    write_logprobs(w, c);
    reply_end_choice(w, &state->reply, finish);
    if (finish)
        reply_timings(w, c->answer);
    reply_end_chunk(w);
}

static void begin(struct answer *a, struct json_writer *w)
{
    for (int i = 0; i < a->n_choices; i++) {
        const struct json_writer *echo = echo_of(&a->choices[i]);
        if (echo)
            chunk(&a->choices[i], echo->data ? echo->data : "", echo->length, NULL, w);
    }
}

static void content(struct answer_choice *c, const char *text, size_t length, struct json_writer *w)
{
    chunk(c, text, length, NULL, w);
}

static void done(struct answer_choice *c, struct json_writer *w)
{
    chunk(c, "", 0, reply_finish_name(c->finish), w);
}

static void end(struct answer *a, struct json_writer *w)
{
    const struct completion *state = a->state;
    reply_end_stream(w, &state->reply, a);
}

static const struct answer_schema schema = {
    .begin = begin, .content = content, .done = done, .end = end, .whole = whole, .free = free_completion};

bool api_completions(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    struct completion_request r;
    bool ok = completion_request_read(&r, body, &a->options.sampling, engine_tokenizer(a->engine), err);
    if (ok) {
        struct answer_request request = {
            .schema = &schema,
            .state = completion_new(a, &r),
            .stream = r.params.stream,
            .prompts = r.prompts,
            .n_prompts = r.n_prompts,
            .n = r.params.n,
            .generation = {.max_tokens = r.max_tokens, .logprobs = r.logprobs >= 0,
                .top_logprobs = r.logprobs > 0 ? r.logprobs : 0},
            .prompt_param = "prompt",
        };
        params_apply(&r.params, &request.generation);
        ok = request.state ? answer_start(a, x, &request, err) : api_out_of_memory(err);
    }
    completion_request_free(&r);
    return ok;
}
