/* engine/threads and engine/cores: every piece exactly once, whatever the number of threads;
 * no CPU used when idle; limits of control groups. */
#include "engine/cores.h"
#include "engine/threads.h"

#include <check.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const int counts[] = {1, 2, 4, 8};
enum { N_COUNTS = sizeof counts / sizeof counts[0], MOST_PIECES = 1000, MOST_THREADS = 8 };

struct loop {
    atomic_int calls[MOST_PIECES];
    atomic_int inside[MOST_THREADS]; /* calls that are now running under that thread number */
    atomic_int wrong;
    int plain[MOST_PIECES]; /* written without atomics: the end of a loop must order it */
    int n_threads;
    int round;
};

static void count_piece(void *arg, int piece, int thread)
{
    struct loop *l = arg;
    if (piece < 0 || piece >= MOST_PIECES || thread < 0 || thread >= l->n_threads) {
        l->wrong++;
        return;
    }
    if (l->inside[thread]++)
        l->wrong++;
    l->calls[piece]++;
    l->plain[piece] += l->round;
    l->inside[thread]--;
}

static struct threads *pool_of(int n)
{
    struct error err;
    struct threads *t = threads_new(n, &err);
    ck_assert_msg(t != NULL, "%s", t ? "" : err.text);
    ck_assert_int_eq(threads_count(t), n);
    return t;
}

START_TEST(every_piece_once)
{
    struct threads *t = pool_of(counts[_i]);
    static const int sizes[] = {0, 1, 2, 3, 7, 64, MOST_PIECES};
    struct loop *l = calloc(1, sizeof *l);
    l->n_threads = counts[_i];
    l->round = 1;
    int wanted[MOST_PIECES] = {0};
    for (int repeat = 0; repeat < 20; repeat++)
        for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
            threads_run(t, sizes[s], count_piece, l);
            for (int i = 0; i < sizes[s]; i++)
                wanted[i]++;
            for (int i = 0; i < MOST_PIECES; i++) {
                ck_assert_int_eq(l->calls[i], wanted[i]);
                ck_assert_int_eq(l->plain[i], wanted[i]);
            }
        }
    ck_assert_int_eq(l->wrong, 0);
    free(l);
    threads_free(t);
}
END_TEST

START_TEST(many_tiny_loops)
{
    /* Each loop reads what the one before wrote, from whichever thread wrote it. */
    struct threads *t = pool_of(counts[_i]);
    struct loop *l = calloc(1, sizeof *l);
    l->n_threads = counts[_i];
    long wanted = 0;
    const int n_loops = counts[_i] > threads_usable_cores() ? 3000 : 50000;
    for (int i = 0; i < n_loops; i++) {
        l->round = i % 5;
        wanted += l->round;
        threads_run(t, 3, count_piece, l);
        for (int k = 0; k < 3; k++)
            ck_assert(l->plain[k] == wanted);
    }
    ck_assert_int_eq(l->calls[2], n_loops);
    ck_assert_int_eq(l->wrong, 0);
    free(l);
    threads_free(t);
}
END_TEST

START_TEST(loops_with_pauses)
{
    /* Pauses around the time the workers fall asleep: a lost wake-up would leave the caller
     * alone with pieces that wait for each other. */
    struct threads *t = pool_of(counts[_i]);
    struct loop *l = calloc(1, sizeof *l);
    l->n_threads = counts[_i];
    l->round = 1;
    for (int i = 0; i < 300; i++) {
        struct timespec pause = {0, (i * 7919L % 250) * 1000};
        nanosleep(&pause, NULL);
        threads_run(t, 9, count_piece, l);
    }
    for (int k = 0; k < 9; k++)
        ck_assert_int_eq(l->plain[k], 300);
    ck_assert_int_eq(l->wrong, 0);
    free(l);
    threads_free(t);
}
END_TEST

static void meet(void *arg, int piece, int thread)
{
    /* A piece that ends only when all pieces have begun: needs as many threads as pieces. */
    (void)piece;
    (void)thread;
    atomic_int *arrived = arg;
    int n = atomic_load(&arrived[1]);
    atomic_fetch_add(&arrived[0], 1);
    while (atomic_load(&arrived[0]) < n)
        sched_yield();
}

START_TEST(all_threads_take_part)
{
    int n = counts[_i];
    struct threads *t = pool_of(n);
    for (int i = 0; i < 200; i++) {
        atomic_int arrived[2] = {0, n};
        if (i % 10 == 0)
            usleep(500); /* long enough for everybody to be asleep */
        threads_run(t, n, meet, arrived);
        ck_assert_int_eq(arrived[0], n);
    }
    threads_free(t);
}
END_TEST

static void uneven_piece(void *arg, int piece, int thread)
{
    (void)thread;
    volatile unsigned x = 0;
    for (int i = 0; i < (piece % 10 == 0 ? 20000 : 10); i++)
        x = x + (unsigned)i;
    atomic_fetch_add((atomic_long *)arg, piece);
}

START_TEST(uneven_pieces)
{
    struct threads *t = pool_of(counts[_i]);
    atomic_long sum = 0;
    for (int i = 0; i < 50; i++)
        threads_run(t, 100, uneven_piece, &sum);
    ck_assert_int_eq(sum, 50L * 99 * 50);
    threads_free(t);
}
END_TEST

static void note_thread(void *arg, int piece, int thread)
{
    (void)piece;
    *(int *)arg = gettid() == getpid() ? thread : -1;
}

START_TEST(one_piece_stays_with_the_caller)
{
    struct threads *t = pool_of(4);
    for (int i = 0; i < 1000; i++) {
        int thread = -2;
        threads_run(t, 1, note_thread, &thread);
        ck_assert_int_eq(thread, 0);
    }
    threads_free(t);
}
END_TEST

START_TEST(idle_uses_no_cpu)
{
    struct threads *t = pool_of(counts[_i]);
    atomic_long sum = 0;
    threads_run(t, 100, uneven_piece, &sum);
    usleep(50 * 1000); /* spinning is over long before */
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    usleep(300 * 1000);
    getrusage(RUSAGE_SELF, &after);
    double used =
        (double)(after.ru_utime.tv_sec - before.ru_utime.tv_sec + after.ru_stime.tv_sec - before.ru_stime.tv_sec) +
        1e-6 * (double)(after.ru_utime.tv_usec - before.ru_utime.tv_usec + after.ru_stime.tv_usec - before.ru_stime.tv_usec);
    ck_assert_msg(used < 0.03, "%d idle threads used %.3f s of CPU in 0.3 s", counts[_i], used);
    threads_free(t);
}
END_TEST

START_TEST(pools_come_and_go)
{
    for (int i = 0; i < 100; i++) {
        struct threads *t = pool_of(counts[_i]);
        if (i % 2) {
            atomic_long sum = 0;
            threads_run(t, 5, uneven_piece, &sum);
            ck_assert_int_eq(sum, 10);
        }
        threads_free(t);
    }
    threads_free(NULL);
}
END_TEST

START_TEST(signals_reach_the_main_thread_only)
{
    struct threads *t = pool_of(4);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigprocmask(SIG_BLOCK, &set, NULL);
    kill(getpid(), SIGTERM); /* a worker that takes it would end the process */
    int got = 0;
    ck_assert_int_eq(sigwait(&set, &got), 0);
    ck_assert_int_eq(got, SIGTERM);
    threads_free(t);
}
END_TEST

START_TEST(silly_counts_are_refused)
{
    struct error err = {""};
    ck_assert_ptr_null(threads_new(0, &err));
    ck_assert_ptr_nonnull(strstr(err.text, "0 threads"));
    ck_assert_ptr_null(threads_new(-3, &err));
    ck_assert_ptr_null(threads_new(1000000, &err));
    ck_assert_ptr_null(threads_new(1000000, NULL));
}
END_TEST

START_TEST(cores_follow_affinity)
{
    int all = threads_usable_cores();
    ck_assert_int_ge(all, 1);
    cpu_set_t old, one;
    ck_assert_int_eq(sched_getaffinity(0, sizeof old, &old), 0);
    ck_assert_int_le(all, CPU_COUNT(&old));
    CPU_ZERO(&one);
    CPU_SET((size_t)sched_getcpu(), &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    ck_assert_int_eq(threads_usable_cores(), 1);
    sched_setaffinity(0, sizeof old, &old);
    ck_assert_int_eq(threads_usable_cores(), all);
}
END_TEST

/* ---- control groups: a tree of real files laid out as the kernel lays it out ---- */

static char tree[64];

static void put(const char *path, const char *text)
{
    char full[512];
    snprintf(full, sizeof full, "%s/%s", tree, path);
    for (char *p = full + strlen(tree) + 1; *p; p++)
        if (*p == '/') {
            *p = 0;
            mkdir(full, 0700);
            *p = '/';
        }
    FILE *f = fopen(full, "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    ck_assert_int_eq(fclose(f), 0);
}

static void make_tree(void)
{
    snprintf(tree, sizeof tree, "/tmp/quern-cores-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(tree));
}

static void remove_tree(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -r '%s'", tree);
    ck_assert_int_eq(system(command), 0);
}

static int limit(const char *cgroup, const char *root)
{
    char mounts[1024], a[128], b[128];
    snprintf(mounts, sizeof mounts,
             "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
             "30 22 0:26 %s %s/v2 rw,nosuid shared:4 master:1 - cgroup2 cgroup2 rw,nsdelegate\n"
             "31 22 0:27 / %s/cpuset\\040only rw - cgroup cgroup rw,cpuset\n"
             "32 22 0:28 %s %s/v1\\040cpu rw - cgroup cgroup rw,cpu,cpuacct\n", root, tree, tree, root, tree);
    put("mountinfo", mounts);
    put("cgroup", cgroup);
    snprintf(a, sizeof a, "%s/cgroup", tree);
    snprintf(b, sizeof b, "%s/mountinfo", tree);
    return cores_cgroup_limit(a, b);
}

START_TEST(groups_of_version_2)
{
    const char *group = "0::/system.slice/quern.service\n";
    ck_assert_int_eq(limit(group, "/"), 0); /* no files at all */
    put("v2/system.slice/quern.service/cpu.max", "max 100000\n");
    ck_assert_int_eq(limit(group, "/"), 0);
    put("v2/system.slice/quern.service/cpu.max", "300000 100000\n");
    ck_assert_int_eq(limit(group, "/"), 3);
    put("v2/system.slice/quern.service/cpu.max", "150000 100000\n"); /* one and a half: rounded up */
    ck_assert_int_eq(limit(group, "/"), 2);
    put("v2/system.slice/cpu.max", "50000 100000\n"); /* a parent's is tighter */
    ck_assert_int_eq(limit(group, "/"), 1);
    put("v2/cpu.max", "max 100000\n");
    ck_assert_int_eq(limit(group, "/"), 1);
    ck_assert_int_eq(limit("0::/elsewhere\n", "/"), 0);
    ck_assert_int_eq(limit("0::/\n", "/"), 0);
    put("v2/cpu.max", "700000 100000\n");
    ck_assert_int_eq(limit("0::/\n", "/"), 7);
}
END_TEST

START_TEST(groups_in_a_container)
{
    put("v2/cpu.max", "200000 100000\n");
    put("v2/inner/cpu.max", "100000 100000\n");
    ck_assert_int_eq(limit("0::/docker/abc\n", "/docker/abc"), 2);       /* the mount shows the own group */
    ck_assert_int_eq(limit("0::/docker/abc/inner\n", "/docker/abc"), 1); /* or one below it */
    ck_assert_int_eq(limit("0::/docker/abcdef\n", "/docker/abc"), 2);    /* a name that only begins alike */
    ck_assert_int_eq(limit("0::/../other\n", "/"), 2);                   /* outside the namespace */
}
END_TEST

START_TEST(groups_of_version_1)
{
    const char *group = "5:memory:/x\n4:cpu,cpuacct:/a/b\n3:cpuset:/y\n0::/z\n";
    put("v1 cpu/a/b/cpu.cfs_quota_us", "-1\n");
    put("v1 cpu/a/b/cpu.cfs_period_us", "100000\n");
    ck_assert_int_eq(limit(group, "/"), 0);
    put("v1 cpu/a/cpu.cfs_quota_us", "400000\n");
    put("v1 cpu/a/cpu.cfs_period_us", "100000\n");
    ck_assert_int_eq(limit(group, "/"), 4);
    put("v2/z/cpu.max", "200000 100000\n"); /* both hierarchies: the tighter one */
    ck_assert_int_eq(limit(group, "/"), 2);
    put("v2/z/cpu.max", "900000 100000\n");
    ck_assert_int_eq(limit(group, "/"), 4);
}
END_TEST

START_TEST(groups_of_nonsense)
{
    put("v2/cpu.max", "");
    ck_assert_int_eq(limit("0::/\n", "/"), 0);
    put("v2/cpu.max", "100000\n");
    ck_assert_int_eq(limit("0::/\n", "/"), 0);
    put("v2/cpu.max", "100000 0\n");
    ck_assert_int_eq(limit("0::/\n", "/"), 0);
    put("v2/cpu.max", "-5 100000\n");
    ck_assert_int_eq(limit("0::/\n", "/"), 0);
    put("v2/cpu.max", "99999999999999999999 1\n");
    ck_assert_int_eq(limit("0::/\n", "/"), 0);
    put("v2/cpu.max", "9223372036854775807 1\n");
    ck_assert_int_eq(limit("0::/\n", "/"), 2147483647);
    ck_assert_int_eq(limit("", "/"), 0);
    ck_assert_int_eq(limit("junk\n:::\n0:\n", "/"), 0);
    ck_assert_int_eq(cores_cgroup_limit("/nonexistent", "/nonexistent"), 0);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("threads");
    TCase *pool = tcase_create("pool");
    tcase_set_timeout(pool, 120);
    tcase_add_loop_test(pool, every_piece_once, 0, N_COUNTS);
    tcase_add_loop_test(pool, many_tiny_loops, 0, N_COUNTS);
    tcase_add_loop_test(pool, loops_with_pauses, 0, N_COUNTS);
    tcase_add_loop_test(pool, all_threads_take_part, 0, N_COUNTS);
    tcase_add_loop_test(pool, uneven_pieces, 0, N_COUNTS);
    tcase_add_test(pool, one_piece_stays_with_the_caller);
    tcase_add_loop_test(pool, idle_uses_no_cpu, 0, N_COUNTS);
    tcase_add_loop_test(pool, pools_come_and_go, 0, N_COUNTS);
    tcase_add_test(pool, signals_reach_the_main_thread_only);
    tcase_add_test(pool, silly_counts_are_refused);
    suite_add_tcase(s, pool);
    TCase *cores = tcase_create("cores");
    tcase_add_checked_fixture(cores, make_tree, remove_tree);
    tcase_add_test(cores, cores_follow_affinity);
    tcase_add_test(cores, groups_of_version_2);
    tcase_add_test(cores, groups_in_a_container);
    tcase_add_test(cores, groups_of_version_1);
    tcase_add_test(cores, groups_of_nonsense);
    suite_add_tcase(s, cores);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
