#include "server/http/net_internal.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    BACKLOG = 128,
    EVENTS = 64,
    ACCEPTS_PER_ROUND = 32,
    TURNED_AWAY = 16,        /* connections beyond the limit that are told so; those beyond are just closed */
    SEND_BUFFER = 32 * 1024, /* in the kernel (which doubles it): little enough that a client that stops reading is noticed */
    STOP_READING_MS = 1000,  /* after net_stop: for requests that are on their way */
    CUT_MS = 2000            /* after a cut: for the last bytes to go out */
};

static int64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static bool is_loopback(const struct sockaddr *a)
{
    if (a->sa_family == AF_INET)
        return ntohl(((const struct sockaddr_in *)(const void *)a)->sin_addr.s_addr) >> 24 == 127;
    return a->sa_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr);
}

static bool describe_listener(struct net *n, struct error *err)
{
    struct sockaddr_storage a;
    socklen_t length = sizeof a;
    if (getsockname(n->listener, (struct sockaddr *)&a, &length) != 0)
        return error_set(err, "cannot learn the address of the listening socket: %s", strerror(errno));
    n->loopback = is_loopback((struct sockaddr *)&a);
    char text[INET6_ADDRSTRLEN] = "?";
    if (a.ss_family == AF_INET6) {
        const struct sockaddr_in6 *s = (const struct sockaddr_in6 *)(const void *)&a;
        inet_ntop(AF_INET6, &s->sin6_addr, text, sizeof text);
        snprintf(n->address, sizeof n->address, "[%s]", text);
        n->port = ntohs(s->sin6_port);
    } else {
        const struct sockaddr_in *s = (const struct sockaddr_in *)(const void *)&a;
        inet_ntop(AF_INET, &s->sin_addr, text, sizeof text);
        snprintf(n->address, sizeof n->address, "%s", text);
        n->port = ntohs(s->sin_port);
    }
    return true;
}

static bool listen_on(struct net *n, const char *host, int port, struct error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    char service[16];
    snprintf(service, sizeof service, "%d", port);
    int code = getaddrinfo(host, service, &hints, &found);
    if (code != 0)
        return error_set(err, "cannot find the address to listen on, \"%s\" (--host): %s", host, gai_strerror(code));
    /* A name such as localhost may have addresses of both families: IPv4 first,
     * since that is what clients are configured with. */
    int problem = 0;
    for (int pass = 0; pass < 2 && n->listener < 0; pass++) {
        for (struct addrinfo *a = found; a && n->listener < 0; a = a->ai_next) {
            if ((a->ai_family == AF_INET) != (pass == 0))
                continue;
            int fd = socket(a->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1;
            if (fd >= 0)
                setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
            if (fd >= 0 && bind(fd, a->ai_addr, a->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
                n->listener = fd;
            } else {
                problem = errno;
                if (fd >= 0)
                    close(fd);
            }
        }
    }
    freeaddrinfo(found);
    if (n->listener >= 0)
        return describe_listener(n, err);
    if (problem == EADDRINUSE)
        return error_set(err,
            "port %d on %s is in use: stop the program that listens there (ss -ltnp shows it), or choose another with --port",
            port, host);
    if (problem == EACCES)
        return error_set(
            err, "not allowed to listen on port %d: ports below 1024 are reserved for root; choose another with --port", port);
    if (problem == EADDRNOTAVAIL)
        return error_set(err, "%s is not an address of this machine: choose another with --host", host);
    return error_set(err, "cannot listen on %s port %d: %s", host, port, strerror(problem));
}

/* data.ptr of the two descriptors that are no connections. */
static char listener_tag, wake_tag;

static bool watch(struct net *n, int fd, void *tag, struct error *err)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = tag};
    if (epoll_ctl(n->epoll, EPOLL_CTL_ADD, fd, &e) != 0)
        return error_set(err, "cannot watch a socket: %s", strerror(errno));
    return true;
}

struct net *net_open(const struct net_options *options, const struct net_handler *handler, struct error *err)
{
    struct net *n = calloc(1, sizeof *n);
    if (!n) {
        error_set(err, "out of memory");
        return NULL;
    }
    n->options = *options;
    n->handler = *handler;
    n->listener = n->epoll = n->wake = n->spare = -1;
    if (options->inherited)
        n->listener = options->inherited;
    if (!(options->inherited ? describe_listener(n, err) : listen_on(n, options->host, options->port, err))) {
        net_close(n);
        return NULL;
    }
    n->epoll = epoll_create1(EPOLL_CLOEXEC);
    n->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    n->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (n->epoll < 0 || n->wake < 0 || n->spare < 0) {
        error_set(err, "cannot set up the network loop: %s", strerror(errno));
        net_close(n);
        return NULL;
    }
    if (!watch(n, n->listener, &listener_tag, err) || !watch(n, n->wake, &wake_tag, err)) {
        net_close(n);
        return NULL;
    }
    return n;
}

void net_close(struct net *n)
{
    if (!n)
        return;
    for (size_t i = 0; i < n->n_list; i++)
        exchange_drop(n->list[i]);
    free(n->list);
    int fds[] = {n->listener, n->epoll, n->wake, n->spare};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    free(n);
}

int net_port(const struct net *n)
{
    return n->port;
}

const char *net_address(const struct net *n)
{
    return n->address;
}

bool net_is_loopback(const struct net *n)
{
    return n->loopback;
}

void net_wake(struct net *n)
{
    uint64_t one = 1;
    int saved = errno; /* a signal handler may be the caller */
    ssize_t written = write(n->wake, &one, sizeof one);
    (void)written; /* it fails only when the counter is full, and then the loop wakes anyway */
    errno = saved;
}

void net_stop(struct net *n)
{
    n->want_stop = true;
    net_wake(n);
}

void net_quit(struct net *n)
{
    n->want_quit = true;
    net_wake(n);
}

void net_every(struct net *n, int64_t period_ms, void (*fn)(void *user), void *user)
{
    n->period_ms = period_ms;
    n->next_tick = clock_ms() + period_ms;
    n->tick = fn;
    n->tick_user = user;
}

static void drop(struct net *n, size_t index)
{
    exchange_drop(n->list[index]); /* closing the descriptor takes it out of the epoll */
    n->n_list--; /* in order: who came first is served first */
    memmove(&n->list[index], &n->list[index + 1], (n->n_list - index) * sizeof *n->list);
    if (n->accept_paused && n->listener >= 0)
        n->accept_paused = !watch(n, n->listener, &listener_tag, NULL);
}

/* Makes room by closing the connection that has been idle longest. */
static void drop_idlest(struct net *n)
{
    size_t oldest = SIZE_MAX;
    for (size_t i = 0; i < n->n_list; i++)
        if (exchange_idle(n->list[i]) && n->list[i]->answered_any &&
            (oldest == SIZE_MAX || n->list[i]->since < n->list[oldest]->since))
            oldest = i;
    if (oldest != SIZE_MAX)
        drop(n, oldest);
}

static void add(struct net *n, int fd)
{
    size_t limit = (size_t)n->options.max_connections;
    if (n->n_list >= limit)
        drop_idlest(n);
    if (n->n_list == n->list_capacity) {
        size_t want = n->list_capacity ? n->list_capacity * 2 : 16;
        struct exchange **more = realloc(n->list, want * sizeof(struct exchange *));
        if (!more) {
            close(fd);
            return;
        }
        n->list = more;
        n->list_capacity = want;
    }
    struct exchange *x = n->n_list < limit + TURNED_AWAY ? exchange_new(n, fd) : NULL;
    if (!x) {
        close(fd);
        return;
    }
    int one = 1, send_buffer = SEND_BUFFER;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &send_buffer, sizeof send_buffer);
    if (n->n_list >= limit)
        exchange_turn_away(x);
    struct epoll_event e = {.events = x->interest = exchange_interest(x), .data.ptr = x};
    if (epoll_ctl(n->epoll, EPOLL_CTL_ADD, fd, &e) != 0) {
        exchange_drop(x);
        return;
    }
    n->list[n->n_list++] = x;
}

static void accept_some(struct net *n)
{
    for (int i = 0; i < ACCEPTS_PER_ROUND; i++) {
        int fd = accept4(n->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd >= 0) {
            add(n, fd);
            continue;
        }
        if (errno == EINTR || errno == ECONNABORTED)
            continue;
        if ((errno == EMFILE || errno == ENFILE) && n->spare >= 0) {
            /* Out of descriptors: without an accept the listener would stay ready for ever.
             * Take the connection with the spare one and close it. */
            close(n->spare);
            fd = accept4(n->listener, NULL, NULL, SOCK_CLOEXEC);
            if (fd >= 0)
                close(fd);
            n->spare = open("/dev/null", O_RDONLY | O_CLOEXEC);
            continue;
        }
        if (errno != EAGAIN && errno != EWOULDBLOCK) {
            /* No memory, or the spare descriptor is lost: wait until a connection closes rather than spin. */
            epoll_ctl(n->epoll, EPOLL_CTL_DEL, n->listener, NULL);
            n->accept_paused = true;
        }
        return;
    }
}

static void begin_stop(struct net *n)
{
    n->stopping = true;
    n->stop_deadline = n->now + (int64_t)n->options.grace_seconds * 1000;
    close(n->listener);
    n->listener = -1;
    int64_t patience = n->options.grace_seconds > 0 ? STOP_READING_MS : 0;
    n->reading_deadline = n->now + patience;
    for (size_t i = 0; i < n->n_list; i++)
        n->list[i]->readable = true; /* what has arrived by now is read before its connection is closed */
}

/* While stopping: a connection that has had an answer and asks nothing more is closed. One that is new was accepted for
 * a request, which is on its way: it gets a moment, for nobody else will read what was sent to it. */
static bool has_no_time_left(const struct net *n, const struct exchange *x)
{
    return n->stopping && x->state == READING && (n->now >= n->reading_deadline || (exchange_idle(x) && x->answered_any));
}

/* One round over all connections, oldest first, so that requests that arrive together are queued in the order their clients came.
 * There are few, and each step returns at once when there is nothing to do. */
static void step_all(struct net *n)
{
    for (size_t i = 0; i < n->n_list;) {
        struct exchange *x = n->list[i];
        bool alive = exchange_step(x);
        if (alive && exchange_deadline(x) <= n->now)
            alive = exchange_expired(x);
        if (alive && has_no_time_left(n, x))
            alive = false;
        if (!alive) {
            drop(n, i);
            continue;
        }
        uint32_t interest = exchange_interest(x);
        if (interest != x->interest) {
            struct epoll_event e = {.events = interest, .data.ptr = x};
            epoll_ctl(n->epoll, EPOLL_CTL_MOD, x->fd, &e);
            x->interest = interest;
        }
        i++;
    }
}

/* Milliseconds to sleep: -1 when only an event can change anything. */
static int time_to_sleep(const struct net *n)
{
    int64_t first = n->stopping ? n->stop_deadline : INT64_MAX;
    if (n->period_ms > 0 && n->next_tick < first)
        first = n->next_tick;
    for (size_t i = 0; i < n->n_list; i++) {
        if (n->list[i]->again)
            return 0;
        int64_t d = exchange_deadline(n->list[i]);
        if (n->stopping && n->list[i]->state == READING && n->reading_deadline < d)
            d = n->reading_deadline;
        if (d < first)
            first = d;
    }
    if (first == INT64_MAX)
        return -1;
    int64_t left = first - clock_ms();
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static void take_event(struct net *n, const struct epoll_event *e)
{
    if (e->data.ptr == &wake_tag) {
        uint64_t count;
        ssize_t got = read(n->wake, &count, sizeof count);
        (void)got;
        n->handler.wake(n->handler.user);
        return;
    }
    struct exchange *x = e->data.ptr;
    if (e->events & (EPOLLIN | EPOLLRDHUP))
        x->readable = true;
    if (e->events & EPOLLRDHUP)
        x->half_closed = true;
    if (e->events & (EPOLLERR | EPOLLHUP))
        x->broken = true;
}

void net_run(struct net *n)
{
    struct epoll_event events[EVENTS];
    while (!n->want_quit) {
        int count = epoll_wait(n->epoll, events, EVENTS, time_to_sleep(n));
        n->now = clock_ms();
        bool incoming = false;
        if (n->period_ms > 0 && n->now >= n->next_tick) {
            n->next_tick = n->now + n->period_ms;
            n->tick(n->tick_user);
        }
        for (int i = 0; i < count; i++) {
            if (events[i].data.ptr == &listener_tag)
                incoming = true;
            else
                take_event(n, &events[i]);
        }
        if (n->want_stop && !n->stopping)
            begin_stop(n);
        /* Accepting may close an idle connection, so it comes when no event is left that could point to one. */
        if (incoming && n->listener >= 0)
            accept_some(n);
        if (n->stopping && n->now >= n->stop_deadline) {
            if (n->cut)
                return; /* what is still open is dropped by net_close */
            n->cut = true;
            n->stop_deadline = n->now + CUT_MS;
            n->handler.cut(n->handler.user);
        }
        step_all(n);
        if (n->stopping && n->n_list == 0)
            return;
    }
}
