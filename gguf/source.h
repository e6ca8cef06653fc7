/* Where the bytes of a GGUF file lie: mapped, read into private memory, or lent by the caller. Private to gguf/. */
#ifndef QUERN_GGUF_SOURCE_H
#define QUERN_GGUF_SOURCE_H

#include "gguf/error.h"

#include <stdbool.h>
#include <stddef.h>

struct gguf_source {
    const unsigned char *data; /* [size] */
    size_t size;               /* bytes */
    bool owned;                /* unmap when closed */
    bool refetch;              /* mapped from a file: pages given back can be read again */
    bool locked;               /* mlock succeeded: pages stay, whatever gguf_release is told */
};

/* Maps the regular file at `path`, or reads it into anonymous memory. `label` is how messages call the file.
 * An empty file, a directory, a pipe, a missing or forbidden file each have their own sentence.
 *
 * The size is taken once. Whoever shortens a file in place while it is mapped takes pages away from under the reader, which then
 * gets SIGBUS: no check at opening can prevent that. Replace model files by renaming a new one over them; or use no_mmap. */
bool gguf_source_open(struct gguf_source *source, const char *path, const char *label, bool no_mmap, struct error *err);

/* Locks everything into RAM. */
bool gguf_source_lock(struct gguf_source *source, const char *label, struct error *err);

/* Gives back the whole pages inside [data, data + length). Pages that are only partly
 * inside are shared with a neighbour and stay. */
void gguf_source_release(const struct gguf_source *source, const unsigned char *data, size_t length);

/* Announces that [data, data + length) is about to be read. */
void gguf_source_prefetch(const struct gguf_source *source, const unsigned char *data, size_t length);

void gguf_source_close(struct gguf_source *source);

#endif
