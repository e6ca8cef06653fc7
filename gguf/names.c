#include "gguf/names.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

static uint64_t rotate(uint64_t x, int bits)
{
    return x << bits | x >> (64 - bits);
}

static void sip_round(uint64_t v[4])
{
    v[0] += v[1], v[1] = rotate(v[1], 13) ^ v[0], v[0] = rotate(v[0], 32);
    v[2] += v[3], v[3] = rotate(v[3], 16) ^ v[2];
    v[0] += v[3], v[3] = rotate(v[3], 21) ^ v[0];
    v[2] += v[1], v[1] = rotate(v[1], 17) ^ v[2], v[2] = rotate(v[2], 32);
}

/* SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; one compression and three finalisation rounds).
 * The bytes are taken in the machine's own order, since the result never leaves the process. */
static uint64_t hash(const struct gguf_names *names, struct gguf_string s)
{
    uint64_t v[4] = {names->key[0] ^ 0x736f6d6570736575, names->key[1] ^ 0x646f72616e646f6d, names->key[0] ^ 0x6c7967656e657261,
                     names->key[1] ^ 0x7465646279746573};
    size_t i = 0;
    uint64_t word;

    for (; s.length - i >= 8; i += 8) {
        memcpy(&word, s.data + i, 8);
        v[3] ^= word;
        sip_round(v);
        v[0] ^= word;
    }
    word = 0;
    memcpy(&word, s.data + i, s.length - i);
    word ^= (uint64_t)s.length << 56;
    v[3] ^= word;
    sip_round(v);
    v[0] ^= word;
    v[2] ^= 0xff;
    for (int round = 0; round < 3; round++)
        sip_round(v);
    return v[0] ^ v[1] ^ v[2] ^ v[3];
}

void gguf_names_init(struct gguf_names *names)
{
    memset(names, 0, sizeof *names);
    if (getrandom(names->key, sizeof names->key, GRND_NONBLOCK) != (ssize_t)sizeof names->key) {
        /* Early in boot the kernel may have no random numbers yet. The time and our own addresses are the next best thing. */
        struct timespec now;
        clock_gettime(CLOCK_MONOTONIC, &now);
        names->key[0] = (uint64_t)now.tv_nsec * 0x9e3779b97f4a7c15 ^ (uint64_t)now.tv_sec;
        names->key[1] = (uint64_t)(uintptr_t)names * 0xd1342543de82ef95;
    }
}

void gguf_names_free(struct gguf_names *names)
{
    free(names->slots);
    memset(names, 0, sizeof *names);
}

static struct gguf_string name_of(const void *items, size_t stride, size_t index)
{
    struct gguf_string name;
    memcpy(&name, (const char *)items + index * stride, sizeof name);
    return name;
}

/* The slot that holds `name`, or the empty one where it belongs. */
static struct gguf_names_slot *probe(
    const struct gguf_names *names, const void *items, size_t stride, struct gguf_string name, uint64_t h)
{
    size_t mask = names->n_slots - 1;

    for (size_t i = (size_t)(h >> 32) & mask;; i = (i + 1) & mask) {
        struct gguf_names_slot *slot = &names->slots[i];
        if (slot->entry == 0)
            return slot;
        if (slot->tag == (uint32_t)h) {
            struct gguf_string other = name_of(items, stride, slot->entry - 1);
            if (other.length == name.length && memcmp(other.data, name.data, name.length) == 0)
                return slot;
        }
    }
}

uint32_t gguf_names_find(const struct gguf_names *names, const void *items, size_t stride, struct gguf_string name)
{
    if (names->n_slots == 0)
        return GGUF_NAMES_NONE;
    const struct gguf_names_slot *slot = probe(names, items, stride, name, hash(names, name));
    return slot->entry == 0 ? GGUF_NAMES_NONE : slot->entry - 1;
}

static bool grow(struct gguf_names *names, const void *items, size_t stride)
{
    struct gguf_names bigger = *names;

    bigger.n_slots = names->n_slots ? names->n_slots * 2 : 64;
    bigger.slots = calloc(bigger.n_slots, sizeof *bigger.slots);
    if (!bigger.slots)
        return false;
    for (size_t i = 0; i < names->n_entries; i++) {
        struct gguf_string name = name_of(items, stride, i);
        uint64_t h = hash(names, name);
        *probe(&bigger, items, stride, name, h) = (struct gguf_names_slot){(uint32_t)h, (uint32_t)i + 1};
    }
    free(names->slots);
    *names = bigger;
    return true;
}

bool gguf_names_add(struct gguf_names *names, const void *items, size_t stride, uint32_t *other)
{
    if (names->n_entries * 3 >= names->n_slots * 2 && !grow(names, items, stride))
        return false;

    struct gguf_string name = name_of(items, stride, names->n_entries);
    uint64_t h = hash(names, name);
    struct gguf_names_slot *slot = probe(names, items, stride, name, h);
    if (slot->entry != 0) {
        *other = slot->entry - 1;
        return true;
    }
    *slot = (struct gguf_names_slot){(uint32_t)h, (uint32_t)++names->n_entries};
    *other = GGUF_NAMES_NONE;
    return true;
}
