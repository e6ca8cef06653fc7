/* A real quern-server process and plain sockets to talk to it, for tests/test_server*.c. Every failure ends the test. */
#ifndef QUERN_SERVER_FIXTURE_H
#define QUERN_SERVER_FIXTURE_H

#include "server/json/json.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#define TINY "models/quern-tiny-q4_k_m.gguf"

struct server {
    pid_t pid;
    int port;
    char log[64]; /* the file its standard error goes to */
    pid_t held;   /* the engine thread, if it is held */
};

struct start {
    const char *model;       /* NULL: the shipped one */
    const char *const *env;  /* "NAME=value", NULL-terminated; may be NULL */
    int max_files;           /* limit of open descriptors; 0: as it is */
    bool not_ready;          /* return as soon as the port is open */
    bool hold_engine;        /* the engine thread does not begin until server_release */
    int inherit;             /* a descriptor it inherits as a service manager's would: as number 3,
                              * with LISTEN_FDS=1 and LISTEN_PID; 0: none */
};

/* Starts the server with --port 0 and the flags (NULL-terminated, may be NULL), and waits until it is ready. */
struct server server_start(const char *const *flags, const struct start *how);
/* Runs the server with exactly these arguments until it ends; returns its exit status,
 * and what it printed (both outputs) in out. */
int server_run(const char *const *flags, char *out, size_t size);
void server_release(struct server *s);
/* Sends the signal, waits for the end and returns the exit status (128 + n if signal n ended it). 0: only waits. */
int server_end(struct server *s, int signal);
/* Waits (20 s at most) until the log holds the text. */
void server_wait_log(const struct server *s, const char *text);
/* The whole log, malloc'd. */
char *server_log(const struct server *s);
/* CPU time of the process so far, in ticks. */
long server_ticks(const struct server *s);
double seconds(void);

/* ---- one connection ---- */

struct client {
    int fd;
    char *data; /* received, not taken yet: [at, length) */
    size_t at, length, capacity;
};

struct client client_open(int port);
/* With a small receive buffer, set before connecting. */
struct client client_open_small(int port);
void client_close(struct client *c);
bool client_can_connect(int port);
void client_send(struct client *c, const char *data, size_t length);
void client_text(struct client *c, const char *text);

struct response {
    int status;
    char head[4096]; /* status line and headers */
    char *body;      /* NUL-terminated; chunks put together */
    size_t length;
    bool whole;      /* ended as its framing says it should */
};

/* Reads one response. head_only: it has no body whatever the headers say. False if the connection ended before anything came. */
bool client_read(struct client *c, struct response *r, bool head_only);
void response_free(struct response *r);
/* The value of a header, or NULL; in a static buffer. */
const char *response_header(const struct response *r, const char *name);
/* True if the peer has closed the connection (waits up to 20 s). */
bool client_at_end(struct client *c);
/* Reads until the text has been received; what came stays to be read. */
void client_wait(struct client *c, const char *text);

/* One request on a connection of its own, with Host: 127.0.0.1. body NULL: none; else JSON. */
struct response ask(int port, const char *method, const char *path, const char *headers, const char *body);
/* The response's body as JSON; json_free it. */
struct json *response_json(const struct response *r);
/* A string of JSON by path: "choices.0.message.content"; NULL if it is not there. */
const struct json_value *json_at(const struct json_value *v, const char *path);

#endif
