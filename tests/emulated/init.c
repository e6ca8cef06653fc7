/* The first and only process of the emulated machine: runs the checks, says on the console what came of each, and switches the
 * machine off.
 *
 * The kernel hands over what it does not know of its command line as environment variables:
 *   best    the level that must be chosen here
 *   levels  those to check, separated by commas: all their kernels, and the logits of a whole model, which must be /expected.f32
 *           (near it for amx, and the same whether the model reads its tokens together or one by one)
 *   lacks   if set: level amx must be refused with a sentence that contains this
 *   filter  if set: level amx must be refused, and avx512 chosen, once a filter of system calls denies the use of tiles */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT "/tmp/output"
/* How far level amx's logits may be from scalar's, as the root of the mean square. Attention that differs by a ten-millionth
 * comes out at 0.05 already, because some activations are rounded otherwise to their 8 bits, then more in every layer; attention
 * that is wrong, at 1 or more. */
#define LOGITS_NEAR 0.1

static void check(bool ok, const char *what, const char *level)
{
    printf("CHECK %s %s %s\n", ok ? "ok" : "FAILED", what, level);
}

/* From now on this process is refused ARCH_REQ_XCOMP_PERM, and all other uses of arch_prctl as always. */
static void refuse_tiles(void)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_arch_prctl, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x1023, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof code / sizeof code[0], code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0) {
        perror("init: cannot install a filter of system calls");
        _exit(126);
    }
}

/* Runs a program with QUERN_CPU set to level (NULL: unset), its output going to OUTPUT, or to the console if `seen`. Returns its
 * exit status, -1 if it did not exit by itself. */
static int run(char *const argv[], const char *level, bool filter, bool seen)
{
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        int out = seen ? 1 : open(OUTPUT, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        if (dup2(out, 1) < 0 || dup2(out, 2) < 0 || (level ? setenv("QUERN_CPU", level, 1) : unsetenv("QUERN_CPU")) != 0)
            _exit(126);
        if (filter)
            refuse_tiles();
        execv(argv[0], argv);
        _exit(127);
    }
    int status;
    if (child < 0 || waitpid(child, &status, 0) != child)
        return -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static bool output_has(const char *words)
{
    static char text[4096];
    FILE *file = fopen(OUTPUT, "r");
    size_t n = file ? fread(text, 1, sizeof text - 1, file) : 0;
    text[n] = 0;
    if (file)
        fclose(file);
    bool has = strstr(text, words) != NULL;
    if (!has)
        printf("expected: %s\n%s", words, text);
    return has;
}

static bool same_bytes(const char *path1, const char *path2)
{
    FILE *file1 = fopen(path1, "r"), *file2 = fopen(path2, "r");
    long n = 0;
    bool same = file1 && file2;
    for (int a = 0; same && a != EOF; n++)
        same = (a = getc(file1)) == getc(file2);
    if (file1)
        fclose(file1);
    if (file2)
        fclose(file2);
    return same && n > 1;
}

static void check_choice(const char *best, bool filter, const char *what)
{
    char line[64];
    snprintf(line, sizeof line, "(%s)", best);
    char *const argv[] = {"/quern-server", "--version", NULL};
    check(run(argv, NULL, filter, false) == 0 && output_has(line), what, best);
}

static void check_refusal(const char *words, bool filter)
{
    char *const argv[] = {"/dump-logits", "/model.gguf", "/ids", "/tmp/logits", NULL};
    check(run(argv, "amx", filter, false) == 1 && output_has(words), "refuses-amx-without", words);
}

/* Level amx computes attention in another way than scalar, and so has logits of its own. */
static bool near_numbers(const char *path1, const char *path2)
{
    FILE *file1 = fopen(path1, "r"), *file2 = fopen(path2, "r");
    double square = 0, n = 0;
    float a, b;
    while (file1 && file2 && fread(&a, sizeof a, 1, file1) == 1 && fread(&b, sizeof b, 1, file2) == 1) {
        square += ((double)a - (double)b) * ((double)a - (double)b);
        n++;
    }
    const bool ends = file1 && file2 && getc(file1) == EOF && getc(file2) == EOF;
    printf("%.0f logits, off by %.2g\n", n, sqrt(square / n));
    if (file1)
        fclose(file1);
    if (file2)
        fclose(file2);
    return ends && sqrt(square / n) <= LOGITS_NEAR;
}

/* Runs the model on `batch` tokens at a time with so many threads; the logits go to that file. */
static bool write_logits(char *path, const char *level, char *batch, char *threads)
{
    unlink(path);
    char *const argv[] = {"/dump-logits", "/model.gguf", "/ids", path, "--batch", batch, "--threads", threads, NULL};
    return run(argv, level, false, true) == 0;
}

static void check_level(char *level)
{
    bool good = write_logits("/tmp/logits", level, "64", "1");
    if (strcmp(level, "amx") == 0) {
        check(good && near_numbers("/tmp/logits", "/expected.f32"), "near-logits", level);
        good = write_logits("/tmp/again", level, "1", "1");
        check(good && same_bytes("/tmp/logits", "/tmp/again"), "same-logits-one-by-one", level);
        /* Three threads on one CPU: Linux has to save their tiles and to give them back. */
        good = write_logits("/tmp/again", level, "7", "3");
        check(good && same_bytes("/tmp/logits", "/tmp/again"), "same-logits-of-three-threads", level);
    } else {
        check(good && same_bytes("/tmp/logits", "/expected.f32"), "same-logits", level);
    }
    char filter[32];
    snprintf(filter, sizeof filter, "%s ", level);
    char *const kernels[] = {"/checkkernels", filter, NULL};
    check(run(kernels, NULL, false, true) == 0, "checkkernels", level);
}

int main(void)
{
    mount("proc", "/proc", "proc", 0, NULL);
    mount("sys", "/sys", "sysfs", 0, NULL);
    const char *best = getenv("best"), *lacks = getenv("lacks");
    char *levels = getenv("levels");
    check_choice(best ? best : "", false, "chooses");
    if (lacks)
        check_refusal(lacks, false);
    if (getenv("filter")) {
        check_refusal("permission", true);
        check_choice("avx512", true, "chooses-without-permission");
    }
    for (char *level = levels ? strtok(levels, ",") : NULL; level; level = strtok(NULL, ","))
        check_level(level);
    puts("CHECK END");
    fflush(stdout);
    sleep(1); /* until the last bytes have left the serial port */
    if (ioperm(0x8900, 1, 1) == 0)
        for (const char *c = "Shutdown"; *c; c++) /* the emulator's own switch */
            outb((unsigned char)*c, 0x8900);
    for (;;)
        pause();
}
