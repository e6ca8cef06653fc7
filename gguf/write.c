#include "gguf/write.h"

#include "gguf/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "values are written as the machine holds them");

/* A growing byte string. */
struct bytes {
    unsigned char *data;
    size_t length, capacity;
};

struct gguf_writer {
    bool failed;
    struct error error;
    struct bytes values;
    uint64_t n_values;
    struct gguf_tensor *tensors; /* names are owned; data is NULL */
    uint64_t *offsets;           /* [n_tensors] from the start of the tensor data */
    size_t n_tensors, capacity;
    uint64_t end; /* where the next tensor begins */
};

static bool fail(struct gguf_writer *w, const char *what)
{
    if (!w->failed)
        error_set(&w->error, "%s", what);
    w->failed = true;
    return false;
}

static bool append(struct gguf_writer *w, struct bytes *b, const void *data, size_t length)
{
    if (w->failed)
        return false;
    if (length > b->capacity - b->length) {
        size_t capacity = b->capacity ? b->capacity : 4096;
        while (capacity - b->length < length)
            if (__builtin_mul_overflow(capacity, (size_t)2, &capacity))
                return fail(w, "out of memory while building a GGUF directory");
        unsigned char *moved = realloc(b->data, capacity);
        if (!moved)
            return fail(w, "out of memory while building a GGUF directory");
        b->data = moved;
        b->capacity = capacity;
    }
    if (length > 0)
        memcpy(b->data + b->length, data, length);
    b->length += length;
    return true;
}

static void append_u32(struct gguf_writer *w, struct bytes *b, uint32_t x)
{
    append(w, b, &x, sizeof x);
}

static void append_u64(struct gguf_writer *w, struct bytes *b, uint64_t x)
{
    append(w, b, &x, sizeof x);
}

static void append_string(struct gguf_writer *w, struct bytes *b, struct gguf_string s)
{
    append_u64(w, b, s.length);
    append(w, b, s.data, s.length);
}

static struct gguf_string from_c(const char *s)
{
    return (struct gguf_string){s, strlen(s)};
}

struct gguf_writer *gguf_writer_new(void)
{
    return calloc(1, sizeof(struct gguf_writer));
}

void gguf_writer_free(struct gguf_writer *w)
{
    if (!w)
        return;
    for (size_t i = 0; i < w->n_tensors; i++)
        free((void *)(uintptr_t)w->tensors[i].name.data);
    free(w->tensors);
    free(w->offsets);
    free(w->values.data);
    free(w);
}

/* ---- metadata ---- */

static void begin_value(struct gguf_writer *w, const char *key, enum gguf_kind kind)
{
    append_string(w, &w->values, from_c(key));
    append_u32(w, &w->values, kind);
    w->n_values++;
}

void gguf_writer_value(struct gguf_writer *w, const char *key, enum gguf_kind kind, const void *value)
{
    if (!w)
        return;
    if (gguf_kind_bytes(kind) == 0) {
        fail(w, "gguf_writer_value writes scalars only");
        return;
    }
    begin_value(w, key, kind);
    append(w, &w->values, value, gguf_kind_bytes(kind));
}

void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value)
{
    gguf_writer_value(w, key, GGUF_KIND_UINT32, &value);
}

void gguf_writer_f32(struct gguf_writer *w, const char *key, float value)
{
    gguf_writer_value(w, key, GGUF_KIND_FLOAT32, &value);
}

void gguf_writer_bool(struct gguf_writer *w, const char *key, bool value)
{
    gguf_writer_value(w, key, GGUF_KIND_BOOL, &(unsigned char){value});
}

void gguf_writer_string(struct gguf_writer *w, const char *key, const char *value)
{
    gguf_writer_string_bytes(w, key, from_c(value));
}

void gguf_writer_string_bytes(struct gguf_writer *w, const char *key, struct gguf_string value)
{
    if (!w)
        return;
    begin_value(w, key, GGUF_KIND_STRING);
    append_string(w, &w->values, value);
}

void gguf_writer_array(struct gguf_writer *w, const char *key, enum gguf_kind kind, const void *elements, uint64_t count)
{
    size_t length;

    if (!w)
        return;
    if (gguf_kind_bytes(kind) == 0 || __builtin_mul_overflow(count, gguf_kind_bytes(kind), &length)) {
        fail(w, "gguf_writer_array writes scalars only, and no more than memory can hold");
        return;
    }
    begin_value(w, key, GGUF_KIND_ARRAY);
    append_u32(w, &w->values, kind);
    append_u64(w, &w->values, count);
    append(w, &w->values, elements, length);
}

void gguf_writer_strings(struct gguf_writer *w, const char *key, const struct gguf_string *strings, uint64_t count)
{
    if (!w)
        return;
    begin_value(w, key, GGUF_KIND_ARRAY);
    append_u32(w, &w->values, GGUF_KIND_STRING);
    append_u64(w, &w->values, count);
    for (uint64_t i = 0; i < count; i++)
        append_string(w, &w->values, strings[i]);
}

/* ---- tensors ---- */

static bool align(uint64_t *x)
{
    if (*x > UINT64_MAX - GGUF_DEFAULT_ALIGNMENT)
        return false;
    *x = (*x + GGUF_DEFAULT_ALIGNMENT - 1) & ~(uint64_t)(GGUF_DEFAULT_ALIGNMENT - 1);
    return true;
}

static bool reserve_tensor(struct gguf_writer *w)
{
    if (w->n_tensors < w->capacity)
        return true;
    size_t capacity = w->capacity ? w->capacity * 2 : 64;
    struct gguf_tensor *tensors = realloc(w->tensors, capacity * sizeof *tensors);
    if (tensors)
        w->tensors = tensors;
    uint64_t *offsets = realloc(w->offsets, capacity * sizeof *offsets);
    if (offsets)
        w->offsets = offsets;
    if (!tensors || !offsets)
        return false;
    w->capacity = capacity;
    return true;
}

void gguf_writer_tensor(struct gguf_writer *w, const char *name, enum gguf_type type, uint32_t n_dims, const uint64_t *dims)
{
    const struct gguf_type_traits *traits = gguf_type_traits(type);
    struct gguf_tensor t = {.type = type, .n_dims = n_dims, .n_elements = 1};

    if (!w || w->failed)
        return;
    bool ok = traits->name && n_dims >= 1 && n_dims <= GGUF_MAX_DIMS && dims[0] % traits->block_size == 0;
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++) {
        t.dims[i] = i < n_dims ? dims[i] : 1;
        ok = ok && t.dims[i] > 0 && !__builtin_mul_overflow(t.n_elements, t.dims[i], &t.n_elements);
    }
    ok = ok && !__builtin_mul_overflow(t.n_elements / traits->block_size, (uint64_t)traits->block_bytes, &t.n_bytes);
    uint64_t begin = w->end, end;
    ok = ok && !__builtin_add_overflow(begin, t.n_bytes, &end) && align(&end);
    if (!ok) {
        error_set(&w->error, "tensor %s cannot be written: rows of %" PRIu64 " elements of type %s in %" PRIu32 " dimensions",
            gguf_quote(from_c(name)).text, n_dims ? dims[0] : 0, traits->name ? traits->name : "(unknown)", n_dims);
        w->failed = true;
        return;
    }
    char *copy = strdup(name);
    if (!copy || !reserve_tensor(w)) {
        free(copy);
        fail(w, "out of memory while building a GGUF directory");
        return;
    }
    t.name = from_c(copy);
    w->tensors[w->n_tensors] = t;
    w->offsets[w->n_tensors++] = begin;
    w->end = end;
}

size_t gguf_writer_n_tensors(const struct gguf_writer *w)
{
    return w ? w->n_tensors : 0;
}

/* ---- the finished file ---- */

/* Header, metadata and tensor infos, padded to the alignment: all that stands before
 * the tensor data. The caller frees head->data. */
static bool build_head(struct gguf_writer *w, struct bytes *head)
{
    memset(head, 0, sizeof *head);
    append(w, head, "GGUF", 4);
    append_u32(w, head, 3);
    append_u64(w, head, w->n_tensors);
    append_u64(w, head, w->n_values);
    append(w, head, w->values.data, w->values.length);
    for (size_t i = 0; i < w->n_tensors; i++) {
        const struct gguf_tensor *t = &w->tensors[i];
        append_string(w, head, t->name);
        append_u32(w, head, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++)
            append_u64(w, head, t->dims[d]);
        append_u32(w, head, t->type);
        append_u64(w, head, w->offsets[i]);
    }
    static const unsigned char zeros[GGUF_DEFAULT_ALIGNMENT];
    append(w, head, zeros, -head->length % GGUF_DEFAULT_ALIGNMENT);
    if (!w->failed)
        return true;
    free(head->data);
    head->data = NULL;
    return false;
}

uint64_t gguf_writer_size(struct gguf_writer *w)
{
    struct bytes head;

    if (!w || !build_head(w, &head))
        return 0;
    free(head.data);
    return head.length + w->end;
}

/* Bytes asked of a fill callback at once: whole blocks, few enough to stay in the cache. */
static size_t chunk_bytes(const struct gguf_tensor *t, uint64_t offset)
{
    size_t block = gguf_type_traits(t->type)->block_bytes;
    uint64_t chunk = ((size_t)256 << 10) / block * block;
    return (size_t)(t->n_bytes - offset < chunk ? t->n_bytes - offset : chunk);
}

static bool writer_ready(struct gguf_writer *w, struct error *err)
{
    if (!w)
        return error_set(err, "out of memory while building a GGUF directory");
    return w->failed ? error_set(err, "%s", w->error.text) : true;
}

static bool write_all(int fd, const void *data, size_t length, const char *path, struct error *err)
{
    for (size_t done = 0; done < length;) {
        ssize_t n = write(fd, (const char *)data + done, length - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_set(err, "%s: cannot write: %s", path, strerror(errno));
        done += (size_t)n;
    }
    return true;
}

static bool write_tensor(const struct gguf_tensor *t, int fd, const char *path, unsigned char *buffer, gguf_fill *fill,
    void *context, struct error *err)
{
    static const unsigned char zeros[GGUF_DEFAULT_ALIGNMENT];

    for (uint64_t offset = 0; offset < t->n_bytes;) {
        size_t n = chunk_bytes(t, offset);
        if (!fill(context, t, offset, buffer, n, err) || !write_all(fd, buffer, n, path, err))
            return false;
        offset += n;
    }
    return write_all(fd, zeros, (size_t)(-t->n_bytes % GGUF_DEFAULT_ALIGNMENT), path, err);
}

bool gguf_writer_save(struct gguf_writer *w, const char *path, gguf_fill *fill, void *context, struct error *err)
{
    struct bytes head;

    if (!writer_ready(w, err))
        return false;
    if (!build_head(w, &head))
        return writer_ready(w, err);

    size_t length = strlen(path) + sizeof ".part";
    char *part = malloc(length);
    unsigned char *buffer = malloc((size_t)256 << 10);
    bool ok = part && buffer;
    if (!ok) {
        error_set(err, "%s: out of memory", path);
    } else {
        snprintf(part, length, "%s.part", path);
        int fd = open(part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
        if (fd < 0) {
            ok = error_set(err, "%s: cannot create: %s", part, strerror(errno));
        } else {
            ok = write_all(fd, head.data, head.length, part, err);
            for (size_t i = 0; ok && i < w->n_tensors; i++)
                ok = write_tensor(&w->tensors[i], fd, part, buffer, fill, context, err);
            if (close(fd) != 0 && ok)
                ok = error_set(err, "%s: cannot write: %s", part, strerror(errno));
            if (ok && rename(part, path) != 0)
                ok = error_set(err, "%s: cannot rename to %s: %s", part, path, strerror(errno));
            if (!ok)
                unlink(part);
        }
    }
    free(buffer);
    free(part);
    free(head.data);
    return ok;
}

void *gguf_writer_image(struct gguf_writer *w, gguf_fill *fill, void *context, size_t *size, struct error *err)
{
    struct bytes head;

    if (!writer_ready(w, err))
        return NULL;
    if (!build_head(w, &head)) {
        writer_ready(w, err);
        return NULL;
    }
    uint64_t total = head.length + w->end;
    unsigned char *image = total > SIZE_MAX / 2
                               ? MAP_FAILED
                               : mmap(NULL, (size_t)total, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (image == MAP_FAILED) {
        error_set(err, "cannot reserve %" PRIu64 " bytes of memory for a model", total);
        free(head.data);
        return NULL;
    }
    /* A gigabyte has 268,000 small pages to fault in; if the system has no large ones, no harm. */
    madvise(image, (size_t)total, MADV_HUGEPAGE);
    memcpy(image, head.data, head.length);
    bool ok = true;
    for (size_t i = 0; ok && i < w->n_tensors; i++) {
        const struct gguf_tensor *t = &w->tensors[i];
        unsigned char *to = image + head.length + w->offsets[i];
        for (uint64_t offset = 0; ok && offset < t->n_bytes;) {
            size_t n = chunk_bytes(t, offset);
            ok = fill(context, t, offset, to + offset, n, err);
            offset += n;
        }
    }
    free(head.data);
    if (!ok) {
        gguf_image_free(image, (size_t)total);
        return NULL;
    }
    *size = (size_t)total;
    return image;
}

void gguf_image_free(void *image, size_t size)
{
    if (image)
        munmap(image, size);
}
