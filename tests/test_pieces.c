/* tokenizer/pretokenize and tokenizer/bpe: each against a slow one that does what its definition says. */
#include "tests/tok_fixture.h"
#include "tokenizer/bpe.h"
#include "tokenizer/pretokenize.h"
#include "tokenizer/unicode.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

/* ---- the pattern, by backtracking over classes of characters ---- */

enum { MAX_CHARACTERS = 64 };

struct matcher {
    uint32_t code[MAX_CHARACTERS];
    int n;
};

static bool has(const struct matcher *m, int i, unsigned flag)
{
    return i < m->n && (unicode_lookup(m->code[i]).flags & flag) != 0;
}

static bool newline(const struct matcher *m, int i)
{
    return i < m->n && (m->code[i] == '\r' || m->code[i] == '\n');
}

static bool letter(const struct matcher *m, int i)
{
    return has(m, i, UNICODE_LETTER);
}

static bool space(const struct matcher *m, int i)
{
    return has(m, i, UNICODE_SPACE);
}

static bool other(const struct matcher *m, int i)
{
    return i < m->n && !has(m, i, UNICODE_LETTER | UNICODE_NUMBER | UNICODE_SPACE);
}

static uint32_t fold(const struct matcher *m, int i)
{
    uint32_t c = i < m->n ? m->code[i] : 0;
    return c >= 'A' && c <= 'Z' ? c + 32 : c == 0x17F ? 's' : c == 0x212A ? 'k' : c;
}

/* The end of the match at i. */
static int match(const struct matcher *m, int i)
{
    static const char *const contractions[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (int k = 0; k < 7; k++) {
        int length = 0;
        while (contractions[k][length] && fold(m, i + length) == (unsigned char)contractions[k][length]) {
            length++;
        }
        if (!contractions[k][length]) {
            return i + length;
        }
    }
    for (int optional = 1; optional >= 0; optional--) { /* [^\r\n\p{L}\p{N}]?\p{L}+ */
        if (optional && (i >= m->n || newline(m, i) || has(m, i, UNICODE_LETTER | UNICODE_NUMBER))) {
            continue;
        }
        int j = i + optional;
        while (letter(m, j)) {
            j++;
        }
        if (j > i + optional) {
            return j;
        }
    }
    if (has(m, i, UNICODE_NUMBER)) {
        return i + 1;
    }
    for (int optional = 1; optional >= 0; optional--) { /*  ?[^\s\p{L}\p{N}]+[\r\n]* */
        if (optional && m->code[i] != ' ') {
            continue;
        }
        int j = i + optional;
        while (other(m, j)) {
            j++;
        }
        if (j > i + optional) {
            while (newline(m, j)) {
                j++;
            }
            return j;
        }
    }
    int run = i;
    while (space(m, run)) {
        run++;
    }
    for (int j = run; j >= i; j--) { /* \s*[\r\n]+ */
        if (newline(m, j)) {
            while (newline(m, j)) {
                j++;
            }
            return j;
        }
    }
    for (int j = run; j > i; j--) { /* \s+(?!\S) */
        if (j == m->n || space(m, j)) {
            return j;
        }
    }
    return run;
}

START_TEST(pattern)
{
    static const char *const parts[] = {"a", "s", "t", "r", "e", "v", "l", "L", "M", "d", "S", "E", "'", "'", "'", " ", " ", " ",
        "\n", "\r", "\t", "1", ".", "\xC5\xBF", "\xC2\xA0", "\xE2\x80\xA8", "\xC2\x85", "\xE4\xB8\xAD", "\xCC\x81", "\xC2\xB2",
        "\xF0\x9F\x98\x80", "\xE2\x80\x8B", "\xD9\xA0", "\xFF", "\xE4\xB8", "\x80", "\xC4\xB1", "z"};
    struct random r = {3};
    for (int round = 0; round < 400000; round++) {
        char text[MAX_CHARACTERS * 4] = "";
        uint32_t wanted_parts = 1 + random_below(&r, 12);
        for (uint32_t k = 0; k < wanted_parts; k++) {
            strcat(text, parts[random_below(&r, sizeof parts / sizeof *parts)]);
        }
        struct matcher m = {{0}, 0};
        const unsigned char *p = (const unsigned char *)text, *end = p + strlen(text);
        const unsigned char *at[MAX_CHARACTERS + 1];
        for (const unsigned char *q = p; q < end; m.n++) {
            at[m.n] = q;
            q += utf8_decode(q, end, &m.code[m.n]);
        }
        at[m.n] = end;
        for (int i = 0; i < m.n;) {
            i = match(&m, i);
            p = pretokenize_next(p, end);
            if (p != at[i]) { /* millions of times: without ck_assert, which writes to a file each time it holds */
                ck_abort_msg("\"%s\": a piece ends at byte %d, not %d", text, (int)(p - (const unsigned char *)text),
                             (int)(at[i] - (const unsigned char *)text));
            }
        }
    }
}
END_TEST

START_TEST(pieces)
{
    static const struct {
        const char *text, *pieces; /* pieces with | between */
    } known[] = {
        {"I'm you'll", "I|'m| you|'ll"},
        {"'sand", "'s|and"},
        {"'\xC5\xBFx", "'\xC5\xBF|x"},
        {"'k", "'k"},
        {"DON'T", "DON|'T"},
        {"''s", "''|s"}, /* the run of others begins before the contraction does */
        {"a  b", "a| | b"},
        {"a   ", "a|   "},
        {"a \n b", "a| \n| b"},
        {" \n \n  x", " \n \n| | x"},
        {"\t\tx", "\t|\tx"},
        {"x\r\n\r\ny", "x|\r\n\r\n|y"},
        {"...\n\nx", "...\n\n|x"},
        {" ...\n", " ...\n"},
        {"12 3", "1|2| |3"},
        {"  1", " | |1"},
        {"\n x", "\n| x"},
        {"!x", "!x"},
        {"!!x", "!!|x"},
    };
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        char joined[64] = "";
        const unsigned char *p = (const unsigned char *)known[i].text, *end = p + strlen(known[i].text);
        while (p < end) {
            const unsigned char *next = pretokenize_next(p, end);
            strcat(joined, *joined ? "|" : "");
            strncat(joined, (const char *)p, (size_t)(next - p));
            p = next;
        }
        ck_assert_str_eq(joined, known[i].pieces);
    }
}
END_TEST

/* ---- merging, by looking at all pairs for each merge ---- */

enum { N_SYMBOLS = 40, LONGEST = 400 };

static uint32_t rank_of[N_SYMBOLS][N_SYMBOLS];
static int32_t joined_of[N_SYMBOLS][N_SYMBOLS];

static size_t merge_slowly(int32_t *ids, size_t n)
{
    for (;;) {
        size_t best = n;
        for (size_t i = 0; i + 1 < n; i++) {
            uint32_t rank = rank_of[ids[i]][ids[i + 1]];
            if (rank != UINT32_MAX && (best == n || rank < rank_of[ids[best]][ids[best + 1]])) {
                best = i;
            }
        }
        if (best == n) {
            return n;
        }
        ids[best] = joined_of[ids[best]][ids[best + 1]];
        memmove(ids + best + 1, ids + best + 2, (n - best - 2) * sizeof *ids);
        n--;
    }
}

START_TEST(merging)
{
    struct random r = {4};
    for (int table = 0; table < 60; table++) {
        struct bpe b;
        uint32_t n_merges = 1 + random_below(&r, 600);
        ck_assert(bpe_init(&b, n_merges));
        memset(rank_of, 0xFF, sizeof rank_of);
        for (uint32_t rank = 0; rank < n_merges; rank++) {
            uint32_t left = random_below(&r, N_SYMBOLS), right = random_below(&r, N_SYMBOLS);
            /* Also back to symbols that merge early: ranks need not grow with ids. */
            int32_t id = (int32_t)random_below(&r, N_SYMBOLS);
            bpe_add(&b, (int32_t)left, (int32_t)right, rank, id);
            if (rank_of[left][right] == UINT32_MAX) {
                rank_of[left][right] = rank;
                joined_of[left][right] = id;
            }
        }
        for (int round = 0; round < 150; round++) {
            int32_t fast[LONGEST], slow[LONGEST];
            size_t n = 1 + random_below(&r, round % 2 ? LONGEST : 70), m = n;
            uint32_t symbols = round % 3 ? N_SYMBOLS : 2;
            for (size_t i = 0; i < n; i++) {
                fast[i] = slow[i] = (int32_t)random_below(&r, symbols);
            }
            ck_assert(bpe_merge(&b, fast, &n));
            m = merge_slowly(slow, m);
            ck_assert_uint_eq(n, m);
            ck_assert_mem_eq(fast, slow, n * sizeof *fast);
        }
        bpe_free(&b);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pieces");
    TCase *tc = tcase_create("pieces");
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, pattern);
    tcase_add_test(tc, pieces);
    tcase_add_test(tc, merging);
    suite_add_tcase(s, tc);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_VERBOSE);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
