/* Talks to the service manager that started the process, in the manner of sd_notify(3), sd_watchdog_enabled(3) and
 * sd_listen_fds(3): short texts sent to a socket of the AF_UNIX family, and listening sockets that are inherited.
 * Whoever starts quern without setting these variables sees nothing of it.
 *
 *   NOTIFY_SOCKET   where to send: a path, or @NAME for a name in the abstract namespace
 *   WATCHDOG_USEC   the manager wants a sign of life at least this often (microseconds)
 *   WATCHDOG_PID    ... of this process
 *   LISTEN_FDS      so many listening sockets are inherited, from descriptor 3 on
 *   LISTEN_PID      ... by this process */
#ifndef QUERN_NOTIFY_H
#define QUERN_NOTIFY_H

#include "gguf/error.h"

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/un.h>

struct notify {
    int fd; /* -1: nobody to tell */
    struct sockaddr_un address;
    socklen_t address_length;
    int64_t watchdog_ms; /* WATCHDOG_USEC; 0: nobody waits for signs of life */
};

/* Reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. False with a sentence if they are set
 * and make no sense; n is then usable, and silent. */
bool notify_open(struct notify *n, struct error *err);
void notify_close(struct notify *n);

/* Sends lines such as "READY=1\nSTATUS=text". Any thread, and signal handlers. Waits for at most a second, if the manager does
 * not read; a text that cannot be delivered is lost, as sd_notify(3) wants it: the service goes on without. */
void notify_send(const struct notify *n, const char *text);
/* STATUS=, from a format; control characters (a line's end would begin another variable)
 * become spaces. Not for signal handlers. */
__attribute__((format(printf, 2, 3))) void notify_status(const struct notify *n, const char *format, ...);

/* The inherited listening socket in *fd, or -1 when there is none. False with a sentence when there is something else:
 * more than one, or no listening TCP socket. */
bool notify_inherited_socket(int *fd, struct error *err);

/* Decides when a sign of life may be sent. The owner asks `watchdog_due` every `watchdog_period_ms`.
 *
 * Looking four times in each WATCHDOG_USEC and signing every second time makes signs at half of it, as sd_watchdog_enabled(3)
 * recommends, and tells a long step from a dead one: whoever makes progress once in three quarters of WATCHDOG_USEC is alive. */
struct watchdog {
    int64_t watchdog_ms;
    uint64_t seen;        /* the progress of the last look */
    bool alive;           /* there was progress, or nothing to do, since the last sign */
    int64_t last_sign_ms, last_progress_ms;
};

void watchdog_start(struct watchdog *w, int64_t watchdog_ms, int64_t now_ms);
int64_t watchdog_period_ms(const struct watchdog *w);
/* idle: there is nothing that should make progress. True: send WATCHDOG=1 now. */
bool watchdog_due(struct watchdog *w, uint64_t progress, bool idle, int64_t now_ms);

#endif
