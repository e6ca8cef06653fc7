/* Reading GGUF model files, version 2 and 3, little-endian.
 * Source of the format: the GGUF specification (ggml repository, docs/gguf.md).
 *
 * The file is checked completely when it is opened: every count, length, offset, alignment and product of dimensions
 * against the real size of the file, so that whatever a `struct gguf` hands out can be read without another check.
 * Nothing is allocated in proportion to a number that merely stands in the file. Every message names the key or tensor
 * and the byte offset; names that do not print are escaped.
 *
 * Out of scope: a file that is shortened in place while it is mapped. Its pages vanish and the reader gets SIGBUS,
 * whatever was checked before. Replace a model by renaming a new file over it, or use no_mmap.
 *
 * Ownership: everything handed out (strings, arrays, tensor data) points into the file's memory and lives until gguf_close.
 * Threads: a `struct gguf` is read-only after opening; any number of threads may read it. */
#ifndef QUERN_GGUF_H
#define QUERN_GGUF_H

#include "gguf/error.h"
#include "gguf/types.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct gguf;

struct gguf_options {
    bool no_mmap; /* read the file into private memory instead of mapping it */
    bool mlock;   /* lock what is mapped or read into RAM; failure to lock is an error that names RLIMIT_MEMLOCK */
};

/* Metadata value types, numbered as in the file. */
enum gguf_kind {
    GGUF_KIND_UINT8 = 0,
    GGUF_KIND_INT8 = 1,
    GGUF_KIND_UINT16 = 2,
    GGUF_KIND_INT16 = 3,
    GGUF_KIND_UINT32 = 4,
    GGUF_KIND_INT32 = 5,
    GGUF_KIND_FLOAT32 = 6,
    GGUF_KIND_BOOL = 7,
    GGUF_KIND_STRING = 8,
    GGUF_KIND_ARRAY = 9,
    GGUF_KIND_UINT64 = 10,
    GGUF_KIND_INT64 = 11,
    GGUF_KIND_FLOAT64 = 12
};

struct gguf_string {
    const char *data; /* [length] bytes, not NUL-terminated, not necessarily UTF-8 */
    size_t length;    /* bytes */
};

struct gguf_array {
    enum gguf_kind kind;       /* of the elements; never GGUF_KIND_ARRAY (nested arrays are refused) */
    uint64_t count;            /* elements */
    const unsigned char *data; /* elements as they stand in the file: packed, unaligned, little-endian;
                                * use gguf_array_next_string for strings */
    size_t n_bytes;            /* of data */
};

enum { GGUF_MAX_DIMS = 4 };

struct gguf_tensor {
    struct gguf_string name;
    enum gguf_type type;
    uint32_t n_dims;
    uint64_t dims[GGUF_MAX_DIMS]; /* dims[0] is the contiguous one (columns); unused ones are 1 */
    uint64_t n_elements;
    uint64_t n_bytes;
    const unsigned char *data; /* [n_bytes] blocks, row after row */
};

/* Opens and checks a file. Returns NULL and fills err on failure. */
struct gguf *gguf_open(const char *path, const struct gguf_options *options, struct error *err);

/* As gguf_open, for a file image in memory that the caller owns and keeps until after gguf_close. Its address must be a multiple
 * of 8; for the tensors to be aligned as they are in a mapped file, of general.alignment (32 unless the file says otherwise). */
struct gguf *gguf_open_memory(const void *data, size_t size, struct error *err);

void gguf_close(struct gguf *g); /* NULL is allowed */

uint32_t gguf_version(const struct gguf *g);
uint64_t gguf_file_size(const struct gguf *g); /* bytes */

/* Typed getters: true and *out set if the key exists and has a fitting type. A missing key or a wrong type is false
 * with a sentence naming the key, the type found and the type wanted. gguf_get_u64 takes any integer type whose value
 * is not negative; gguf_get_f64 takes FLOAT32 and FLOAT64. */
bool gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct error *err);
bool gguf_get_f64(const struct gguf *g, const char *key, double *out, struct error *err);
bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err);
bool gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out, struct error *err);
bool gguf_get_array(const struct gguf *g, const char *key, enum gguf_kind kind, struct gguf_array *out, struct error *err);
bool gguf_has(const struct gguf *g, const char *key);

/* Walks a string array: *cursor starts at 0 (it is a byte offset); false at the end. */
bool gguf_array_next_string(const struct gguf_array *array, size_t *cursor, struct gguf_string *out);

/* Tensor by name, or NULL. Tensors by index 0..gguf_n_tensors-1 in file order;
 * they stand in one array, which begins with tensor 0. */
const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name);
size_t gguf_n_tensors(const struct gguf *g);
const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t index); /* NULL beyond the last */

/* The caller will not read this tensor's data again: gives its whole pages back to the system (for a mapped file they can
 * still be read, at the price of fetching them again; with no_mmap or for gguf_open_memory on anonymous memory they read
 * as zeros). Never fails; a locked file stays. */
void gguf_release(struct gguf *g, const struct gguf_tensor *tensor);

/* As gguf_release, for data that will be read again, but seldom: gives pages back only
 * where they can be fetched from the file. */
void gguf_drop(struct gguf *g, const struct gguf_tensor *tensor);

/* Tells the system that this tensor will be read soon and in order (readahead). */
void gguf_prefetch(const struct gguf *g, const struct gguf_tensor *tensor);

#endif
