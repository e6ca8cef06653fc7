/* quern-server as a process: start, loading, limits, clients that misbehave, the end. Each test starts servers of its own.
 * QUERN_SERVER names the program; run in the project's root. */
#include "tests/server_fixture.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHAT "/v1/chat/completions"
#define HEALTH "GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
#define SAY_OK "{\"messages\":[{\"role\":\"user\",\"content\":\"Say OK\"}],\"max_tokens\":5,\"temperature\":0}"
#define STORY "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a cat and a ball.\"}],\"temperature\":0," \
    "\"stream\":true"
#define FIRST_TEXT "\"delta\":{\"content\":" /* of a stream: the model has begun to answer */
#define SLOW_ENV (const char *const[]){"QUERN_CPU=scalar", NULL}

static void nap(double s)
{
    nanosleep(&(struct timespec){.tv_sec = (time_t)s, .tv_nsec = (long)((s - (double)(time_t)s) * 1e9)}, NULL);
}

static void send_post(struct client *c, const char *path, const char *body)
{
    char head[256];
    snprintf(head, sizeof head,
        "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", path,
        strlen(body));
    client_text(c, head);
    client_text(c, body);
}

static void send_chat(struct client *c, const char *body)
{
    send_post(c, CHAT, body);
}

static struct client chat_on(int port, const char *body)
{
    struct client c = client_open(port);
    send_chat(&c, body);
    return c;
}

static void check_says_ok(int port)
{
    struct response r = ask(port, "POST", CHAT, "", SAY_OK);
    ck_assert_int_eq(r.status, 200);
    ck_assert_ptr_nonnull(strstr(r.body, "\"content\":\"OK\""));
    response_free(&r);
}

static int status_of(int port, const char *method, const char *path, const char *headers, const char *body)
{
    struct response r = ask(port, method, path, headers, body);
    int status = r.status;
    if (status == 503)
        ck_assert_ptr_nonnull(response_header(&r, "Retry-After"));
    if (status == 401)
        ck_assert_str_eq(response_header(&r, "WWW-Authenticate"), "Bearer");
    response_free(&r);
    return status;
}

START_TEST(command_line)
{
    static const struct {
        const char *flags[8];
        int status;
        const char *says;
    } runs[] = {
        {{"--version"}, 0, "quern 0."},
        {{"--help"}, 0, "--ctx-size"},
        {{"-h"}, 0, "Examples"},
        {{NULL}, 2, "-m MODEL.gguf"},
        {{"--modle", "x"}, 2, "did you mean --model?"},
        {{"--ctx_size", "10"}, 2, "did you mean --ctx-size?"},
        {{"-zzzzzzzzzz"}, 2, "unknown flag '-zzzzzzzzzz' (--help"},
        {{"model.gguf"}, 2, "given with -m"},
        {{"-m"}, 2, "--model needs a value"},
        {{"-m", ""}, 2, "not empty"},
        {{"-m", TINY, "--port", "65536"}, 2, "--port takes a whole number from 0 to 65535, not '65536'"},
        {{"-m", TINY, "--port", "80x"}, 2, "--port takes"},
        {{"-m", TINY, "-t", "0"}, 2, "--threads takes"},
        {{"-m", TINY, "--temp", "nan"}, 2, "--temp takes"},
        {{"-m", TINY, "--mlock=yes"}, 2, "--mlock takes no value"},
        {{"-m", TINY, "--api-key", "has space"}, 2, "visible ASCII"},
        {{"-m", TINY, "--api-key-file", "/nonexistent/key"}, 2, "/nonexistent/key"},
        {{"-m", TINY, "--host", "0.0.0.0", "--port=0"}, 2, "--allow-no-key"},
        {{"-m", TINY, "--host", "192.0.2.1", "--port=0"}, 1, "192.0.2.1 is not an address of this machine"},
        {{"-m", "/nonexistent/model.gguf", "--port", "0"}, 1, "/nonexistent/model.gguf"},
        {{"-m", "meson.build", "--port", "0"}, 1, "meson.build"},
        {{"-m", TINY, "--port", "0", "-c", "5000"}, 1, "5000"},
    };
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        char out[16384];
        int status = server_run(runs[i].flags, out, sizeof out);
        ck_assert_msg(status == runs[i].status && strstr(out, runs[i].says), "run %zu: %d %s", i, status, out);
    }
}
END_TEST

START_TEST(port_in_use)
{
    struct server s = server_start(NULL, NULL);
    char port[16], out[2048], says[64];
    snprintf(port, sizeof port, "%d", s.port);
    snprintf(says, sizeof says, "port %d on 127.0.0.1 is in use", s.port);
    ck_assert_int_eq(server_run((const char *const[]){"-m", TINY, "--port", port, NULL}, out, sizeof out), 1);
    ck_assert_msg(strstr(out, says) && strstr(out, "--port"), "%s", out);
    ck_assert_int_eq(server_end(&s, SIGINT), 0);
}
END_TEST

/* ---- loading: the engine thread is held at its first instruction, which leaves time to look at a server not ready ---- */

static struct server start_held(void)
{
    return server_start(NULL, &(struct start){.not_ready = true, .hold_engine = true});
}

START_TEST(loading)
{
    struct server s = start_held();
    struct response r = ask(s.port, "GET", "/health", "", NULL);
    ck_assert_int_eq(r.status, 503);
    ck_assert_str_eq(r.body, "{\"status\":\"loading\"}");
    response_free(&r);
    ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", "", NULL), 503);
    ck_assert_int_eq(status_of(s.port, "POST", CHAT, "", SAY_OK), 503);
    ck_assert_int_eq(status_of(s.port, "POST", "/tokenize", "", "{}"), 503);
    ck_assert_int_eq(status_of(s.port, "GET", "/nothing", "", NULL), 404);
    ck_assert_int_eq(status_of(s.port, "GET", CHAT, "", NULL), 405);
    server_release(&s);
    server_wait_log(&s, "model quern-tiny-q4_k_m");
    for (double end = seconds() + 30; status_of(s.port, "GET", "/health", "", NULL) != 200;)
        ck_assert(seconds() < end);
    check_says_ok(s.port);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(ends_while_loading)
{
    struct server s = start_held();
    ck_assert_int_eq(status_of(s.port, "GET", "/health", "", NULL), 503);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

/* ---- access ---- */

START_TEST(api_key)
{
    static const char *const env[] = {"QUERN_API_KEY=sesame", NULL};
    struct server s = server_start(NULL, &(struct start){.env = env});
    ck_assert_int_eq(status_of(s.port, "GET", "/health", "", NULL), 200);
    ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", "", NULL), 401);
    ck_assert_int_eq(status_of(s.port, "GET", "/nothing", "", NULL), 401);
    ck_assert_int_eq(status_of(s.port, "POST", CHAT, "", SAY_OK), 401);
    static const char *const wrong[] = {"Authorization: Bearer sesam\r\n", "Authorization: Bearer sesamee\r\n",
        "Authorization: Bearer Sesame\r\n", "Authorization: Bearer\r\n", "Authorization: Bearer \r\n",
        "Authorization: Basic sesame\r\n", "Authorization: sesame\r\n", "Authorization: Bearer sesame sesame\r\n"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", wrong[i], NULL), 401);
    ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", "Authorization: Bearer sesame\r\n", NULL), 200);
    ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", "authorization: bearer sesame\r\n", NULL), 200);
    ck_assert_int_eq(status_of(s.port, "POST", CHAT, "Authorization: Bearer sesame\r\n", SAY_OK), 200);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    char path[] = "/tmp/quern-key-XXXXXX";
    int fd = mkstemp(path);
    ck_assert_int_eq(write(fd, "from-file\nsecond line\n", 22), 22);
    close(fd);
    s = server_start((const char *const[]){"--api-key-file", path, NULL}, &(struct start){.env = env});
    ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", "Authorization: Bearer sesame\r\n", NULL), 401);
    ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", "Authorization: Bearer from-file\r\n", NULL), 200);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    unlink(path);
}
END_TEST

START_TEST(listens_beyond)
{
    /* On all addresses, any address is a fitting Host, but still no foreign name. */
    struct server s = server_start((const char *const[]){"--host", "0.0.0.0", "--allow-no-key", NULL}, NULL);
    static const struct {
        const char *host;
        int status;
    } hosts[] = {{"10.1.2.3", 200}, {"[2001:db8::1]", 200}, {"localhost", 200}, {"evil.example", 403}};
    for (size_t i = 0; i < sizeof hosts / sizeof *hosts; i++) {
        char request[128];
        struct client c = client_open(s.port);
        struct response r;
        snprintf(request, sizeof request, "GET /health HTTP/1.1\r\nHost: %s\r\n\r\n", hosts[i].host);
        client_text(&c, request);
        ck_assert(client_read(&c, &r, false));
        ck_assert_int_eq(r.status, hosts[i].status);
        response_free(&r);
        client_close(&c);
    }
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

/* ---- clients that leave, or stall ---- */

static void check_stream_ended(struct client *c, const char *finish)
{
    struct response r;
    ck_assert(client_read(c, &r, false));
    ck_assert_int_eq(r.status, 200);
    ck_assert(r.whole);
    ck_assert_msg(strstr(r.body, finish) && strstr(r.body, "data: [DONE]\n\n"), "%s", r.body);
    response_free(&r);
}

START_TEST(disconnect_cancels)
{
    struct server s = server_start((const char *const[]){"-t", "1", "-np", "1", NULL}, &(struct start){.env = SLOW_ENV});
    double begin = seconds();
    struct client c = chat_on(s.port, STORY ",\"max_tokens\":40}");
    check_stream_ended(&c, "\"length\"");
    client_close(&c);
    double one = seconds() - begin;
    /* Eight more: one runs, seven wait. Their clients leave. Without cancelling,
     * the next request would wait for eight times `one`. */
    struct client many[8];
    for (int i = 0; i < 8; i++)
        many[i] = chat_on(s.port, STORY ",\"max_tokens\":40}");
    client_wait(&many[0], FIRST_TEXT);
    for (int i = 0; i < 8; i++)
        client_close(&many[i]);
    begin = seconds();
    check_says_ok(s.port);
    double next = seconds() - begin;
    ck_assert_msg(next < 4 * one, "one answer takes %.2f s; after eight that nobody waits for, the next took %.2f s", one, next);
    server_wait_log(&s, "(client gone)");
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

/* Requests that wait for the network thread together, as after a pause, are computed in the order their clients connected. */
START_TEST(first_come_first_served)
{
    enum { N = 6 };
    struct server s = server_start((const char *const[]){"-np", "1", NULL}, NULL);
    ck_assert_int_eq(kill(s.pid, SIGSTOP), 0);
    struct client many[N];
    for (int i = 0; i < N; i++) {
        char body[256];
        snprintf(body, sizeof body, STORY ",\"max_tokens\":%d}", i + 1);
        many[i] = chat_on(s.port, body);
    }
    ck_assert_int_eq(kill(s.pid, SIGCONT), 0);
    for (int i = 0; i < N; i++) {
        check_stream_ended(&many[i], "\"length\"");
        client_close(&many[i]);
    }
    char last[32];
    snprintf(last, sizeof last, "+%d tokens", N);
    server_wait_log(&s, last);
    char *log = server_log(&s), *at = log;
    for (int i = 0; i < N; i++) { /* the line of a request ends "... 50+3 tokens", with as many tokens as it asked for */
        char tokens[32];
        snprintf(tokens, sizeof tokens, "+%d tokens", i + 1);
        at = strstr(at, tokens);
        ck_assert_msg(at != NULL, "the request for %d tokens was not answered after those before it:\n%s", i + 1, log);
    }
    free(log);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

/* A name of 2000 bytes stands in every chunk, so that a short story is more than
 * the kernel keeps for a client that does not read. */
START_TEST(slow_reader)
{
    char alias[2001];
    memset(alias, 'm', 2000);
    alias[2000] = '\0';
    struct server s = server_start((const char *const[]){"--timeout", "1", "--alias", alias, NULL}, NULL);
    struct client c = client_open_small(s.port);
    send_chat(&c, STORY "}");
    server_wait_log(&s, "(client gone)");
    check_says_ok(s.port);
    client_close(&c);
    /* A whole response that nobody takes. */
    size_t n = 1000000;
    char *body = malloc(n + 64);
    memset(body, '1', n); /* a digit is always a token of its own */
    memcpy(body, "{\"content\":\"", 12);
    strcpy(body + n, "\"}");
    c = client_open_small(s.port);
    char head[256];
    snprintf(head, sizeof head,
        "POST /tokenize HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        strlen(body));
    client_text(&c, head);
    client_text(&c, body);
    for (double end = seconds() + 20;;) {
        char *log = server_log(&s), *line = strstr(log, "/tokenize 200");
        bool gone = line && strstr(line, "(client gone)");
        free(log);
        if (gone)
            break;
        ck_assert(seconds() < end);
        nap(0.02);
    }
    client_close(&c);
    free(body);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(slow_sender)
{
    struct server s = server_start((const char *const[]){"--timeout", "1", NULL}, NULL);
    struct client head = client_open(s.port), body = client_open(s.port), silent = client_open(s.port),
                  drip = client_open(s.port);
    client_text(&head, "GET /health HTTP/1.1\r\nHo");
    client_text(&body, "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{");
    /* A byte now and then does not buy more time. */
    double begin = seconds();
    struct response r;
    client_text(&drip, "GET / HTTP/1.1\r\nX: ");
    while (seconds() - begin < 3 && send(drip.fd, "x", 1, MSG_NOSIGNAL) == 1)
        nap(0.1);
    ck_assert(client_read(&drip, &r, false));
    ck_assert_int_eq(r.status, 408);
    response_free(&r);
    ck_assert(client_read(&head, &r, false));
    ck_assert_int_eq(r.status, 408);
    response_free(&r);
    ck_assert(client_read(&body, &r, false));
    ck_assert_int_eq(r.status, 408);
    response_free(&r);
    ck_assert(client_at_end(&silent));
    client_close(&head);
    client_close(&body);
    client_close(&silent);
    client_close(&drip);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

/* ---- limits ---- */

START_TEST(queue_full)
{
    struct server s =
        server_start((const char *const[]){"-t", "1", "-np", "1", "--queue", "1", NULL}, &(struct start){.env = SLOW_ENV});
    struct client running = chat_on(s.port, STORY "}");
    client_wait(&running, FIRST_TEXT); /* it has left the queue */
    struct client waiting = chat_on(s.port, STORY ",\"max_tokens\":1}");
    client_wait(&waiting, "assistant");
    struct response r = ask(s.port, "POST", CHAT, "", SAY_OK);
    ck_assert_int_eq(r.status, 503);
    ck_assert_ptr_nonnull(response_header(&r, "Retry-After"));
    ck_assert_ptr_nonnull(strstr(r.body, "queue_full"));
    response_free(&r);
    ck_assert_int_eq(status_of(s.port, "GET", "/health", "", NULL), 200); /* busy is not ill */
    client_close(&running);
    check_stream_ended(&waiting, "\"length\"");
    client_close(&waiting);
    check_says_ok(s.port);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(silent_streams)
{
    struct server s = server_start(
        (const char *const[]){"-t", "1", "-np", "1", "--sse-ping-interval", "1", NULL}, &(struct start){.env = SLOW_ENV});
    struct client running = chat_on(s.port, STORY "}");
    client_wait(&running, FIRST_TEXT);
    /* These wait for their turn; a stream says so now and then, in its API's way, and an answer that is no stream cannot. */
    struct client chat = chat_on(s.port, STORY ",\"max_tokens\":1}"), messages = client_open(s.port), whole = client_open(s.port);
    send_post(&messages, "/v1/messages", STORY ",\"max_tokens\":1}");
    send_post(&whole, CHAT, SAY_OK);
    for (int i = 0; i < 2; i++) {
        client_wait(&chat, "\r\n:\n\n\r\n");
        client_wait(&messages, "event: ping\ndata: {\"type\":\"ping\"}\n\n");
    }
    client_close(&running);
    check_stream_ended(&chat, "\"length\"");
    struct response r;
    ck_assert(client_read(&messages, &r, false));
    ck_assert(r.whole);
    ck_assert_ptr_nonnull(strstr(r.body, "event: message_stop"));
    response_free(&r);
    ck_assert(client_read(&whole, &r, false));
    ck_assert_int_eq(r.status, 200);
    ck_assert(r.body[0] == '{');
    response_free(&r);
    client_close(&chat);
    client_close(&messages);
    client_close(&whole);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);

    s = server_start(
        (const char *const[]){"-t", "1", "-np", "1", "--sse-ping-interval", "0", NULL}, &(struct start){.env = SLOW_ENV});
    running = chat_on(s.port, STORY "}");
    client_wait(&running, FIRST_TEXT);
    chat = chat_on(s.port, STORY ",\"max_tokens\":1}");
    nap(1.5);
    client_close(&running);
    ck_assert(client_read(&chat, &r, false));
    ck_assert(r.whole);
    ck_assert_ptr_null(strstr(r.body, "\n:\n"));
    response_free(&r);
    client_close(&chat);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

static void check_health_on(struct client *c, int status)
{
    struct response r;
    client_text(c, HEALTH);
    ck_assert(client_read(c, &r, false));
    ck_assert_int_eq(r.status, status);
    response_free(&r);
}

START_TEST(connection_limit)
{
    struct server s = server_start((const char *const[]){"--max-connections", "4", NULL}, NULL);
    struct client c[4], fifth;
    for (int i = 0; i < 4; i++) {
        c[i] = client_open(s.port);
        check_health_on(&c[i], 200);
        nap(0.02);
    }
    /* All idle: the one that has been so longest makes room. */
    check_health_on(&c[0], 200);
    fifth = client_open(s.port);
    check_health_on(&fifth, 200);
    ck_assert(client_at_end(&c[1]));
    client_close(&c[1]);
    c[1] = fifth;
    /* All in the middle of a request: the fifth is told to come back. */
    for (int i = 0; i < 4; i++)
        client_text(&c[i], "GET /health HTTP/1.1\r\n");
    nap(0.2);
    fifth = client_open(s.port);
    struct response r;
    ck_assert(client_read(&fifth, &r, false));
    ck_assert_int_eq(r.status, 503);
    response_free(&r);
    ck_assert(client_at_end(&fifth));
    client_close(&fifth);
    for (int i = 0; i < 4; i++) {
        client_text(&c[i], "Host: localhost\r\n\r\n");
        ck_assert(client_read(&c[i], &r, false));
        ck_assert_int_eq(r.status, 200);
        response_free(&r);
        client_close(&c[i]);
    }
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

/* Without descriptors a listening socket stays ready for ever; the server must neither spin nor stay deaf. */
START_TEST(out_of_descriptors)
{
    struct server s = server_start(NULL, &(struct start){.max_files = 24});
    struct client c[40];
    for (int i = 0; i < 40; i++)
        c[i] = client_open(s.port);
    nap(0.3);
    long before = server_ticks(&s);
    nap(1);
    long used = server_ticks(&s) - before;
    ck_assert_msg(used < sysconf(_SC_CLK_TCK) / 5, "%ld ticks in a second of waiting", used);
    for (int i = 0; i < 40; i++)
        client_close(&c[i]);
    nap(0.2);
    check_says_ok(s.port);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(sleeps_when_idle)
{
    struct server s = server_start(NULL, NULL);
    struct client c = client_open(s.port);
    check_health_on(&c, 200);
    check_says_ok(s.port);
    nap(0.5); /* workers go to sleep */
    long before = server_ticks(&s);
    nap(2);
    ck_assert_int_le(server_ticks(&s) - before, 1);
    client_close(&c);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(quiet)
{
    struct server s = server_start((const char *const[]){"--log-disable", NULL}, NULL);
    check_says_ok(s.port);
    char *log = server_log(&s);
    ck_assert_ptr_null(strstr(log, CHAT));
    free(log);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    s = server_start(NULL, NULL);
    check_says_ok(s.port);
    server_wait_log(&s, "POST " CHAT " 200 ");
    server_wait_log(&s, "+1 tokens\n");
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

/* ---- the end ---- */

START_TEST(term_cuts_streams)
{
    struct server s =
        server_start((const char *const[]){"-t", "1", "--shutdown-grace", "0", NULL}, &(struct start){.env = SLOW_ENV});
    struct client stream = chat_on(s.port, STORY ",\"stream_options\":{\"include_usage\":true}}"), idle = client_open(s.port),
                  whole = client_open(s.port);
    check_health_on(&idle, 200);
    send_chat(
        &whole, "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a cat and a ball.\"}],\"temperature\":0}");
    client_wait(&stream, FIRST_TEXT);
    ck_assert_int_eq(kill(s.pid, SIGTERM), 0);
    check_stream_ended(&stream, "\"finish_reason\":\"length\"");
    ck_assert(client_at_end(&stream));
    struct response r;
    ck_assert(client_read(&whole, &r, false));
    ck_assert_int_eq(r.status, 503);
    ck_assert_ptr_nonnull(strstr(r.body, "shutting_down"));
    response_free(&r);
    ck_assert(client_at_end(&idle));
    client_close(&stream);
    client_close(&idle);
    client_close(&whole);
    ck_assert_int_eq(server_end(&s, 0), 0);
}
END_TEST

START_TEST(term_lets_streams_finish)
{
    struct server s =
        server_start((const char *const[]){"-t", "1", "--shutdown-grace", "100", NULL}, &(struct start){.env = SLOW_ENV});
    struct client c = chat_on(s.port, STORY ",\"max_tokens\":20}");
    client_wait(&c, FIRST_TEXT);
    int port = s.port;
    ck_assert_int_eq(kill(s.pid, SIGINT), 0);
    nap(0.2);
    ck_assert_msg(!client_can_connect(port), "a new connection was accepted after the signal");
    check_stream_ended(&c, "\"finish_reason\":\"length\"");
    client_close(&c);
    ck_assert_int_eq(server_end(&s, 0), 0);
}
END_TEST

START_TEST(term_reads_what_is_on_its_way)
{
    struct server s = server_start(NULL, NULL);
    struct client late = client_open(s.port), half = client_open(s.port), idle = client_open(s.port);
    check_health_on(&idle, 200); /* and that the others were accepted before it */
    client_text(&half, "GET /health HTTP/1.1\r\nHo");
    ck_assert_int_eq(kill(s.pid, SIGTERM), 0);
    ck_assert(client_at_end(&idle));
    client_text(&half, "st: localhost\r\n\r\n");
    send_chat(&late, SAY_OK);
    struct client *both[] = {&half, &late};
    for (size_t i = 0; i < 2; i++) {
        struct response r;
        ck_assert(client_read(both[i], &r, false));
        ck_assert_int_eq(r.status, 200);
        ck_assert_str_eq(response_header(&r, "Connection"), "close");
        response_free(&r);
        client_close(both[i]);
    }
    client_close(&idle);
    ck_assert_int_eq(server_end(&s, 0), 0);
}
END_TEST

START_TEST(second_signal)
{
    struct server s =
        server_start((const char *const[]){"-t", "1", "--shutdown-grace", "100", NULL}, &(struct start){.env = SLOW_ENV});
    struct client c = chat_on(s.port, STORY "}");
    client_wait(&c, FIRST_TEXT);
    ck_assert_int_eq(kill(s.pid, SIGTERM), 0);
    nap(0.2);
    ck_assert_int_eq(server_end(&s, SIGTERM), 128 + SIGTERM);
    client_close(&c);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("server process");
    TCase *t = tcase_create("process");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, command_line);
    tcase_add_test(t, port_in_use);
    tcase_add_test(t, loading);
    tcase_add_test(t, ends_while_loading);
    tcase_add_test(t, api_key);
    tcase_add_test(t, listens_beyond);
    tcase_add_test(t, disconnect_cancels);
    tcase_add_test(t, first_come_first_served);
    tcase_add_test(t, slow_reader);
    tcase_add_test(t, slow_sender);
    tcase_add_test(t, queue_full);
    tcase_add_test(t, silent_streams);
    tcase_add_test(t, connection_limit);
    tcase_add_test(t, out_of_descriptors);
    tcase_add_test(t, sleeps_when_idle);
    tcase_add_test(t, quiet);
    tcase_add_test(t, term_cuts_streams);
    tcase_add_test(t, term_lets_streams_finish);
    tcase_add_test(t, term_reads_what_is_on_its_way);
    tcase_add_test(t, second_signal);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
