/* Fuzz target: the HTTP parser. However the bytes are cut, the outcome must be the same.
 *   clang -fsanitize=fuzzer,address,undefined -D_GNU_SOURCE -I. -DFUZZ_LIBFUZZER tests/fuzz_http.c server/http/http.c
 * The build makes a program that replays files given as arguments. */
#include "server/http/http.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(int holds)
{
    if (!holds)
        abort();
}

static size_t feed(struct http_parser *p, const char *data, size_t size, size_t step)
{
    size_t at = 0;
    while (at < size && p->state != HTTP_COMPLETE && p->state != HTTP_FAILED) {
        size_t n = size - at < step ? size - at : step;
        char *piece = malloc(n);
        require(piece != NULL);
        memcpy(piece, data + at, n);
        at += http_feed(p, piece, n);
        free(piece);
    }
    return at;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct http_limits limits = {.max_line = 64, .max_head = 256, .max_headers = 8, .max_body = 64};
    static const size_t steps[] = {1, 3, 7};
    const char *text = (const char *)data;
    struct http_parser whole, cut;
    http_init(&whole, &limits);
    http_init(&cut, &limits);
    /* Several requests on one connection. */
    while (size > 0 && whole.state != HTTP_FAILED) {
        size_t taken = feed(&whole, text, size, size);
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            http_free(&cut);
            require(feed(&cut, text, size, steps[i]) == taken);
            require(cut.state == whole.state && cut.status == whole.status);
            if (whole.state == HTTP_COMPLETE) {
                require(strcmp(cut.method, whole.method) == 0 && strcmp(cut.path, whole.path) == 0);
                require(cut.body_length == whole.body_length && memcmp(cut.body, whole.body, whole.body_length) == 0);
                require(cut.keep_alive == whole.keep_alive && cut.n_headers == whole.n_headers);
            }
        }
        require(whole.body_length <= limits.max_body && whole.head_length <= limits.max_head);
        text += taken;
        size -= taken;
        if (whole.state == HTTP_COMPLETE)
            http_next(&whole);
    }
    http_free(&whole);
    http_free(&cut);
    return 0;
}

#ifndef FUZZ_LIBFUZZER
#include "tests/fuzz_replay.h"
#endif
