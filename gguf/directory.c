/* Reading the directory. The rule throughout: a number from the file is compared with the bytes that are left before anything
 * is done with it, and every array here grows only with entries that were really read. */
#include "gguf/directory.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    const unsigned char *data;
    size_t size;
    size_t at; /* next byte; never beyond size */
    const char *label;
    struct error *err;
};

static size_t left(const struct reader *r)
{
    return r->size - r->at;
}

/* Messages name what is being read twice over: what ("metadata key", "tensor", "the header"),
 * its quoted name (or ""), and the part of it. */
static bool ends_inside(const struct reader *r, const char *what, const char *name, const char *part)
{
    return error_set(r->err,
        "%s: the file ends at byte %zu inside its own directory: %s%s%s, %s at byte %zu; it is cut short, fetch it again",
        r->label, r->size, what, *name ? " " : "", name, part, r->at);
}

static bool read_u32(struct reader *r, uint32_t *out)
{
    if (left(r) < 4)
        return false;
    *out = gguf_load_u32(r->data + r->at);
    r->at += 4;
    return true;
}

static bool read_u64(struct reader *r, uint64_t *out)
{
    if (left(r) < 8)
        return false;
    *out = gguf_load_u64(r->data + r->at);
    r->at += 8;
    return true;
}

/* A string whose length stands before it. False, with r->at at the length, if it does not fit into the rest of the file. */
static bool read_string(struct reader *r, struct gguf_string *out)
{
    size_t start = r->at;
    uint64_t length;

    if (!read_u64(r, &length) || length > left(r)) {
        r->at = start;
        return false;
    }
    out->data = (const char *)r->data + r->at;
    out->length = (size_t)length;
    r->at += (size_t)length;
    return true;
}

/* Says why read_string failed at r->at. */
static bool bad_string(const struct reader *r, const char *what, const char *name, const char *part)
{
    if (left(r) < 8)
        return ends_inside(r, what, name, part);
    return error_set(r->err, "%s: %s%s%s: %s at byte %zu claims a length of %" PRIu64 " bytes, but only %zu are left in the file",
        r->label, what, *name ? " " : "", name, part, r->at, gguf_load_u64(r->data + r->at), left(r) - 8);
}

static bool out_of_memory(const struct reader *r)
{
    return error_set(r->err, "%s: out of memory while reading the directory at byte %zu", r->label, r->at);
}

/* Doubles an array when it is full. */
static void *reserve(void *items, size_t n, size_t *capacity, size_t stride)
{
    if (n < *capacity)
        return items;
    size_t bigger = *capacity ? *capacity * 2 : 32;
    void *moved = realloc(items, bigger * stride);
    if (moved)
        *capacity = bigger;
    return moved;
}

/* ---- header ---- */

static bool not_gguf(const struct reader *r)
{
    static const struct {
        const char *start, *meaning;
    } others[] = {
        {"<!DOCTYPE", "it looks like a web page: the download fetched an error page instead of the model"},
        {"<!doctype", "it looks like a web page: the download fetched an error page instead of the model"},
        {"<html", "it looks like a web page: the download fetched an error page instead of the model"},
        {"version https://git-lfs", "it is a Git LFS pointer: the model itself was not fetched"},
        {"PK\003\004", "it is a zip archive, perhaps a PyTorch model; convert it to GGUF first"},
        {"tjgg", "it is in the older GGJT format; convert it to GGUF first"},
        {"lmgg", "it is in the older GGML format; convert it to GGUF first"},
        {"fmgg", "it is in the older GGMF format; convert it to GGUF first"},
        {"FUGG", "its bytes are swapped"},
    };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        size_t length = strlen(others[i].start);
        if (r->size >= length && memcmp(r->data, others[i].start, length) == 0)
            return error_set(r->err, "%s: is not a GGUF file: %s", r->label, others[i].meaning);
    }
    struct gguf_string start = {(const char *)r->data, r->size < 4 ? r->size : 4};
    return error_set(r->err, "%s: is not a GGUF file: it begins with %s, not with \"GGUF\"", r->label, gguf_quote(start).text);
}

static bool read_header(struct reader *r, struct gguf_directory *dir, uint64_t *n_tensors, uint64_t *n_values)
{
    if (r->size < 4 || memcmp(r->data, "GGUF", 4) != 0)
        return not_gguf(r);
    r->at = 4;
    if (!read_u32(r, &dir->version))
        return ends_inside(r, "the header", "", "the version number");
    if (dir->version == 1)
        return error_set(r->err,
            "%s: is GGUF version 1 (byte 4), which is too old to be read; only versions 2 and 3 are; convert it anew", r->label);
    if (dir->version != 2 && dir->version != 3) {
        uint32_t swapped = __builtin_bswap32(dir->version);
        if (swapped >= 1 && swapped <= 3)
            return error_set(r->err,
                "%s: is a big-endian GGUF file (version %" PRIu32
                " with its bytes swapped, byte 4); only little-endian ones can be read",
                r->label, swapped);
        return error_set(
            r->err, "%s: is GGUF version %" PRIu32 " (byte 4); only versions 2 and 3 can be read", r->label, dir->version);
    }
    if (!read_u64(r, n_tensors) || !read_u64(r, n_values))
        return ends_inside(r, "the header", "", "the counts of tensors and metadata");

    /* The smallest entries possible: a metadata entry is a key length, a kind and one byte; a tensor a name length,
     * a dimension count, one dimension, a type and an offset. */
    const size_t min_value = 8 + 4 + 1, min_tensor = 8 + 4 + 8 + 4 + 8;
    if (*n_tensors > left(r) / min_tensor)
        return error_set(r->err,
            "%s: the header claims %" PRIu64 " tensors (byte 8), but the %zu bytes that are left cannot hold so many", r->label,
            *n_tensors, left(r));
    if (*n_values > left(r) / min_value)
        return error_set(r->err,
            "%s: the header claims %" PRIu64 " metadata entries (byte 16), but the %zu bytes that are left cannot hold so many",
            r->label, *n_values, left(r));
    if (*n_tensors > GGUF_MAX_ENTRIES || *n_values > GGUF_MAX_ENTRIES)
        return error_set(r->err,
            "%s: the header claims %" PRIu64 " tensors (byte 8) and %" PRIu64
            " metadata entries (byte 16); no model has more than %d",
            r->label, *n_tensors, *n_values, GGUF_MAX_ENTRIES);
    return true;
}

/* ---- metadata ---- */

static bool check_bools(const struct reader *r, const unsigned char *bytes, uint64_t count, const char *key)
{
    for (uint64_t i = 0; i < count; i++)
        if (bytes[i] > 1)
            return error_set(r->err, "%s: metadata key %s: the BOOL at byte %zu is %u; only 0 and 1 are allowed", r->label, key,
                             (size_t)(bytes + i - r->data), bytes[i]);
    return true;
}

static bool read_array(struct reader *r, struct gguf_value *v, const char *key)
{
    size_t start = r->at;
    uint32_t kind;

    if (!read_u32(r, &kind) || !read_u64(r, &v->count)) {
        r->at = start;
        return ends_inside(r, "metadata key", key, "the head of its array");
    }
    if (kind == GGUF_KIND_ARRAY)
        return error_set(
            r->err, "%s: metadata key %s at byte %zu is an array of arrays, which is not supported", r->label, key, start);
    if (kind > GGUF_KIND_FLOAT64)
        return error_set(r->err, "%s: metadata key %s: the array at byte %zu has elements of unknown kind %" PRIu32, r->label,
            key, start, kind);
    v->array_kind = (enum gguf_kind)kind;
    v->data = r->data + r->at;

    size_t each = kind == GGUF_KIND_STRING ? 8 : gguf_kind_bytes(v->array_kind);
    if (v->count > left(r) / each)
        return error_set(r->err,
            "%s: metadata key %s: the array at byte %zu claims %" PRIu64
            " elements of kind %s, but only %zu bytes are left in the file",
            r->label, key, start, v->count, gguf_kind_name(v->array_kind), left(r));
    if (kind != GGUF_KIND_STRING) {
        if (kind == GGUF_KIND_BOOL && !check_bools(r, v->data, v->count, key))
            return false;
        v->n_bytes = (size_t)v->count * each;
        r->at += v->n_bytes;
        return true;
    }
    for (uint64_t i = 0; i < v->count; i++) {
        struct gguf_string element;
        if (!read_string(r, &element))
            return bad_string(r, "metadata key", key, "a string of its array");
    }
    v->n_bytes = (size_t)(r->data + r->at - v->data);
    return true;
}

static bool read_value(struct reader *r, struct gguf_value *v, const char *key)
{
    size_t start = r->at;
    uint32_t kind;

    if (!read_u32(r, &kind))
        return ends_inside(r, "metadata key", key, "the kind of its value");
    if (kind > GGUF_KIND_FLOAT64)
        return error_set(
            r->err, "%s: metadata key %s: the value at byte %zu has the unknown kind %" PRIu32, r->label, key, start, kind);
    v->kind = (enum gguf_kind)kind;
    v->count = 1;
    if (v->kind == GGUF_KIND_ARRAY)
        return read_array(r, v, key);
    if (v->kind == GGUF_KIND_STRING) {
        struct gguf_string s;
        if (!read_string(r, &s))
            return bad_string(r, "metadata key", key, "its string");
        v->data = (const unsigned char *)s.data;
        v->n_bytes = s.length;
        return true;
    }
    if (left(r) < gguf_kind_bytes(v->kind))
        return ends_inside(r, "metadata key", key, "its value");
    v->data = r->data + r->at;
    v->n_bytes = gguf_kind_bytes(v->kind);
    r->at += v->n_bytes;
    return v->kind != GGUF_KIND_BOOL || check_bools(r, v->data, 1, key);
}

static bool read_values(struct reader *r, struct gguf_directory *dir, uint64_t n_values)
{
    size_t capacity = 0;

    for (uint64_t i = 0; i < n_values; i++) {
        size_t start = r->at;
        struct gguf_value v = {0};
        if (!read_string(r, &v.key))
            return bad_string(r, "metadata", "", "the key");
        struct gguf_quoted key = gguf_quote(v.key);
        if (!read_value(r, &v, key.text))
            return false;

        struct gguf_value *values = reserve(dir->values, dir->n_values, &capacity, sizeof *values);
        if (!values)
            return out_of_memory(r);
        dir->values = values;
        values[dir->n_values] = v;
        uint32_t other;
        if (!gguf_names_add(&dir->value_names, values, sizeof *values, &other))
            return out_of_memory(r);
        if (other != GGUF_NAMES_NONE)
            return error_set(r->err, "%s: metadata key %s at byte %zu is a duplicate: the same key stands at byte %zu", r->label,
                key.text, start, (size_t)((const unsigned char *)values[other].key.data - r->data) - 8);
        dir->n_values++;
    }
    return true;
}

static bool read_alignment(const struct reader *r, struct gguf_directory *dir)
{
    static const char name[] = "general.alignment";
    uint32_t at =
        gguf_names_find(&dir->value_names, dir->values, sizeof *dir->values, (struct gguf_string){name, sizeof name - 1});

    dir->alignment = GGUF_DEFAULT_ALIGNMENT;
    if (at == GGUF_NAMES_NONE)
        return true;
    const struct gguf_value *v = &dir->values[at];
    size_t offset = (size_t)(v->data - r->data);
    if (v->kind != GGUF_KIND_UINT32)
        return error_set(r->err, "%s: metadata key \"general.alignment\" at byte %zu is of kind %s; it must be UINT32", r->label,
            offset, gguf_kind_name(v->kind));
    uint32_t alignment = gguf_load_u32(v->data);
    if (alignment < GGUF_MIN_ALIGNMENT || (alignment & (alignment - 1)) != 0)
        return error_set(r->err,
            "%s: metadata key \"general.alignment\" at byte %zu is %" PRIu32 "; it must be a power of two and a multiple of %d",
            r->label, offset, alignment, GGUF_MIN_ALIGNMENT);
    dir->alignment = alignment;
    return true;
}

/* ---- tensors ---- */

static bool read_dims(struct reader *r, struct gguf_tensor *t, const char *name)
{
    size_t start = r->at;

    if (!read_u32(r, &t->n_dims))
        return ends_inside(r, "tensor", name, "its number of dimensions");
    if (t->n_dims == 0 || t->n_dims > GGUF_MAX_DIMS)
        return error_set(r->err, "%s: tensor %s has %" PRIu32 " dimensions (byte %zu); 1 to %d are allowed", r->label, name,
            t->n_dims, start, GGUF_MAX_DIMS);
    t->n_elements = 1;
    for (uint32_t i = 0; i < GGUF_MAX_DIMS; i++) {
        t->dims[i] = 1;
        if (i >= t->n_dims)
            continue;
        size_t at = r->at;
        if (!read_u64(r, &t->dims[i]))
            return ends_inside(r, "tensor", name, "its dimensions");
        if (t->dims[i] == 0)
            return error_set(r->err, "%s: tensor %s: dimension %" PRIu32 " at byte %zu is 0", r->label, name, i, at);
        if (__builtin_mul_overflow(t->n_elements, t->dims[i], &t->n_elements) || t->n_elements > INT64_MAX)
            return error_set(r->err,
                "%s: tensor %s: dimension %" PRIu32 " at byte %zu is %" PRIu64 ": the number of elements does not fit 63 bits",
                r->label, name, i, at, t->dims[i]);
    }
    return true;
}

/* Type and offset; leaves the offset (counted from the start of the tensor data) in *offset. */
static bool read_type_and_offset(struct reader *r, struct gguf_tensor *t, uint64_t *offset, uint32_t alignment, const char *name)
{
    size_t start = r->at;
    uint32_t type;

    if (!read_u32(r, &type))
        return ends_inside(r, "tensor", name, "its type");
    const struct gguf_type_traits *traits = gguf_type_traits(type);
    if (!traits->name)
        return error_set(r->err, "%s: tensor %s has the unknown type %" PRIu32 " (byte %zu)", r->label, name, type, start);
    t->type = (enum gguf_type)type;
    if (t->dims[0] % traits->block_size != 0)
        return error_set(r->err,
            "%s: tensor %s: its rows of %" PRIu64 " elements cannot be of type %s (byte %zu), which comes in blocks of %" PRIu32,
            r->label, name, t->dims[0], traits->name, start, traits->block_size);
    if (__builtin_mul_overflow(t->n_elements / traits->block_size, (uint64_t)traits->block_bytes, &t->n_bytes) ||
        t->n_bytes > INT64_MAX)
        return error_set(r->err, "%s: tensor %s: the bytes of %" PRIu64 " elements of type %s (byte %zu) do not fit 63 bits",
            r->label, name, t->n_elements, traits->name, start);
    start = r->at;
    if (!read_u64(r, offset))
        return ends_inside(r, "tensor", name, "its offset");
    if (*offset % alignment != 0)
        return error_set(r->err, "%s: tensor %s: its offset %" PRIu64 " (byte %zu) is not a multiple of the alignment %" PRIu32,
            r->label, name, *offset, start, alignment);
    return true;
}

/* Where in the file a tensor's entry begins, for messages. */
static size_t entry_offset(const struct reader *r, const struct gguf_tensor *t)
{
    return (size_t)((const unsigned char *)t->name.data - r->data) - 8;
}

/* Places the tensors: their data begins at the next multiple of the alignment after the directory (r->at).
 * Until now `data` held nothing and offsets[] what the file says. */
static bool place_tensors(const struct reader *r, struct gguf_directory *dir, const uint64_t *offsets)
{
    if (dir->n_tensors == 0)
        return true;
    size_t base = (r->at + dir->alignment - 1) & ~((size_t)dir->alignment - 1);
    if (base < r->at || base > r->size)
        return error_set(r->err,
            "%s: the directory ends at byte %zu and the tensors should begin at byte %zu, but the file ends at byte %zu; "
            "it is cut short, fetch it again", r->label, r->at, base, r->size);
    size_t room = r->size - base;
    for (size_t i = 0; i < dir->n_tensors; i++) {
        struct gguf_tensor *t = &dir->tensors[i];
        if (offsets[i] > room || t->n_bytes > room - offsets[i])
            return error_set(r->err,
                "%s: tensor %s (entry at byte %zu) has %" PRIu64 " bytes of data at offset %" PRIu64 " from byte %zu, "
                "but the file ends at byte %zu; it is cut short or damaged, fetch it again",
                r->label, gguf_quote(t->name).text, entry_offset(r, t), t->n_bytes, offsets[i], base, r->size);
        t->data = r->data + base + offsets[i];
    }
    return true;
}

static int by_place(const void *a, const void *b)
{
    const struct gguf_tensor *const *x = a, *const *y = b;
    return ((*x)->data > (*y)->data) - ((*x)->data < (*y)->data);
}

static bool check_overlap(const struct reader *r, const struct gguf_tensor *first, const struct gguf_tensor *second)
{
    if ((size_t)(second->data - first->data) >= first->n_bytes)
        return true;
    return error_set(r->err,
        "%s: tensor %s (entry at byte %zu) overlaps tensor %s (entry at byte %zu): its data begins at byte %zu, "
        "the other's ends at byte %zu",
        r->label, gguf_quote(second->name).text, entry_offset(r, second), gguf_quote(first->name).text, entry_offset(r, first),
        (size_t)(second->data - r->data), (size_t)(first->data - r->data) + (size_t)first->n_bytes);
}

static bool check_overlaps(const struct reader *r, const struct gguf_directory *dir)
{
    bool in_order = true; /* as every usual writer leaves them: then no list to sort is needed */

    for (size_t i = 1; i < dir->n_tensors && in_order; i++) {
        in_order = dir->tensors[i].data >= dir->tensors[i - 1].data;
        if (in_order && !check_overlap(r, &dir->tensors[i - 1], &dir->tensors[i]))
            return false;
    }
    if (in_order)
        return true;

    const struct gguf_tensor **order = malloc(dir->n_tensors * sizeof *order);
    if (!order)
        return out_of_memory(r);
    for (size_t i = 0; i < dir->n_tensors; i++)
        order[i] = &dir->tensors[i];
    qsort(order, dir->n_tensors, sizeof *order, by_place);
    bool ok = true;
    for (size_t i = 1; i < dir->n_tensors && ok; i++)
        ok = check_overlap(r, order[i - 1], order[i]);
    free(order);
    return ok;
}

static bool read_tensor(struct reader *r, struct gguf_directory *dir, struct gguf_tensor *t, uint64_t *offset)
{
    if (!read_string(r, &t->name))
        return bad_string(r, "tensors", "", "the name");
    struct gguf_quoted name = gguf_quote(t->name);
    return read_dims(r, t, name.text) && read_type_and_offset(r, t, offset, dir->alignment, name.text);
}

static bool read_tensors(struct reader *r, struct gguf_directory *dir, uint64_t n_tensors)
{
    size_t capacity = 0, offset_capacity = 0;
    uint64_t *offsets = NULL; /* [n_tensors] from the start of the tensor data, which is known only after the last entry */
    bool ok = true;

    while (ok && dir->n_tensors < n_tensors) {
        struct gguf_tensor t = {0};
        uint64_t offset = 0;
        ok = read_tensor(r, dir, &t, &offset);
        if (!ok)
            break;

        struct gguf_tensor *tensors = reserve(dir->tensors, dir->n_tensors, &capacity, sizeof *tensors);
        if (tensors)
            dir->tensors = tensors;
        uint64_t *more = reserve(offsets, dir->n_tensors, &offset_capacity, sizeof *offsets);
        if (more)
            offsets = more;
        if (!tensors || !more) {
            ok = out_of_memory(r);
            break;
        }
        tensors[dir->n_tensors] = t;
        offsets[dir->n_tensors] = offset;
        uint32_t other;
        if (!gguf_names_add(&dir->tensor_names, tensors, sizeof *tensors, &other))
            ok = out_of_memory(r);
        else if (other != GGUF_NAMES_NONE)
            ok = error_set(r->err, "%s: tensor %s at byte %zu is a duplicate: the same name stands at byte %zu", r->label,
                gguf_quote(t.name).text, entry_offset(r, &t), entry_offset(r, &tensors[other]));
        else
            dir->n_tensors++;
    }
    ok = ok && place_tensors(r, dir, offsets) && check_overlaps(r, dir);
    free(offsets);
    return ok;
}

bool gguf_directory_read(struct gguf_directory *dir, const unsigned char *data, size_t size, const char *label, struct error *err)
{
    struct reader r = {data, size, 0, label, err};
    uint64_t n_tensors = 0, n_values = 0;

    memset(dir, 0, sizeof *dir);
    gguf_names_init(&dir->value_names);
    gguf_names_init(&dir->tensor_names);
    if (read_header(&r, dir, &n_tensors, &n_values) && read_values(&r, dir, n_values) && read_alignment(&r, dir) &&
        read_tensors(&r, dir, n_tensors))
        return true;
    gguf_directory_free(dir);
    return false;
}

void gguf_directory_free(struct gguf_directory *dir)
{
    free(dir->values);
    free(dir->tensors);
    gguf_names_free(&dir->value_names);
    gguf_names_free(&dir->tensor_names);
    memset(dir, 0, sizeof *dir);
}
