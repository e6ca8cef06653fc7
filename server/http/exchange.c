#include "server/http/net_internal.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    MAX_WAITING = 1 << 20, /* bytes of a response that may wait for a slow client */
    LINGER_MS = 2000
};

struct exchange *exchange_new(struct net *n, int fd)
{
    struct exchange *x = calloc(1, sizeof *x);
    if (!x)
        return NULL;
    x->net = n;
    x->fd = fd;
    x->readable = true;
    x->since = n->now;
    http_init(&x->parser, &n->options.limits);
    return x;
}

static void finish(struct exchange *x, bool complete)
{
    const struct http_parser *p = &x->parser;
    bool understood = p->method[0] != '\0';
    struct net_record record = {.method = understood ? p->method : "-", .path = understood ? p->path : "-", .status = x->status,
                                .seconds = (double)(x->net->now - x->began) / 1000, .complete = complete,
                                .note = x->has_note ? x->note : NULL};
    x->net->handler.finished(x->net->handler.user, &record);
}

void exchange_drop(struct exchange *x)
{
    if (x->state == RESPONDING)
        x->net->handler.gone(x->net->handler.user, x);
    if (x->state == RESPONDING || x->state == WRITING)
        finish(x, false);
    close(x->fd);
    http_free(&x->parser);
    free(x->input);
    free(x->headers);
    free(x->out);
    free(x);
}

/* ---- output ---- */

static void put(struct exchange *x, const char *data, size_t length)
{
    if (x->out_failed)
        return;
    if (x->out_at == x->out_length) {
        x->out_at = x->out_length = 0;
        x->since = x->net->now; /* a client cannot be late for what was not there */
    }
    if (x->out_length + length > x->out_capacity && x->out_at > 0) {
        memmove(x->out, x->out + x->out_at, x->out_length - x->out_at);
        x->out_length -= x->out_at;
        x->out_at = 0;
    }
    if (x->out_length + length > x->out_capacity) {
        size_t want = x->out_capacity ? x->out_capacity : 1024;
        while (want < x->out_length + length)
            want *= 2;
        char *more = realloc(x->out, want);
        if (!more) {
            x->out_failed = true;
            return;
        }
        x->out = more;
        x->out_capacity = want;
    }
    memcpy(x->out + x->out_length, data, length);
    x->out_length += length;
}

static void put_text(struct exchange *x, const char *text)
{
    put(x, text, strlen(text));
}

/* Status line and the headers of every response, and those given; the empty line is the caller's. */
static void put_head(struct exchange *x, int status, const char *headers, const char *content_type)
{
    char line[256], date[64];
    time_t t = time(NULL);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(date, sizeof date, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\nDate: %s\r\nServer: quern/" QUERN_VERSION "\r\n", status, http_phrase(status),
        date);
    put_text(x, line);
    if (content_type) {
        snprintf(line, sizeof line, "Content-Type: %s\r\n", content_type);
        put_text(x, line);
    }
    if (!strstr(headers, "Cache-Control:"))
        put_text(x, "Cache-Control: no-store\r\n");
    put_text(x, "X-Content-Type-Options: nosniff\r\n");
    put_text(x, headers);
    if (x->headers)
        put_text(x, x->headers);
    if (x->close_after)
        put_text(x, "Connection: close\r\n");
    else if (x->parser.minor == 0)
        put_text(x, "Connection: keep-alive\r\n");
    x->status = status;
}

void exchange_reply(
    struct exchange *x, int status, const char *headers, const char *content_type, const char *body, size_t length)
{
    char line[64];
    if (x->net->stopping)
        x->close_after = true;
    put_head(x, status, headers, content_type);
    if (status != 204 && status != 304) {
        snprintf(line, sizeof line, "Content-Length: %zu\r\n", length);
        put_text(x, line);
    }
    put_text(x, "\r\n");
    if (strcmp(x->parser.method, "HEAD") != 0)
        put(x, body, length);
    x->state = WRITING;
}

const char *exchange_path(const struct exchange *x)
{
    return x->parser.method[0] != '\0' ? x->parser.path : "";
}

void exchange_stream_begin(struct exchange *x, const char *content_type)
{
    x->streaming = true;
    x->chunked = x->parser.minor > 0;
    if (!x->chunked || x->net->stopping)
        x->close_after = true;
    put_head(x, 200, "", content_type);
    put_text(x, x->chunked ? "Transfer-Encoding: chunked\r\n\r\n" : "\r\n");
}

void exchange_stream_write(struct exchange *x, const char *data, size_t length)
{
    if (length == 0)
        return; /* an empty chunk would end the body */
    if (x->chunked) {
        char size[24];
        snprintf(size, sizeof size, "%zx\r\n", length);
        put_text(x, size);
    }
    put(x, data, length);
    if (x->chunked)
        put_text(x, "\r\n");
    if (x->out_length - x->out_at > MAX_WAITING)
        x->out_failed = true;
}

void exchange_stream_end(struct exchange *x)
{
    if (x->chunked)
        put_text(x, "0\r\n\r\n");
    x->state = WRITING;
}

void exchange_stream_fail(struct exchange *x)
{
    x->close_after = true;
    x->state = WRITING;
}

void exchange_abort(struct exchange *x)
{
    x->out_failed = true;
}

void exchange_set_data(struct exchange *x, void *data)
{
    x->data = data;
}

void *exchange_data(const struct exchange *x)
{
    return x->data;
}

void exchange_set_note(struct exchange *x, const void *note, size_t size)
{
    memcpy(x->note, note, size < NOTE_BYTES ? size : NOTE_BYTES);
    x->has_note = true;
}

static bool flush(struct exchange *x)
{
    while (x->out_at < x->out_length) {
        ssize_t n = send(x->fd, x->out + x->out_at, x->out_length - x->out_at, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN || errno == EWOULDBLOCK;
        x->out_at += (size_t)n;
        x->since = x->net->now;
    }
    if (x->out_capacity > 65536) { /* a large response is over */
        free(x->out);
        x->out = NULL;
        x->out_capacity = 0;
    }
    x->out_at = x->out_length = 0;
    return true;
}

/* ---- input ---- */

/* More bytes into the empty input buffer: 1 some, 0 none now, -1 the end. */
static int receive(struct exchange *x)
{
    if (!x->readable)
        return 0;
    if (!x->input && !(x->input = malloc(INPUT_BYTES)))
        return -1;
    ssize_t n;
    do
        n = recv(x->fd, x->input, INPUT_BYTES, 0);
    while (n < 0 && errno == EINTR);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
        x->readable = false;
        return 0;
    }
    if (n <= 0)
        return -1;
    x->input_at = 0;
    x->input_length = (size_t)n;
    return 1;
}

static void begin_exchange(struct exchange *x)
{
    x->began = x->net->now;
    x->status = 0;
    x->data = NULL;
    x->has_note = x->streaming = x->chunked = false;
    free(x->headers);
    x->headers = NULL;
    x->state = RESPONDING;
}

static void refuse(struct exchange *x, int status, const char *reason)
{
    begin_exchange(x);
    x->close_after = true;
    x->net->handler.refused(x->net->handler.user, x, status, reason);
    x->state = WRITING;
}

void exchange_turn_away(struct exchange *x)
{
    refuse(x, 503, "The server has as many connections as it takes; try again later.");
}

/* False: nothing more to read now (or ever: *end). */
static bool read_request(struct exchange *x, bool *end)
{
    struct http_parser *p = &x->parser;
    if (x->input_at == x->input_length) {
        int got = receive(x);
        *end = got < 0;
        if (got <= 0)
            return false;
    }
    enum http_state before = p->state;
    x->input_at += http_feed(p, x->input + x->input_at, x->input_length - x->input_at);
    if (p->state != before && before != HTTP_BODY)
        x->since = x->net->now; /* a new phase, with time of its own: head, then body */
    if (p->state == HTTP_COMPLETE) {
        begin_exchange(x);
        x->close_after = !p->keep_alive;
        x->net->handler.request(x->net->handler.user, x, p);
    } else if (p->state == HTTP_FAILED) {
        refuse(x, p->status, p->reason);
    } else if (p->state == HTTP_BODY && p->expects_continue && !x->sent_continue) {
        x->sent_continue = true;
        put_text(x, "HTTP/1.1 100 Continue\r\n\r\n");
    }
    return true;
}

/* The response is written. */
static void end_exchange(struct exchange *x)
{
    finish(x, true);
    if (x->close_after || x->net->stopping) {
        shutdown(x->fd, SHUT_WR);
        x->state = LINGERING;
        x->since = x->net->now;
        return;
    }
    http_next(&x->parser);
    x->state = READING;
    x->since = x->net->now;
    x->answered_any = true;
    x->sent_continue = false;
    if (x->input_at == x->input_length) {
        free(x->input);
        x->input = NULL;
        x->input_at = x->input_length = 0;
    }
}

bool exchange_step(struct exchange *x)
{
    x->again = false;
    for (;;) {
        if (x->out_failed || x->broken || !flush(x))
            return false;
        bool end = false;
        switch (x->state) {
        case READING:
            if (!read_request(x, &end))
                return !end;
            break;
        case RESPONDING:
            return !x->half_closed;
        case WRITING:
            if (x->out_at < x->out_length)
                return true;
            end_exchange(x);
            if (x->state == READING) { /* let the other connections have their turn */
                x->again = true;
                return true;
            }
            break;
        case LINGERING:
            x->input_at = x->input_length;
            int got = receive(x);
            if (got <= 0)
                return got == 0;
            break;
        }
    }
}

uint32_t exchange_interest(const struct exchange *x)
{
    uint32_t out = x->out_at < x->out_length ? EPOLLOUT : 0;
    switch (x->state) {
    case READING: return EPOLLIN | out;
    case RESPONDING: return EPOLLRDHUP | out;
    case WRITING: return out;
    default: return EPOLLIN;
    }
}

bool exchange_idle(const struct exchange *x)
{
    return x->state == READING && x->parser.state == HTTP_IDLE && x->input_at == x->input_length;
}

int64_t exchange_deadline(const struct exchange *x)
{
    int64_t patience = (int64_t)x->net->options.timeout_seconds * 1000;
    if (x->state == LINGERING)
        return x->since + LINGER_MS;
    if (exchange_idle(x) && x->answered_any)
        return x->since + (int64_t)x->net->options.idle_seconds * 1000;
    if (x->state == RESPONDING && x->out_at == x->out_length) {
        int64_t quiet = x->streaming && x->net->handler.quiet ? (int64_t)x->net->options.quiet_seconds * 1000 : 0;
        return quiet > 0 ? x->since + quiet : INT64_MAX;
    }
    return x->since + patience;
}

bool exchange_expired(struct exchange *x)
{
    if (x->state == RESPONDING && x->out_at == x->out_length) {
        x->since = x->net->now;
        x->net->handler.quiet(x->net->handler.user, x);
        return exchange_step(x);
    }
    if (x->state != READING || x->parser.state == HTTP_IDLE)
        return false;
    refuse(x, 408, "The request did not arrive in time.");
    return exchange_step(x);
}

void exchange_set_headers(struct exchange *x, const char *headers)
{
    free(x->headers);
    x->headers = *headers && strlen(headers) < EXCHANGE_HEADERS ? strdup(headers) : NULL;
}
