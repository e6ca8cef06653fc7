/* Connections: accepts them, reads requests, hands each to a handler and writes what it answers. One thread, one epoll.
 *
 * Requests of one connection are handled strictly one after another: the next one is parsed when the response to the one before
 * has been written completely, so a client that pipelines gets its answers in order and cannot pile up work. All limits are here:
 * connections, time to send a request, time to take an answer, bytes of an answer that wait for a slow client.
 *
 * A client that closes its connection, or only its sending half, while its request is being worked
 * on is taken to be gone: the handler is told and the connection dropped. (An answer given at once
 * is still written to a client that has closed its sending half.)
 *
 * Nothing here runs when nothing happens: the loop sleeps until a socket is ready, net_wake is called, or a deadline passes. */
#ifndef QUERN_NET_H
#define QUERN_NET_H

#include "gguf/error.h"
#include "server/http/http.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct net;
struct exchange; /* a request and its response */

struct net_options {
    const char *host;         /* address or name to listen on */
    int port;                 /* 0: any free one */
    int inherited;            /* a listening socket, non-blocking, to use instead of host and port; net_close closes it.
                               * 0: none */
    int max_connections;      /* beyond: the longest idle one is closed; if all are busy the new one gets a 503 */
    int timeout_seconds;      /* for a client to send its request, and for it to take the next piece of an answer */
    int idle_seconds;         /* between requests of one connection */
    int quiet_seconds;        /* without a byte of a stream, until `quiet` is called; 0: never */
    int grace_seconds;        /* net_stop: for answers to finish by themselves */
    struct http_limits limits;
};

/* What became of a request, for the log. */
struct net_record {
    const char *method, *path; /* "-" if they were never understood */
    int status;
    double seconds;
    bool complete; /* false: the client left or was dropped before the whole response was written */
    const void *note; /* as given to exchange_set_note */
};

struct net_handler {
    void *user;
    /* A whole request. Must call exchange_reply or exchange_stream_begin, now or later. r is valid until the exchange ends. */
    void (*request)(void *user, struct exchange *x, const struct http_parser *r);
    /* A request that could not be understood: answer it with exchange_reply, now. The connection is closed afterwards. */
    void (*refused)(void *user, struct exchange *x, int status, const char *reason);
    /* The client is gone before its response was complete. x must not be used any more. */
    void (*gone)(void *user, struct exchange *x);
    /* A stream has been silent for quiet_seconds, and its client waits: a moment to write a sign of life. NULL: none. */
    void (*quiet)(void *user, struct exchange *x);
    /* net_wake was called (several calls may be told as one). */
    void (*wake)(void *user);
    /* The grace period of net_stop is over: every open exchange should be ended now. */
    void (*cut)(void *user);
    /* The end of every exchange. */
    void (*finished)(void *user, const struct net_record *record);
};

/* Binds and listens. NULL with a sentence on failure. The strings of options are not needed afterwards; the handler is copied. */
struct net *net_open(const struct net_options *options, const struct net_handler *handler, struct error *err);
void net_close(struct net *n); /* NULL is allowed */

int net_port(const struct net *n);
const char *net_address(const struct net *n); /* numeric, with brackets around IPv6: "127.0.0.1" */
bool net_is_loopback(const struct net *n);

/* Makes net_run call fn about every period_ms from now on, on its thread. Before net_run, or on its thread; once. */
void net_every(struct net *n, int64_t period_ms, void (*fn)(void *user), void *user);

/* Serves until net_stop has run its course or net_quit is called. */
void net_run(struct net *n);

/* Any thread, and signal handlers. */
void net_wake(struct net *n);
/* Accept no more, read the requests that are on their way (a second at most), let answers finish for the grace
 * period, cut the rest, return from net_run. */
void net_stop(struct net *n);
void net_quit(struct net *n); /* return from net_run now */

/* ---- exchanges: network thread only, between `request` and the end of the response or `gone` ---- */

/* The whole response. headers: further header lines, each with CR LF, or ""; a response is not to be
 * cached unless they hold a Cache-Control. */
void exchange_reply(
    struct exchange *x, int status, const char *headers, const char *content_type, const char *body, size_t length);
/* A response of unknown length with status 200: chunked in HTTP/1.1, until the connection closes in HTTP/1.0. */
void exchange_stream_begin(struct exchange *x, const char *content_type);
void exchange_stream_write(struct exchange *x, const char *data, size_t length);
void exchange_stream_end(struct exchange *x);
/* Ends a stream that has failed: the connection closes after what was written. */
void exchange_stream_fail(struct exchange *x);

/* Something went wrong that cannot be said: drops the connection soon, as if the client had gone (`gone`
 * is called if the response is still open). */
void exchange_abort(struct exchange *x);

/* Header lines, each with CR LF, that this exchange's response has besides all others;
 * copied, EXCHANGE_HEADERS - 1 bytes at most (else none). */
enum { EXCHANGE_HEADERS = 2048 };
void exchange_set_headers(struct exchange *x, const char *headers);

/* The path that was asked for; "" if the request was never understood so far. */
const char *exchange_path(const struct exchange *x);

/* A pointer of the handler's that stays with the exchange; NULL at first. */
void exchange_set_data(struct exchange *x, void *data);
void *exchange_data(const struct exchange *x);
/* Something for the record of `finished`; 64 bytes are copied at most. */
void exchange_set_note(struct exchange *x, const void *note, size_t size);

#endif
