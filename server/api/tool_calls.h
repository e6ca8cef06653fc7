/* Tool calls in the model's text: Qwen2.5 writes
 *
 *   <tool_call>
 *   {"name": "find", "arguments": {"city": "San Jose"}}
 *   </tool_call>
 *
 * several one after another if it likes, and text before them. This takes the text as it is generated and tells
 * what it is made of. Knows no API's shapes.
 * Source: the chat template of Qwen2.5-Instruct.
 *
 * Text outside of calls is content. The line feed before a "<tool_call>" belongs to the call (the template writes it), and so
 * does white space after one that only another call or the end follows. Only a name that the request declared makes a call;
 * everything else between the marks is content, marks included, never lost.
 * The arguments are told exactly as the model wrote them, where the name stands before them; otherwise they are the same
 * JSON written anew. Where "arguments" is a string that holds a JSON object (some models do that), they are that object;
 * where it is missing they are {}. A missing last brace or "</tool_call>" after complete arguments is forgiven; anything
 * else that follows them before the mark is content.
 *
 * While streaming, a call starts as soon as its name is known and its arguments come as they are generated, so it cannot be taken
 * back: if they turn out not to be JSON, or max_tokens cuts them off, TOOL_CALL_END says `valid` false, with everything that was
 * written in the arguments up to the mark. Without streaming a call is told when it is complete, and one that is not JSON or not
 * complete is content: a client cannot run half a call by mistake.
 *
 * A call is kept in memory until its end. */
#ifndef QUERN_TOOL_CALLS_H
#define QUERN_TOOL_CALLS_H

#include "tokenizer/chat.h"

#include <stdbool.h>
#include <stddef.h>

enum tool_event_kind {
    TOOL_CONTENT,        /* text */
    TOOL_CALL_START,     /* id, name */
    TOOL_CALL_ARGUMENTS, /* text: the next part of the arguments, a JSON object when all is put together */
    TOOL_CALL_END        /* valid, and text: all of the arguments */
};

struct tool_event {
    enum tool_event_kind kind;
    int index;        /* of the call within the answer, from 0; not for TOOL_CONTENT */
    const char *text; /* [length], valid during the callback only */
    size_t length;
    const char *id;   /* "call_...", unlike any other; START, ARGUMENTS, END; valid until the END's callback returns */
    const char *name; /* NUL-terminated, as long as id */
    bool valid;
};

typedef void tool_callback(void *user, const struct tool_event *event);

struct tool_parser;

/* names: [n_names] what may be called; copied. NULL when out of memory. */
struct tool_parser *tool_parser_new(
    const struct chat_text *names, size_t n_names, bool streaming, tool_callback *callback, void *user);
void tool_parser_free(struct tool_parser *p); /* NULL is allowed */

/* The next text of the answer, in whole UTF-8 characters. False when out of memory, for good. */
bool tool_parser_feed(struct tool_parser *p, const char *text, size_t length);
/* The end of the answer: what is held back comes out. */
bool tool_parser_end(struct tool_parser *p);

int tool_parser_n_valid(const struct tool_parser *p); /* calls that have ended and were valid */

/* Writes "call_" and 24 random hexadecimal digits. */
enum { TOOL_CALL_ID_BYTES = 32 };
void tool_call_id(char out[TOOL_CALL_ID_BYTES]);

#endif
