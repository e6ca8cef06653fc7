/* POST /v1/chat/completions: from request to generation, and from the engine's events to the response. */
#include "server/api_internal.h"
#include "server/chat_reply.h"
#include "server/chat_request.h"

#include <stdlib.h>

struct chat_job {
    struct chat_job *next;
    struct exchange *x;
    uint64_t id; /* the generation's */
    bool stream;
    struct chat_reply reply;
    struct json_writer text;       /* the answer so far, when it is sent whole */
    struct engine_event progress;  /* counts of the latest event */
};

static const char event_stream[] = "text/event-stream; charset=utf-8";

static void free_job(struct api *a, struct chat_job *job)
{
    struct chat_job **p = &a->jobs;
    while (*p != job)
        p = &(*p)->next;
    *p = job->next;
    json_writer_free(&job->text);
    free(job);
}

static void send_stream(struct chat_job *job, struct json_writer *w)
{
    if (w->failed)
        exchange_abort(job->x);
    else
        exchange_stream_write(job->x, w->data, w->length);
    json_writer_free(w);
}

/* ---- from the request to the engine ---- */

static bool encode(struct api *a, const struct chat_request *r, struct tok_ids *ids, struct api_error *err)
{
    struct error problem;
    if (!chat_encode(engine_tokenizer(a->engine), &r->chat, ids, &problem))
        return api_fail(err, 500, NULL, NULL, "The conversation could not be tokenised: %s.", problem.text);
    int n_ctx = engine_info(a->engine)->n_ctx;
    if (ids->count >= (size_t)n_ctx)
        return api_fail(err, 400, "context_length_exceeded", "messages",
                        "The conversation has %zu tokens, but this model's context holds %d, and at least one must be left for the answer. "
                        "Shorten the messages, or start quern-server with a larger --ctx-size if the model allows it.",
                        ids->count, n_ctx);
    return true;
}

static bool submit(struct api *a, const struct chat_request *r, const struct tok_ids *ids, uint64_t *id, struct api_error *err)
{
    struct generation g = {.prompt = ids->data, .n_prompt = (int)ids->count, .max_tokens = r->max_tokens, .sampling = r->sampling,
                           .n_stops = r->n_stops, .callback = events_push, .user = &a->events};
    for (int i = 0; i < r->n_stops; i++)
        g.stops[i] = r->stops[i];
    struct error problem;
    switch (engine_submit(a->engine, &g, id, &problem)) {
    case SUBMIT_OK: return true;
    case SUBMIT_FULL: return api_fail(err, 503, "queue_full", NULL, "Too many requests are waiting for the model; try again later.");
    case SUBMIT_STOPPED: return api_fail(err, 503, "shutting_down", NULL, "The server is shutting down.");
    default: return api_fail(err, 400, "invalid_request", NULL, "The engine refused the request: %s.", problem.text);
    }
}

static bool start(struct api *a, struct exchange *x, const struct chat_request *r, struct api_error *err)
{
    struct tok_ids ids = {0};
    struct chat_job *job = calloc(1, sizeof *job);
    bool ok = job ? encode(a, r, &ids, err) && submit(a, r, &ids, &job->id, err) : api_out_of_memory(err);
    if (!ok) {
        tok_ids_free(&ids);
        free(job);
        return false;
    }
    job->x = x;
    job->stream = r->stream;
    job->progress.n_prompt = (int)ids.count;
    tok_ids_free(&ids);
    chat_reply_begin(&job->reply, a->options.model, r->include_usage);
    job->next = a->jobs;
    a->jobs = job;
    exchange_set_data(x, job);
    if (job->stream) {
        struct json_writer w = {0};
        chat_reply_role(&w, &job->reply);
        exchange_stream_begin(x, event_stream);
        send_stream(job, &w);
    }
    return true;
}

bool api_chat(struct api *a, struct exchange *x, const struct json_value *body, struct api_error *err)
{
    struct chat_request r;
    bool ok = chat_request_read(&r, body, &a->options.sampling, err) && start(a, x, &r, err);
    chat_request_free(&r);
    return ok;
}

/* ---- from the engine to the response ---- */

static void note_tokens(struct chat_job *job)
{
    struct token_note note = {job->progress.n_prompt, job->progress.n_generated};
    exchange_set_note(job->x, &note, sizeof note);
}

/* The generation failed: before anything was sent this is a response, in a stream it is an event, after which the connection closes. */
static void fail_job(struct api *a, struct chat_job *job, int status, const char *code, const char *message)
{
    struct api_error err;
    api_fail(&err, status, code, NULL, "%s", message);
    note_tokens(job);
    if (job->stream) {
        struct json_writer w = {0};
        json_raw(&w, "data: ", 6);
        api_error_write(&w, &err);
        json_raw(&w, "\n\n", 2);
        send_stream(job, &w);
        exchange_stream_fail(job->x);
    } else {
        api_send_error(job->x, &err);
    }
    free_job(a, job);
}

static void finish_job(struct api *a, struct chat_job *job)
{
    struct json_writer w = {0};
    note_tokens(job);
    if (job->progress.finish == FINISH_ERROR) {
        fail_job(a, job, 500, "generation_failed", job->progress.error ? job->progress.error : "The generation failed.");
        return;
    }
    if (job->stream) {
        chat_reply_end(&w, &job->reply, &job->progress);
        send_stream(job, &w);
        exchange_stream_end(job->x);
    } else if (job->progress.finish == FINISH_CANCELLED) {
        fail_job(a, job, 503, "shutting_down", "The server is shutting down.");
        return;
    } else {
        chat_reply_whole(&w, &job->reply, job->text.data ? job->text.data : "", job->text.length, &job->progress);
        w.failed |= job->text.failed;
        api_send_json(job->x, &w);
    }
    free_job(a, job);
}

static void take_event(struct api *a, struct chat_job *job, const struct engine_event *e)
{
    job->progress = *e;
    if (e->text_length > 0) {
        if (job->stream) {
            struct json_writer w = {0};
            chat_reply_text(&w, &job->reply, e->text, e->text_length);
            send_stream(job, &w);
        } else {
            json_raw(&job->text, e->text, e->text_length);
        }
    }
    if (e->kind == EVENT_DONE)
        finish_job(a, job);
    else
        job->progress.text = job->progress.error = NULL; /* they end with the event */
}

void api_chat_events(struct api *a)
{
    if (!a->engine)
        return;
    bool lost;
    struct queued_event *e = events_take(&a->events, &lost);
    while (e) {
        struct queued_event *next = e->next;
        metrics_take_event(&a->metrics, &e->event);
        struct chat_job *job = a->jobs;
        while (job && job->id != e->event.id)
            job = job->next;
        if (job) /* else its client has gone */
            take_event(a, job, &e->event);
        free(e);
        e = next;
    }
    while (lost && a->jobs) { /* one of them misses an event, and nobody knows which */
        engine_cancel(a->engine, a->jobs->id);
        fail_job(a, a->jobs, 503, "out_of_memory", "The server is out of memory.");
    }
}

void api_chat_gone(struct api *a, struct exchange *x)
{
    struct chat_job *job = exchange_data(x);
    if (!job)
        return;
    note_tokens(job);
    engine_cancel(a->engine, job->id);
    free_job(a, job);
}

void api_chat_cut(struct api *a)
{
    while (a->jobs) {
        engine_cancel(a->engine, a->jobs->id);
        a->jobs->progress.finish = FINISH_CANCELLED;
        finish_job(a, a->jobs);
    }
}
