#include "bench/memory.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

enum { READ_PIECE = 4 << 20 };

static void fill_piece(void *arg, int piece, int thread)
{
    (void)thread;
    const struct reading *r = arg;
    uint64_t x = (uint64_t)piece + 1;
    unsigned char *to = r->buffer + (size_t)piece * READ_PIECE;
    for (size_t i = 0; i < READ_PIECE; i += sizeof x) { /* no two pages alike, so that the system cannot merge them */
        x = x * 6364136223846793005 + 1442695040888963407;
        memcpy(to + i, &x, sizeof x);
    }
}

static void read_piece(void *arg, int piece, int thread)
{
    const struct reading *r = arg;
    r->sums[8 * thread] += r->kernels->read_all(r->buffer + (size_t)piece * READ_PIECE, READ_PIECE);
}

uint64_t available_memory(void)
{
    FILE *f = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib = 0;
    while (f && fgets(line, sizeof line, f) && sscanf(line, "MemAvailable: %llu kB", &kib) != 1)
        ;
    if (f)
        fclose(f);
    return kib * 1024;
}

bool reading_init(struct reading *r, size_t wanted, const struct kernels *kernels, struct threads *pool, struct error *err)
{
    uint64_t available = available_memory();
    size_t bytes = available && available / 2 < wanted ? (size_t)(available / 2) : wanted;
    bytes -= bytes % READ_PIECE;
    if (bytes < READ_LEAST)
        return error_set(
            err, "%llu MB of memory are available, too little to measure its speed", (unsigned long long)(available >> 20));
    *r = (struct reading){.kernels = kernels, .bytes = bytes};
    r->sums = aligned_alloc(64, (size_t)threads_count(pool) * 64);
    r->buffer = r->sums ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) : MAP_FAILED;
    if (r->buffer == MAP_FAILED) {
        free(r->sums);
        return error_set(err, "cannot get %zu MB to measure the memory's speed: %s", bytes >> 20, strerror(errno));
    }
#ifdef MADV_HUGEPAGE
    madvise(r->buffer, bytes, MADV_HUGEPAGE);
#endif
    memset(r->sums, 0, (size_t)threads_count(pool) * 64);
    threads_run(pool, (int)(bytes / READ_PIECE), fill_piece, r);
    return true;
}

void reading_end(struct reading *r)
{
    munmap(r->buffer, r->bytes);
    free(r->sums);
}

double read_speed(struct reading *r, struct threads *pool)
{
    double best = 0;
    for (int pass = 0; pass < 2; pass++) {
        double begin = seconds_now();
        threads_run(pool, (int)(r->bytes / READ_PIECE), read_piece, r);
        double speed = (double)r->bytes / (seconds_now() - begin);
        if (speed > best)
            best = speed;
    }
    return best;
}
