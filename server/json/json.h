/* JSON: a strict reader into a tree, and a writer into a growing buffer.
 * Source: RFC 8259 (and RFC 3629 for UTF-8).
 *
 * The reader takes exactly one JSON text and nothing else. Refused, with the place: bytes that are not UTF-8 (a byte order mark
 * too), lone surrogates written as \u escapes, control characters inside strings, numbers in any spelling but JSON's, an object
 * with the same key twice (RFC 8259 calls its meaning unpredictable; a request whose meaning is unclear is better refused),
 * nesting deeper than the limit, and more values than the limit. Time O(n log n), memory O(n) for any input.
 *
 * Ownership: a tree and all its text belong to the struct json that json_parse returned;
 * the document's bytes are not needed afterwards.
 * Threads: a parsed tree is read-only. */
#ifndef QUERN_JSON_H
#define QUERN_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_kind { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT };

/* One value. Elements of an array, and members of an object, are a list in the order of the document: first, then next ... */
struct json_value {
    enum json_kind kind;
    uint32_t count;     /* string, number: bytes of text; array, object: elements; bool: 1 or 0 */
    uint32_t offset;    /* where the value begins in the document, bytes */
    uint32_t key_count; /* bytes of key */
    const char *key;    /* member of an object: its name, unescaped, NUL-terminated (it may contain NULs itself); else NULL */
    const char *text;   /* string: unescaped UTF-8; number: as it is written; NUL-terminated (a string may contain NULs itself) */
    struct json_value *first; /* array, object */
    struct json_value *next;  /* the following sibling */
};

struct json_limits {
    int max_depth;       /* arrays and objects within one another; 0: 64 */
    uint32_t max_values; /* in the whole document, of every kind; 0: 262144 */
};

struct json_error {
    char text[192]; /* what is wrong, without the place */
    size_t offset;  /* bytes before it */
    size_t line;    /* 1 .. */
    size_t column;  /* 1 .. , in characters */
};

struct json; /* a parsed document */

/* NULL and *err (which may be NULL) filled on failure. Documents of 4 GiB and more are refused. */
struct json *json_parse(const char *data, size_t length, const struct json_limits *limits, struct json_error *err);
void json_free(struct json *j); /* NULL is allowed */
const struct json_value *json_root(const struct json *j);

/* The member of an object by name, or NULL (also when object is no object). */
const struct json_value *json_get(const struct json_value *object, const char *key);
bool json_key_is(const struct json_value *member, const char *key);
/* True for a string equal to text. */
bool json_is(const struct json_value *v, const char *text);
/* The number nearest to what is written; false when it is not a number or not finite in a double. */
bool json_get_double(const struct json_value *v, double *out);
/* A number that is an integer (also when written as 1.0 or 1e3) and fits; false otherwise. */
bool json_get_int(const struct json_value *v, int64_t *out);
/* "null", "a boolean", "a number", "a string", "an array", "an object": for messages. */
const char *json_kind_name(enum json_kind kind);

/* ---- writing ---- */

/* {0} is an empty writer that writes compactly. Commas and colons come by themselves: call in the order of the document.
 * Running out of memory is remembered in `failed` and later calls do nothing, so that it is enough to look once, at the end. */
struct json_writer {
    char *data; /* [length] plus a NUL, once anything was written */
    size_t length, capacity;
    bool failed;
    bool spaced; /* ", " and ": " between, as Python's json.dumps writes */
    bool comma;  /* the next value or key needs a comma before it */
};

void json_writer_free(struct json_writer *w);
void json_begin_object(struct json_writer *w);
void json_end_object(struct json_writer *w);
void json_begin_array(struct json_writer *w);
void json_end_array(struct json_writer *w);
void json_key(struct json_writer *w, const char *key);
/* Bytes that are not UTF-8 are written as U+FFFD, one for each maximal subpart, so that the output is valid whatever comes in. */
void json_string(struct json_writer *w, const char *text, size_t length);
void json_text(struct json_writer *w, const char *text); /* NUL-terminated; NULL writes null */
void json_int(struct json_writer *w, int64_t n);
void json_double(struct json_writer *w, double d); /* the shortest spelling that reads back as d; null if it is not finite */
void json_bool(struct json_writer *w, bool b);
void json_null(struct json_writer *w);
void json_value(struct json_writer *w, const struct json_value *v); /* a whole tree; numbers as they were written */
/* Bytes as they are, outside the comma logic (line ends between documents, event-stream framing). */
void json_raw(struct json_writer *w, const char *bytes, size_t length);

#endif
