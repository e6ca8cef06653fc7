/* engine/grammar and engine/matcher: building, refusing, and running byte by byte. */
#include "engine/matcher.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

enum { NO, BEGINNING, YES };

static struct grammar *finish(struct grammar_builder *b, grammar_rule root)
{
    struct error err = {""};
    struct grammar *g = grammar_finish(b, root, &err);
    ck_assert_msg(g != NULL, "%s", err.text);
    grammar_builder_free(b);
    return g;
}

static void refused(struct grammar_builder *b, grammar_rule root, const char *why)
{
    struct error err = {""};
    ck_assert_ptr_null(grammar_finish(b, root, &err));
    ck_assert_msg(strstr(err.text, why) != NULL, "'%s' does not say '%s'", err.text, why);
    grammar_builder_free(b);
}

static int run(struct matcher *m, const char *text, size_t length)
{
    matcher_state s = matcher_start(m);
    for (size_t i = 0; i < length && s != MATCHER_DEAD; i++)
        s = matcher_step(m, s, (uint8_t)text[i]);
    return s == MATCHER_DEAD ? NO : matcher_may_end(m, s) ? YES : BEGINNING;
}

static void expect(const struct grammar *g, const char *text, int what)
{
    struct matcher *m = matcher_new(g, 16);
    ck_assert_msg(run(m, text, strlen(text)) == what, "%s: %d", text, run(m, text, strlen(text)));
    ck_assert_int_eq(run(m, text, strlen(text)), what); /* again, from what is remembered */
    matcher_free(m);
}

START_TEST(literals_share_their_beginnings)
{
    struct grammar_builder *b = grammar_builder_new(1000);
    struct grammar_text texts[] = {{"for", 3}, {"foreach", 7}, {"in", 2}, {"fortran", 7}, {"in", 2}};
    grammar_rule root = grammar_rule_new(b);
    grammar_rule_define(b, root, grammar_literals(b, texts, 5, GRAMMAR_RETURN));
    struct grammar *g = finish(b, root);
    expect(g, "for", YES);
    expect(g, "foreach", YES);
    expect(g, "fortran", YES);
    expect(g, "in", YES);
    expect(g, "fore", BEGINNING);
    expect(g, "", BEGINNING);
    expect(g, "fox", NO);
    expect(g, "inn", NO);
    struct matcher *m = matcher_new(g, 16);
    matcher_state s = matcher_start(m);
    uint32_t next[8] = {0};
    matcher_next_bytes(m, s, next);
    ck_assert_uint_eq(next['f' / 32], 1u << 'f' % 32 | 1u << 'i' % 32);
    matcher_free(m);
    grammar_free(g);
}
END_TEST

/* Nesting without bound: balanced brackets. */
START_TEST(rules_call_themselves)
{
    enum { DEEP = 100000 };
    struct grammar_builder *b = grammar_builder_new(1000);
    grammar_rule root = grammar_rule_new(b);
    grammar_node behind = grammar_reserve(b),
                 open = grammar_byte(b, '(', '(', grammar_call(b, root, grammar_byte(b, ')', ')', behind)));
    grammar_define_choice(b, behind, (grammar_node[]){GRAMMAR_RETURN, open}, 2);
    grammar_rule_define(b, root, behind);
    struct grammar *g = finish(b, root);
    expect(g, "", YES);
    expect(g, "(()())()", YES);
    expect(g, "(()", BEGINNING);
    expect(g, "())", NO);
    struct matcher *m = matcher_new(g, 16);
    char *text = malloc(2 * DEEP + 1);
    memset(text, '(', DEEP);
    memset(text + DEEP, ')', DEEP + 1);
    ck_assert_int_eq(run(m, text, 2 * DEEP), YES);
    ck_assert_int_eq(run(m, text, 2 * DEEP - 1), BEGINNING);
    ck_assert_int_eq(run(m, text, 2 * DEEP + 1), NO);
    free(text);
    matcher_free(m);
    grammar_free(g);
}
END_TEST

static struct grammar *counted(uint32_t min, uint32_t max)
{
    struct grammar_builder *b = grammar_builder_new(1000);
    grammar_rule root = grammar_rule_new(b);
    grammar_node again = grammar_repeat_begin(b, min, max, grammar_byte(b, '.', '.', GRAMMAR_RETURN));
    grammar_node body =
        grammar_choice(b, (grammar_node[]){grammar_byte(b, 'a', 'c', again), grammar_literal(b, "xy", 2, again)}, 2);
    grammar_rule_define(b, root, grammar_repeat_end(b, again, body));
    return finish(b, root);
}

START_TEST(repetitions_count)
{
    static const struct {
        uint32_t min, max;
    } cases[] = {{0, 0}, {0, 1}, {1, 1}, {2, 5}, {0, GRAMMAR_UNLIMITED}, {3, GRAMMAR_UNLIMITED}, {40, 60}, {100, 10000}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct grammar *g = counted(cases[i].min, cases[i].max);
        ck_assert_uint_lt(grammar_n_nodes(g), 10); /* whatever the counts */
        struct matcher *m = matcher_new(g, 16);
        static char text[20004];
        for (uint32_t n = 0; n < 10002; n += n < 70 ? 1 : n < 9900 ? 777 : 1) {
            size_t length = 0;
            for (uint32_t k = 0; k < n; k++) {
                text[length++] = k % 3 ? 'a' : 'x';
                if (k % 3 == 0)
                    text[length++] = 'y';
            }
            text[length] = '.';
            int got = run(m, text, length + 1);
            ck_assert_msg(got == (n >= cases[i].min && n <= cases[i].max ? YES : NO), "%u..%u: %u times: %d", cases[i].min,
                cases[i].max, n, got);
        }
        matcher_free(m);
        grammar_free(g);
    }
}
END_TEST

/* A local state goes as the full one does, for as many bytes as the horizon, and is the same one far from the limits. */
START_TEST(local_states_stand_for_many)
{
    struct grammar *g = counted(100, 10000);
    struct matcher *m = matcher_new(g, 16);
    matcher_state s = matcher_start(m), local_at[300];
    for (int i = 0; i < 300; i++) {
        local_at[i] = matcher_local(m, s);
        matcher_state full = s, local = local_at[i];
        for (int k = 0; k < 16; k++) {
            static const char bytes[] = "abcxy.";
            for (const char *c = bytes; *c; c++)
                ck_assert_int_eq(
                    matcher_step(m, full, (uint8_t)*c) != MATCHER_DEAD, matcher_step(m, local, (uint8_t)*c) != MATCHER_DEAD);
            full = matcher_step(m, full, 'a');
            local = matcher_step(m, local, 'a');
        }
        s = matcher_step(m, s, 'b');
    }
    ck_assert_uint_eq(local_at[1], local_at[80]);
    ck_assert_uint_ne(local_at[80], local_at[90]);
    ck_assert_uint_eq(local_at[150], local_at[290]);
    matcher_free(m);
    grammar_free(g);
}
END_TEST

START_TEST(local_states_escape_to_what_is_below)
{
    struct grammar_builder *b = grammar_builder_new(1000);
    grammar_rule root = grammar_rule_new(b), word = grammar_rule_new(b);
    grammar_node again = grammar_repeat_begin(b, 0, GRAMMAR_UNLIMITED, grammar_byte(b, '"', '"', GRAMMAR_RETURN));
    grammar_rule_define(b, word, grammar_byte(b, '"', '"', grammar_repeat_end(b, again, grammar_byte(b, 'a', 'z', again))));
    grammar_node first = grammar_literal(b, "1", 1, grammar_call(b, word, grammar_byte(b, '!', '!', GRAMMAR_RETURN)));
    grammar_node second = grammar_literal(b, "2", 1, grammar_call(b, word, grammar_byte(b, '?', '?', GRAMMAR_RETURN)));
    grammar_rule_define(b, root, grammar_choice(b, (grammar_node[]){first, second}, 2));
    struct grammar *g = finish(b, root);
    struct matcher *m = matcher_new(g, 16);
    matcher_state s1 = matcher_start(m), s2 = s1;
    s1 = matcher_step(m, matcher_step(m, s1, '1'), '"');
    s2 = matcher_step(m, matcher_step(m, s2, '2'), '"');
    ck_assert_uint_ne(s1, s2);
    matcher_state local = matcher_local(m, s1);
    ck_assert_uint_eq(local, matcher_local(m, s2));
    ck_assert(!matcher_escapes(m, matcher_step(m, local, 'q')));
    ck_assert(matcher_escapes(m, matcher_step(m, local, '"')));
    ck_assert_uint_eq(matcher_step(m, local, '!'), MATCHER_DEAD);
    /* What is forgotten is found again. */
    matcher_state kept = matcher_forget(m, s2);
    ck_assert_uint_ne(kept, MATCHER_DEAD);
    ck_assert_uint_eq(matcher_step(m, matcher_step(m, kept, '"'), '!'), MATCHER_DEAD);
    ck_assert(matcher_may_end(m, matcher_step(m, matcher_step(m, kept, '"'), '?')));
    ck_assert_int_eq(run(m, "1\"abc\"!", 7), YES);
    matcher_free(m);
    grammar_free(g);
}
END_TEST

START_TEST(refuses_what_cannot_work)
{
    struct grammar_builder *b = grammar_builder_new(1000);
    grammar_rule root = grammar_rule_new(b);
    refused(b, root, "nothing can match");

    b = grammar_builder_new(1000);
    root = grammar_rule_new(b); /* a rule that begins with itself */
    grammar_node again_and_x = grammar_call(b, root, grammar_byte(b, 'x', 'x', GRAMMAR_RETURN));
    grammar_rule_define(b, root,
        grammar_choice(b, (grammar_node[]){again_and_x, grammar_byte(b, 'a', 'a', GRAMMAR_RETURN)}, 2));
    refused(b, root, "calls itself before");

    b = grammar_builder_new(1000);
    root = grammar_rule_new(b); /* a repetition of nothing */
    grammar_node again = grammar_repeat_begin(b, 0, 9, GRAMMAR_RETURN);
    grammar_rule_define(
        b, root, grammar_repeat_end(b, again, grammar_choice(b, (grammar_node[]){again, grammar_byte(b, 'a', 'a', again)}, 2)));
    refused(b, root, "repeat nothing");

    b = grammar_builder_new(1000);
    root = grammar_rule_new(b); /* it must contain itself for ever */
    grammar_rule_define(b, root, grammar_byte(b, '[', '[', grammar_call(b, root, grammar_byte(b, ']', ']', GRAMMAR_RETURN))));
    ck_assert(!grammar_rule_possible(b, root));
    refused(b, root, "nothing can match");

    b = grammar_builder_new(100);
    root = grammar_rule_new(b);
    char text[200];
    memset(text, 'a', sizeof text);
    grammar_rule_define(b, root, grammar_literal(b, text, sizeof text, GRAMMAR_RETURN));
    ck_assert(grammar_builder_failed(b));
    refused(b, root, "too large");
}
END_TEST

/* Where one alternative leads nowhere, the other one is all there is: no dead ends. */
START_TEST(dead_ends_are_cut_off)
{
    struct grammar_builder *b = grammar_builder_new(1000);
    grammar_rule root = grammar_rule_new(b), never = grammar_rule_new(b);
    grammar_node bad = grammar_literal(b, "ab", 2, grammar_call(b, never, GRAMMAR_RETURN)),
                 good = grammar_literal(b, "ac", 2, GRAMMAR_RETURN);
    grammar_rule_define(b, root, grammar_choice(b, (grammar_node[]){bad, good}, 2));
    struct grammar *g = finish(b, root);
    expect(g, "a", BEGINNING);
    expect(g, "ab", NO);
    expect(g, "ac", YES);
    grammar_free(grammar_retain(g));
    expect(g, "ac", YES);
    grammar_free(g);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("grammar");
    TCase *c = tcase_create("grammar");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, literals_share_their_beginnings);
    tcase_add_test(c, rules_call_themselves);
    tcase_add_test(c, repetitions_count);
    tcase_add_test(c, local_states_stand_for_many);
    tcase_add_test(c, local_states_escape_to_what_is_below);
    tcase_add_test(c, refuses_what_cannot_work);
    tcase_add_test(c, dead_ends_are_cut_off);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_VERBOSE);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
