/* Guarded buffers, random numbers, comparison of floats. */
#include "tests/checkkernels/check.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* ---- guarded buffers ---- */

enum { CANARY = 64, CANARY_BYTE = 0x5A };

static struct slot {
    unsigned char *end;  /* first forbidden byte */
    size_t room;         /* bytes that may be used before end */
    size_t n;            /* bytes in use */
} slots[MAX_SLOTS];

static void map_slot(struct slot *s, size_t room)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    if (s->end)
        munmap(s->end - s->room, s->room + page);
    s->room = (room + CANARY + page - 1) / page * page;
    unsigned char *p = mmap(NULL, s->room + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED || mprotect(p + s->room, page, PROT_NONE) != 0) {
        fputs("checkkernels: out of memory for a guarded buffer\n", stderr);
        exit(2);
    }
    s->end = p + s->room;
}

void *guarded(int slot, size_t n)
{
    struct slot *s = &slots[slot];
    if (!s->end || s->room < n + CANARY)
        map_slot(s, n * 2);
    s->n = n;
    memset(s->end - n - CANARY, CANARY_BYTE, CANARY);
    memset(s->end - n, 0xFF, n);
    return s->end - n;
}

bool guards_intact(void)
{
    for (int i = 0; i < MAX_SLOTS; i++)
        for (int c = 1; slots[i].end && c <= CANARY; c++)
            if (*(slots[i].end - slots[i].n - c) != CANARY_BYTE)
                return false;
    return true;
}

/* ---- random numbers: xorshift64* (Vigna 2016) ---- */

static uint64_t state = 1;

void random_seed(uint64_t seed)
{
    state = seed * 0x9E3779B97F4A7C15u | 1;
    random_bits();
    random_bits();
}

uint64_t random_bits(void)
{
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545F4914F6CDD1Du;
}

int random_int(int from, int to)
{
    return from + (int)((random_bits() >> 33) % (uint64_t)(to - from + 1));
}

float random_normal(void)
{
    uint64_t b = random_bits(); /* the sum of four 16-bit uniforms, centred */
    double sum = (double)(b & 0xFFFF) + (double)(b >> 16 & 0xFFFF) + (double)(b >> 32 & 0xFFFF) + (double)(b >> 48);
    return (float)((sum / 65536 - 2) * 1.7320508);
}

void random_bytes(void *p, size_t n)
{
    unsigned char *c = p;
    for (size_t i = 0; i < n; i++)
        c[i] = (unsigned char)(random_bits() >> 56);
}

/* ---- floats ---- */

uint32_t float_bits(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

float bits_float(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

size_t difference(const float *a, const float *b, size_t n)
{
    if (memcmp(a, b, n * sizeof *a) == 0)
        return n;
    for (size_t i = 0; i < n; i++)
        if (!(a[i] == b[i] || (isnan(a[i]) && isnan(b[i]))))
            return i;
    return n;
}

double half_value(uint16_t h)
{
    int exponent = h >> 10 & 31, mantissa = h & 1023;
    double v = exponent == 31 ? (mantissa ? (double)NAN : (double)INFINITY)
               : exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024 + mantissa, exponent - 25);
    return h >> 15 ? -v : v;
}
