#include "server/api/messages_reply.h"
#include "server/api/reply.h"
#include "server/request/messages_error.h"

#include <stdlib.h>
#include <string.h>

struct messages_reply {
    char id[48];
    const char *model;
    int max_tokens;
    char *stops[ENGINE_MAX_STOPS]; /* [n_stops] */
    int n_stops;
    int index; /* of the block that is open, or of the next */
    bool text_open;
};

static void free_reply(void *state)
{
    struct messages_reply *s = state;
    for (int i = 0; i < s->n_stops; i++)
        free(s->stops[i]);
    free(s);
}

struct messages_reply *messages_reply_new(const char *model, const struct messages_request *r)
{
    struct messages_reply *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->model = model;
    s->max_tokens = r->chat.max_tokens;
    reply_new_id(s->id, sizeof s->id, "msg_");
    for (; s->n_stops < r->n_stops; s->n_stops++)
        if (!(s->stops[s->n_stops] = strdup(r->stops[s->n_stops]))) {
            free_reply(s);
            return NULL;
        }
    return s;
}

/* ---- objects ---- */

static void write_usage(struct json_writer *w, const struct answer *a)
{
    struct answer_usage u = answer_usage(a);
    json_key(w, "usage");
    json_begin_object(w);
    json_key(w, "input_tokens"); /* as Anthropic counts: without those of the next two */
    json_int(w, u.n_prompt - u.n_cached);
    json_key(w, "cache_creation_input_tokens");
    json_int(w, 0);
    json_key(w, "cache_read_input_tokens");
    json_int(w, u.n_cached);
    json_key(w, "output_tokens");
    json_int(w, u.n_generated);
    json_end_object(w);
}

static void begin_message(struct json_writer *w, const struct messages_reply *s)
{
    json_begin_object(w);
    json_key(w, "id");
    json_text(w, s->id);
    json_key(w, "type");
    json_text(w, "message");
    json_key(w, "role");
    json_text(w, "assistant");
    json_key(w, "model");
    json_text(w, s->model);
    json_key(w, "content");
    json_begin_array(w);
}

static void begin_text(struct json_writer *w)
{
    json_begin_object(w);
    json_key(w, "type");
    json_text(w, "text");
    json_key(w, "text");
}

/* Up to the input. */
static void begin_use(struct json_writer *w, const char *call_id, const char *name)
{
    char id[TOOL_CALL_ID_BYTES + 8] = "toolu_";
    const char *digits = strrchr(call_id, '_');
    strncat(id, digits ? digits + 1 : call_id, TOOL_CALL_ID_BYTES);
    json_begin_object(w);
    json_key(w, "type");
    json_text(w, "tool_use");
    json_key(w, "id");
    json_text(w, id);
    json_key(w, "name");
    json_text(w, name);
    json_key(w, "input");
}

/* "stop_reason" and "stop_sequence"; c NULL: not known yet. */
static void write_stop(struct json_writer *w, const struct answer_choice *c)
{
    const struct messages_reply *s = c ? c->answer->state : NULL;
    bool met = c && c->progress.kind == EVENT_DONE && c->progress.finish == FINISH_STOP && c->progress.stop >= 0;
    const char *reason = "end_turn";
    if (met)
        reason = "stop_sequence";
    else if (c && c->finish == ANSWER_TOOL_CALLS)
        reason = "tool_use";
    else if (c && c->finish == ANSWER_LENGTH)
        reason = c->progress.n_generated >= s->max_tokens ? "max_tokens" : "model_context_window_exceeded";
    json_key(w, "stop_reason");
    json_text(w, c ? reason : NULL);
    json_key(w, "stop_sequence");
    json_text(w, met ? s->stops[c->progress.stop] : NULL);
}

static void whole(struct answer *a, struct json_writer *w)
{
    const struct answer_choice *c = &a->choices[0];
    begin_message(w, a->state);
    if (c->content.length > 0) {
        begin_text(w);
        json_string(w, c->content.data, c->content.length);
        json_end_object(w);
    }
    for (int i = 0; i < c->n_calls; i++) {
        begin_use(w, c->calls[i].id, c->calls[i].name);
        json_raw(w, c->calls[i].arguments, c->calls[i].n_arguments); /* a JSON object: others are no calls */
        json_end_object(w);
    }
    json_end_array(w);
    write_stop(w, c);
    write_usage(w, a);
    json_end_object(w);
}

/* ---- events ---- */

static void begin_event(struct json_writer *w, const char *type)
{
    json_raw(w, "event: ", 7);
    json_raw(w, type, strlen(type));
    json_raw(w, "\ndata: ", 7);
    w->comma = false;
    json_begin_object(w);
    json_key(w, "type");
    json_text(w, type);
}

static void begin_block_event(const struct messages_reply *s, struct json_writer *w, const char *type)
{
    begin_event(w, type);
    json_key(w, "index");
    json_int(w, s->index);
}

static void end_event(struct json_writer *w)
{
    json_end_object(w);
    json_raw(w, "\n\n", 2);
}

static void write_delta(
    struct messages_reply *s, struct json_writer *w, const char *type, const char *member, const char *text, size_t length)
{
    begin_block_event(s, w, "content_block_delta");
    json_key(w, "delta");
    json_begin_object(w);
    json_key(w, "type");
    json_text(w, type);
    json_key(w, member);
    json_string(w, text, length);
    json_end_object(w);
    end_event(w);
}

static void close_block(struct messages_reply *s, struct json_writer *w)
{
    begin_block_event(s, w, "content_block_stop");
    end_event(w);
    s->index++;
    s->text_open = false;
}

static void begin(struct answer *a, struct json_writer *w)
{
    begin_event(w, "message_start");
    json_key(w, "message");
    begin_message(w, a->state);
    json_end_array(w);
    write_stop(w, NULL);
    write_usage(w, a);
    json_end_object(w);
    end_event(w);
}

static void ping(struct answer *a, struct json_writer *w)
{
    (void)a;
    begin_event(w, "ping");
    end_event(w);
}

static void content(struct answer_choice *c, const char *text, size_t length, struct json_writer *w)
{
    struct messages_reply *s = c->answer->state;
    if (!s->text_open) {
        begin_block_event(s, w, "content_block_start");
        json_key(w, "content_block");
        begin_text(w);
        json_text(w, "");
        json_end_object(w);
        end_event(w);
        s->text_open = true;
    }
    write_delta(s, w, "text_delta", "text", text, length);
}

static void call(struct answer_choice *c, const struct tool_event *e, struct json_writer *w)
{
    struct messages_reply *s = c->answer->state;
    if (e->kind == TOOL_CALL_START) {
        if (s->text_open)
            close_block(s, w);
        begin_block_event(s, w, "content_block_start");
        json_key(w, "content_block");
        begin_use(w, e->id, e->name);
        json_begin_object(w);
        json_end_object(w);
        json_end_object(w);
        end_event(w);
    } else if (e->kind == TOOL_CALL_ARGUMENTS) {
        write_delta(s, w, "input_json_delta", "partial_json", e->text, e->length);
    } else {
        close_block(s, w);
    }
}

static void error(struct answer *a, const struct api_error *e, struct json_writer *w)
{
    if (!a->stream)
        return; /* api_send_error writes it */
    json_raw(w, "event: error\ndata: ", 19);
    w->comma = false;
    messages_error_write(w, e);
    json_raw(w, "\n\n", 2);
}

static bool was_cut(const struct answer_choice *c)
{
    return c->finish == ANSWER_LENGTH && c->progress.finish == FINISH_CANCELLED;
}

static void done(struct answer_choice *c, struct json_writer *w)
{
    struct messages_reply *s = c->answer->state;
    if (s->text_open)
        close_block(s, w);
    if (was_cut(c)) {
        struct api_error e;
        api_fail(&e, 500, NULL, NULL, "The server is shutting down.");
        error(c->answer, &e, w);
        return;
    }
    begin_event(w, "message_delta");
    json_key(w, "delta");
    json_begin_object(w);
    write_stop(w, c);
    json_end_object(w);
    write_usage(w, c->answer);
    end_event(w);
}

static void end(struct answer *a, struct json_writer *w)
{
    if (was_cut(&a->choices[0]))
        return;
    begin_event(w, "message_stop");
    end_event(w);
}

const struct answer_schema messages_schema = {.begin = begin, .ping = ping, .content = content, .call = call, .done = done,
                                              .end = end, .whole = whole, .error = error, .free = free_reply};
