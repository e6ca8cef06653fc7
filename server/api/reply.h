/* What OpenAI's two completion APIs have in common in their answers.
 * Source of the shapes: OpenAI's API reference; `timings` is llama-server's. */
#ifndef QUERN_REPLY_H
#define QUERN_REPLY_H

#include "server/api/answer.h"

#include <time.h>

struct reply {
    char id[48];
    const char *object, *chunk; /* what an answer and a chunk of a stream call themselves */
    time_t created;
    const char *model; /* the name this server gives its model */
    bool include_usage;
    bool logprobs;
};

/* A new id with the prefix, and the present time. */
void reply_init(struct reply *r, const char *prefix, const char *model);

/* Writes prefix and 24 random hexadecimal digits. */
void reply_new_id(char *out, size_t size, const char *prefix);

/* "stop", "length", "tool_calls". A generation that was cancelled while its client still listens (the server
 * shuts down) was cut short too: "length". */
const char *reply_finish_name(enum answer_finish finish);

/* ,"usage":{...} */
void reply_usage(struct json_writer *w, const struct answer *a);
/* ,"timings":{...}: of an answer with one choice; with more they overlap and nothing is written. */
void reply_timings(struct json_writer *w, const struct answer *a);

/* A JSON object's opening, its first members, and "choices":[ */
void reply_begin(struct json_writer *w, const struct reply *r, bool chunk);
/* "data: " and reply_begin with the opening of one choice: {"index":n */
void reply_begin_chunk(struct json_writer *w, const struct reply *r, int index);
/* The choice's finish reason (NULL: null) and end, its chunk's usage (null) if the request wants one. Leave the object open. */
void reply_end_choice(struct json_writer *w, const struct reply *r, const char *finish);
/* The object's end and that of the event. */
void reply_end_chunk(struct json_writer *w);
/* The end of a stream: the chunk with the usage if that was asked for, and [DONE]. */
void reply_end_stream(struct json_writer *w, const struct reply *r, const struct answer *a);

/* A log probability as JSON has it: what is impossible is -9999, as OpenAI says it. */
void reply_logprob(struct json_writer *w, double logprob);

#endif
