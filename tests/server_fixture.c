#include "tests/server_fixture.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { PATIENCE_MS = 20000, MAX_ARGUMENTS = 32 };

double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
}

static const char *program(void)
{
    const char *p = getenv("QUERN_SERVER");
    ck_assert_msg(p != NULL, "QUERN_SERVER must name the quern-server to test");
    return p;
}

/* In the child: never returns. */
static void become_server(char **arguments, const struct start *how, const char *output, bool both)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* no server outlives a test that failed */
    int fd = open(output, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600), null = open("/dev/null", O_RDWR);
    dup2(null, 0);
    dup2(both ? fd : null, 1);
    dup2(fd, 2);
    close(fd);
    close(null);
    unsetenv("QUERN_API_KEY");
    for (const char *const *e = how && how->env ? how->env : NULL; e && *e; e++)
        putenv(strdup(*e));
    if (how && how->max_files) {
        struct rlimit limit = {(rlim_t)how->max_files, (rlim_t)how->max_files};
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (how && how->hold_engine)
        ptrace(PTRACE_TRACEME, 0, NULL, NULL);
    const char *path = program();
    if (how && how->inherit) {
        char pid[32];
        snprintf(pid, sizeof pid, "%d", (int)getpid());
        setenv("LISTEN_FDS", "1", 1);
        setenv("LISTEN_PID", pid, 1);
        dup2(how->inherit, 3); /* from here on no assertion: Check, too, has something at 3 */
    }
    execv(path, arguments);
    _exit(127);
}

static size_t add_arguments(char **arguments, size_t n, const char *const *flags)
{
    for (; flags && *flags; flags++) {
        ck_assert_uint_lt(n, MAX_ARGUMENTS - 1);
        arguments[n++] = strdup(*flags);
    }
    return n;
}

static void new_log(char *path, size_t size)
{
    snprintf(path, size, "/tmp/quern-test-XXXXXX");
    int fd = mkstemp(path);
    ck_assert_int_ge(fd, 0);
    close(fd);
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "%s: %s", path, strerror(errno));
    char *text = malloc(1 << 20);
    size_t n = fread(text, 1, (1 << 20) - 1, f);
    text[n] = '\0';
    fclose(f);
    return text;
}

/* As a debugger would: lets the program run up to the birth of its first thread,
 * which is the engine's, and lets go of everything but that. */
static pid_t hold_first_thread(pid_t pid)
{
    int status;
    unsigned long thread = 0;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid); /* stopped by its exec */
    ck_assert(WIFSTOPPED(status));
    ck_assert_int_eq(ptrace(PTRACE_SETOPTIONS, pid, NULL, PTRACE_O_TRACECLONE), 0);
    for (int signal = 0; status >> 8 != (SIGTRAP | PTRACE_EVENT_CLONE << 8);
         signal = WSTOPSIG(status) == SIGTRAP ? 0 : WSTOPSIG(status)) {
        ck_assert_int_eq(ptrace(PTRACE_CONT, pid, NULL, signal), 0);
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFSTOPPED(status), "the server ended before it started a thread");
    }
    ck_assert_int_eq(ptrace(PTRACE_GETEVENTMSG, pid, NULL, &thread), 0);
    ck_assert_int_eq(waitpid((pid_t)thread, &status, __WALL), (pid_t)thread); /* stopped at birth */
    ck_assert_int_eq(ptrace(PTRACE_DETACH, pid, NULL, NULL), 0);
    return (pid_t)thread;
}

void server_release(struct server *s)
{
    ck_assert_int_eq(ptrace(PTRACE_DETACH, s->held, NULL, NULL), 0);
    s->held = 0;
}

struct server server_start(const char *const *flags, const struct start *how)
{
    struct server s = {0};
    new_log(s.log, sizeof s.log);
    const char *model = how && how->model ? how->model : TINY;
    char *arguments[MAX_ARGUMENTS] = {0};
    size_t n = add_arguments(arguments, 0, (const char *const[]){program(), "-m", model, "--port", "0", NULL});
    add_arguments(arguments, n, flags);
    s.pid = fork();
    ck_assert_int_ge(s.pid, 0);
    if (s.pid == 0)
        become_server(arguments, how, s.log, false);
    for (size_t i = 0; arguments[i]; i++)
        free(arguments[i]);
    if (how && how->hold_engine)
        s.held = hold_first_thread(s.pid);
    server_wait_log(&s, "listening on http://");
    char *log = server_log(&s), *line = strstr(log, "listening on http://");
    ck_assert(strchr(line, '\n') != NULL);
    *strchr(line, '\n') = '\0';
    s.port = atoi(strrchr(line, ':') + 1);
    free(log);
    ck_assert_int_gt(s.port, 0);
    for (double end = seconds() + 60; !(how && how->not_ready);) {
        struct response r = ask(s.port, "GET", "/health", "", NULL);
        int status = r.status;
        response_free(&r);
        if (status == 200)
            break;
        ck_assert_int_eq(status, 503);
        ck_assert(seconds() < end);
        nap();
    }
    return s;
}

int server_run(const char *const *flags, char *out, size_t size)
{
    struct server s = {0};
    new_log(s.log, sizeof s.log);
    char *arguments[MAX_ARGUMENTS] = {0};
    add_arguments(arguments, add_arguments(arguments, 0, (const char *const[]){program(), NULL}), flags);
    s.pid = fork();
    ck_assert_int_ge(s.pid, 0);
    if (s.pid == 0)
        become_server(arguments, NULL, s.log, true);
    for (size_t i = 0; arguments[i]; i++)
        free(arguments[i]);
    char path[sizeof s.log];
    memcpy(path, s.log, sizeof path);
    s.log[0] = '\0';
    int status = server_end(&s, 0);
    char *text = read_file(path);
    unlink(path);
    snprintf(out, size, "%s", text);
    free(text);
    return status;
}

int server_end(struct server *s, int signal)
{
    int status;
    if (signal)
        ck_assert_int_eq(kill(s->pid, signal), 0);
    for (double end = seconds() + 30; waitpid(s->pid, &status, WNOHANG) == 0;) {
        if (s->held) /* a traced thread is not gone before its tracer has seen its end */
            waitpid(s->held, NULL, WNOHANG | __WALL);
        if (seconds() > end) {
            kill(s->pid, SIGKILL);
            ck_abort_msg("the server did not end");
        }
        nap();
    }
    if (s->log[0])
        unlink(s->log);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

char *server_log(const struct server *s)
{
    return read_file(s->log);
}

void server_wait_log(const struct server *s, const char *text)
{
    for (double end = seconds() + PATIENCE_MS / 1000;;) {
        char *log = server_log(s);
        bool found = strstr(log, text) != NULL;
        if (!found && seconds() > end)
            ck_abort_msg("the log never said \"%s\": %s", text, log);
        free(log);
        if (found)
            return;
        nap();
    }
}

long server_ticks(const struct server *s)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/stat", (int)s->pid);
    char *text = read_file(path);
    long user, system;
    ck_assert_int_eq(sscanf(strrchr(text, ')') + 2, "%*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %ld %ld", &user, &system), 2);
    free(text);
    return user + system;
}

/* ---- connections ---- */

static struct client open_with(int port, int receive_buffer)
{
    struct client c = {.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
    ck_assert_int_ge(c.fd, 0);
    if (receive_buffer)
        setsockopt(c.fd, SOL_SOCKET, SO_RCVBUF, &receive_buffer, sizeof receive_buffer);
    int one = 1;
    setsockopt(c.fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    ck_assert_msg(connect(c.fd, (struct sockaddr *)&a, sizeof a) == 0, "port %d: %s", port, strerror(errno));
    return c;
}

struct client client_open(int port)
{
    return open_with(port, 0);
}

struct client client_open_small(int port)
{
    return open_with(port, 4096);
}

bool client_can_connect(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bool can = connect(fd, (struct sockaddr *)&a, sizeof a) == 0;
    close(fd);
    return can;
}

void client_close(struct client *c)
{
    close(c->fd);
    free(c->data);
    *c = (struct client){.fd = -1};
}

void client_send(struct client *c, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t n = send(c->fd, data, length, MSG_NOSIGNAL);
        if (n < 0 && (errno == EPIPE || errno == ECONNRESET))
            return; /* the server has answered and closed: the answer tells why */
        ck_assert_msg(n > 0, "send: %s", strerror(errno));
        data += n;
        length -= (size_t)n;
    }
}

void client_text(struct client *c, const char *text)
{
    client_send(c, text, strlen(text));
}

/* More bytes; false at the end of the connection. */
static bool more(struct client *c)
{
    if (c->capacity - c->length < 4096) {
        c->capacity = c->capacity ? c->capacity * 2 : 8192;
        c->data = realloc(c->data, c->capacity + 1);
        ck_assert(c->data != NULL);
    }
    struct pollfd p = {.fd = c->fd, .events = POLLIN};
    ck_assert_msg(poll(&p, 1, PATIENCE_MS) == 1, "nothing came for %d ms", PATIENCE_MS);
    ssize_t n = recv(c->fd, c->data + c->length, c->capacity - c->length, 0);
    if (n <= 0)
        return false;
    c->length += (size_t)n;
    c->data[c->length] = '\0';
    return true;
}

/* One line without its CR LF, cut off by a NUL in place; NULL at the end of the connection. */
static char *read_line(struct client *c)
{
    for (;;) {
        char *end = c->at < c->length ? memmem(c->data + c->at, c->length - c->at, "\r\n", 2) : NULL;
        if (end) {
            char *line = c->data + c->at;
            *end = '\0';
            c->at = (size_t)(end - c->data) + 2;
            return line;
        }
        if (!more(c))
            return NULL;
    }
}

static bool take(struct client *c, struct response *r, size_t n)
{
    while (c->length - c->at < n)
        if (!more(c))
            return false;
    r->body = realloc(r->body, r->length + n + 1);
    if (n > 0)
        memcpy(r->body + r->length, c->data + c->at, n);
    r->length += n;
    r->body[r->length] = '\0';
    c->at += n;
    return true;
}

static bool take_chunks(struct client *c, struct response *r)
{
    for (;;) {
        char *line = read_line(c), *end;
        if (!line)
            return false;
        unsigned long n = strtoul(line, &end, 16);
        ck_assert_msg(end != line && *end == '\0', "chunk size: %s", line);
        if (!take(c, r, n))
            return false;
        line = read_line(c);
        if (!line)
            return false;
        ck_assert_str_eq(line, "");
        if (n == 0)
            return true;
    }
}

bool client_read(struct client *c, struct response *r, bool head_only)
{
    *r = (struct response){0};
    size_t n = 0;
    for (char *line; (line = read_line(c)) != NULL;) {
        if (*line == '\0')
            break;
        if (n == 0)
            ck_assert_msg(sscanf(line, "HTTP/1.1 %d ", &r->status) == 1, "status line: %s", line);
        n += (size_t)snprintf(r->head + n, sizeof r->head - n, "%s\n", line);
        ck_assert_uint_lt(n, sizeof r->head);
    }
    if (n == 0)
        return false;
    take(c, r, 0);
    const char *length = response_header(r, "Content-Length");
    if (head_only || r->status == 204 || r->status == 100)
        r->whole = true;
    else if (length)
        r->whole = take(c, r, strtoul(length, NULL, 10));
    else if (response_header(r, "Transfer-Encoding"))
        r->whole = take_chunks(c, r);
    else {
        while (more(c)) {
        }
        r->whole = take(c, r, c->length - c->at);
    }
    return true;
}

void response_free(struct response *r)
{
    free(r->body);
    r->body = NULL;
}

const char *response_header(const struct response *r, const char *name)
{
    static char value[512];
    size_t n = strlen(name);
    for (const char *line = r->head; *line; line = strchr(line, '\n') + 1) {
        if (strncasecmp(line, name, n) == 0 && line[n] == ':') {
            const char *v = line + n + 1 + strspn(line + n + 1, " ");
            snprintf(value, sizeof value, "%.*s", (int)strcspn(v, "\n"), v);
            return value;
        }
    }
    return NULL;
}

bool client_at_end(struct client *c)
{
    return c->at == c->length && !more(c);
}

void client_wait(struct client *c, const char *text)
{
    while (c->at == c->length || !memmem(c->data + c->at, c->length - c->at, text, strlen(text)))
        ck_assert_msg(more(c), "the connection ended before \"%s\" came", text);
}

struct response ask(int port, const char *method, const char *path, const char *headers, const char *body)
{
    struct client c = client_open(port);
    char head[1024];
    snprintf(head, sizeof head, "%s %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nConnection: close\r\n%s", method, path, port, headers);
    client_text(&c, head);
    if (body) {
        snprintf(head, sizeof head, "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n", strlen(body));
        client_text(&c, head);
        client_text(&c, body);
    } else {
        client_text(&c, "\r\n");
    }
    struct response r;
    ck_assert_msg(client_read(&c, &r, strcmp(method, "HEAD") == 0), "%s %s: no answer", method, path);
    ck_assert_msg(client_at_end(&c), "%s %s: more than one answer", method, path);
    client_close(&c);
    return r;
}

struct json *response_json(const struct response *r)
{
    struct json_error err;
    struct json *j = json_parse(r->body, r->length, NULL, &err);
    ck_assert_msg(j != NULL, "%s: %s", r->body, err.text);
    return j;
}

const struct json_value *json_at(const struct json_value *v, const char *path)
{
    char name[64];
    while (v && *path) {
        size_t n = strcspn(path, ".");
        snprintf(name, sizeof name, "%.*s", (int)n, path);
        if (v->kind == JSON_ARRAY) {
            int index = atoi(name);
            v = v->first;
            while (v && index-- > 0)
                v = v->next;
        } else {
            v = json_get(v, name);
        }
        path += n + (path[n] == '.');
    }
    return v;
}
