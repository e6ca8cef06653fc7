#include "tests/api_fixture.h"

#include <check.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct json *api_post(int port, const char *path, const char *body)
{
    struct response r = ask(port, "POST", path, "", body);
    ck_assert_msg(r.status == 200, "%s -> %d %s", body, r.status, r.body);
    struct json *j = response_json(&r);
    response_free(&r);
    return j;
}

struct json *api_get(int port, const char *path)
{
    struct response r = ask(port, "GET", path, "", NULL);
    ck_assert_msg(r.status == 200, "%s -> %d %s", path, r.status, r.body);
    struct json *j = response_json(&r);
    response_free(&r);
    return j;
}

void api_refused(int port, const char *path, const char *body, const char *param)
{
    struct response r = ask(port, "POST", path, "", body);
    ck_assert_msg(r.status == 400, "%s -> %d %s", body, r.status, r.body);
    struct json *j = response_json(&r);
    ck_assert_str_eq(text_at(j, "error.type"), "invalid_request_error");
    ck_assert_msg(strcmp(text_at(j, "error.param"), param) == 0, "%s -> %s", body, r.body);
    ck_assert_msg(strstr(text_at(j, "error.message"), param) != NULL, "%s -> %s", body, r.body);
    ck_assert_int_gt((int)strlen(text_at(j, "error.code")), 3);
    json_free(j);
    response_free(&r);
}

const struct json_value *value_at(const struct json *j, const char *format, ...)
{
    char path[256];
    va_list args;
    va_start(args, format);
    vsnprintf(path, sizeof path, format, args);
    va_end(args);
    return json_at(json_root(j), path);
}

const char *text_at(const struct json *j, const char *path)
{
    const struct json_value *v = json_at(json_root(j), path);
    ck_assert_msg(v && v->kind == JSON_STRING, "no string at %s", path);
    return v->text;
}

int64_t int_at(const struct json *j, const char *path)
{
    int64_t n = -1;
    ck_assert_msg(json_get_int(json_at(json_root(j), path), &n), "no integer at %s", path);
    return n;
}

double number_at(const struct json *j, const char *path)
{
    double d = 0;
    ck_assert_msg(json_get_double(json_at(json_root(j), path), &d), "no number at %s", path);
    return d;
}

struct event_list api_stream(int port, const char *path, const char *body)
{
    struct event_list l = {0};
    struct response r = ask(port, "POST", path, "", body);
    ck_assert_msg(r.status == 200 && r.whole, "%s -> %d %s", body, r.status, r.body);
    ck_assert(strncmp(response_header(&r, "Content-Type"), "text/event-stream", 17) == 0);
    bool done = false;
    for (char *at = r.body, *end; *at; at = end + 2) {
        ck_assert_msg(!done && strncmp(at, "data: ", 6) == 0 && (end = strstr(at, "\n\n")) != NULL, "event: %s", at);
        at += 6;
        done = (size_t)(end - at) == 6 && memcmp(at, "[DONE]", 6) == 0;
        if (done)
            continue;
        ck_assert_int_lt(l.n, MAX_EVENTS);
        l.events[l.n] = json_parse(at, (size_t)(end - at), NULL, NULL);
        ck_assert_msg(l.events[l.n] != NULL, "no JSON: %s", at);
        l.n++;
    }
    ck_assert(done);
    response_free(&r);
    return l;
}

static struct event_list named_events(const struct response *r)
{
    struct event_list l = {0};
    ck_assert_msg(r->status == 200 && r->whole, "%d %s", r->status, r->body);
    ck_assert(strncmp(response_header(r, "Content-Type"), "text/event-stream", 17) == 0);
    for (char *at = r->body, *data, *end; *at; at = end + 2) {
        ck_assert_msg(
            strncmp(at, "event: ", 7) == 0 && (data = strstr(at, "\ndata: ")) != NULL && (end = strstr(data, "\n\n")) != NULL,
            "event: %s", at);
        at += 7;
        ck_assert_int_lt(l.n, MAX_EVENTS);
        l.events[l.n] = json_parse(data + 7, (size_t)(end - data - 7), NULL, NULL);
        ck_assert_msg(l.events[l.n] != NULL, "no JSON: %s", data);
        const char *type = text_at(l.events[l.n], "type");
        ck_assert_msg(strlen(type) == (size_t)(data - at) && strncmp(type, at, strlen(type)) == 0, "event: %s", at);
        l.n++;
    }
    return l;
}

struct event_list api_named_stream(int port, const char *path, const char *body)
{
    struct response r = ask(port, "POST", path, "", body);
    struct event_list l = named_events(&r);
    response_free(&r);
    return l;
}

struct event_list api_cut_stream(const char *path, const char *body, const char *text)
{
    struct server s = server_start((const char *const[]){"-t", "1", "--shutdown-grace", "0", NULL},
        &(struct start){.env = (const char *const[]){"QUERN_CPU=scalar", NULL}});
    struct client c = client_open(s.port);
    char head[256];
    snprintf(head, sizeof head,
        "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n", path,
        strlen(body));
    client_text(&c, head);
    client_text(&c, body);
    client_wait(&c, text);
    ck_assert_int_eq(kill(s.pid, SIGTERM), 0);
    struct response r;
    ck_assert(client_read(&c, &r, false));
    struct event_list l = named_events(&r);
    response_free(&r);
    ck_assert(client_at_end(&c));
    client_close(&c);
    ck_assert_int_eq(server_end(&s, 0), 0);
    return l;
}

void event_list_free(struct event_list *l)
{
    for (int i = 0; i < l->n; i++)
        json_free(l->events[i]);
}
