/* A request that the engine works on, whichever API it came by: submits its generations, turns their
 * events into the pieces of answers (content, tool calls, the end), and has a schema write these as JSON,
 * piece by piece for a stream or all at once. A client that goes away cancels its generations.
 *
 * An answer has n choices for each prompt, each a generation of its own. Everything here runs on the network thread. */
#ifndef QUERN_ANSWER_H
#define QUERN_ANSWER_H

#include "engine/engine.h"
#include "server/api/tool_calls.h"
#include "server/http/net.h"
#include "server/json/json.h"
#include "server/request/api_error.h"

struct api;

enum answer_finish {
    ANSWER_STOP,      /* the model ended its turn, or a stop string was met */
    ANSWER_LENGTH,    /* max_tokens or the context's end; or the server is shutting down */
    ANSWER_TOOL_CALLS /* as STOP, and at least one whole call was made */
};

struct answer_call {
    char id[TOOL_CALL_ID_BYTES];
    char *name, *arguments; /* NUL-terminated */
    size_t n_arguments;     /* bytes */
};

struct answer_choice {
    struct answer *answer;
    int index;
    bool done;
    enum answer_finish finish;    /* once done */
    struct engine_event progress; /* of the latest event: counts, times, finish; no text */

    struct json_writer content;   /* an answer sent whole: its text so far, as raw bytes; data may be NULL */
    struct answer_call *calls;    /* [n_calls] an answer sent whole: its calls */
    int n_calls;
    struct token_choice *tokens;  /* [n_tokens] with generation.logprobs: all tokens of an answer sent whole;
                                   * of a stream, those since n_tokens was last set to 0 */
    int n_tokens;

    /* answer.c's */
    uint64_t id;
    struct tool_parser *parser;
    struct json_writer *out;
    int calls_capacity, tokens_capacity;
    bool closed; /* the one call that was asked for is made */
    bool failed; /* out of memory */
};

struct answer {
    struct answer *next;
    struct api *api;
    struct exchange *x;
    const struct answer_schema *schema;
    void *state; /* the schema's own */
    bool stream, one_call;
    struct answer_choice *choices; /* [n_choices]: n for the first prompt, n for the second ... */
    int n_choices, n, n_left;
};

/* How an API writes answers. Stream functions add whole server-sent events to w, or nothing.
 * Any may be NULL: nothing is written then. */
struct answer_schema {
    void (*begin)(struct answer *a, struct json_writer *w);
    void (*content)(struct answer_choice *c, const char *text, size_t length, struct json_writer *w);
    void (*call)(struct answer_choice *c, const struct tool_event *e, struct json_writer *w); /* TOOL_CALL_... */
    void (*done)(struct answer_choice *c, struct json_writer *w); /* its finish and progress are known */
    void (*end)(struct answer *a, struct json_writer *w);         /* all choices are done */
    void (*whole)(struct answer *a, struct json_writer *w);       /* the body of an answer that is no stream */
    /* A sign of life in a stream. NULL: a comment, which clients of server-sent events ignore. */
    void (*ping)(struct answer *a, struct json_writer *w);
    /* A failure after the beginning: as an event of the stream, or as a body.
     * NULL: OpenAI's error object, behind "data: " in a stream. */
    void (*error)(struct answer *a, const struct api_error *e, struct json_writer *w);
    void (*free)(void *state);
};

struct answer_request {
    const struct answer_schema *schema;
    void *state; /* malloc'd or the like; given to schema->free in the end, also when answer_start fails */
    bool stream;
    const struct tok_ids *prompts; /* [n_prompts]; not needed afterwards */
    int n_prompts;
    int n;                        /* choices for each prompt */
    struct generation generation; /* of every choice; prompt, callback and user are filled in, and each choice but the first gets
                                   * a seed derived from the one given */
    const char *prompt_param;     /* what an error about the prompt's length names: "messages" */
    const struct chat_text *tool_names; /* [n_tools] what may be called; 0: the text is not searched for calls */
    size_t n_tools;
    bool one_call;                /* the answer ends with its first whole call */
};

/* Submits everything, or nothing and fills err: a prompt too long for the context (400),
 * too much to do (503). The response follows by itself. */
bool answer_start(struct api *a, struct exchange *x, const struct answer_request *r, struct api_error *err);

struct answer_usage {
    int n_prompt, n_cached, n_generated; /* tokens; a prompt counts once, however many choices it has */
};
struct answer_usage answer_usage(const struct answer *a);

/* For api.c: */
void answer_gone(struct api *a, struct exchange *x); /* the client has left */
void answer_quiet(struct exchange *x);               /* nothing has been sent for a while */
void answer_events(struct api *a);                   /* the engine may have said something */
void answer_cut(struct api *a);                      /* end them all, now */

#endif
