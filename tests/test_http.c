/* server/http/http: requests are understood alike however their bytes are cut,
 * and what could be understood in two ways is refused. */
#include "server/http/http.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct http_limits small = {.max_line = 200, .max_head = 600, .max_headers = 8, .max_body = 100};

/* What came of an input, as a text that two runs can be compared by. */
static void describe(const struct http_parser *p, size_t taken, char *out, size_t size)
{
    int n = snprintf(out, size, "state %d status %d taken %zu ", p->state, p->status, taken);
    if (p->state == HTTP_COMPLETE || p->state == HTTP_BODY)
        n += snprintf(out + n, size - (size_t)n, "%s|%s|%s|%s|1.%d|keep %d|expect %d|", p->method, p->path, p->query,
                      p->host ? p->host : "-", p->minor, p->keep_alive, p->expects_continue);
    if (p->state == HTTP_COMPLETE)
        snprintf(out + n, size - (size_t)n, "%zu:%s", p->body_length, p->body);
}

/* Feeds the input cut into pieces at the given places. Each piece is copied into memory of exactly its size,
 * so that a sanitizer sees every step beyond it. */
static void run(const char *in, size_t length, size_t cut, size_t step, char *out, size_t size)
{
    struct http_parser p;
    http_init(&p, &small);
    size_t at = 0, taken = 0;
    while (at < length) {
        size_t n = step ? step : at == 0 && cut ? cut : length - at;
        if (n > length - at)
            n = length - at;
        char *piece = malloc(n);
        memcpy(piece, in + at, n);
        size_t used = http_feed(&p, piece, n);
        free(piece);
        taken += used;
        at += n;
        if (used < n) {
            ck_assert(p.state == HTTP_COMPLETE || p.state == HTTP_FAILED);
            break;
        }
    }
    describe(&p, taken, out, size);
    http_free(&p);
}

#define H "Host: a\r\n"

static const struct {
    const char *in, *out;
} good[] = {
    {"GET / HTTP/1.1\r\n" H "\r\n", "GET|/||a|1.1|keep 1|expect 0|0:"},
    {"GET /a/b?c=d?e HTTP/1.1\r\n" H "\r\nGET", "GET|/a/b|c=d?e|a|1.1|keep 1|expect 0|0:"},
    {"\r\n\r\nGET / HTTP/1.1\r\n" H "\r\n", "GET|/||a|1.1|keep 1|expect 0|0:"},
    {"GET / HTTP/1.0\r\n\r\n", "GET|/||-|1.0|keep 0|expect 0|0:"},
    {"GET / HTTP/1.0\r\nConnection: foo , Keep-Alive\r\n\r\n", "GET|/||-|1.0|keep 1|expect 0|0:"},
    {"GET / HTTP/1.1\r\n" H "CONNECTION: x, close\r\n\r\n", "GET|/||a|1.1|keep 0|expect 0|0:"},
    {"GET / HTTP/1.1\r\n" H "Connection: keep-alive\r\nConnection: close\r\n\r\n", "GET|/||a|1.1|keep 0|expect 0|0:"},
    {"GET / HTTP/1.1\r\n" H "Connection: closed\r\n\r\n", "GET|/||a|1.1|keep 1|expect 0|0:"},
    {"GET / HTTP/1.9\r\n" H "\r\n", "GET|/||a|1.9|keep 1|expect 0|0:"},
    {"OPTIONS * HTTP/1.1\r\n" H "\r\n", "OPTIONS|*||a|1.1|keep 1|expect 0|0:"},
    {"GET http://b:80/x?y HTTP/1.1\r\n" H "\r\n", "GET|/x|y|b:80|1.1|keep 1|expect 0|0:"},
    {"GET HTTP://b HTTP/1.1\r\n" H "\r\n", "GET|/||b|1.1|keep 1|expect 0|0:"},
    {"GET http://b?y HTTP/1.1\r\n" H "\r\n", "GET|/|y|b|1.1|keep 1|expect 0|0:"},
    {"GET / HTTP/1.1\r\nHost:\t  a \t\r\n\r\n", "GET|/||a|1.1|keep 1|expect 0|0:"},
    {"GET / HTTP/1.1\r\nHost:\r\nX:\r\n\r\n", "GET|/|||1.1|keep 1|expect 0|0:"},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 5\r\n\r\nhelloGET /", "POST|/||a|1.1|keep 1|expect 0|5:hello"},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0005\r\n\r\nhello", "POST|/||a|1.1|keep 1|expect 0|5:hello"},
    {"POST / HTTP/1.1\r\n" H "Content-Length: 0\r\n\r\nx", "POST|/||a|1.1|keep 1|expect 0|0:"},
    {"POST / HTTP/1.1\r\n" H "Expect: 100-Continue\r\nContent-Length: 2\r\n\r\nok", "POST|/||a|1.1|keep 1|expect 1|2:ok"},
    {"POST / HTTP/1.1\r\n" H "Expect: 100-continue\r\n\r\n", "POST|/||a|1.1|keep 1|expect 0|0:"},
    {"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok", "POST|/||-|1.0|keep 0|expect 0|2:ok"},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\n\r\nrest",
     "POST|/||a|1.1|keep 1|expect 0|11:hello world"},
    {"POST / HTTP/1.1\r\n" H "transfer-encoding: Chunked\r\n\r\n00a ; x=\"y\"\r\n0123456789\r\n0\r\nX-T: v\r\nY:\r\n\r\n",
     "POST|/||a|1.1|keep 1|expect 0|10:0123456789"},
    {"POST / HTTP/1.1\r\n" H "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "POST|/||a|1.1|keep 1|expect 0|0:"},
};

START_TEST(understands)
{
    char first[1024], other[1024];
    const char *in = good[_i].in;
    size_t length = strlen(in);
    run(in, length, 0, 0, first, sizeof first);
    ck_assert_msg(strncmp(first, "state 3 ", 8) == 0 && strstr(first, good[_i].out) != NULL &&
                      strlen(strstr(first, good[_i].out)) == strlen(good[_i].out), "%s -> %s", in, first);
    for (size_t cut = 1; cut < length; cut++) {
        run(in, length, cut, 0, other, sizeof other);
        ck_assert_msg(strcmp(first, other) == 0, "cut after %zu: %s", cut, other);
    }
    for (size_t step = 1; step < 4; step++) {
        run(in, length, 0, step, other, sizeof other);
        ck_assert_msg(strcmp(first, other) == 0, "in steps of %zu: %s", step, other);
    }
}
END_TEST

#define P "POST / HTTP/1.1\r\n" H
#define C P "Transfer-Encoding: chunked\r\n\r\n"
#define TEN "0123456789"
#define HUNDRED TEN TEN TEN TEN TEN TEN TEN TEN TEN TEN

static const struct {
    const char *in;
    size_t length; /* 0: a NUL-terminated text */
    int status;
} bad[] = {
    {"GET / HTTP/1.1\n" H "\r\n", 0, 400},
    {"GET / HTTP/1.1\r\nHost: a\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H "\n", 0, 400},
    {"GET / HTTP/1.1\rX\n" H "\r\n", 0, 400},
    {"GET / HTTP/1.1\r\r\n" H "\r\n", 0, 400},
    {"\n", 0, 400},
    {"\r\n\r\n\r\n\r\n\r\n\r\n\r\n\r\n", 0, 400},
    {"GET  / HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"GET /  HTTP/1.1\r\n" H "\r\n", 0, 400},
    {" GET / HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"GET / HTTP/1.1 \r\n" H "\r\n", 0, 400},
    {"GET /\r\n\r\n", 0, 400},
    {"GET / http/1.1\r\n" H "\r\n", 0, 400},
    {"GET / HTTP/1.10\r\n" H "\r\n", 0, 400},
    {"GET / HTTP/1\r\n" H "\r\n", 0, 400},
    {"G\x01T / HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"GET /\x7F HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"GET /\xC3\xA4 HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"GET x HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"GET * HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"GET http:/// HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"GET http://u@a/ HTTP/1.1\r\n" H "\r\n", 0, 400},
    {"CONNECT a:1 HTTP/1.1\r\n" H "\r\n", 0, 501},
    {"\x16\x03\x01\x02\x00\x01\x00\x01\xFC\x03\x03\r\n", 13, 400},
    {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 0, 505},
    {"GET / HTTP/3.0\r\n" H "\r\n", 0, 505},
    {"GET / HTTP/0.9\r\n" H "\r\n", 0, 505},
    {"GET / HTTP/1.1\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H H "\r\n", 0, 400},
    {"GET / HTTP/1.0\r\n" H H "\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H " folded\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H "\tfolded\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H "X : y\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H ": y\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H "X\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H "X(y): z\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H "\xC3\xA4: z\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H "X: \x01\r\n\r\n", 0, 400},
    {"GET / HTTP/1.1\r\n" H "X: a\0b\r\n\r\n", 35, 400},
    {"GET /\0 HTTP/1.1\r\n" H "\r\n", 28, 400},
    {P "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 0, 400},
    {P "Content-Length: 1\r\nContent-Length: 2\r\n\r\nxx", 0, 400},
    {P "Content-Length: 1, 1\r\n\r\nx", 0, 400},
    {P "Content-Length: +1\r\n\r\nx", 0, 400},
    {P "Content-Length: -1\r\n\r\nx", 0, 400},
    {P "Content-Length: 0x1\r\n\r\nx", 0, 400},
    {P "Content-Length: 1 1\r\n\r\nx", 0, 400},
    {P "Content-Length:\r\n\r\nx", 0, 400},
    {P "Content-Length: 101\r\n\r\n", 0, 413},
    {P "Content-Length: 18446744073709551617\r\n\r\nx", 0, 413},
    {P "Content-Length: 99999999999999999999999999999999\r\n\r\n", 0, 413},
    {P "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 400},
    {P "Transfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n", 0, 400},
    {P "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 0, 400},
    {P "Transfer-Encoding: identity\r\n\r\n", 0, 501},
    {P "Transfer-Encoding: gzip, chunked\r\n\r\n", 0, 501},
    {P "Transfer-Encoding: \x0B" "chunked\r\n\r\n", 0, 400},
    {P "Transfer-Encoding: xchunked\r\n\r\n", 0, 501},
    {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 0, 400},
    {P "Expect: 200-ok\r\n\r\n", 0, 417},
    {C "\r\n", 0, 400},
    {C "g\r\n", 0, 400},
    {C "-1\r\n", 0, 400},
    {C "0x1\r\n", 0, 400},
    {C " 1\r\nx\r\n", 0, 400},
    {C ";a\r\n", 0, 400},
    {C "1\nx\r\n0\r\n\r\n", 0, 400},
    {C "1\rx", 0, 400},
    {C "1\r\nxy\r\n", 0, 400},
    {C "1\r\nx\n0\r\n\r\n", 0, 400},
    {C "1\r\nx\rz", 0, 400},
    {C "1;a\nb\r\nx\r\n0\r\n\r\n", 0, 400},
    {C "00000000000000001\r\nx\r\n", 0, 400},
    {C "65\r\n", 0, 413},
    {C "ffffffffffffffff\r\n", 0, 413},
    {C "10000000000000001\r\n", 0, 413},
    {C "64\r\n" HUNDRED "\r\n1\r\n", 0, 413},
    {C "0\r\nX y: z\r\n\r\n", 0, 400},
    {C "0\r\n folded\r\n\r\n", 0, 400},
    {C "0\r\nX: \x01\r\n\r\n", 0, 400},
    {C "0\r\nX: y\rz", 0, 400},
    {C "0\r\n\rx", 0, 400},
    {"GET /" HUNDRED HUNDRED " HTTP/1.1\r\n" H "\r\n", 0, 414},
    {HUNDRED HUNDRED HUNDRED, 0, 414},
    {P "X: " HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED HUNDRED "\r\n\r\n", 0, 431},
    {P "A:\r\nB:\r\nC:\r\nD:\r\nE:\r\nF:\r\nG:\r\nH:\r\n\r\n", 0, 431},
};

START_TEST(refuses)
{
    char first[1024], other[1024], want[32];
    const char *in = bad[_i].in;
    size_t length = bad[_i].length ? bad[_i].length : strlen(in);
    snprintf(want, sizeof want, "state 4 status %d ", bad[_i].status);
    run(in, length, 0, 0, first, sizeof first);
    ck_assert_msg(strncmp(first, want, strlen(want)) == 0, "%s -> %s", in, first);
    for (size_t cut = 1; cut < length; cut++) {
        run(in, length, cut, 0, other, sizeof other);
        ck_assert_msg(strcmp(first, other) == 0, "cut after %zu: %s", cut, other);
    }
    run(in, length, 0, 1, other, sizeof other);
    ck_assert_str_eq(first, other);
    ck_assert_str_ne(http_phrase(bad[_i].status), "Unknown");
}
END_TEST

/* Extensions and trailers are dropped, so without a bound they could go on for ever. */
START_TEST(bounds_extras)
{
    static const char *const heads[] = {C "1;", C "0\r\nX: "};
    for (size_t i = 0; i < 2; i++) {
        struct http_parser p;
        http_init(&p, &http_default_limits);
        http_feed(&p, heads[i], strlen(heads[i]));
        int fed = 0;
        while (p.state == HTTP_BODY && fed < 1000000)
            fed += (int)http_feed(&p, "x", 1);
        ck_assert_int_eq(p.state, HTTP_FAILED);
        ck_assert_int_eq(p.status, 431);
        ck_assert_int_lt(fed, 20000);
        ck_assert_int_gt(fed, 10000);
        http_free(&p);
    }
}
END_TEST

/* One-byte chunks are wasteful but allowed. */
START_TEST(many_chunks)
{
    struct http_parser p;
    http_init(&p, &http_default_limits);
    http_feed(&p, C, strlen(C));
    for (int i = 0; i < 100000; i++)
        ck_assert_uint_eq(http_feed(&p, "1\r\nz\r\n", 6), 6);
    http_feed(&p, "0\r\n\r\n", 5);
    ck_assert_int_eq(p.state, HTTP_COMPLETE);
    ck_assert_uint_eq(p.body_length, 100000);
    http_free(&p);
}
END_TEST

START_TEST(one_after_another)
{
    static const char in[] = P "X-A: 1\r\nx-a: 2\r\nContent-Length: 3\r\n\r\nabc"
                               "\r\nGET /second HTTP/1.1\r\nHost: b\r\n\r\n" C "1\r\nz\r\n0\r\n\r\n";
    struct http_parser p;
    http_init(&p, &small);
    size_t at = http_feed(&p, in, sizeof in - 1);
    ck_assert_int_eq(p.state, HTTP_COMPLETE);
    ck_assert_str_eq(p.body, "abc");
    ck_assert_str_eq(http_get(&p, "X-a"), "1");
    ck_assert(http_get(&p, "X-B") == NULL);
    ck_assert_uint_eq(http_feed(&p, in + at, 1), 0); /* takes nothing more before http_next */
    http_next(&p);
    ck_assert_int_eq(p.state, HTTP_IDLE);
    at += http_feed(&p, in + at, sizeof in - 1 - at);
    ck_assert_int_eq(p.state, HTTP_COMPLETE);
    ck_assert_str_eq(p.path, "/second");
    ck_assert_str_eq(p.host, "b");
    ck_assert_str_eq(p.body, "");
    ck_assert(http_get(&p, "X-A") == NULL);
    http_next(&p);
    at += http_feed(&p, in + at, sizeof in - 1 - at);
    ck_assert_int_eq(p.state, HTTP_COMPLETE);
    ck_assert_str_eq(p.body, "z");
    ck_assert_uint_eq(at, sizeof in - 1);
    http_free(&p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("http");
    TCase *t = tcase_create("http");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, understands, 0, sizeof good / sizeof *good);
    tcase_add_loop_test(t, refuses, 0, sizeof bad / sizeof *bad);
    tcase_add_test(t, bounds_extras);
    tcase_add_test(t, many_chunks);
    tcase_add_test(t, one_after_another);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
