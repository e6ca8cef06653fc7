/* engine/kv: blocks are handed out once, come back, and lie where the header says. */
#include "engine/kv.h"
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

START_TEST(reserve_and_clear)
{
    struct kv_pool *p = pool_of(10 * KV_BLOCK);
    struct kv_sequence a, b;
    kv_sequence_init(&a, p);
    kv_sequence_init(&b, p);
    ck_assert(kv_reserve(&a, 0));
    ck_assert_int_eq(a.n_blocks, 0);
    ck_assert(kv_reserve(&a, 1));
    ck_assert_int_eq(a.n_blocks, 1);
    ck_assert(kv_reserve(&a, KV_BLOCK));
    ck_assert_int_eq(a.n_blocks, 1);
    ck_assert(kv_reserve(&a, KV_BLOCK + 1));
    ck_assert_int_eq(a.n_blocks, 2);
    ck_assert(kv_reserve(&a, 5)); /* never shrinks */
    ck_assert_int_eq(a.n_blocks, 2);
    ck_assert(kv_reserve(&b, 8 * KV_BLOCK));
    ck_assert_int_eq(kv_pool_free_blocks(p), 0);

    int32_t first = a.blocks[0];
    ck_assert(!kv_reserve(&a, 2 * KV_BLOCK + 1)); /* unchanged by a failure */
    ck_assert_int_eq(a.n_blocks, 2);
    ck_assert_int_eq(a.blocks[0], first);
    ck_assert(!kv_reserve(&a, INT_MAX));

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
    ck_assert(kv_reserve(&a, 10 * KV_BLOCK));
    kv_sequence_clear(&a);
    ck_assert_int_eq(kv_pool_free_blocks(p), 10);
    kv_pool_free(p);
}
END_TEST

START_TEST(random_life)
{
    /* Sequences that grow and go at random: at every step no block is in two hands and none is lost. */
    enum { BLOCKS = 64, SEQUENCES = 7 };
    struct kv_pool *p = pool_of(BLOCKS * KV_BLOCK);
    struct kv_sequence s[SEQUENCES];
    for (int i = 0; i < SEQUENCES; i++)
        kv_sequence_init(&s[i], p);
    srand(7);
    for (int step = 0; step < 5000; step++) {
        struct kv_sequence *one = &s[rand() % SEQUENCES];
        if (rand() % 4 == 0) {
            kv_sequence_clear(one);
        } else {
            int wanted = one->n_blocks + 1 + rand() % 5;
            bool fits = wanted - one->n_blocks <= kv_pool_free_blocks(p);
            ck_assert(kv_reserve(one, wanted * KV_BLOCK - rand() % KV_BLOCK) == fits);
        }
        int owner[BLOCKS] = {0}, held = 0;
        for (int i = 0; i < SEQUENCES; i++)
            for (int k = 0; k < s[i].n_blocks; k++, held++)
                ck_assert_int_eq(owner[s[i].blocks[k]]++, 0);
        ck_assert_int_eq(held + kv_pool_free_blocks(p), BLOCKS);
    }
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
    tcase_add_test(c, reserve_and_clear);
    tcase_add_test(c, random_life);
    tcase_add_test(c, impossible_pools);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
