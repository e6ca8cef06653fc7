#include "server/notify.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

enum { FIRST_INHERITED = 3 /* sd_listen_fds(3): SD_LISTEN_FDS_START */ };

/* A whole, positive number and nothing else. */
static bool read_number(const char *text, uint64_t *out)
{
    char *end;
    errno = 0;
    uint64_t value = strtoumax(text, &end, 10);
    if (*text < '0' || *text > '9' || *end != '\0' || errno != 0)
        return false;
    *out = value;
    return true;
}

/* The variable is meant for this process: its companion is not set, or has this process's number. */
static bool is_for_us(const char *pid_variable, bool without)
{
    const char *text = getenv(pid_variable);
    uint64_t pid;
    if (!text || !*text)
        return without;
    return read_number(text, &pid) && pid == (uint64_t)getpid();
}

static bool read_address(struct notify *n, const char *text, struct error *err)
{
    size_t length = strlen(text);
    if (text[0] != '/' && text[0] != '@')
        return error_set(err, "NOTIFY_SOCKET is \"%.100s\": it must be a path, or begin with @", text);
    if (length < 2 || length >= sizeof n->address.sun_path)
        return error_set(
            err, "NOTIFY_SOCKET has %zu characters: an address has 2 to %zu", length, sizeof n->address.sun_path - 1);
    n->address.sun_family = AF_UNIX;
    memcpy(n->address.sun_path, text, length);
    if (text[0] == '@')
        n->address.sun_path[0] = '\0'; /* unix(7): a name in the abstract namespace; its length counts, not a final zero */
    n->address_length = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length + (text[0] == '/'));
    return true;
}

bool notify_open(struct notify *n, struct error *err)
{
    *n = (struct notify){.fd = -1};
    const char *socket_text = getenv("NOTIFY_SOCKET"), *usec_text = getenv("WATCHDOG_USEC");
    if (!socket_text || !*socket_text)
        return true;
    if (!read_address(n, socket_text, err))
        return false;
    uint64_t usec = 0;
    if (usec_text && is_for_us("WATCHDOG_PID", true) && (!read_number(usec_text, &usec) || usec < 4000))
        return error_set(err, "WATCHDOG_USEC is \"%.40s\": it must be a number of microseconds, 4000 or more", usec_text);
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return error_set(err, "cannot make a socket for NOTIFY_SOCKET: %s", strerror(errno));
    const struct timeval patience = {.tv_sec = 1};
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    n->fd = fd;
    n->watchdog_ms = usec / 1000 > INT32_MAX ? INT32_MAX : (int64_t)(usec / 1000);
    return true;
}

void notify_close(struct notify *n)
{
    if (n->fd >= 0)
        close(n->fd);
    n->fd = -1;
}

void notify_send(const struct notify *n, const char *text)
{
    if (n->fd < 0)
        return;
    int saved = errno; /* a signal handler may be the caller */
    while (sendto(n->fd, text, strlen(text), MSG_NOSIGNAL, (const struct sockaddr *)&n->address, n->address_length) < 0 &&
           errno == EINTR)
        ;
    errno = saved;
}

void notify_status(const struct notify *n, const char *format, ...)
{
    char text[512] = "STATUS=";
    size_t prefix = strlen(text);
    va_list args;
    va_start(args, format);
    vsnprintf(text + prefix, sizeof text - prefix, format, args);
    va_end(args);
    for (char *c = text; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7F)
            *c = ' ';
    notify_send(n, text);
}

bool notify_inherited_socket(int *fd, struct error *err)
{
    *fd = -1;
    const char *count_text = getenv("LISTEN_FDS");
    uint64_t count;
    if (!count_text || !is_for_us("LISTEN_PID", false))
        return true;
    if (!read_number(count_text, &count))
        return error_set(err, "LISTEN_FDS is \"%.40s\": it must be a number", count_text);
    if (count == 0)
        return true;
    if (count > 1)
        return error_set(err, "%" PRIu64 " listening sockets are inherited (LISTEN_FDS), and quern listens on one: give the "
            "socket unit one ListenStream= only", count);
    int type = 0, listening = 0, flags = fcntl(FIRST_INHERITED, F_GETFL);
    struct sockaddr_storage a = {0};
    socklen_t type_size = sizeof type, listening_size = sizeof listening, a_size = sizeof a;
    if (flags < 0 || getsockopt(FIRST_INHERITED, SOL_SOCKET, SO_TYPE, &type, &type_size) != 0 ||
        getsockopt(FIRST_INHERITED, SOL_SOCKET, SO_ACCEPTCONN, &listening, &listening_size) != 0 ||
        getsockname(FIRST_INHERITED, (struct sockaddr *)&a, &a_size) != 0)
        return error_set(
            err, "LISTEN_FDS announces an inherited socket, but descriptor %d is none: %s", FIRST_INHERITED, strerror(errno));
    if (type != SOCK_STREAM || !listening || (a.ss_family != AF_INET && a.ss_family != AF_INET6))
        return error_set(err, "the inherited socket (LISTEN_FDS) is not a listening TCP socket: the socket unit needs "
                              "ListenStream=ADDRESS:PORT and Accept=no");
    if (fcntl(FIRST_INHERITED, F_SETFL, flags | O_NONBLOCK) != 0 || fcntl(FIRST_INHERITED, F_SETFD, FD_CLOEXEC) != 0)
        return error_set(err, "cannot set up the inherited socket: %s", strerror(errno));
    *fd = FIRST_INHERITED;
    return true;
}

/* ---- signs of life ---- */

void watchdog_start(struct watchdog *w, int64_t watchdog_ms, int64_t now_ms)
{
    *w = (struct watchdog){.watchdog_ms = watchdog_ms, .last_sign_ms = now_ms, .last_progress_ms = now_ms};
}

int64_t watchdog_period_ms(const struct watchdog *w)
{
    return w->watchdog_ms / 4;
}

bool watchdog_due(struct watchdog *w, uint64_t progress, bool idle, int64_t now_ms)
{
    if (idle || progress != w->seen) {
        w->alive = true;
        w->last_progress_ms = now_ms;
    }
    w->seen = progress;
    /* Looks come late rather than early, by a millisecond or more: three eighths,
     * so that the second look of two always counts. */
    if (!w->alive || now_ms - w->last_sign_ms < w->watchdog_ms * 3 / 8)
        return false;
    w->alive = false;
    w->last_sign_ms = now_ms;
    return true;
}
