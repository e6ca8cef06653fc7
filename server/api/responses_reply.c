#include "server/api/responses_reply.h"
#include "server/api/reply.h"

#include <stdlib.h>
#include <string.h>

struct responses_reply {
    char id[48];
    time_t created;
    const char *model;
    struct json_writer echo;
    int64_t sequence; /* of the next event */

    struct json_writer items; /* finished output items, with commas between */
    int n_items;              /* of them: the index of the item that is open, if one is */
    bool message_open;
    char item_id[48];        /* of the open item */
    struct json_writer text; /* of the open message, as raw bytes */
};

struct responses_reply *responses_reply_new(const char *model, struct json_writer *echo)
{
    struct responses_reply *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->created = time(NULL);
    s->model = model;
    s->echo = *echo;
    *echo = (struct json_writer){0};
    reply_new_id(s->id, sizeof s->id, "resp_");
    return s;
}

static void free_reply(void *state)
{
    struct responses_reply *s = state;
    json_writer_free(&s->echo);
    json_writer_free(&s->items);
    json_writer_free(&s->text);
    free(s);
}

/* ---- objects ---- */

static void write_part(struct json_writer *w, const char *text, size_t length)
{
    json_begin_object(w);
    json_key(w, "type");
    json_text(w, "output_text");
    json_key(w, "annotations");
    json_begin_array(w);
    json_end_array(w);
    json_key(w, "logprobs");
    json_begin_array(w);
    json_end_array(w);
    json_key(w, "text");
    json_string(w, text, length);
    json_end_object(w);
}

/* text NULL: no content yet. */
static void write_message(struct json_writer *w, const char *id, const char *status, const char *text, size_t length)
{
    json_begin_object(w);
    json_key(w, "id");
    json_text(w, id);
    json_key(w, "type");
    json_text(w, "message");
    json_key(w, "status");
    json_text(w, status);
    json_key(w, "role");
    json_text(w, "assistant");
    json_key(w, "content");
    json_begin_array(w);
    if (text)
        write_part(w, text, length);
    json_end_array(w);
    json_end_object(w);
}

static void write_call(struct json_writer *w, const char *id, const char *status, const char *call_id, const char *name,
    const char *arguments, size_t length)
{
    json_begin_object(w);
    json_key(w, "id");
    json_text(w, id);
    json_key(w, "type");
    json_text(w, "function_call");
    json_key(w, "status");
    json_text(w, status);
    json_key(w, "call_id");
    json_text(w, call_id);
    json_key(w, "name");
    json_text(w, name);
    json_key(w, "arguments");
    json_string(w, arguments, length);
    json_end_object(w);
}

static void write_usage(struct json_writer *w, const struct answer *a)
{
    struct answer_usage u = answer_usage(a);
    json_begin_object(w);
    json_key(w, "input_tokens");
    json_int(w, u.n_prompt);
    json_key(w, "input_tokens_details");
    json_begin_object(w);
    json_key(w, "cached_tokens");
    json_int(w, u.n_cached);
    json_key(w, "cache_write_tokens");
    json_int(w, 0);
    json_end_object(w);
    json_key(w, "output_tokens");
    json_int(w, u.n_generated);
    json_key(w, "output_tokens_details");
    json_begin_object(w);
    json_key(w, "reasoning_tokens");
    json_int(w, 0);
    json_end_object(w);
    json_key(w, "total_tokens");
    json_int(w, u.n_prompt + u.n_generated);
    json_end_object(w);
}

/* error: a message, for the status "failed"; else NULL. */
static void write_response(struct json_writer *w, const struct answer *a, const char *status, const char *error)
{
    const struct responses_reply *s = a->state;
    bool over = strcmp(status, "in_progress") != 0;
    json_begin_object(w);
    json_key(w, "id");
    json_text(w, s->id);
    json_key(w, "object");
    json_text(w, "response");
    json_key(w, "created_at");
    json_int(w, s->created);
    json_key(w, "completed_at");
    if (strcmp(status, "completed") == 0)
        json_int(w, time(NULL));
    else
        json_null(w);
    json_key(w, "status");
    json_text(w, status);
    json_key(w, "error");
    if (error) {
        json_begin_object(w);
        json_key(w, "code");
        json_text(w, "server_error");
        json_key(w, "message");
        json_text(w, error);
        json_end_object(w);
    } else {
        json_null(w);
    }
    json_key(w, "incomplete_details");
    if (strcmp(status, "incomplete") == 0) {
        json_begin_object(w);
        json_key(w, "reason");
        json_text(w, "max_output_tokens");
        json_end_object(w);
    } else {
        json_null(w);
    }
    json_key(w, "model");
    json_text(w, s->model);
    json_key(w, "output");
    json_begin_array(w);
    json_raw(w, s->items.data ? s->items.data : "", s->items.length);
    json_end_array(w);
    json_raw(w, ",", 1);
    json_raw(w, s->echo.data, s->echo.length);
    json_key(w, "usage");
    if (over)
        write_usage(w, a);
    else
        json_null(w);
    json_end_object(w);
    w->failed |= s->items.failed;
}

/* ---- events ---- */

static void begin_event(struct responses_reply *s, struct json_writer *w, const char *type)
{
    json_raw(w, "event: ", 7);
    json_raw(w, type, strlen(type));
    json_raw(w, "\ndata: ", 7);
    w->comma = false;
    json_begin_object(w);
    json_key(w, "type");
    json_text(w, type);
    json_key(w, "sequence_number");
    json_int(w, s->sequence++);
}

static void end_event(struct json_writer *w)
{
    json_end_object(w);
    json_raw(w, "\n\n", 2);
}

static void response_event(struct answer *a, struct json_writer *w, const char *type, const char *status, const char *error)
{
    begin_event(a->state, w, type);
    json_key(w, "response");
    write_response(w, a, status, error);
    end_event(w);
}

/* An event about the open item. */
static void begin_item_event(struct responses_reply *s, struct json_writer *w, const char *type)
{
    begin_event(s, w, type);
    json_key(w, "item_id");
    json_text(w, s->item_id);
    json_key(w, "output_index");
    json_int(w, s->n_items);
}

static void begin_part_event(struct responses_reply *s, struct json_writer *w, const char *type)
{
    begin_item_event(s, w, type);
    json_key(w, "content_index");
    json_int(w, 0);
}

static void begin_output_event(struct responses_reply *s, struct json_writer *w, const char *type)
{
    begin_event(s, w, type);
    json_key(w, "output_index");
    json_int(w, s->n_items);
    json_key(w, "item");
}

static void no_logprobs(struct json_writer *w)
{
    json_key(w, "logprobs");
    json_begin_array(w);
    json_end_array(w);
}

/* The open item is what was just written into items. */
static void finish_item(struct responses_reply *s, struct json_writer *w, size_t from)
{
    begin_output_event(s, w, "response.output_item.done");
    from += s->items.data[from] == ',';
    json_raw(w, s->items.data + from, s->items.length - from);
    end_event(w);
    s->n_items++;
}

static void open_message(struct responses_reply *s, struct json_writer *w)
{
    s->message_open = true;
    reply_new_id(s->item_id, sizeof s->item_id, "msg_");
    begin_output_event(s, w, "response.output_item.added");
    write_message(w, s->item_id, "in_progress", NULL, 0);
    end_event(w);
    begin_part_event(s, w, "response.content_part.added");
    json_key(w, "part");
    write_part(w, "", 0);
    end_event(w);
}

static void close_message(struct responses_reply *s, struct json_writer *w, const char *status)
{
    const char *text = s->text.data ? s->text.data : "";
    size_t from = s->items.length;
    begin_part_event(s, w, "response.output_text.done");
    json_key(w, "text");
    json_string(w, text, s->text.length);
    no_logprobs(w);
    end_event(w);
    begin_part_event(s, w, "response.content_part.done");
    json_key(w, "part");
    write_part(w, text, s->text.length);
    end_event(w);
    write_message(&s->items, s->item_id, status, text, s->text.length);
    if (s->items.failed || s->text.failed)
        w->failed = true;
    else
        finish_item(s, w, from);
    json_writer_free(&s->text);
    s->message_open = false;
}

/* ---- the schema ---- */

static void begin(struct answer *a, struct json_writer *w)
{
    response_event(a, w, "response.created", "in_progress", NULL);
    response_event(a, w, "response.in_progress", "in_progress", NULL);
}

static void content(struct answer_choice *c, const char *text, size_t length, struct json_writer *w)
{
    struct responses_reply *s = c->answer->state;
    if (!s->message_open)
        open_message(s, w);
    json_raw(&s->text, text, length);
    begin_part_event(s, w, "response.output_text.delta");
    json_key(w, "delta");
    json_string(w, text, length);
    no_logprobs(w);
    end_event(w);
}

static void call(struct answer_choice *c, const struct tool_event *e, struct json_writer *w)
{
    struct responses_reply *s = c->answer->state;
    if (e->kind == TOOL_CALL_START) {
        if (s->message_open)
            close_message(s, w, "completed");
        reply_new_id(s->item_id, sizeof s->item_id, "fc_");
        begin_output_event(s, w, "response.output_item.added");
        write_call(w, s->item_id, "in_progress", e->id, e->name, "", 0);
        end_event(w);
    } else if (e->kind == TOOL_CALL_ARGUMENTS) {
        begin_item_event(s, w, "response.function_call_arguments.delta");
        json_key(w, "delta");
        json_string(w, e->text, e->length);
        end_event(w);
    } else {
        size_t from = s->items.length;
        begin_item_event(s, w, "response.function_call_arguments.done");
        json_key(w, "name");
        json_text(w, e->name);
        json_key(w, "arguments");
        json_string(w, e->text, e->length);
        end_event(w);
        write_call(&s->items, s->item_id, e->valid ? "completed" : "incomplete", e->id, e->name, e->text, e->length);
        if (s->items.failed)
            w->failed = true;
        else
            finish_item(s, w, from);
    }
}

static const char *status_of(const struct answer_choice *c)
{
    return c->finish != ANSWER_LENGTH ? "completed" : c->progress.finish == FINISH_CANCELLED ? "failed" : "incomplete";
}

static void done(struct answer_choice *c, struct json_writer *w)
{
    struct responses_reply *s = c->answer->state;
    if (!s->message_open && s->n_items == 0)
        open_message(s, w);
    if (s->message_open)
        close_message(s, w, c->finish == ANSWER_LENGTH ? "incomplete" : "completed");
}

static void end(struct answer *a, struct json_writer *w)
{
    const char *status = status_of(&a->choices[0]);
    if (strcmp(status, "completed") == 0)
        response_event(a, w, "response.completed", status, NULL);
    else if (strcmp(status, "incomplete") == 0)
        response_event(a, w, "response.incomplete", status, NULL);
    else
        response_event(a, w, "response.failed", status, "The server is shutting down.");
}

static void whole(struct answer *a, struct json_writer *w)
{
    struct responses_reply *s = a->state;
    const struct answer_choice *c = &a->choices[0];
    char id[48];
    if (c->content.length > 0 || c->n_calls == 0) {
        reply_new_id(id, sizeof id, "msg_");
        write_message(&s->items, id, c->finish == ANSWER_LENGTH ? "incomplete" : "completed",
            c->content.data ? c->content.data : "", c->content.length);
    }
    for (int i = 0; i < c->n_calls; i++) {
        const struct answer_call *k = &c->calls[i];
        reply_new_id(id, sizeof id, "fc_");
        write_call(&s->items, id, "completed", k->id, k->name, k->arguments, k->n_arguments);
    }
    write_response(w, a, status_of(c), NULL);
}

static void error(struct answer *a, const struct api_error *e, struct json_writer *w)
{
    struct responses_reply *s = a->state;
    if (!a->stream)
        return; /* the usual error object, with its status */
    if (s->message_open)
        close_message(s, w, "incomplete");
    response_event(a, w, "response.failed", "failed", e->message);
}

const struct answer_schema responses_schema = {.begin = begin, .content = content, .call = call, .done = done, .end = end,
                                               .whole = whole, .error = error, .free = free_reply};
