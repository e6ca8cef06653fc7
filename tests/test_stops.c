/* engine/stops: against a plain search in the whole text, for every way to cut the text into pieces. */
#include "engine/stops.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Where the text ends by the definition: at the first byte where some stop is complete,
 * before the longest that is (*which: the first of those). -1: nowhere. */
static long first_stop(const char *text, size_t length, const char *const *stops, int n, int *which)
{
    *which = -1;
    for (size_t end = 1; end <= length; end++) {
        long start = -1;
        for (int i = 0; i < n; i++) {
            size_t m = strlen(stops[i]);
            if (m <= end && !memcmp(text + end - m, stops[i], m) && (start < 0 || (long)(end - m) < start)) {
                start = (long)(end - m);
                *which = i;
            }
        }
        if (start >= 0)
            return start;
    }
    return -1;
}

/* The longest end of text that begins one of the stops: what may be held back, and no more. */
static size_t may_hold(const char *text, size_t length, const char *const *stops, int n)
{
    for (size_t hold = length; hold > 0; hold--)
        for (int i = 0; i < n; i++)
            if (strlen(stops[i]) > hold && !memcmp(text + length - hold, stops[i], hold))
                return hold;
    return 0;
}

static unsigned next_random(unsigned *state)
{
    *state = *state * 1664525 + 1013904223;
    return *state >> 16;
}

/* Feeds text in pieces whose lengths come from the seed (0: byte by byte; 1: at once) and checks everything said about it. */
static void run(const char *text, const char *const *strings, int n, unsigned seed)
{
    size_t length = strlen(text), shown = 0, fed = 0;
    int which, none;
    long stop = first_stop(text, length, strings, n, &which);
    char *out = malloc(length + 1);
    struct stops *s = stops_new(strings, n);
    ck_assert_ptr_nonnull(s);
    unsigned state = seed;
    while (fed < length) {
        size_t piece = seed == 0 ? 1 : seed == 1 ? length : next_random(&state) % 9;
        if (piece > length - fed)
            piece = length - fed;
        const char *ready;
        size_t n_ready;
        ck_assert(stops_feed(s, text + fed, piece, &ready, &n_ready));
        fed += piece;
        ck_assert_uint_le(shown + n_ready, length);
        memcpy(out + shown, ready, n_ready);
        shown += n_ready;
        if (!stops_met(s)) {
            ck_assert_msg(stop < 0 || first_stop(text, fed, strings, n, &none) < 0, "missed a stop string in \"%s\"", text);
            ck_assert_uint_eq(fed - shown, may_hold(text, fed, strings, n));
            ck_assert_int_eq(stops_which(s), -1);
        }
    }
    const char *rest;
    size_t n_rest;
    stops_end(s, &rest, &n_rest);
    memcpy(out + shown, rest, n_rest);
    shown += n_rest;
    ck_assert_int_eq(stops_met(s), stop >= 0);
    ck_assert_int_eq(stops_which(s), which);
    ck_assert_uint_eq(shown, stop >= 0 ? (size_t)stop : length);
    ck_assert_int_eq(memcmp(out, text, shown), 0);
    stops_free(s);
    free(out);
}

static void run_all_ways(const char *text, const char *const *strings, int n)
{
    for (unsigned seed = 0; seed < 12; seed++)
        run(text, strings, n, seed);
}

START_TEST(by_hand)
{
    run_all_ways("nothing to see", (const char *[]){"xyz"}, 1);
    run_all_ways("one two three", (const char *[]){"two"}, 1);
    run_all_ways("two", (const char *[]){"two"}, 1);
    run_all_ways("ends with tw", (const char *[]){"two"}, 1);
    run_all_ways("aaab", (const char *[]){"aab"}, 1);           /* falls back within the match */
    run_all_ways("abababac", (const char *[]){"ababac"}, 1);
    run_all_ways("xabcx", (const char *[]){"abcd", "bc"}, 2);   /* the shorter, completed first, inside the longer */
    run_all_ways("xabcdx", (const char *[]){"cd", "abcd"}, 2);  /* both end here: the longer */
    run_all_ways("\n\nUser: hi", (const char *[]){"\nUser:", "\n\n\n"}, 2);
    run_all_ways("gr\xc3\xbc\xc3\x9f""e, \xe4\xb8\xad\xe6\x96\x87!", (const char *[]){"\xe6\x96\x87"}, 1);
    run_all_ways("no stops at all", NULL, 0);
    run_all_ways("", (const char *[]){"x"}, 1);
    run_all_ways("same same", (const char *[]){"me s", "me s"}, 2);
}
END_TEST

START_TEST(at_random)
{
    /* Two letters and short patterns: overlaps of every kind. */
    unsigned state = 99;
    for (int round = 0; round < 20000; round++) {
        char text[40], patterns[4][8];
        const char *strings[4];
        size_t length = next_random(&state) % 39;
        for (size_t i = 0; i < length; i++)
            text[i] = (char)('a' + next_random(&state) % 2);
        text[length] = 0;
        int n = (int)(next_random(&state) % 5);
        for (int k = 0; k < n; k++) {
            size_t m = 1 + next_random(&state) % 7;
            for (size_t i = 0; i < m; i++)
                patterns[k][i] = (char)('a' + next_random(&state) % 2);
            patterns[k][m] = 0;
            strings[k] = patterns[k];
        }
        run(text, strings, n, (unsigned)round % 7);
    }
}
END_TEST

START_TEST(after_the_stop_nothing_comes)
{
    struct stops *s = stops_new((const char *[]){"end"}, 1);
    const char *ready;
    size_t n;
    ck_assert(stops_feed(s, "the end of it", 13, &ready, &n));
    ck_assert_uint_eq(n, 4);
    ck_assert(stops_feed(s, "more", 4, &ready, &n));
    ck_assert_uint_eq(n, 0);
    stops_end(s, &ready, &n);
    ck_assert_uint_eq(n, 0);
    stops_free(s);
    stops_free(NULL);
}
END_TEST

START_TEST(linear)
{
    /* 16 stops of 100,000 letters a and a b; a megabyte of a, in pieces of a token's size.
     * All is held back that may be; quadratic work would take hours. */
    enum { LONG = 100000, TEXT = 1 << 20, PIECE = 4 };
    char *stop = malloc(LONG + 2), piece[PIECE];
    memset(stop, 'a', LONG);
    strcpy(stop + LONG, "b");
    memset(piece, 'a', PIECE);
    const char *strings[16];
    for (int i = 0; i < 16; i++)
        strings[i] = stop;
    struct stops *s = stops_new(strings, 16);
    size_t shown = 0, n;
    const char *ready;
    for (int fed = 0; fed < TEXT; fed += PIECE) {
        ck_assert(stops_feed(s, piece, PIECE, &ready, &n));
        shown += n;
    }
    ck_assert_uint_eq(shown, TEXT - LONG);
    ck_assert(stops_feed(s, "b", 1, &ready, &n));
    ck_assert(stops_met(s));
    ck_assert_uint_eq(n, 0);
    stops_free(s);
    free(stop);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("stops");
    TCase *c = tcase_create("stops");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, by_hand);
    tcase_add_test(c, at_random);
    tcase_add_test(c, after_the_stop_nothing_comes);
    tcase_add_test(c, linear);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
