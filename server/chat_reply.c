#include "server/chat_reply.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

void chat_reply_begin(struct chat_reply *r, const char *model, bool include_usage)
{
    unsigned char random[12];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        memset(random, 0, sizeof random);
    int n = snprintf(r->id, sizeof r->id, "chatcmpl-");
    for (size_t i = 0; i < sizeof random; i++)
        n += snprintf(r->id + n, sizeof r->id - (size_t)n, "%02x", random[i]);
    r->created = time(NULL);
    r->model = model;
    r->include_usage = include_usage;
}

const char *chat_finish_name(enum finish_reason finish)
{
    return finish == FINISH_STOP ? "stop" : "length";
}

static void write_common(struct json_writer *w, const struct chat_reply *r, const char *object)
{
    json_key(w, "id");
    json_text(w, r->id);
    json_key(w, "object");
    json_text(w, object);
    json_key(w, "created");
    json_int(w, r->created);
    json_key(w, "model");
    json_text(w, r->model);
    json_key(w, "system_fingerprint");
    json_text(w, "quern-" QUERN_VERSION);
}

static void write_usage(struct json_writer *w, const struct engine_event *done)
{
    json_key(w, "usage");
    json_begin_object(w);
    json_key(w, "prompt_tokens");
    json_int(w, done->n_prompt);
    json_key(w, "completion_tokens");
    json_int(w, done->n_generated);
    json_key(w, "total_tokens");
    json_int(w, done->n_prompt + done->n_generated);
    json_key(w, "prompt_tokens_details");
    json_begin_object(w);
    json_key(w, "cached_tokens");
    json_int(w, done->n_cached);
    json_end_object(w);
    json_end_object(w);
}

static double per_second(int n, double seconds)
{
    return seconds > 0 && n > 0 ? n / seconds : 0;
}

static void write_timings(struct json_writer *w, const struct engine_event *done)
{
    int computed = done->n_prompt - done->n_cached;
    /* The first token comes out of the prompt's own pass: what is timed after it are the others, and the end of the turn where the model came to it. */
    int later = done->n_generated - (done->finish != FINISH_STOP);
    json_key(w, "timings");
    json_begin_object(w);
    json_key(w, "prompt_n");
    json_int(w, computed);
    json_key(w, "prompt_ms");
    json_double(w, done->prompt_seconds * 1000);
    json_key(w, "prompt_per_second");
    json_double(w, per_second(computed, done->prompt_seconds));
    json_key(w, "predicted_n");
    json_int(w, done->n_generated);
    json_key(w, "predicted_ms");
    json_double(w, done->generate_seconds * 1000);
    json_key(w, "predicted_per_second");
    json_double(w, per_second(later, done->generate_seconds));
    json_end_object(w);
}

void chat_reply_whole(struct json_writer *w, const struct chat_reply *r, const char *text, size_t length, const struct engine_event *done)
{
    json_begin_object(w);
    write_common(w, r, "chat.completion");
    json_key(w, "choices");
    json_begin_array(w);
    json_begin_object(w);
    json_key(w, "index");
    json_int(w, 0);
    json_key(w, "message");
    json_begin_object(w);
    json_key(w, "role");
    json_text(w, "assistant");
    json_key(w, "content");
    json_string(w, text, length);
    json_key(w, "refusal");
    json_null(w);
    json_end_object(w);
    json_key(w, "logprobs");
    json_null(w);
    json_key(w, "finish_reason");
    json_text(w, chat_finish_name(done->finish));
    json_end_object(w);
    json_end_array(w);
    write_usage(w, done);
    write_timings(w, done);
    json_end_object(w);
}

static void begin_chunk(struct json_writer *w, const struct chat_reply *r)
{
    json_raw(w, "data: ", 6);
    w->comma = false;
    json_begin_object(w);
    write_common(w, r, "chat.completion.chunk");
    json_key(w, "choices");
    json_begin_array(w);
}

static void end_chunk(struct json_writer *w)
{
    json_end_object(w);
    json_raw(w, "\n\n", 2);
}

/* A choice's members up to and including the opening of its delta. */
static void begin_delta(struct json_writer *w)
{
    json_begin_object(w);
    json_key(w, "index");
    json_int(w, 0);
    json_key(w, "delta");
    json_begin_object(w);
}

static void end_delta(struct json_writer *w, const struct chat_reply *r, const char *finish)
{
    json_end_object(w);
    json_key(w, "logprobs");
    json_null(w);
    json_key(w, "finish_reason");
    json_text(w, finish);
    json_end_object(w);
    json_end_array(w);
    if (r->include_usage) { /* every chunk but the last then has it, as null */
        json_key(w, "usage");
        json_null(w);
    }
}

void chat_reply_role(struct json_writer *w, const struct chat_reply *r)
{
    begin_chunk(w, r);
    begin_delta(w);
    json_key(w, "role");
    json_text(w, "assistant");
    json_key(w, "content");
    json_text(w, "");
    json_key(w, "refusal");
    json_null(w);
    end_delta(w, r, NULL);
    end_chunk(w);
}

void chat_reply_text(struct json_writer *w, const struct chat_reply *r, const char *text, size_t length)
{
    begin_chunk(w, r);
    begin_delta(w);
    json_key(w, "content");
    json_string(w, text, length);
    end_delta(w, r, NULL);
    end_chunk(w);
}

void chat_reply_end(struct json_writer *w, const struct chat_reply *r, const struct engine_event *done)
{
    begin_chunk(w, r);
    begin_delta(w);
    end_delta(w, r, chat_finish_name(done->finish));
    write_timings(w, done);
    end_chunk(w);
    if (r->include_usage) {
        begin_chunk(w, r);
        json_end_array(w);
        write_usage(w, done);
        end_chunk(w);
    }
    json_raw(w, "data: [DONE]\n\n", 14);
}
