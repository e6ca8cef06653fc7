/* tok_stream: whole characters only, the same however the bytes arrive. */
#include "tests/tok_fixture.h"
#include "tokenizer/utf8.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

#define R "\xEF\xBF\xBD"

enum { LONGEST = 200 };

/* Feeds the parts of bytes[n] that begin at 0 and at each of cuts[n_cuts];
 * returns what comes out, and checks the promises of the header. */
static size_t feed(const char *bytes, size_t n, const size_t *cuts, size_t n_cuts, char *out)
{
    struct tok_stream s = {0};
    size_t length = 0, at = 0;
    for (size_t i = 0; i <= n_cuts; i++) {
        size_t to = i < n_cuts ? cuts[i] : n;
        char *room = malloc(3 * (to - at + 3)), *part = malloc(to - at + 1); /* exactly, for a sanitizer's sake */
        ck_assert(room && part);
        memcpy(part, bytes + at, to - at);
        size_t got = tok_stream_feed(&s, part, to - at, room);
        ck_assert_uint_le(got, 3 * (to - at + 3));
        for (const unsigned char *p = (unsigned char *)room, *end = p + got; p < end;) {
            uint32_t code;
            p += utf8_decode(p, end, &code);
            if (code == UTF8_INVALID) {
                ck_abort_msg("an incomplete character came out");
            }
        }
        memcpy(out + length, room, got);
        length += got;
        at = to;
        free(room);
        free(part);
    }
    return length + tok_stream_end(&s, out + length);
}

START_TEST(known)
{
    static const struct {
        const char *bytes, *text;
    } cases[] = {
        {"", ""},
        {"plain", "plain"},
        {"\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80", "\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80"},
        /* Unicode 15, section 3.9, tables 3-8 to 3-11 */
        {"\xC0\xAF\xE0\x80\xBF\xF0\x81\x82\x41", R R R R R R R R "\x41"},
        {"\xED\xA0\x80\xED\xBF\xBF\xED\xAF\x41", R R R R R R R R "\x41"},
        {"\xF4\x91\x92\x93\xFF\x41\x80\xBF\x42", R R R R R "\x41" R R "\x42"},
        {"\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41", R R R R "\x41"},
        {"\xC3", R},
        {"\xE2\x82", R},
        {"\xF0\x9F\x98", R},
        {"\xF0\x9F\x98\xE2\x82\xAC", R "\xE2\x82\xAC"},
        {"\xC1\xBF", R R},
        {"\xF5\x80\x80\x80", R R R R},
        {"\xF8\x88\x80\x80\x80", R R R R R},
        {"\xF4\x8F\xBF\xBF", "\xF4\x8F\xBF\xBF"},
        {"\xF4\x90\x80\x80", R R R R},
        {"\xED\x9F\xBF\xEE\x80\x80", "\xED\x9F\xBF\xEE\x80\x80"},
        {"\xE0\x9F\xBF", R R R},
        {"\xF0\x8F\xBF\xBF", R R R R},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *bytes = cases[i].bytes;
        size_t n = strlen(bytes), wanted = strlen(cases[i].text);
        for (size_t a = 0; a <= n; a++) { /* every split in three, the empty ones too */
            for (size_t b = a; b <= n; b++) {
                char out[LONGEST];
                size_t length = feed(bytes, n, (size_t[]){a, b}, 2, out);
                ck_assert_uint_eq(length, wanted);
                ck_assert(memcmp(out, cases[i].text, length) == 0);
            }
        }
    }
}
END_TEST

START_TEST(whole_characters_at_once)
{
    struct tok_stream s = {0};
    char out[16];
    ck_assert_uint_eq(tok_stream_feed(&s, "\xF0\x9F\x98", 3, out), 0);
    ck_assert_uint_eq(tok_stream_feed(&s, "\x80", 1, out), 4);
    ck_assert_uint_eq(tok_stream_end(&s, out), 0);
    ck_assert_uint_eq(tok_stream_feed(&s, "\xE2\x82", 2, out), 0);
    ck_assert_uint_eq(tok_stream_end(&s, out), 3);
    ck_assert_uint_eq(tok_stream_feed(&s, "a", 1, out), 1); /* usable again */
}
END_TEST

/* What the definition says, from utf8_decode, which reads whole texts. */
static size_t reference(const char *bytes, size_t n, char *out)
{
    size_t length = 0;
    for (const unsigned char *p = (const unsigned char *)bytes, *end = p + n; p < end;) {
        uint32_t code;
        p += utf8_decode(p, end, &code);
        length += (size_t)utf8_write(code == UTF8_INVALID ? 0xFFFD : code, out + length);
    }
    return length;
}

START_TEST(any_bytes_any_split)
{
    static const unsigned char likely[] = {
        0x41, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5, 0xC0};
    struct random r = {7};
    for (int round = 0; round < 100000; round++) {
        char bytes[LONGEST / 4], wanted[LONGEST], out[LONGEST];
        size_t n = random_below(&r, 30), cuts[8], n_cuts = random_below(&r, 8), at = 0;
        for (size_t i = 0; i < n; i++) {
            bytes[i] = (char)(random_below(&r, 4) ? likely[random_below(&r, sizeof likely)] : random_below(&r, 256));
        }
        for (size_t i = 0; i < n_cuts; i++) {
            at += random_below(&r, (uint32_t)(n - at) / 2 + 1);
            cuts[i] = at;
        }
        size_t length = feed(bytes, n, cuts, n_cuts, out);
        ck_assert_uint_eq(length, reference(bytes, n, wanted));
        ck_assert(memcmp(out, wanted, length) == 0);
    }
}
END_TEST

START_TEST(token_by_token)
{
    struct tokenizer *t = fixture_qwen();
    static const char text[] =
        "\xF0\x9F\x91\xA8\xE2\x80\x8D\xF0\x9F\x91\xA9 \xE9\xBE\xA9\xE8\x94\xB2 \xE0\xA4\xA8\xE0\xA4\xAE na\xC3\xAFve";
    struct tok_ids ids = {0};
    ck_assert(tok_encode(t, text, sizeof text - 1, false, &ids, NULL));
    struct tok_stream s = {0};
    char out[LONGEST];
    size_t length = 0;
    bool held = false;
    for (size_t i = 0; i < ids.count; i++) {
        struct gguf_string b = tok_bytes(t, ids.data[i]);
        length += tok_stream_feed(&s, b.data, b.length, out + length);
        held |= s.n_pending > 0;
    }
    ck_assert(held); /* some of these characters are cut by their tokens */
    ck_assert_uint_eq(tok_stream_end(&s, out + length), 0);
    ck_assert_uint_eq(length, sizeof text - 1);
    ck_assert_mem_eq(out, text, length);
    tok_ids_free(&ids);
    tok_free(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("detokenize");
    TCase *tc = tcase_create("detokenize");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, known);
    tcase_add_test(tc, whole_characters_at_once);
    tcase_add_test(tc, any_bytes_any_split);
    tcase_add_test(tc, token_by_token);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_VERBOSE);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
