/* The directory of a GGUF file: header, metadata and tensor infos, read and checked against the size of the file.
 * Private to gguf/. */
#ifndef QUERN_GGUF_DIRECTORY_H
#define QUERN_GGUF_DIRECTORY_H

#include "gguf/gguf.h"
#include "gguf/names.h"

/* More entries than any model has (the largest have tens of thousands of tensors): what bounds
 * the memory a hostile file can make us spend. */
enum { GGUF_MAX_ENTRIES = 1 << 20 };

enum { GGUF_MIN_ALIGNMENT = 8, GGUF_DEFAULT_ALIGNMENT = 32 };

struct gguf_value {
    struct gguf_string key;    /* must come first: names.h */
    enum gguf_kind kind;
    enum gguf_kind array_kind; /* of the elements, if kind is GGUF_KIND_ARRAY */
    uint64_t count;            /* elements of an array, 1 otherwise */
    size_t n_bytes;            /* of data */
    const unsigned char *data; /* the first element, the bytes of the string, or the value */
};

struct gguf_directory {
    uint32_t version;
    uint32_t alignment; /* bytes */
    struct gguf_value *values; /* [n_values] */
    size_t n_values;
    struct gguf_names value_names;
    struct gguf_tensor *tensors; /* [n_tensors] */
    size_t n_tensors;
    struct gguf_names tensor_names;
};

/* Reads and checks everything. `label` is how messages call the file. On failure the directory is left freed. */
bool gguf_directory_read(
    struct gguf_directory *dir, const unsigned char *data, size_t size, const char *label, struct error *err);
void gguf_directory_free(struct gguf_directory *dir);

/* "UINT32" and so on; "unknown" for a number outside the enum. */
const char *gguf_kind_name(enum gguf_kind kind);
/* Bytes of a value of fixed size; 0 for strings, arrays and unknown kinds. */
size_t gguf_kind_bytes(enum gguf_kind kind);

/* A name as messages show it: in quotes, bytes that do not print as \xNN, long ones cut with their length told. */
struct gguf_quoted {
    char text[288];
};
struct gguf_quoted gguf_quote(struct gguf_string name);

/* Little-endian loads from any address. */
static inline uint16_t gguf_load_u16(const unsigned char *p)
{
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t gguf_load_u32(const unsigned char *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint64_t gguf_load_u64(const unsigned char *p)
{
    return gguf_load_u32(p) | (uint64_t)gguf_load_u32(p + 4) << 32;
}

#endif
