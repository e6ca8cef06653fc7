/* A hash index over an array of named things: finds one by name, and notices duplicates while a directory is read.
 * Private to gguf/.
 *
 * The hash is SipHash-1-3 under a key drawn anew for every index, so that nobody can prepare a file whose names all collide;
 * the table grows with the entries that were really added. */
#ifndef QUERN_GGUF_NAMES_H
#define QUERN_GGUF_NAMES_H

#include "gguf/gguf.h"

struct gguf_names_slot {
    uint32_t tag;   /* low half of the hash: most mismatches end here */
    uint32_t entry; /* index + 1; 0 is an empty slot */
};

struct gguf_names {
    uint64_t key[2];
    struct gguf_names_slot *slots; /* [n_slots] */
    size_t n_slots;                /* a power of two, or 0 */
    size_t n_entries;
};

#define GGUF_NAMES_NONE UINT32_MAX

void gguf_names_init(struct gguf_names *names);
void gguf_names_free(struct gguf_names *names);

/* `items` is an array of structs of `stride` bytes whose first member is the struct gguf_string that names them. */

/* Index of the item called `name`, or GGUF_NAMES_NONE. */
uint32_t gguf_names_find(const struct gguf_names *names, const void *items, size_t stride, struct gguf_string name);

/* Adds items[n_entries], the next one. True on success; *other is then GGUF_NAMES_NONE, or the index of an earlier item
 * of the same name (and nothing was added).
 * False when memory ran out. */
bool gguf_names_add(struct gguf_names *names, const void *items, size_t stride, uint32_t *other);

#endif
