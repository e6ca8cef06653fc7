/* tokenizer/unicode: character properties, UTF-8 and Normalization Form C. */
#include "tests/tok_fixture.h"
#include "tokenizer/unicode.h"

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>


struct nfc_case {
    char source[80], wanted[80]; /* UTF-8 */
    size_t source_length, wanted_length;
    uint32_t single; /* the source, if it is one character */
};

static struct nfc_case *cases;
static size_t n_cases;

static size_t from_hex(const char *p, const char *end, char *out, uint32_t *single)
{
    size_t n = 0;
    int count = 0;
    while (p < end) {
        char *next;
        uint32_t code = (uint32_t)strtoul(p, &next, 16);
        n += (size_t)utf8_write(code, out + n);
        *single = ++count == 1 ? code : 0;
        p = next + 1;
    }
    return n;
}

static void read_cases(void)
{
    size_t size;
    char *text = fixture_read("tests/data/nfc-tests.txt", &size);
    cases = malloc(size / 8 * sizeof *cases);
    ck_assert_ptr_nonnull(cases);
    for (char *line = strtok(text, "\n"); line; line = strtok(NULL, "\n")) {
        if (*line != '#') {
            struct nfc_case *c = &cases[n_cases++];
            char *half = strchr(line, ';');
            uint32_t ignored;
            ck_assert_ptr_nonnull(half);
            c->source_length = from_hex(line, half, c->source, &c->single);
            c->wanted_length = from_hex(half + 1, half + strlen(half), c->wanted, &ignored);
        }
    }
    free(text);
}

static void free_cases(void)
{
    free(cases);
    n_cases = 0;
}

/* Millions of comparisons: without ck_assert, which writes to a file each time it holds. */
static void assert_nfc(const char *source, size_t length, const char *wanted, size_t wanted_length)
{
    struct unicode_text out;
    if (!unicode_nfc(source, length, &out)) {
        ck_abort_msg("out of memory");
    }
    if (out.length != wanted_length || memcmp(out.data, wanted, wanted_length) != 0) {
        ck_abort_msg(
            "the NFC of %.*s is %.*s, not %.*s", (int)length, source, (int)wanted_length, wanted, (int)out.length, out.data);
    }
    free(out.owned);
}

static void hold(bool statement, uint32_t code)
{
    if (!statement) {
        ck_abort_msg("not so for U+%04X", (unsigned)code);
    }
}

START_TEST(normalization_test)
{
    ck_assert_uint_gt(n_cases, 7000);
    for (size_t i = 0; i < n_cases; i++) {
        assert_nfc(cases[i].source, cases[i].source_length, cases[i].wanted, cases[i].wanted_length);
        assert_nfc(cases[i].wanted, cases[i].wanted_length, cases[i].wanted, cases[i].wanted_length);
    }
}
END_TEST

START_TEST(every_other_character_stays)
{
    static bool listed[0x110000];
    for (size_t i = 0; i < n_cases; i++) {
        listed[cases[i].single] = true;
    }
    for (uint32_t c = 0; c < 0x110000; c++) {
        if ((c < 0xD800 || c > 0xDFFF) && (!listed[c] || c == 0)) {
            char text[4];
            size_t length = (size_t)utf8_write(c, text);
            assert_nfc(text, length, text, length);
        }
    }
}
END_TEST

START_TEST(hangul)
{
    for (uint32_t s = 0; s < 11172; s++) {
        char wanted[4], parts[12];
        size_t n = (size_t)utf8_write(0xAC00 + s, wanted);
        size_t m = (size_t)utf8_write(0x1100 + s / 588, parts);
        m += (size_t)utf8_write(0x1161 + s / 28 % 21, parts + m);
        if (s % 28 != 0) {
            m += (size_t)utf8_write(0x11A7 + s % 28, parts + m);
        }
        assert_nfc(parts, m, wanted, n);
        m = (size_t)utf8_write(0xAC00 + s / 28 * 28, parts);
        if (s % 28 != 0) {
            m += (size_t)utf8_write(0x11A7 + s % 28, parts + m);
        }
        assert_nfc(parts, m, wanted, n);
    }
    assert_nfc("\xEA\xB0\x81\xE1\x86\xA8", 6, "\xEA\xB0\x81\xE1\x86\xA8", 6); /* an LVT syllable takes no second T */
    assert_nfc("\xEA\xB0\x80\xE1\x86\xA7", 6, "\xEA\xB0\x80\xE1\x86\xA7", 6); /* U+11A7 is no trailing consonant */
    assert_nfc("\xE1\x84\x80\xCC\x81\xE1\x85\xA1", 8, "\xE1\x84\x80\xCC\x81\xE1\x85\xA1", 8); /* a mark between L and V blocks */
}
END_TEST

/* Canonical equivalence is kept when equivalent texts are joined, so the sources of any cases
 * and their NFCs, each joined, have one NFC. */
START_TEST(joined_texts)
{
    struct random r = {1};
    for (int round = 0; round < 20000; round++) {
        char a[2000], b[2000];
        size_t n = 0, m = 0;
        for (uint32_t k = 2 + random_below(&r, 8); k > 0; k--) {
            const struct nfc_case *c = &cases[random_below(&r, (uint32_t)n_cases)];
            memcpy(a + n, c->source, c->source_length);
            memcpy(b + m, c->wanted, c->wanted_length);
            n += c->source_length;
            m += c->wanted_length;
        }
        struct unicode_text one, two;
        ck_assert(unicode_nfc(a, n, &one) && unicode_nfc(b, m, &two));
        ck_assert(one.length == two.length && memcmp(one.data, two.data, one.length) == 0);
        assert_nfc(one.data, one.length, one.data, one.length);
        free(one.owned);
        free(two.owned);
    }
}
END_TEST

START_TEST(ill_formed_parts_stay)
{
    assert_nfc("\xFF", 1, "\xFF", 1);
    assert_nfc("e\xCC\x81\xFF", 4, "\xC3\xA9\xFF", 3);
    assert_nfc("e\xFF\xCC\x81", 4, "e\xFF\xCC\x81", 4); /* nothing composes over it */
    assert_nfc("\xFF\xCC\x81\xCC\xA3", 5, "\xFF\xCC\xA3\xCC\x81", 5);
    assert_nfc("\xE1\x84\xE1\x85\xA1", 5, "\xE1\x84\xE1\x85\xA1", 5);
    assert_nfc("\xED\xA0\x80\xCD\x84", 5, "\xED\xA0\x80\xCC\x88\xCC\x81", 7);
    assert_nfc("", 0, "", 0);
}
END_TEST

START_TEST(long_runs_of_marks)
{
    /* U+0301 (class 230) and U+0323 (class 220) by turns behind an e: e and one U+0323 compose,
     * then come the other U+0323, then all U+0301. */
    const size_t n = 1 << 18;
    char *text = malloc(4 * n + 1), *wanted = malloc(4 * n + 1);
    ck_assert(text && wanted);
    text[0] = 'e';
    for (size_t i = 0; i < n; i++) {
        memcpy(text + 1 + 4 * i, "\xCC\x81\xCC\xA3", 4);
    }
    memcpy(wanted, "\xE1\xBA\xB9", 3);
    for (size_t i = 0; i < 2 * n - 1; i++) {
        memcpy(wanted + 3 + 2 * i, i < n - 1 ? "\xCC\xA3" : "\xCC\x81", 2);
    }
    assert_nfc(text, 4 * n + 1, wanted, 4 * n + 1);
    free(text);
    free(wanted);
}
END_TEST

START_TEST(marks_of_many_classes_keep_their_order)
{
    /* Short and long runs are sorted in different ways. */
    static const char *const marks[] = {
        "\xCC\x81", "\xCC\xA3", "\xCC\xB4", "\xCC\x95", "\xCD\x85", "\xCC\x80", "\xD6\xB0", "\xCC\xA4"};
    struct random r = {2};
    for (int round = 0; round < 3000; round++) {
        char text[400] = "Q", wanted[400] = "Q";
        int picked[150], n = (int)random_below(&r, 150);
        for (int i = 0; i < n; i++) {
            picked[i] = (int)random_below(&r, 8);
            strcat(text, marks[picked[i]]);
        }
        for (int class = 1; class < 256; class++) {
            for (int i = 0; i < n; i++) {
                uint32_t code;
                const unsigned char *m = (const unsigned char *)marks[picked[i]];
                utf8_decode(m, m + 2, &code);
                if (unicode_lookup(code).combining_class == class) {
                    strcat(wanted, marks[picked[i]]);
                }
            }
        }
        assert_nfc(text, strlen(text), wanted, strlen(wanted));
    }
}
END_TEST

START_TEST(properties)
{
    static const struct {
        uint32_t code;
        unsigned flags; /* of LETTER, NUMBER, SPACE */
    } known[] = {
        {0x00, 0}, {0x09, 4}, {0x0A, 4}, {0x0B, 4}, {0x0C, 4}, {0x0D, 4}, {0x0E, 0}, {0x1C, 0}, {0x1F, 0}, {0x20, 4}, {'0', 2},
        {'_', 0}, {'a', 1}, {0x7F, 0}, {0x85, 4}, {0xA0, 4}, {0xAA, 1}, {0xAD, 0}, {0xB2, 2}, {0xB5, 1}, {0xBC, 2}, {0xD7, 0},
        {0x17F, 1}, {0x301, 0}, {0x660, 2}, {0x93F, 0}, {0x1680, 4}, {0x180E, 0}, {0x2000, 4}, {0x200A, 4}, {0x200B, 0},
        {0x2028, 4}, {0x2029, 4}, {0x202F, 4}, {0x205F, 4}, {0x2060, 0}, {0x2160, 2}, {0x2460, 2}, {0x3000, 4}, {0x3007, 2},
        {0x4E00, 1}, {0x9FFF, 1}, {0xAC00, 1}, {0xD7A3, 1}, {0xD7A4, 0}, {0xE000, 0}, {0xFEFF, 0},
        {0xFFFD, 0}, {0x1F600, 0}, {0x1D7CE, 2}, {0x20000, 1}, {0x2A6DF, 1}, {0x2A6E0, 0}, {0x10FFFF, 0}, {UTF8_INVALID, 0},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        unsigned flags = unicode_lookup(known[i].code).flags & (UNICODE_LETTER | UNICODE_NUMBER | UNICODE_SPACE);
        ck_assert_msg(flags == known[i].flags, "U+%04X: %u, not %u", (unsigned)known[i].code, flags, known[i].flags);
    }
    int spaces = 0, syllables = 0;
    for (uint32_t c = 0; c < 0x110000; c++) {
        struct unicode_record record = unicode_lookup(c);
        spaces += (record.flags & UNICODE_SPACE) != 0;
        syllables += c >= 0xAC00 && c <= 0xD7A3 && (record.flags & UNICODE_LETTER);
        hold(!(record.flags & UNICODE_LETTER) || !(record.flags & (UNICODE_NUMBER | UNICODE_SPACE)), c);
    }
    ck_assert_int_eq(spaces, 25); /* White_Space since Unicode 6.3 */
    ck_assert_int_eq(syllables, 11172);
    ck_assert_uint_eq(unicode_lookup(0x301).combining_class, 230);
    ck_assert_uint_eq(unicode_lookup(0x323).combining_class, 220);
    ck_assert_uint_eq(unicode_lookup(0x345).combining_class, 240);
    printf("Unicode %s\n", unicode_version);
}
END_TEST

START_TEST(utf8_round_trip)
{
    for (uint32_t c = 0; c < 0x110000; c++) {
        char text[4];
        uint32_t back;
        int n = utf8_write(c, text);
        const unsigned char *p = (const unsigned char *)text;
        int m = utf8_decode(p, p + n, &back);
        if (c >= 0xD800 && c <= 0xDFFF) {
            hold(back == UTF8_INVALID && m == 1, c);
            continue;
        }
        hold(back == c && m == n, c);
        for (int cut = 1; cut < n; cut++) { /* every beginning of a character is one ill-formed part, whole */
            hold(utf8_decode(p, p + cut, &back) == cut && back == UTF8_INVALID, c);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("unicode");
    TCase *tc = tcase_create("unicode");
    tcase_set_timeout(tc, 120);
    tcase_add_unchecked_fixture(tc, read_cases, free_cases);
    tcase_add_test(tc, normalization_test);
    tcase_add_test(tc, every_other_character_stays);
    tcase_add_test(tc, hangul);
    tcase_add_test(tc, joined_texts);
    tcase_add_test(tc, ill_formed_parts_stay);
    tcase_add_test(tc, long_runs_of_marks);
    tcase_add_test(tc, marks_of_many_classes_keep_their_order);
    tcase_add_test(tc, properties);
    tcase_add_test(tc, utf8_round_trip);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_VERBOSE);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
