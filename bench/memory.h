/* How fast all threads together read the memory: the yardstick. */
#ifndef QUERN_BENCH_MEMORY_H
#define QUERN_BENCH_MEMORY_H

#include "engine/threads.h"
#include "kernels/kernels.h"

struct reading {
    const struct kernels *kernels;
    unsigned char *buffer;
    size_t bytes;
    uint64_t *sums; /* [threads][8]: a cache line each */
};

/* A buffer of `wanted` bytes, or of half of what is available where that is less; but not under READ_LEAST. */
enum { READ_LEAST = 64 << 20 };
bool reading_init(struct reading *r, size_t wanted, const struct kernels *kernels, struct threads *pool, struct error *err);
void reading_end(struct reading *r);
double read_speed(struct reading *r, struct threads *pool); /* bytes/s, the better of two passes */

/* Bytes the system can give without swapping; 0 if it does not say. */
uint64_t available_memory(void);

double seconds_now(void); /* of a clock that only goes forward */

#endif
