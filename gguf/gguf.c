#include "gguf/gguf.h"

#include "gguf/directory.h"
#include "gguf/source.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct gguf {
    struct gguf_source source;
    struct gguf_directory dir;
};

/* A path as messages show it: control characters must not reach a terminal or a log line;
 * everything else, umlauts too, stays as the operator wrote it.
 * Of a long path the end is kept, for the file's name is there. */
static void make_label(const char *path, char label[200])
{
    size_t length = strlen(path), room = 199, out = 0;

    if (length > room) {
        memcpy(label, "...", 3);
        out = 3;
        path += length - (room - 3);
        while (((unsigned char)*path & 0xc0) == 0x80) /* not into the middle of a UTF-8 character */
            path++;
    }
    for (; *path; path++)
        label[out++] = (unsigned char)*path < 0x20 || *path == 0x7f ? '?' : *path;
    label[out] = '\0';
}

struct gguf *gguf_open(const char *path, const struct gguf_options *options, struct error *err)
{
    char label[200];
    make_label(path, label);

    struct gguf *g = calloc(1, sizeof *g);
    if (!g) {
        error_set(err, "%s: out of memory", label);
        return NULL;
    }
    if (gguf_source_open(&g->source, path, label, options && options->no_mmap, err)) {
        if (gguf_directory_read(&g->dir, g->source.data, g->source.size, label, err)) {
            if (!options || !options->mlock || gguf_source_lock(&g->source, label, err))
                return g;
        }
    }
    gguf_close(g);
    return NULL;
}

struct gguf *gguf_open_memory(const void *data, size_t size, struct error *err)
{
    static const char label[] = "GGUF image in memory";

    if ((uintptr_t)data % GGUF_MIN_ALIGNMENT != 0) {
        error_set(err, "%s: its address is not a multiple of %d", label, GGUF_MIN_ALIGNMENT);
        return NULL;
    }
    struct gguf *g = calloc(1, sizeof *g);
    if (!g) {
        error_set(err, "%s: out of memory", label);
        return NULL;
    }
    g->source.data = data;
    g->source.size = size;
    if (gguf_directory_read(&g->dir, data, size, label, err))
        return g;
    gguf_close(g);
    return NULL;
}

void gguf_close(struct gguf *g)
{
    if (!g)
        return;
    gguf_directory_free(&g->dir);
    gguf_source_close(&g->source);
    free(g);
}

uint32_t gguf_version(const struct gguf *g)
{
    return g->dir.version;
}

uint64_t gguf_file_size(const struct gguf *g)
{
    return g->source.size;
}

/* ---- metadata ---- */

static const struct gguf_value *find_value(const struct gguf *g, const char *key)
{
    uint32_t at =
        gguf_names_find(&g->dir.value_names, g->dir.values, sizeof *g->dir.values, (struct gguf_string){key, strlen(key)});
    return at == GGUF_NAMES_NONE ? NULL : &g->dir.values[at];
}

static const struct gguf_value *need_value(const struct gguf *g, const char *key, const char *wanted, struct error *err)
{
    const struct gguf_value *v = find_value(g, key);
    if (!v)
        error_set(err, "the model has no metadata key \"%s\" (%s is wanted)", key, wanted);
    return v;
}

static bool wrong_kind(const struct gguf_value *v, const char *key, const char *wanted, struct error *err)
{
    if (v->kind == GGUF_KIND_ARRAY)
        return error_set(err, "metadata key \"%s\" is an array of %s; %s is wanted", key, gguf_kind_name(v->array_kind), wanted);
    return error_set(err, "metadata key \"%s\" is of kind %s; %s is wanted", key, gguf_kind_name(v->kind), wanted);
}

/* Sign-extends the lowest `bytes` bytes. */
static int64_t load_signed(const unsigned char *p, size_t bytes)
{
    uint64_t x = 0;
    for (size_t i = 0; i < bytes; i++)
        x |= (uint64_t)p[i] << (8 * i);
    int shift = (int)(64 - 8 * bytes);
    return (int64_t)(x << shift) >> shift;
}

bool gguf_get_u64(const struct gguf *g, const char *key, uint64_t *out, struct error *err)
{
    static const char wanted[] = "a non-negative integer";
    const struct gguf_value *v = need_value(g, key, wanted, err);
    int64_t value;

    if (!v)
        return false;
    switch (v->kind) {
    case GGUF_KIND_UINT8:
        *out = v->data[0];
        return true;
    case GGUF_KIND_UINT16:
        *out = gguf_load_u16(v->data);
        return true;
    case GGUF_KIND_UINT32:
        *out = gguf_load_u32(v->data);
        return true;
    case GGUF_KIND_UINT64:
        *out = gguf_load_u64(v->data);
        return true;
    case GGUF_KIND_INT8:
    case GGUF_KIND_INT16:
    case GGUF_KIND_INT32:
    case GGUF_KIND_INT64:
        value = load_signed(v->data, gguf_kind_bytes(v->kind));
        if (value < 0)
            return error_set(err, "metadata key \"%s\" is %" PRId64 "; %s is wanted", key, value, wanted);
        *out = (uint64_t)value;
        return true;
    case GGUF_KIND_FLOAT32:
    case GGUF_KIND_FLOAT64:
    case GGUF_KIND_BOOL:
    case GGUF_KIND_STRING:
    case GGUF_KIND_ARRAY:
        break;
    }
    return wrong_kind(v, key, wanted, err);
}

bool gguf_get_f64(const struct gguf *g, const char *key, double *out, struct error *err)
{
    static const char wanted[] = "FLOAT32 or FLOAT64";
    const struct gguf_value *v = need_value(g, key, wanted, err);

    if (!v)
        return false;
    if (v->kind == GGUF_KIND_FLOAT32) {
        uint32_t bits = gguf_load_u32(v->data);
        float value;
        memcpy(&value, &bits, sizeof value);
        *out = (double)value;
        return true;
    }
    if (v->kind == GGUF_KIND_FLOAT64) {
        uint64_t bits = gguf_load_u64(v->data);
        memcpy(out, &bits, sizeof *out);
        return true;
    }
    return wrong_kind(v, key, wanted, err);
}

bool gguf_get_bool(const struct gguf *g, const char *key, bool *out, struct error *err)
{
    const struct gguf_value *v = need_value(g, key, "BOOL", err);

    if (!v)
        return false;
    if (v->kind != GGUF_KIND_BOOL)
        return wrong_kind(v, key, "BOOL", err);
    *out = v->data[0] != 0;
    return true;
}

bool gguf_get_string(const struct gguf *g, const char *key, struct gguf_string *out, struct error *err)
{
    const struct gguf_value *v = need_value(g, key, "STRING", err);

    if (!v)
        return false;
    if (v->kind != GGUF_KIND_STRING)
        return wrong_kind(v, key, "STRING", err);
    out->data = (const char *)v->data;
    out->length = v->n_bytes;
    return true;
}

bool gguf_get_array(const struct gguf *g, const char *key, enum gguf_kind kind, struct gguf_array *out, struct error *err)
{
    char wanted[32] = "an array of ";
    strncat(wanted, gguf_kind_name(kind), sizeof wanted - strlen(wanted) - 1);
    const struct gguf_value *v = need_value(g, key, wanted, err);

    if (!v)
        return false;
    if (v->kind != GGUF_KIND_ARRAY || v->array_kind != kind)
        return wrong_kind(v, key, wanted, err);
    *out = (struct gguf_array){v->array_kind, v->count, v->data, v->n_bytes};
    return true;
}

bool gguf_has(const struct gguf *g, const char *key)
{
    return find_value(g, key) != NULL;
}

bool gguf_array_next_string(const struct gguf_array *array, size_t *cursor, struct gguf_string *out)
{
    if (array->kind != GGUF_KIND_STRING || *cursor >= array->n_bytes)
        return false;
    /* Every length was checked when the file was opened. */
    out->data = (const char *)array->data + *cursor + 8;
    out->length = (size_t)gguf_load_u64(array->data + *cursor);
    *cursor += 8 + out->length;
    return true;
}

/* ---- tensors ---- */

const struct gguf_tensor *gguf_find_tensor(const struct gguf *g, const char *name)
{
    uint32_t at =
        gguf_names_find(&g->dir.tensor_names, g->dir.tensors, sizeof *g->dir.tensors, (struct gguf_string){name, strlen(name)});
    return at == GGUF_NAMES_NONE ? NULL : &g->dir.tensors[at];
}

size_t gguf_n_tensors(const struct gguf *g)
{
    return g->dir.n_tensors;
}

const struct gguf_tensor *gguf_tensor_at(const struct gguf *g, size_t index)
{
    return index < g->dir.n_tensors ? &g->dir.tensors[index] : NULL;
}

void gguf_release(struct gguf *g, const struct gguf_tensor *tensor)
{
    gguf_source_release(&g->source, tensor->data, (size_t)tensor->n_bytes);
}

void gguf_drop(struct gguf *g, const struct gguf_tensor *tensor)
{
    if (g->source.refetch)
        gguf_release(g, tensor);
}

void gguf_prefetch(const struct gguf *g, const struct gguf_tensor *tensor)
{
    gguf_source_prefetch(&g->source, tensor->data, (size_t)tensor->n_bytes);
}
