/* What server/http/net.c (sockets and deadlines) and server/http/exchange.c (one connection's requests and responses) share. */
#ifndef QUERN_NET_INTERNAL_H
#define QUERN_NET_INTERNAL_H

#include "server/http/net.h"

#include <stdatomic.h>

enum exchange_state {
    READING,    /* a request, or between two of them */
    RESPONDING, /* the handler has the request */
    WRITING,    /* the response is complete; what is left of it is being sent */
    LINGERING   /* our side is closed; input is dropped until the client closes too, so that it sees the answer and no reset */
};

enum { NOTE_BYTES = 64, INPUT_BYTES = 16384 };

struct exchange {
    struct net *net;
    int fd;
    enum exchange_state state;
    uint32_t interest; /* epoll events asked for */
    bool readable;     /* recv may have something */
    bool half_closed;  /* the client has closed its sending side */
    bool broken;       /* reset, or closed on both sides: no use to write */
    bool close_after;  /* this response is the last of the connection */
    bool streaming, chunked;
    bool sent_continue;
    bool again;        /* has more to do without a new event */
    int64_t since;     /* ms: when the current phase began, or writing last made progress */
    int64_t began;     /* ms: when the request was complete */
    bool answered_any; /* not the first request of this connection */

    struct http_parser parser;
    char *input; /* [INPUT_BYTES] received, not parsed yet: [input_at, input_length); allocated while needed */
    size_t input_at, input_length;

    char *out; /* to be sent: [out_at, out_length) */
    size_t out_at, out_length, out_capacity;
    bool out_failed; /* out of memory, or too much was waiting */

    int status;
    char *headers; /* further header lines of the response, or NULL */
    void *data;
    char note[NOTE_BYTES];
    bool has_note;
};

struct net {
    struct net_options options;
    struct net_handler handler;
    struct exchange **list; /* [n_list] */
    size_t n_list, list_capacity;
    int epoll, listener, wake, spare; /* spare: a descriptor to give up when there are no more */
    bool listening;
    bool accept_paused; /* the listener is out of the epoll until a connection closes */
    atomic_bool want_stop, want_quit; /* set by any thread or a signal handler, before a write to wake */
    bool stopping, cut;
    int64_t stop_deadline;
    int64_t reading_deadline; /* while stopping: for requests that have begun */
    int64_t now; /* ms, of this round */
    int64_t period_ms, next_tick; /* net_every; period_ms 0: not asked for */
    void (*tick)(void *user);
    void *tick_user;
    int port;
    bool loopback;
    char address[64];
};

struct exchange *exchange_new(struct net *n, int fd);
/* Tells the handler (gone, finished) what is due and frees. */
void exchange_drop(struct exchange *x);
/* Does all that can be done without waiting. False: the connection is finished and must be dropped. */
bool exchange_step(struct exchange *x);
/* The epoll events the state needs. */
uint32_t exchange_interest(const struct exchange *x);
/* When the connection's patience ends (ms); INT64_MAX: never. */
int64_t exchange_deadline(const struct exchange *x);
/* That moment has come. False: drop it. */
bool exchange_expired(struct exchange *x);
/* Between two requests, with nothing of the next one here. */
bool exchange_idle(const struct exchange *x);
/* Answers a new connection with 503 before it has said anything. */
void exchange_turn_away(struct exchange *x);

#endif
