#include "tests/gguf_image.h"

#include <check.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

size_t image_bytes(struct image *im, const void *data, size_t length)
{
    size_t at = im->size;

    if (length > im->capacity - im->size) {
        im->capacity = (im->capacity + length) * 2;
        im->data = realloc(im->data, im->capacity);
        if (!im->data)
            abort();
    }
    if (length > 0)
        memcpy(im->data + at, data, length);
    im->size += length;
    return at;
}

size_t image_u8(struct image *im, uint8_t x)
{
    return image_bytes(im, &x, 1);
}

size_t image_u16(struct image *im, uint16_t x)
{
    unsigned char b[2] = {(unsigned char)x, (unsigned char)(x >> 8)};
    return image_bytes(im, b, 2);
}

size_t image_u32(struct image *im, uint32_t x)
{
    size_t at = image_u16(im, (uint16_t)x);
    image_u16(im, (uint16_t)(x >> 16));
    return at;
}

size_t image_u64(struct image *im, uint64_t x)
{
    size_t at = image_u32(im, (uint32_t)x);
    image_u32(im, (uint32_t)(x >> 32));
    return at;
}

size_t image_f32(struct image *im, float x)
{
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return image_u32(im, bits);
}

size_t image_f64(struct image *im, double x)
{
    uint64_t bits;
    memcpy(&bits, &x, 8);
    return image_u64(im, bits);
}

size_t image_string(struct image *im, const char *text)
{
    size_t at = image_u64(im, strlen(text));
    image_bytes(im, text, strlen(text));
    return at;
}

size_t image_key(struct image *im, const char *key, uint32_t kind)
{
    size_t at = image_string(im, key);
    image_u32(im, kind);
    return at;
}

size_t image_array(struct image *im, const char *key, uint32_t kind, uint64_t n)
{
    size_t at = image_key(im, key, GGUF_KIND_ARRAY);
    image_u32(im, kind);
    image_u64(im, n);
    return at;
}

size_t image_tensor(struct image *im, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset)
{
    size_t at = image_string(im, name);
    image_u32(im, n_dims);
    for (uint32_t i = 0; i < n_dims; i++)
        image_u64(im, dims[i]);
    image_u32(im, type);
    image_u64(im, offset);
    return at;
}

size_t image_zeros(struct image *im, size_t n)
{
    size_t at = im->size;
    while (n-- > 0)
        image_u8(im, 0);
    return at;
}

size_t image_align(struct image *im, size_t alignment)
{
    image_zeros(im, (alignment - im->size % alignment) % alignment);
    return im->size;
}

size_t image_begin(struct image *im, uint32_t version, uint64_t n_tensors, uint64_t n_values)
{
    *im = (struct image){0};
    image_bytes(im, "GGUF", 4);
    image_u32(im, version);
    image_u64(im, n_tensors);
    return image_u64(im, n_values);
}

void image_free(struct image *im)
{
    free(im->data);
    *im = (struct image){0};
}

struct opened image_open(const struct image *im, size_t size)
{
    struct opened o = {0};
    o.copy = malloc(size ? size : 1);
    ck_assert_ptr_nonnull(o.copy);
    memcpy(o.copy, im->data, size);
    o.g = gguf_open_memory(o.copy, size, &o.err);
    return o;
}

void image_close(struct opened *o)
{
    gguf_close(o->g);
    free(o->copy);
    *o = (struct opened){0};
}

void image_refused(const struct image *im, ...)
{
    struct opened o = image_open(im, im->size);
    va_list texts;

    ck_assert_msg(!o.g, "an image was accepted that should have been refused");
    va_start(texts, im);
    for (const char *text; (text = va_arg(texts, const char *));)
        ck_assert_msg(strstr(o.err.text, text) != NULL, "\"%s\" is not in the message: %s", text, o.err.text);
    va_end(texts);
    image_close(&o);
}

void image_accepted(const struct image *im)
{
    struct opened o = image_open(im, im->size);
    ck_assert_msg(o.g != NULL, "%s", o.err.text);
    gguf_touch_all(o.g);
    image_close(&o);
}
