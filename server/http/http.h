/* HTTP/1.x requests, parsed as their bytes arrive, in pieces of any size.
 * Sources: RFC 9110 (semantics) and RFC 9112 (HTTP/1.1).
 *
 * Strict where leniency has let requests be smuggled past a proxy: lines end in CR LF and nothing else; no white space before a
 * header's colon; no folded lines; no control characters; at most one Content-Length, of digits only; Content-Length together
 * with Transfer-Encoding is refused; chunked is the only transfer coding; exactly one Host in HTTP/1.1. What is refused carries
 * the status to answer with and a sentence; the connection must then be closed, since where the next request begins is not known.
 *
 * A parser handles one request after another: feed bytes until a request is complete, answer it, call http_next, go on with the
 * bytes left over. Ownership: everything a request hands out points into the parser and lives until http_next or http_free. */
#ifndef QUERN_HTTP_H
#define QUERN_HTTP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct http_limits {
    size_t max_line;    /* bytes of the request line; beyond: 414 */
    size_t max_head;    /* bytes of request line and headers together; beyond: 431 */
    size_t max_headers; /* number of headers; beyond: 431 */
    size_t max_body;    /* bytes of the body, unchunked; beyond: 413 */
};

extern const struct http_limits http_default_limits; /* 8 KiB, 16 KiB, 64, 1 MiB */

struct http_header {
    uint32_t name, value; /* offsets into the head: NUL-terminated texts, the value without white space around it */
};

enum http_state {
    HTTP_IDLE,     /* nothing of a request has arrived yet */
    HTTP_HEAD,     /* in the request line or the headers */
    HTTP_BODY,     /* headers complete, body not */
    HTTP_COMPLETE, /* a whole request */
    HTTP_FAILED    /* status and reason say why */
};

struct http_parser {
    /* Read these. */
    enum http_state state;
    int status;             /* HTTP_FAILED: what to answer */
    const char *reason;     /* HTTP_FAILED: a sentence; static */
    int minor;              /* HTTP/1.minor */
    bool keep_alive;        /* the client would send another request on this connection */
    bool expects_continue;  /* from HTTP_BODY on: the client waits for "100 Continue" before it sends the body */
    const char *method;     /* as sent; "" before the request line is complete */
    const char *path;       /* the target up to '?', not percent-decoded */
    const char *query;      /* after '?'; "" if none */
    const char *host;       /* of the Host header or of an absolute target; NULL if neither */
    const char *body;       /* [body_length], NUL-terminated */
    size_t body_length;     /* bytes */

    /* The parser's own. */
    struct http_limits limits;
    char *head;
    size_t head_length, head_capacity, line;
    struct http_header *headers;
    size_t n_headers, headers_capacity;
    char *body_data;
    size_t body_capacity;
    int step;
    size_t left;   /* bytes still to come of the body or of the current chunk */
    size_t extra;  /* empty lines before the request; bytes of chunk extensions and trailers so far */
    int n_digits;
    bool have_request_line, chunked;
};

void http_init(struct http_parser *p, const struct http_limits *limits);
void http_free(struct http_parser *p);

/* Takes bytes until the request is complete or refused; returns how many it took.
 * All of them unless the state is then HTTP_COMPLETE or HTTP_FAILED. */
size_t http_feed(struct http_parser *p, const char *data, size_t length);

/* Forgets a complete request, to take the next. */
void http_next(struct http_parser *p);

/* The value of the first header of that name (case-insensitive), or NULL. */
const char *http_get(const struct http_parser *p, const char *name);

/* The standard's phrase: "Not Found" for 404. "Unknown" for a status quern never sends. */
const char *http_phrase(int status);

#endif
