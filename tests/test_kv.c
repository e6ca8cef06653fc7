/* engine/kv: blocks are promised, handed out and given back without loss, lie where the header says, and are found again by the
 * tokens they hold. engine/prefix is tested through it. */
#include "engine/kv.h"
#include "engine/prefix.h"
#include "kernels/kernels.h"

#include <check.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum { LAYERS = 3, HEADS = 2, DIM = 64 };

static struct kv_pool *pool_of(int n_positions)
{
    struct error err;
    struct kv_pool *p = kv_pool_new(LAYERS, HEADS, DIM, n_positions, &err);
    ck_assert_msg(p != NULL, "%s", p ? "" : err.text);
    return p;
}

START_TEST(sizes)
{
    for (int n = 1; n <= 3 * KV_BLOCK + 1; n++) {
        struct kv_pool *p = pool_of(n);
        int blocks = (n + KV_BLOCK - 1) / KV_BLOCK;
        ck_assert_int_eq(kv_pool_blocks(p), blocks);
        ck_assert_int_eq(kv_pool_free_blocks(p), blocks);
        ck_assert_uint_eq(kv_position_bytes(p), (size_t)LAYERS * HEADS * 2 * DIM * 2);
        ck_assert_uint_eq(kv_pool_bytes(p), (size_t)blocks * KV_BLOCK * kv_position_bytes(p));
        kv_pool_free(p);
    }
    kv_pool_free(NULL);
}
END_TEST

START_TEST(every_head_has_its_own_place)
{
    /* Writes a mark of its own into each of the pool's areas, whole, and finds them all again:
     * nothing overlaps and nothing lies outside. */
    struct kv_pool *p = pool_of(5 * KV_BLOCK);
    uint16_t mark = 0;
    const size_t area = (size_t)KV_BLOCK * DIM;
    for (int pass = 0; pass < 2; pass++) {
        mark = 0;
        for (int32_t b = 0; b < 5; b++)
            for (int l = 0; l < LAYERS; l++)
                for (int h = 0; h < HEADS; h++)
                    for (int kind = 0; kind < 2; kind++) {
                        uint16_t *at = kind ? kv_values(p, l, h, b) : kv_keys(p, l, h, b);
                        ck_assert_uint_eq((uintptr_t)at % 64, 0);
                        mark++;
                        for (size_t i = 0; i < area; i++) {
                            if (pass)
                                ck_assert_uint_eq(at[i], mark);
                            else
                                ck_assert_uint_eq(at[i], 0); /* new memory is zero */
                            at[i] = mark;
                        }
                    }
    }
    ck_assert_uint_eq(mark * area * 2, kv_pool_bytes(p));
    kv_pool_free(p);
}
END_TEST

START_TEST(grow_and_clear)
{
    struct kv_pool *p = pool_of(10 * KV_BLOCK);
    struct kv_sequence a, b;
    kv_sequence_init(&a, p);
    kv_sequence_init(&b, p);
    ck_assert(kv_grow(&a, 0));
    ck_assert_int_eq(a.n_blocks, 0);
    ck_assert(kv_grow(&a, 1));
    ck_assert_int_eq(a.n_blocks, 1);
    ck_assert(kv_grow(&a, KV_BLOCK));
    ck_assert_int_eq(a.n_blocks, 1);
    ck_assert(kv_grow(&a, KV_BLOCK + 1));
    ck_assert_int_eq(a.n_blocks, 2);
    ck_assert(kv_grow(&a, 5)); /* never shrinks */
    ck_assert_int_eq(a.n_blocks, 2);
    ck_assert(kv_grow(&b, 8 * KV_BLOCK));
    ck_assert_int_eq(kv_pool_free_blocks(p), 0);

    int32_t first = a.blocks[0];
    ck_assert(!kv_grow(&a, 2 * KV_BLOCK + 1)); /* unchanged by a failure */
    ck_assert_int_eq(a.n_blocks, 2);
    ck_assert_int_eq(a.blocks[0], first);
    ck_assert(!kv_grow(&a, INT_MAX));

    bool used[10] = {false};
    for (int i = 0; i < 10; i++) {
        int32_t block = i < 2 ? a.blocks[i] : b.blocks[i - 2];
        ck_assert_int_ge(block, 0);
        ck_assert_int_lt(block, 10);
        ck_assert(!used[block]);
        used[block] = true;
    }
    kv_sequence_clear(&b);
    ck_assert_int_eq(b.n_blocks, 0);
    ck_assert_int_eq(kv_pool_free_blocks(p), 8);
    kv_sequence_clear(&b); /* twice does no harm */
    ck_assert_int_eq(kv_pool_free_blocks(p), 8);
    ck_assert(kv_grow(&a, 10 * KV_BLOCK));
    kv_sequence_clear(&a);
    ck_assert_int_eq(kv_pool_free_blocks(p), 10);
    kv_pool_free(p);
}
END_TEST

START_TEST(a_promise_is_kept)
{
    struct kv_pool *p = pool_of(10 * KV_BLOCK);
    struct kv_sequence a, b;
    kv_sequence_init(&a, p);
    kv_sequence_init(&b, p);
    ck_assert(kv_reserve(&a, 7 * KV_BLOCK));
    ck_assert_int_eq(a.n_blocks, 0); /* nothing is taken yet */
    ck_assert_int_eq(kv_pool_free_blocks(p), 3);
    ck_assert(!kv_reserve(&b, 3 * KV_BLOCK + 1));
    ck_assert(!kv_grow(&b, 3 * KV_BLOCK + 1));
    ck_assert_int_eq(b.n_blocks, 0);
    ck_assert(kv_grow(&b, 3 * KV_BLOCK));
    ck_assert_int_eq(kv_pool_free_blocks(p), 0);
    for (int n = 1; n <= 7 * KV_BLOCK; n++)
        ck_assert(kv_grow(&a, n));
    ck_assert(!kv_grow(&a, 7 * KV_BLOCK + 1));
    kv_sequence_clear(&b);
    ck_assert_int_eq(kv_pool_free_blocks(p), 3);
    ck_assert(kv_reserve(&b, 2 * KV_BLOCK));
    kv_sequence_clear(&b); /* a promise that was not used is one no more */
    ck_assert_int_eq(kv_pool_free_blocks(p), 3);
    kv_sequence_clear(&a);
    ck_assert_int_eq(kv_pool_free_blocks(p), 10);
    kv_pool_free(p);
}
END_TEST

/* ---- the prefix cache ---- */

/* What the keys and values of a position are taken for: a number that depends on its token and all before it. */
static uint16_t mark_of(const int32_t *tokens, int position)
{
    uint32_t h = 2166136261u;
    for (int i = 0; i <= position; i++)
        h = (h ^ (uint32_t)tokens[i]) * 16777619u;
    return (uint16_t)(h ^ h >> 16);
}

/* The places of a position's first key and last value. */
static uint16_t *key_at(const struct kv_sequence *s, int position)
{
    int i = position % KV_BLOCK;
    return kv_keys(s->pool, 0, 0, s->blocks[position / KV_BLOCK]) + i / KV_PANEL * DIM * KV_PANEL + i % KV_PANEL;
}

static uint16_t *value_at(const struct kv_sequence *s, int position)
{
    int i = position % KV_BLOCK;
    return kv_values(s->pool, LAYERS - 1, HEADS - 1, s->blocks[position / KV_BLOCK]) + i * DIM + DIM - 1;
}

static void compute(struct kv_sequence *s, const int32_t *tokens, int from, int to)
{
    ck_assert(kv_grow(s, to));
    for (int i = from; i < to; i++)
        *key_at(s, i) = *value_at(s, i) = mark_of(tokens, i);
    kv_publish(s, tokens, to);
}

static void verify(const struct kv_sequence *s, const int32_t *tokens, int n)
{
    for (int i = 0; i < n; i++) {
        ck_assert_uint_eq(*key_at(s, i), mark_of(tokens, i));
        ck_assert_uint_eq(*value_at(s, i), mark_of(tokens, i));
    }
}

/* Begins a sequence as the scheduler does; returns how many positions the cache had. */
static int begin(struct kv_sequence *s, struct kv_pool *p, const int32_t *tokens, int n, int room)
{
    kv_sequence_init(s, p);
    int found = kv_match(s, tokens, n, 0);
    ck_assert(kv_reserve(s, room));
    found = kv_match(s, tokens, n, found);
    verify(s, tokens, found);
    return found;
}

static void run(struct kv_pool *p, const int32_t *tokens, int n, int expected)
{
    struct kv_sequence s;
    int found = begin(&s, p, tokens, n, n);
    ck_assert_int_eq(found, expected);
    compute(&s, tokens, found, n);
    verify(&s, tokens, n);
    kv_sequence_clear(&s);
}

START_TEST(what_was_computed_is_found)
{
    struct kv_pool *p = pool_of(20 * KV_BLOCK);
    int32_t text[200], other[200];
    for (int i = 0; i < 200; i++)
        other[i] = text[i] = i * 7 % 50;
    run(p, text, 100, 0);
    ck_assert_int_eq(kv_pool_filled(p).idle, 100);
    ck_assert_int_eq(kv_pool_filled(p).held, 0);
    ck_assert_int_eq(kv_pool_free_blocks(p), 20); /* what only the cache has is free */
    run(p, text, 100, 100);
    run(p, text, 70, 70);       /* a part of it; of the last block too */
    run(p, text, 5, 5);
    run(p, text, 150, 100);     /* it goes on: within a block */
    ck_assert_int_eq(kv_pool_filled(p).idle, 150); /* and nothing is kept twice */
    other[80] = 99;
    run(p, other, 150, 80);     /* another text from position 80 on */
    run(p, other, 120, 120);
    run(p, text, 150, 150);
    other[0] = 99;
    run(p, other, 150, 0);
    ck_assert_int_eq(kv_pool_filled(p).idle, 150 + 150 - 64 + 150);
    kv_pool_free(p);
}
END_TEST

START_TEST(two_at_once_share)
{
    struct kv_pool *p = pool_of(20 * KV_BLOCK);
    struct kv_sequence a, b;
    int32_t text[160], other[160];
    for (int i = 0; i < 160; i++)
        other[i] = text[i] = i;
    other[100] = 1000;
    ck_assert_int_eq(begin(&a, p, text, 159, 160), 0);
    ck_assert_int_eq(begin(&b, p, other, 159, 160), 0);
    /* b goes on like a, up to the token that differs. */
    ck_assert_int_eq(kv_follows(&b, other, 159, 0, &a, text, 160), 32);
    ck_assert_int_eq(kv_follows(&b, other, 31, 0, &a, text, 160), 31);
    ck_assert_int_eq(kv_follows(&b, other, 159, 0, &a, text, 30), 30);
    compute(&a, text, 0, 50);
    ck_assert_int_eq(kv_match(&b, other, 159, 0), 50);
    verify(&b, other, 50);
    ck_assert_int_eq(b.blocks[0], a.blocks[0]);
    ck_assert_int_ne(b.blocks[1], a.blocks[1]); /* a copy of the part that is there */
    ck_assert_int_eq(kv_follows(&b, other, 159, 50, &a, text, 160), 14);
    compute(&a, text, 50, 160);
    ck_assert_int_eq(kv_match(&b, other, 159, 50), 100);
    verify(&b, other, 100);
    ck_assert_int_eq(b.blocks[2], a.blocks[2]);
    ck_assert_int_eq(kv_follows(&b, other, 159, 100, &a, text, 160), 0);
    compute(&b, other, 100, 128);
    ck_assert_int_eq(kv_follows(&b, other, 159, 128, &a, text, 160), 0); /* like a's, but not after the same */
    ck_assert_int_eq(kv_pool_free_blocks(p), 20 - 5 - 2);
    compute(&b, other, 128, 160);
    verify(&a, text, 160);
    verify(&b, other, 160);
    ck_assert_int_eq(kv_pool_filled(p).held, 160 + 160 - 96);
    kv_sequence_clear(&a);
    verify(&b, other, 160);
    ck_assert_int_eq(kv_pool_free_blocks(p), 15);
    kv_sequence_clear(&b);
    ck_assert_int_eq(kv_pool_free_blocks(p), 20);

    /* Computed twice all the same: kept once. */
    for (int i = 0; i < 160; i++)
        text[i] += 5000;
    ck_assert_int_eq(begin(&a, p, text, 160, 160), 0);
    ck_assert_int_eq(begin(&b, p, text, 160, 160), 0);
    compute(&a, text, 0, 40);
    compute(&b, text, 0, 64);
    ck_assert_int_eq(a.blocks[0], b.blocks[0]);
    compute(&a, text, 40, 96);
    ck_assert_int_eq(a.blocks[1], b.blocks[1]);
    ck_assert_int_eq(kv_pool_free_blocks(p), 20 - 5 - 3);
    verify(&a, text, 96);
    kv_sequence_clear(&a);
    kv_sequence_clear(&b);
    kv_pool_free(p);
}
END_TEST

START_TEST(the_oldest_goes_first)
{
    struct kv_pool *p = pool_of(12 * KV_BLOCK);
    int32_t a[128], b[128], c[128], d[4 * KV_BLOCK];
    for (int i = 0; i < 128; i++) {
        a[i] = i;
        b[i] = 1000 + i;
        c[i] = 2000 + i;
        d[i] = 3000 + i;
    }
    run(p, a, 128, 0);
    run(p, b, 128, 0);
    run(p, c, 128, 0);
    run(p, a, 128, 128);      /* now b is the one unused for longest */
    run(p, d, KV_BLOCK, 0);   /* takes a block, the last of b */
    run(p, b, 96, 96);
    run(p, c, 128, 128);
    run(p, a, 128, 128);
    run(p, b, 96, 96);
    /* The order of use is d, c, a, b. A promise of nine blocks leaves room for three of these. */
    struct kv_sequence s;
    kv_sequence_init(&s, p);
    ck_assert(kv_reserve(&s, 9 * KV_BLOCK));
    ck_assert_int_eq(kv_pool_filled(p).idle, KV_BLOCK + 128 + 128 + 96); /* as long as nothing is taken, all stay */
    ck_assert(kv_grow(&s, 9 * KV_BLOCK));
    ck_assert_int_eq(kv_pool_filled(p).idle, 96);
    kv_sequence_clear(&s);
    run(p, b, 96, 96);
    kv_pool_free(p);
}
END_TEST

START_TEST(the_last_block_is_copied_from_itself)
{
    /* All that is idle is what is to be copied, and a block for the copy is promised: it stays where it is. */
    struct kv_pool *p = pool_of(2 * KV_BLOCK);
    struct kv_sequence s;
    int32_t text[64], other[64];
    for (int i = 0; i < 64; i++)
        other[i] = text[i] = i;
    other[50] = 99;
    run(p, text, 60, 0);
    ck_assert_int_eq(begin(&s, p, other, 64, 64), 50);
    compute(&s, other, 50, 64);
    verify(&s, other, 64);
    kv_sequence_clear(&s);
    run(p, text, 60, 50);
    kv_pool_free(p);
}
END_TEST

/* Sequences of few different tokens that start, grow, split off from others and go at random, against a model: what a position
 * holds is always what belongs there, blocks are neither lost nor in two hands for different texts, promises hold, and what a
 * living sequence has published is always found. */
START_TEST(random_life)
{
    enum { BLOCKS = 24, SEQUENCES = 5, MOST = 8 * KV_BLOCK, STEPS = 6000 };
    struct kv_pool *p = pool_of(BLOCKS * KV_BLOCK);
    struct kv_sequence s[SEQUENCES];
    static int32_t tokens[SEQUENCES][MOST];
    int filled[SEQUENCES] = {0}, prompt[SEQUENCES] = {0}, room[SEQUENCES] = {0}, hits = 0, refused = 0;
    for (int i = 0; i < SEQUENCES; i++)
        kv_sequence_init(&s[i], p);
    srand(7);
    for (int step = 0; step < STEPS; step++) {
        int i = rand() % SEQUENCES;
        if (room[i] == 0) { /* a new one: of its own, or one that begins like another */
            int like = rand() % SEQUENCES, n = like == i ? 0 : rand() % (prompt[like] + 1);
            prompt[i] = 1 + rand() % (MOST - 40);
            memmove(tokens[i], tokens[like], (size_t)n * sizeof(int32_t));
            for (int k = n; k < MOST; k++)
                tokens[i][k] = rand() % 50 ? k : rand() % 2 - 1;
            int most = 0, wanted = prompt[i] + rand() % 40;
            for (int k = 0; k < SEQUENCES; k++) {
                int same = 0;
                while (same < filled[k] && same < prompt[i] - 1 && tokens[k][same] == tokens[i][same])
                    same++;
                most = room[k] > 0 && same > most ? same : most;
            }
            int found = kv_match(&s[i], tokens[i], prompt[i] - 1, 0);
            ck_assert_int_ge(found, most / KV_BLOCK * KV_BLOCK);
            if (!kv_reserve(&s[i], wanted)) {
                refused++;
                kv_sequence_clear(&s[i]);
                continue;
            }
            room[i] = wanted;
            filled[i] = kv_match(&s[i], tokens[i], prompt[i] - 1, found);
            ck_assert_int_ge(filled[i], most);
            hits += filled[i];
        } else if (rand() % 8 == 0 || filled[i] == room[i]) {
            kv_sequence_clear(&s[i]);
            room[i] = filled[i] = 0;
        } else {
            if (filled[i] < prompt[i])
                filled[i] = kv_match(&s[i], tokens[i], prompt[i] - 1, filled[i]);
            int to = filled[i] + 1 + rand() % 70;
            compute(&s[i], tokens[i], filled[i], to < room[i] ? to : room[i]);
            filled[i] = to < room[i] ? to : room[i];
        }
        int holders[BLOCKS] = {0}, held = 0, owed = 0;
        for (int k = 0; k < SEQUENCES; k++) {
            verify(&s[k], tokens[k], filled[k]);
            for (int b = 0; b < s[k].n_blocks; b++)
                held += holders[s[k].blocks[b]]++ == 0;
            owed += room[k] > 0 ? (room[k] + KV_BLOCK - 1) / KV_BLOCK - s[k].n_blocks : 0;
        }
        ck_assert_int_eq(kv_pool_free_blocks(p), BLOCKS - held - owed);
        ck_assert_int_ge(kv_pool_free_blocks(p), 0);
        ck_assert_int_le(kv_pool_filled(p).held, held * KV_BLOCK);
        ck_assert_int_le(kv_pool_filled(p).idle, (BLOCKS - held) * KV_BLOCK);
    }
    ck_assert_int_gt(hits, STEPS); /* the test has met what it is about */
    ck_assert_int_gt(refused, STEPS / 100);
    for (int i = 0; i < SEQUENCES; i++)
        kv_sequence_clear(&s[i]);
    ck_assert_int_eq(kv_pool_free_blocks(p), BLOCKS);
    kv_pool_free(p);
}
END_TEST

START_TEST(impossible_pools)
{
    struct error err = {""};
    ck_assert_ptr_null(kv_pool_new(INT_MAX, INT_MAX, 1 << 20, INT_MAX, &err));
    ck_assert_ptr_nonnull(strstr(err.text, "address space"));
    err.text[0] = 0;
    ck_assert_ptr_null(kv_pool_new(1 << 16, 1 << 10, 128, INT_MAX, &err)); /* 2^62 bytes: a number, but no memory */
    ck_assert_ptr_nonnull(strstr(err.text, "positions"));
    ck_assert_ptr_null(kv_pool_new(0, 1, 64, 1, &err));
    ck_assert_ptr_null(kv_pool_new(1, 0, 64, 1, &err));
    ck_assert_ptr_null(kv_pool_new(1, 1, 0, 1, &err));
    ck_assert_ptr_null(kv_pool_new(1, 1, 65, 1, &err));
    ck_assert_ptr_null(kv_pool_new(1, 1, 64, 0, &err));
    ck_assert_ptr_null(kv_pool_new(1, 1, 64, -1, NULL));
}
END_TEST

int main(void)
{
    Suite *s = suite_create("kv");
    TCase *c = tcase_create("kv");
    tcase_set_timeout(c, 120);
    tcase_add_test(c, sizes);
    tcase_add_test(c, every_head_has_its_own_place);
    tcase_add_test(c, grow_and_clear);
    tcase_add_test(c, a_promise_is_kept);
    tcase_add_test(c, what_was_computed_is_found);
    tcase_add_test(c, two_at_once_share);
    tcase_add_test(c, the_oldest_goes_first);
    tcase_add_test(c, the_last_block_is_copied_from_itself);
    tcase_add_test(c, random_life);
    tcase_add_test(c, impossible_pools);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
