#include "server/api/answer.h"
#include "server/api/api_internal.h"
#include "server/request/params.h"

#include <stdlib.h>
#include <string.h>

static const char event_stream[] = "text/event-stream; charset=utf-8";

/* ---- life ---- */

static void free_answer(struct answer *answer)
{
    for (int i = 0; i < answer->n_choices; i++) {
        struct answer_choice *c = &answer->choices[i];
        for (int k = 0; k < c->n_calls; k++) {
            free(c->calls[k].name);
            free(c->calls[k].arguments);
        }
        free(c->calls);
        free(c->tokens);
        json_writer_free(&c->content);
        tool_parser_free(c->parser);
    }
    free(answer->choices);
    if (answer->schema->free)
        answer->schema->free(answer->state);
    free(answer);
}

static void end_answer(struct api *a, struct answer *answer)
{
    struct answer **p = &a->answers;
    while (*p != answer)
        p = &(*p)->next;
    *p = answer->next;
    free_answer(answer);
}

static void cancel_all(struct api *a, const struct answer *answer)
{
    for (int i = 0; i < answer->n_choices; i++)
        if (answer->choices[i].id && !answer->choices[i].done)
            engine_cancel(a->engine, answer->choices[i].id);
}

struct answer_usage answer_usage(const struct answer *a)
{
    struct answer_usage u = {0};
    for (int i = 0; i < a->n_choices; i++) {
        const struct engine_event *e = &a->choices[i].progress;
        u.n_generated += e->n_generated;
        if (i % a->n == 0) {
            u.n_prompt += e->n_prompt;
            u.n_cached += e->n_cached;
        }
    }
    return u;
}

static void note_tokens(const struct answer *answer)
{
    struct answer_usage u = answer_usage(answer);
    struct token_note note = {u.n_prompt, u.n_generated};
    exchange_set_note(answer->x, &note, sizeof note);
}

static void send_events(struct answer *answer, struct json_writer *w)
{
    if (w->failed)
        exchange_abort(answer->x);
    else if (w->length > 0)
        exchange_stream_write(answer->x, w->data, w->length);
    json_writer_free(w);
}

/* ---- pieces ---- */

static bool keep_call(struct answer_choice *c, const struct tool_event *e)
{
    if (c->n_calls == c->calls_capacity) {
        int capacity = c->calls_capacity ? 2 * c->calls_capacity : 4;
        struct answer_call *calls = realloc(c->calls, (size_t)capacity * sizeof *calls);
        if (!calls)
            return false;
        c->calls = calls;
        c->calls_capacity = capacity;
    }
    struct answer_call *call = &c->calls[c->n_calls];
    memcpy(call->id, e->id, sizeof call->id);
    call->name = strdup(e->name);
    call->arguments = strndup(e->text, e->length);
    call->n_arguments = e->length;
    if (!call->name || !call->arguments) {
        free(call->name);
        free(call->arguments);
        return false;
    }
    c->n_calls++;
    return true;
}

/* Takes the pieces of a choice: from the parser, or straight from the engine where no tools are declared. */
static void take_piece(void *user, const struct tool_event *e)
{
    struct answer_choice *c = user;
    const struct answer *a = c->answer;
    if (c->closed)
        return;
    if (e->kind == TOOL_CONTENT) {
        if (!a->stream)
            json_raw(&c->content, e->text, e->length);
        else if (a->schema->content)
            a->schema->content(c, e->text, e->length, c->out);
        return;
    }
    if (a->stream && a->schema->call)
        a->schema->call(c, e, c->out);
    if (!a->stream && e->kind == TOOL_CALL_END && !keep_call(c, e))
        c->failed = true;
    c->closed = e->kind == TOOL_CALL_END && e->valid && a->one_call;
}

static bool keep_tokens(struct answer_choice *c, const struct engine_event *e)
{
    if (e->n_choices == 0)
        return true;
    if (c->n_tokens + e->n_choices > c->tokens_capacity) {
        int capacity = 2 * (c->n_tokens + e->n_choices);
        struct token_choice *tokens = realloc(c->tokens, (size_t)capacity * sizeof *tokens);
        if (!tokens)
            return false;
        c->tokens = tokens;
        c->tokens_capacity = capacity;
    }
    memcpy(c->tokens + c->n_tokens, e->choices, (size_t)e->n_choices * sizeof *c->tokens);
    c->n_tokens += e->n_choices;
    return true;
}

/* ---- from the request to the engine ---- */

static bool check_prompt(struct api *a, const struct answer_request *r, size_t n_tokens, struct api_error *err)
{
    int n_ctx = engine_info(a->engine)->n_ctx;
    if (n_tokens < (size_t)n_ctx)
        return true;
    return api_fail(err, 400, "context_length_exceeded", r->prompt_param,
                    "The prompt has %zu tokens, but this model's context holds %d, and at least one must be left for the answer. "
                    "Shorten it, or start quern-server with a larger --ctx-size if the model allows it.",
                    n_tokens, n_ctx);
}

static bool submit(struct api *a, const struct answer_request *r, struct answer_choice *c, struct api_error *err)
{
    const struct tok_ids *prompt = &r->prompts[c->index / r->n];
    struct generation g = r->generation;
    g.prompt = prompt->data;
    g.n_prompt = (int)prompt->count;
    g.callback = events_push;
    g.user = &a->events;
    /* Not neighbouring seeds of the generator (see engine/sampler.h), which would begin alike. */
    g.sampling.seed += (uint64_t)(c->index % r->n) * 0xd1342543de82ef95;
    c->progress.n_prompt = g.n_prompt;
    struct error problem;
    switch (engine_submit(a->engine, &g, &c->id, &problem)) {
    case SUBMIT_OK: return true;
    case SUBMIT_FULL:
        return api_fail(err, 503, "queue_full", NULL, "Too many requests are waiting for the model; try again later.");
    case SUBMIT_STOPPED: return api_fail(err, 503, "shutting_down", NULL, "The server is shutting down.");
    default: return api_fail(err, 400, "invalid_request", NULL, "The engine refused the request: %s.", problem.text);
    }
}

static bool prepare(struct api *a, struct answer *answer, const struct answer_request *r, struct api_error *err)
{
    for (int i = 0; i < r->n_prompts; i++)
        if (!check_prompt(a, r, r->prompts[i].count, err))
            return false;
    int n = r->n_prompts * r->n, max_queue = engine_info(a->engine)->max_queue;
    if (n > PARAMS_MAX_CHOICES || n > max_queue)
        return api_fail(err, 400, "invalid_value", r->n > 1 ? "n" : r->prompt_param,
            "%d answers are asked for at once; this server takes at most %d.", n,
            max_queue < PARAMS_MAX_CHOICES ? max_queue : PARAMS_MAX_CHOICES);
    answer->choices = calloc((size_t)n, sizeof *answer->choices);
    if (!answer->choices)
        return api_out_of_memory(err);
    answer->n_choices = answer->n_left = n;
    for (int i = 0; i < n; i++) {
        struct answer_choice *c = &answer->choices[i];
        c->answer = answer;
        c->index = i;
        if (r->n_tools > 0 && !(c->parser = tool_parser_new(r->tool_names, r->n_tools, r->stream, take_piece, c)))
            return api_out_of_memory(err);
    }
    for (int i = 0; i < n; i++)
        if (!submit(a, r, &answer->choices[i], err)) {
            answer->choices[i].id = 0;
            cancel_all(a, answer);
            return false;
        }
    return true;
}

bool answer_start(struct api *a, struct exchange *x, const struct answer_request *r, struct api_error *err)
{
    struct answer *answer = calloc(1, sizeof *answer);
    if (!answer) {
        if (r->schema->free)
            r->schema->free(r->state);
        return api_out_of_memory(err);
    }
    *answer = (struct answer){
        .api = a, .x = x, .schema = r->schema, .state = r->state, .stream = r->stream, .one_call = r->one_call, .n = r->n};
    if (!prepare(a, answer, r, err)) {
        free_answer(answer);
        return false;
    }
    answer->next = a->answers;
    a->answers = answer;
    exchange_set_data(x, answer);
    if (answer->stream) {
        struct json_writer w = {0};
        exchange_stream_begin(x, event_stream);
        if (answer->schema->begin)
            answer->schema->begin(answer, &w);
        send_events(answer, &w);
    }
    return true;
}

/* ---- from the engine to the response ---- */

/* Before anything was sent this is a response, in a stream it is an event, after which the connection closes. */
static void fail_answer(struct api *a, struct answer *answer, int status, const char *code, const char *message)
{
    struct api_error err;
    struct json_writer w = {0};
    api_fail(&err, status, code, NULL, "%s", message);
    note_tokens(answer);
    cancel_all(a, answer);
    if (answer->schema->error) {
        answer->schema->error(answer, &err, &w);
    } else if (answer->stream) {
        json_raw(&w, "data: ", 6);
        api_error_write(&w, &err);
        json_raw(&w, "\n\n", 2);
    }
    if (answer->stream) {
        send_events(answer, &w);
        exchange_stream_fail(answer->x);
    } else if (w.length > 0 && !w.failed) {
        api_send_status(answer->x, status, &w);
    } else {
        json_writer_free(&w);
        api_send_error(answer->x, &err);
    }
    end_answer(a, answer);
}

static void finish_answer(struct api *a, struct answer *answer)
{
    struct json_writer w = {0};
    note_tokens(answer);
    if (answer->stream) {
        if (answer->schema->end)
            answer->schema->end(answer, &w);
        send_events(answer, &w);
        exchange_stream_end(answer->x);
    } else {
        answer->schema->whole(answer, &w);
        api_send_json(answer->x, &w);
    }
    end_answer(a, answer);
}

/* The choice gets no more events. */
static void finish_choice(struct answer_choice *c)
{
    struct answer *answer = c->answer;
    enum finish_reason reason = c->progress.finish;
    bool calls = c->parser && tool_parser_n_valid(c->parser) > 0;
    c->finish = c->closed || (reason == FINISH_STOP && calls) ? ANSWER_TOOL_CALLS
                : reason == FINISH_STOP                       ? ANSWER_STOP
                                                              : ANSWER_LENGTH;
    c->done = true;
    answer->n_left--;
    if (answer->stream && answer->schema->done)
        answer->schema->done(c, c->out);
}

static void take_event(struct api *a, struct answer_choice *c, const struct engine_event *e)
{
    struct answer *answer = c->answer;
    struct json_writer w = {0};
    c->out = &w;
    c->progress = *e;
    c->progress.text = c->progress.error = NULL; /* they end with the event */
    c->progress.choices = NULL;
    bool ok = keep_tokens(c, e);
    if (ok && e->text_length > 0 && c->parser)
        ok = tool_parser_feed(c->parser, e->text, e->text_length);
    else if (ok && e->text_length > 0)
        take_piece(c, &(struct tool_event){.kind = TOOL_CONTENT, .text = e->text, .length = e->text_length});
    bool end = e->kind == EVENT_DONE;
    if (ok && end && c->parser)
        ok = tool_parser_end(c->parser);
    c->failed |= !ok || c->content.failed;
    if (!c->failed && !(end && e->finish == FINISH_ERROR) && (end || c->closed)) {
        if (!end)
            engine_cancel(a->engine, c->id);
        finish_choice(c);
    }
    c->out = NULL;
    if (answer->stream)
        send_events(answer, &w);
    if (c->failed)
        fail_answer(a, answer, 503, "out_of_memory", "The server is out of memory.");
    else if (end && e->finish == FINISH_ERROR)
        fail_answer(a, answer, 500, "generation_failed", e->error ? e->error : "The generation failed.");
    else if (end && e->finish == FINISH_CANCELLED && !answer->stream)
        fail_answer(a, answer, 503, "shutting_down", "The server is shutting down.");
    else if (answer->n_left == 0)
        finish_answer(a, answer);
}

/* The choice that a generation is for; NULL if its client has gone, or it needs nothing more. */
static struct answer_choice *find_choice(const struct api *a, uint64_t id)
{
    for (struct answer *answer = a->answers; answer; answer = answer->next)
        for (int i = 0; i < answer->n_choices; i++)
            if (answer->choices[i].id == id)
                return answer->choices[i].done ? NULL : &answer->choices[i];
    return NULL;
}

void answer_events(struct api *a)
{
    if (!a->engine)
        return;
    bool lost;
    struct queued_event *e = events_take(&a->events, &lost);
    while (e) {
        struct queued_event *next = e->next;
        metrics_take_event(&a->metrics, &e->event);
        struct answer_choice *c = find_choice(a, e->event.id);
        if (c)
            take_event(a, c, &e->event);
        free(e);
        e = next;
    }
    while (lost && a->answers) /* one of them misses an event, and nobody knows which */
        fail_answer(a, a->answers, 503, "out_of_memory", "The server is out of memory.");
}

void answer_gone(struct api *a, struct exchange *x)
{
    struct answer *answer = exchange_data(x);
    if (!answer)
        return;
    note_tokens(answer);
    cancel_all(a, answer);
    end_answer(a, answer);
}

void answer_quiet(struct exchange *x)
{
    struct answer *answer = exchange_data(x);
    struct json_writer w = {0};
    if (!answer || !answer->stream)
        return;
    if (answer->schema->ping)
        answer->schema->ping(answer, &w);
    else
        json_raw(&w, ":\n\n", 3);
    send_events(answer, &w);
}

void answer_cut(struct api *a)
{
    while (a->answers) {
        struct answer *answer = a->answers;
        cancel_all(a, answer);
        if (!answer->stream) {
            fail_answer(a, answer, 503, "shutting_down", "The server is shutting down.");
            continue;
        }
        for (int i = 0; i < answer->n_choices; i++) {
            struct engine_event end = answer->choices[i].progress;
            end.kind = EVENT_DONE;
            end.finish = FINISH_CANCELLED;
            end.text_length = 0;
            end.n_choices = 0;
            if (answer->choices[i].done)
                continue;
            bool last = answer->n_left == 1;
            take_event(a, &answer->choices[i], &end);
            if (last)
                break;
        }
    }
}
