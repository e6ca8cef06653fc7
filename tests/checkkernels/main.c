/* checkkernels: proves that every kernel level computes what the scalar level computes, and times the kernels. See check.h. */
#include "tests/checkkernels/check.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

/* ---- the check under way ---- */

enum { PRINTED = 4, HOPELESS = 20 };

static struct {
    char level[16], name[24], note[80];
    int failures;
} current;

void fail(const char *format, ...)
{
    if (++current.failures <= PRINTED) {
        printf("    %s %s: ", current.level, current.name);
        va_list args;
        va_start(args, format);
        vprintf(format, args);
        va_end(args);
        putchar('\n');
    }
}

void note(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(current.note, sizeof current.note, format, args);
    va_end(args);
}

bool hopeless(void)
{
    return current.failures >= HOPELESS;
}

/* A kernel that touches memory it must not, or runs an instruction this CPU lacks, fails its check; the others go on. */
static sigjmp_buf after_crash;

static void crashed(int signal_number)
{
    siglongjmp(after_crash, signal_number);
}

/* ---- all checks ---- */

static const struct check {
    const char *name;
    void (*run)(const struct kernels *k, int argument);
} vector_checks[] = {
    {"quantize", check_quantize},
    {"rms_norm", check_rms_norm},
    {"rope", check_rope},
    {"swiglu", check_swiglu},
    {"add", check_add},
    {"softmax", check_softmax},
    {"exp", check_exp},
    {"attention", check_attention},
    {"to_f16", check_to_f16},
    {"read_all", check_read_all},
};

static int n_passed, n_failed;
static const char *filter = "";

static void run_check(
    const char *level, const char *name, void (*run)(const struct kernels *, int), const struct kernels *k, int argument)
{
    char full_name[sizeof current.level + sizeof current.name];
    snprintf(full_name, sizeof full_name, "%s %s", level, name);
    if (!strstr(full_name, filter))
        return;
    memset(&current, 0, sizeof current);
    snprintf(current.level, sizeof current.level, "%s", level);
    snprintf(current.name, sizeof current.name, "%s", name);
    random_seed(20240917);
    int signal_number = sigsetjmp(after_crash, 1);
    if (signal_number == 0)
        run(k, argument);
    else
        fail("%s", signal_number == SIGILL ? "illegal instruction" : "touched memory outside its buffers");
    bool ok = current.failures == 0;
    n_passed += ok;
    n_failed += !ok;
    printf("%-13s %-14s %s", level, name, ok ? "ok" : "FAIL");
    if (ok && current.note[0])
        printf("    %s", current.note);
    putchar('\n');
    fflush(stdout);
}

const struct kernels *scalar_kernels(void)
{
    return kernels_by_name("scalar", NULL);
}

static int check_all(void)
{
    struct sigaction action = {.sa_handler = crashed};
    sigaction(SIGSEGV, &action, NULL);
    sigaction(SIGBUS, &action, NULL);
    sigaction(SIGILL, &action, NULL);

    char name[24];
    run_check("formats", "f16", check_f16, NULL, 0);
    for (size_t i = 0; i < COUNT_OF(all_types); i++) {
        snprintf(name, sizeof name, "panel %s", gguf_type_traits(all_types[i])->name);
        run_check("formats", name, check_formats, NULL, (int)all_types[i]);
    }
    run_check("levels", "features", check_features, NULL, 0);
    const struct kernels *levels[16];
    int n_levels = levels_under_test(levels, (int)COUNT_OF(levels), true);
    for (int l = 0; l < n_levels; l++) {
        const struct kernels *k = levels[l];
        for (size_t i = 0; i < COUNT_OF(all_types); i++) {
            snprintf(name, sizeof name, "matmul %s", gguf_type_traits(all_types[i])->name);
            run_check(k->level, name, check_matmul, k, (int)all_types[i]);
        }
        if (strcmp(k->level, "amx") == 0)
            run_check(k->level, "tiles released", check_tiles_released, k, 0);
        for (size_t i = 0; i < COUNT_OF(vector_checks); i++)
            run_check(k->level, vector_checks[i].name, vector_checks[i].run, k, 0);
    }
    printf("%d passed, %d failed\n", n_passed, n_failed);
    if (n_passed + n_failed == 0)
        fprintf(stderr, "checkkernels: there is no check here whose \"level name\" contains '%s'\n", filter);
    return n_failed || !n_passed ? EXIT_FAILURE : EXIT_SUCCESS;
}

static const char usage[] =
    "usage: checkkernels [FILTER]           check every kernel at every level this CPU can run; only those whose \"level name\"\n"
    "                                       contains FILTER, for example 'amx ', 'avx512 matmul'\n"
    "       checkkernels --bench [FILTER]   time the kernels; only those whose \"level name\" contains FILTER,\n"
    "                                       for example 'avx2', 'Q4_K', 'avx512 matmul Q6_K'\n"
    "       checkkernels --help\n"
    "\n"
    "A check at level scalar, and of attention at level amx, compares with double precision within bounds that follow from\n"
    "rounding; all others compare with scalar, bit by bit (NaN equals NaN, -0 equals +0). Buffers end at forbidden pages. Exit\n"
    "status 1 if anything failed.\n";

int main(int argc, char **argv)
{
    if (argc == 1 || (argc == 2 && argv[1][0] != '-')) {
        filter = argc == 2 ? argv[1] : "";
        return check_all();
    }
    if (argc <= 3 && strcmp(argv[1], "--bench") == 0) {
        bench(argc == 3 ? argv[2] : "");
        return EXIT_SUCCESS;
    }
    bool help = argc == 2 && strcmp(argv[1], "--help") == 0;
    fputs(usage, help ? stdout : stderr);
    return help ? EXIT_SUCCESS : 2;
}
