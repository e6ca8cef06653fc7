#include "tests/api_fixture.h"

#include <check.h>
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

void event_list_free(struct event_list *l)
{
    for (int i = 0; i < l->n; i++)
        json_free(l->events[i]);
}
