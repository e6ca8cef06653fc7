/* What quern-server tells the service manager that started it: a real socket in the manager's place, and a real server.
 * QUERN_SERVER names the program; run in the project's root. */
#include "engine/engine.h"
#include "server/notify.h"
#include "tests/server_fixture.h"

#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CHAT "/v1/chat/completions"
#define SAY_OK "{\"messages\":[{\"role\":\"user\",\"content\":\"Say OK\"}],\"max_tokens\":5,\"temperature\":0}"
#define STORY "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a cat and a ball.\"}],\"temperature\":0," \
    "\"stream\":true}"

static void nap(double s)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)}, NULL);
}

/* ---- the manager's end of the socket ---- */

struct manager {
    int fd;
    char variable[160]; /* NOTIFY_SOCKET=... */
    char path[108];     /* "" for an abstract name */
};

static struct manager manager_open(bool abstract)
{
    struct manager m = {.fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0)};
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    ck_assert_int_ge(m.fd, 0);
    int n = snprintf(a.sun_path, sizeof a.sun_path, "%s/tmp/quern-notify-%d", abstract ? "@" : "", (int)getpid());
    snprintf(m.variable, sizeof m.variable, "NOTIFY_SOCKET=%s", a.sun_path);
    if (abstract)
        a.sun_path[0] = '\0';
    else
        memcpy(m.path, a.sun_path, sizeof m.path);
    ck_assert_msg(
        bind(m.fd, (struct sockaddr *)&a, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n + !abstract)) == 0,
        "bind: %s", strerror(errno));
    return m;
}

static void manager_close(struct manager *m)
{
    close(m->fd);
    if (m->path[0])
        unlink(m->path);
}

/* The next message within so many seconds. */
static bool next_message(const struct manager *m, double patience, char *text, size_t size)
{
    struct pollfd p = {.fd = m->fd, .events = POLLIN};
    if (poll(&p, 1, (int)(patience * 1000)) != 1)
        return false;
    ssize_t n = recv(m->fd, text, size - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = '\0';
    return true;
}

static void expect(const struct manager *m, const char *wanted)
{
    char text[1024] = "";
    for (double end = seconds() + 30; strstr(text, wanted) != text;)
        ck_assert_msg(seconds() < end && next_message(m, 30, text, sizeof text), "\"%s\" never came", wanted);
}

/* Messages beginning with `wanted` that come within so many seconds. */
static int count_messages(const struct manager *m, const char *wanted, double duration)
{
    char text[1024];
    int n = 0;
    for (double end = seconds() + duration, left; (left = end - seconds()) > 0;)
        n += next_message(m, left, text, sizeof text) && strncmp(text, wanted, strlen(wanted)) == 0;
    return n;
}

static void check_says_ok(int port)
{
    struct response r = ask(port, "POST", CHAT, "", SAY_OK);
    ck_assert_int_eq(r.status, 200);
    ck_assert_ptr_nonnull(strstr(r.body, "\"content\":\"OK\""));
    response_free(&r);
}

static struct client chat_on(int port, const char *body)
{
    struct client c = client_open(port);
    char head[256];
    snprintf(head, sizeof head,
        "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        strlen(body));
    client_text(&c, head);
    client_text(&c, body);
    return c;
}

static struct server start_with(const struct manager *m, const char *watchdog, const char *const *flags, bool slow)
{
    const char *env[4] = {m->variable, slow ? "QUERN_CPU=scalar" : "WATCHDOG_PID=", watchdog, NULL};
    return server_start(flags, &(struct start){.env = env});
}

/* ---- start and end ---- */

START_TEST(ready_and_stopping)
{
    struct manager m = manager_open(_i == 1);
    /* The engine thread is held at its first instruction: the model cannot be loaded yet. */
    struct server s = server_start((const char *const[]){"--alias", "the\tmodel", NULL},
        &(struct start){.env = (const char *const[]){m.variable, NULL}, .not_ready = true, .hold_engine = true});
    char text[1024];
    ck_assert(next_message(&m, 20, text, sizeof text));
    ck_assert_str_eq(text, "STATUS=loading the model"); /* no control character gets through */
    ck_assert_msg(!next_message(&m, 0.3, text, sizeof text), "%s, before the model was loaded", text);
    server_release(&s);
    ck_assert(next_message(&m, 30, text, sizeof text));
    ck_assert_str_eq(text, "READY=1");
    struct response r = ask(s.port, "GET", "/health", "", NULL); /* no waiting: ready is ready */
    ck_assert_int_eq(r.status, 200);
    response_free(&r);
    ck_assert(next_message(&m, 20, text, sizeof text));
    char serving[128];
    snprintf(serving, sizeof serving, "STATUS=serving the model on 127.0.0.1:%d", s.port);
    ck_assert_str_eq(text, serving);
    /* Nobody asked for signs of life. */
    ck_assert_int_eq(count_messages(&m, "", 0.5), 0);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    ck_assert(next_message(&m, 1, text, sizeof text));
    ck_assert_msg(strncmp(text, "STOPPING=1\nSTATUS=", 18) == 0, "%s", text);
    manager_close(&m);
}
END_TEST

START_TEST(stopping_comes_at_once)
{
    struct manager m = manager_open(false);
    struct server s = start_with(&m, NULL, (const char *const[]){"-t", "1", "--shutdown-grace", "100", NULL}, true);
    struct client c = chat_on(s.port, STORY);
    client_wait(&c, "\"delta\":{\"content\":");
    ck_assert_int_eq(kill(s.pid, SIGTERM), 0);
    expect(&m, "STOPPING=1");
    ck_assert_int_eq(waitpid(s.pid, NULL, WNOHANG), 0); /* while the answer goes on */
    client_close(&c);
    ck_assert_int_eq(server_end(&s, 0), 0);
    manager_close(&m);
}
END_TEST

START_TEST(failure_is_told)
{
    struct manager m = manager_open(false);
    char out[2048], *variable = strdup(m.variable);
    putenv(variable);
    ck_assert_int_eq(server_run((const char *const[]){"-m", "meson.build", "--port", "0", NULL}, out, sizeof out), 1);
    expect(&m, "STATUS=loading");
    char text[1024];
    ck_assert(next_message(&m, 1, text, sizeof text));
    ck_assert_msg(strncmp(text, "STATUS=", 7) == 0 && strstr(text, "meson.build"), "%s", text);
    ck_assert(!next_message(&m, 0.1, text, sizeof text)); /* never ready */
    unsetenv("NOTIFY_SOCKET");
    free(variable);
    manager_close(&m);
}
END_TEST

/* A manager that went away, or a variable that makes no sense, does not keep anybody from being served. */
START_TEST(nobody_listens)
{
    static const struct {
        const char *env[3], *says;
    } runs[] = {
        {{"NOTIFY_SOCKET=/nonexistent/socket", "WATCHDOG_USEC=100000"}, NULL},
        {{"NOTIFY_SOCKET=@quern-nobody-is-here", "WATCHDOG_USEC=100000"}, NULL},
        {{"NOTIFY_SOCKET=", NULL}, NULL},
        {{"NOTIFY_SOCKET=vsock:2:1234", NULL}, "NOTIFY_SOCKET is \"vsock:2:1234\""},
        {{"NOTIFY_SOCKET=/", NULL}, "NOTIFY_SOCKET has 1 characters"},
        {{"NOTIFY_SOCKET=/123456789012345678901234567890123456789012345678901234567890"
          "123456789012345678901234567890123456789012345678901234567890", NULL},
         "NOTIFY_SOCKET has 121 characters"},
        {{"NOTIFY_SOCKET=@x", "WATCHDOG_USEC=soon"}, "WATCHDOG_USEC is \"soon\""},
        {{"NOTIFY_SOCKET=@x", "WATCHDOG_USEC=-1"}, "WATCHDOG_USEC is \"-1\""},
        {{"NOTIFY_SOCKET=@x", "WATCHDOG_USEC=99999999999999999999999"}, "WATCHDOG_USEC is"},
        {{"NOTIFY_SOCKET=@x", "WATCHDOG_USEC=18446744073709551615"}, NULL},
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        struct server s = server_start(NULL, &(struct start){.env = runs[i].env});
        check_says_ok(s.port);
        char *log = server_log(&s);
        ck_assert_msg(runs[i].says ? strstr(log, runs[i].says) != NULL : strstr(log, "manager") == NULL, "run %zu: %s", i, log);
        free(log);
        ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    }
}
END_TEST

/* ---- signs of life ---- */

START_TEST(idle_is_alive)
{
    struct manager m = manager_open(true);
    struct server s = start_with(&m, "WATCHDOG_USEC=400000", NULL, false);
    expect(&m, "READY=1");
    for (int i = 0; i < 5; i++)
        expect(&m, "WATCHDOG=1");
    check_says_ok(s.port);
    expect(&m, "WATCHDOG=1");
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    manager_close(&m);
}
END_TEST

START_TEST(not_for_us)
{
    struct manager m = manager_open(false);
    const char *env[] = {m.variable, "WATCHDOG_USEC=40000", "WATCHDOG_PID=1", NULL};
    struct server s = server_start(NULL, &(struct start){.env = env});
    expect(&m, "READY=1");
    ck_assert_int_eq(count_messages(&m, "WATCHDOG=1", 0.5), 0);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    manager_close(&m);
}
END_TEST

START_TEST(costs_nothing)
{
    struct manager m = manager_open(false);
    struct server s = start_with(&m, "WATCHDOG_USEC=1000000", NULL, false);
    check_says_ok(s.port);
    nap(0.5); /* workers go to sleep */
    long before = server_ticks(&s);
    nap(2);
    ck_assert_int_le(server_ticks(&s) - before, 1);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    manager_close(&m);
}
END_TEST

/* The thread of this name. */
static pid_t find_thread(pid_t pid, const char *name)
{
    char path[64], comm[32];
    snprintf(path, sizeof path, "/proc/%d/task", (int)pid);
    DIR *tasks = opendir(path);
    ck_assert_ptr_nonnull(tasks);
    pid_t found = 0;
    for (struct dirent *d; (d = readdir(tasks)) != NULL && !found;) {
        char file[64 + 256 + 8];
        snprintf(file, sizeof file, "%s/%s/comm", path, d->d_name);
        FILE *f = fopen(file, "re");
        if (f && fgets(comm, sizeof comm, f) && strncmp(comm, name, strlen(name)) == 0 && comm[strlen(name)] == '\n')
            found = (pid_t)atoi(d->d_name);
        if (f)
            fclose(f);
    }
    closedir(tasks);
    ck_assert_msg(found != 0, "no thread is called %s", name);
    return found;
}

/* Waits until the thread has been asleep for a while: an answer arrives a moment before its engine thread is done with it. */
static void wait_asleep(pid_t pid, pid_t thread)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/task/%d/stat", (int)pid, (int)thread);
    int asleep = 0;
    for (double end = seconds() + 30; asleep < 20; nap(0.01)) {
        char text[512] = "", *close;
        FILE *f = fopen(path, "re");
        ck_assert_ptr_nonnull(f);
        asleep = fgets(text, sizeof text, f) && (close = strrchr(text, ')')) != NULL && close[2] == 'S' ? asleep + 1 : 0;
        fclose(f);
        ck_assert(seconds() < end);
    }
}

/* SIGSTOP would stop the whole process; a debugger can stop one thread. */
static void freeze(pid_t thread)
{
    int status;
    ck_assert_msg(ptrace(PTRACE_SEIZE, thread, NULL, NULL) == 0, "ptrace: %s", strerror(errno));
    ck_assert_int_eq(ptrace(PTRACE_INTERRUPT, thread, NULL, NULL), 0);
    ck_assert_int_eq(waitpid(thread, &status, __WALL), thread);
    ck_assert(WIFSTOPPED(status));
}

static void thaw(pid_t thread)
{
    ck_assert_int_eq(ptrace(PTRACE_DETACH, thread, NULL, NULL), 0);
}

static void check_no_signs(const struct manager *m, const struct server *s)
{
    count_messages(m, "", 1); /* what was on its way, and the sign that progress up to now has earned */
    ck_assert_int_eq(count_messages(m, "WATCHDOG=1", 2), 0);
    server_wait_log(s, "the engine has made no progress for");
}

START_TEST(stuck_engine)
{
    struct manager m = manager_open(false);
    struct server s = start_with(&m, "WATCHDOG_USEC=500000", (const char *const[]){"-t", "1", NULL}, true);
    pid_t engine = find_thread(s.pid, "quern-engine");
    /* Frozen in the middle of an answer. */
    struct client c = chat_on(s.port, STORY);
    client_wait(&c, "\"delta\":{\"content\":");
    expect(&m, "WATCHDOG=1"); /* working is alive */
    freeze(engine);
    check_no_signs(&m, &s);
    /* The network thread is not stuck, and its turning alone is no sign of life. */
    struct response r = ask(s.port, "GET", "/health", "", NULL);
    response_free(&r);
    thaw(engine);
    expect(&m, "WATCHDOG=1");
    server_wait_log(&s, "the engine makes progress again");
    client_close(&c);
    check_says_ok(s.port);
    /* Frozen while there is nothing to do: not to be noticed, before somebody asks something. */
    wait_asleep(s.pid, engine);
    freeze(engine);
    for (int i = 0; i < 5; i++)
        expect(&m, "WATCHDOG=1");
    c = chat_on(s.port, SAY_OK);
    check_no_signs(&m, &s);
    thaw(engine);
    expect(&m, "WATCHDOG=1");
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 200);
    response_free(&r);
    client_close(&c);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    manager_close(&m);
}
END_TEST

static void note_end(void *done, const struct engine_event *event)
{
    if (event->kind == EVENT_DONE)
        atomic_store((atomic_bool *)done, true);
}

static void *run_engine(void *engine)
{
    engine_run(engine);
    return NULL;
}

/* A long prompt computed as one batch is many layers: the engine's pulse is felt all the while,
 * so a slow machine is not taken for a stuck one. */
START_TEST(long_batch_has_a_pulse)
{
    enum { PROMPT = 600 };
    setenv("QUERN_CPU", "scalar", 1);
    struct error err;
    struct engine *engine =
        engine_open(&(struct engine_options){.model_path = TINY, .n_threads = 1, .n_ctx = 1024, .n_batch = 1024}, &err);
    ck_assert_msg(engine != NULL, "%s", err.text);
    ck_assert(engine_pulse(engine).idle);
    int32_t prompt[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = 100 + i;
    atomic_bool done = false;
    uint64_t id;
    const struct generation g = {.prompt = prompt, .n_prompt = PROMPT, .max_tokens = 1, .callback = note_end, .user = &done};
    ck_assert_int_eq(engine_submit(engine, &g, &id, &err), SUBMIT_OK);
    ck_assert(!engine_pulse(engine).idle); /* queued, and nobody computes yet: that should make progress */
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, run_engine, engine), 0);
    int beats = 0;
    uint64_t seen = engine_pulse(engine).progress, first = seen;
    while (!atomic_load(&done)) {
        struct engine_pulse p = engine_pulse(engine);
        beats += p.progress != seen;
        seen = p.progress;
        nap(0.001);
    }
    seen = engine_pulse(engine).progress;
    ck_assert_uint_eq(seen - first, (uint64_t)engine_info(engine)->n_layers); /* it was one batch */
    ck_assert_msg(beats >= 3, "%d beats", beats);
    engine_stop(engine);
    pthread_join(thread, NULL);
    ck_assert(engine_pulse(engine).idle);
    engine_close(engine);
}
END_TEST

/* The decision by itself, with a clock of its own. */
START_TEST(when_signs_are_due)
{
    struct watchdog w;
    watchdog_start(&w, 1000, 0);
    ck_assert_int_eq(watchdog_period_ms(&w), 250);
    int64_t now, last = 0;
    uint64_t progress = 0;
    int signs = 0;
    /* Idle: one at every second look, also when looks are late. */
    for (now = 250; now <= 4000; now += 251)
        if (watchdog_due(&w, progress, true, now)) {
            ck_assert_int_le(now - last, 510);
            last = now;
            signs++;
        }
    ck_assert_int_ge(signs, 7);
    /* Steps of 700 ms: never a gap of 1000. */
    for (int64_t end = now + 20000; now < end; now += 250) {
        progress = (uint64_t)now / 700;
        if (watchdog_due(&w, progress, false, now)) {
            ck_assert_int_lt(now - last, 1000);
            last = now;
        }
    }
    ck_assert_int_lt(now - last, 1000);
    /* No progress: at most the one sign that was earned before, then none. */
    signs = 0;
    for (int64_t end = now + 20000; now < end; now += 250)
        signs += watchdog_due(&w, progress, false, now);
    ck_assert_int_le(signs, 1);
    /* Progress after all: at the next look. */
    ck_assert(watchdog_due(&w, progress + 1, false, now));
}
END_TEST

/* ---- inherited sockets ---- */

static int listening_socket(int *port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof a;
    ck_assert_int_eq(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
    ck_assert_int_eq(listen(fd, 16), 0);
    ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&a, &length), 0);
    *port = ntohs(a.sin_port);
    return fd;
}

START_TEST(inherited_socket)
{
    int port, fd = listening_socket(&port);
    struct server s = server_start(NULL, &(struct start){.inherit = fd});
    ck_assert_int_eq(s.port, port);
    check_says_ok(port);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    /* Between two servers the socket is the manager's: whoever connects waits, and is served by the next one. */
    struct client c = client_open(port);
    client_text(&c, "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n\r\n");
    s = server_start(NULL, &(struct start){.inherit = fd, .not_ready = true});
    struct response r;
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 200); /* not a 503 because the model was not there yet */
    response_free(&r);
    client_close(&c);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    close(fd);
}
END_TEST

static void send_say_ok(struct client *c)
{
    static const char body[] = "{\"messages\":[{\"role\":\"user\",\"content\":\"Say OK\"}],\"max_tokens\":10,\"temperature\":0}";
    char head[256];
    snprintf(head, sizeof head,
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        strlen(body));
    client_text(c, head);
    client_text(c, body);
}

static void expect_status(struct client *c, int status, const char *body)
{
    struct response r;
    ck_assert(client_read(c, &r, false));
    ck_assert_msg(r.status == status && strstr(r.body, body), "%d %s", r.status, r.body);
    response_free(&r);
    client_close(c);
}

START_TEST(waits_for_the_model)
{
    int port, fd = listening_socket(&port);
    struct server s = server_start(NULL, &(struct start){.inherit = fd, .not_ready = true, .hold_engine = true});
    struct client first = client_open(port), leaves = client_open(port), last = client_open(port), wrong = client_open(port);
    send_say_ok(&first);
    send_say_ok(&leaves);
    send_say_ok(&last);
    client_text(
        &wrong, "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 1\r\n\r\n[");
    struct response r = ask(port, "GET", "/health", "", NULL); /* whoever wants to know is told */
    ck_assert_int_eq(r.status, 503);
    response_free(&r);
    client_close(&leaves);
    server_wait_log(&s, "(client gone)");
    server_release(&s);
    expect_status(&last, 200, "\"content\":\"OK\"");
    expect_status(&first, 200, "\"content\":\"OK\"");
    expect_status(&wrong, 400, "not valid JSON");
    check_says_ok(port);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    close(fd);
}
END_TEST

START_TEST(waits_in_vain)
{
    int port, fd = listening_socket(&port);
    struct server s = server_start((const char *const[]){"--shutdown-grace", "1", NULL},
        &(struct start){.inherit = fd, .not_ready = true, .hold_engine = true});
    struct client c = client_open(port);
    send_say_ok(&c);
    struct response r = ask(port, "GET", "/health", "", NULL);
    response_free(&r);
    ck_assert_int_eq(kill(s.pid, SIGTERM), 0);
    expect_status(&c, 503, "model_loading");
    ck_assert_int_eq(server_end(&s, 0), 0);
    close(fd);
}
END_TEST

START_TEST(waits_for_a_model_that_fails)
{
    int port, fd = listening_socket(&port);
    struct server s = server_start((const char *const[]){"-m", "tests/data/gguf/overlap.gguf", NULL},
        &(struct start){.inherit = fd, .not_ready = true, .hold_engine = true});
    struct client c = client_open(port), silent = client_open(port);
    send_say_ok(&c);
    struct response r = ask(port, "GET", "/health", "", NULL);
    response_free(&r);
    server_release(&s);
    expect_status(&c, 503, "model_failed");
    ck_assert_int_eq(server_end(&s, 0), 1);
    client_close(&silent);
    close(fd);
}
END_TEST

START_TEST(wrong_inheritance)
{
    int port, good = listening_socket(&port), file[2];
    int plain = socket(AF_INET, SOCK_STREAM, 0), datagrams = socket(AF_INET, SOCK_DGRAM, 0);
    ck_assert_int_eq(pipe(file), 0);
    const struct {
        int fd;
        const char *env, *says;
    } runs[] = {
        {plain, NULL, "not a listening TCP socket"},
        {datagrams, NULL, "not a listening TCP socket"},
        {file[0], NULL, "descriptor 3 is none"},
        {good, "LISTEN_FDS=2", "2 listening sockets are inherited"},
        {good, "LISTEN_FDS=many", "LISTEN_FDS is \"many\""},
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        pid_t pid = fork();
        ck_assert_int_ge(pid, 0);
        if (pid == 0) {
            char text[32];
            snprintf(text, sizeof text, "%d", (int)getpid());
            setenv("LISTEN_PID", text, 1);
            setenv("LISTEN_FDS", "1", 1);
            if (runs[i].env)
                putenv(strdup(runs[i].env));
            dup2(runs[i].fd, 3);
            int fd = -1;
            struct error err;
            _exit(!notify_inherited_socket(&fd, &err) && fd == -1 && strstr(err.text, runs[i].says) ? 0 : 1);
        }
        int status;
        ck_assert_int_eq(waitpid(pid, &status, 0), pid);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "run %zu", i);
    }
    /* Meant for another process: not touched. */
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_PID", "1", 1);
    int fd = 7;
    ck_assert(notify_inherited_socket(&fd, NULL));
    ck_assert_int_eq(fd, -1);
}
END_TEST

/* Whether a debugger may stop a thread here: containers and hardened kernels may forbid it. */
static bool may_freeze(void)
{
    pid_t child = fork();
    if (child == 0) {
        nap(20);
        _exit(0);
    }
    bool may = ptrace(PTRACE_SEIZE, child, NULL, NULL) == 0;
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
    return may;
}

int main(void)
{
    Suite *s = suite_create("notify");
    TCase *t = tcase_create("notify");
    tcase_set_timeout(t, 180);
    bool freezes = may_freeze();
    if (freezes) {
        TCase *frozen = tcase_create("frozen");
        tcase_set_timeout(frozen, 180);
        tcase_add_loop_test(frozen, ready_and_stopping, 0, 2);
        tcase_add_test(frozen, stuck_engine);
        suite_add_tcase(s, frozen);
    } else {
        printf("SKIPPED: ready_and_stopping, stuck_engine (ptrace is not permitted here)\n");
    }
    tcase_add_test(t, stopping_comes_at_once);
    tcase_add_test(t, failure_is_told);
    tcase_add_test(t, nobody_listens);
    tcase_add_test(t, idle_is_alive);
    tcase_add_test(t, not_for_us);
    tcase_add_test(t, costs_nothing);
    tcase_add_test(t, long_batch_has_a_pulse);
    tcase_add_test(t, when_signs_are_due);
    tcase_add_test(t, inherited_socket);
    tcase_add_test(t, waits_for_the_model);
    tcase_add_test(t, waits_in_vain);
    tcase_add_test(t, waits_for_a_model_that_fails);
    tcase_add_test(t, wrong_inheritance);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed == 0 ? 0 : 1;
}
