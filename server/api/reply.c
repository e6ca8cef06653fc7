#include "server/api/reply.h"

#include <stdio.h>
#include <string.h>
#include <sys/random.h>

void reply_new_id(char *out, size_t size, const char *prefix)
{
    unsigned char random[12];
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random)
        memset(random, 0, sizeof random);
    size_t n = (size_t)snprintf(out, size, "%s", prefix);
    for (size_t i = 0; i < sizeof random && n + 3 <= size; i++, n += 2)
        snprintf(out + n, size - n, "%02x", random[i]);
}

void reply_init(struct reply *r, const char *prefix, const char *model)
{
    *r = (struct reply){.created = time(NULL), .model = model};
    reply_new_id(r->id, sizeof r->id, prefix);
}

const char *reply_finish_name(enum answer_finish finish)
{
    return finish == ANSWER_STOP ? "stop" : finish == ANSWER_TOOL_CALLS ? "tool_calls" : "length";
}

void reply_usage(struct json_writer *w, const struct answer *a)
{
    struct answer_usage u = answer_usage(a);
    json_key(w, "usage");
    json_begin_object(w);
    json_key(w, "prompt_tokens");
    json_int(w, u.n_prompt);
    json_key(w, "completion_tokens");
    json_int(w, u.n_generated);
    json_key(w, "total_tokens");
    json_int(w, u.n_prompt + u.n_generated);
    json_key(w, "prompt_tokens_details");
    json_begin_object(w);
    json_key(w, "cached_tokens");
    json_int(w, u.n_cached);
    json_end_object(w);
    json_end_object(w);
}

static double per_second(int n, double seconds)
{
    return seconds > 0 && n > 0 ? n / seconds : 0;
}

void reply_timings(struct json_writer *w, const struct answer *a)
{
    const struct engine_event *done = &a->choices[0].progress;
    if (a->n_choices > 1)
        return;
    int computed = done->n_prompt - done->n_cached;
    /* The first token comes out of the prompt's own pass: what is timed after it are the others,
     * and the end of the turn where the model came to it. */
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
    if (done->n_drafted > 0) {
        json_key(w, "draft_n");
        json_int(w, done->n_drafted);
        json_key(w, "draft_n_accepted");
        json_int(w, done->n_accepted);
    }
    json_end_object(w);
}

void reply_begin(struct json_writer *w, const struct reply *r, bool chunk)
{
    json_begin_object(w);
    json_key(w, "id");
    json_text(w, r->id);
    json_key(w, "object");
    json_text(w, chunk ? r->chunk : r->object);
    json_key(w, "created");
    json_int(w, r->created);
    json_key(w, "model");
    json_text(w, r->model);
    json_key(w, "system_fingerprint");
    json_text(w, "quern-" QUERN_VERSION);
    json_key(w, "choices");
    json_begin_array(w);
}

static void begin_event(struct json_writer *w, const struct reply *r)
{
    json_raw(w, "data: ", 6);
    w->comma = false;
    reply_begin(w, r, true);
}

void reply_begin_chunk(struct json_writer *w, const struct reply *r, int index)
{
    begin_event(w, r);
    json_begin_object(w);
    json_key(w, "index");
    json_int(w, index);
}

void reply_end_choice(struct json_writer *w, const struct reply *r, const char *finish)
{
    json_key(w, "finish_reason");
    json_text(w, finish);
    json_end_object(w);
    json_end_array(w);
    if (r->include_usage) { /* every chunk but the last then has it, as null */
        json_key(w, "usage");
        json_null(w);
    }
}

void reply_end_chunk(struct json_writer *w)
{
    json_end_object(w);
    json_raw(w, "\n\n", 2);
}

void reply_end_stream(struct json_writer *w, const struct reply *r, const struct answer *a)
{
    if (r->include_usage) {
        begin_event(w, r);
        json_end_array(w);
        reply_usage(w, a);
        reply_end_chunk(w);
    }
    json_raw(w, "data: [DONE]\n\n", 14);
}

void reply_logprob(struct json_writer *w, double logprob)
{
    json_double(w, logprob > -9999 ? logprob : -9999);
}
