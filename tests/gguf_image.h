/* Builds GGUF images byte by byte, well-formed or not, and opens them; for the tests of gguf/. Independent of gguf/write.h,
 * so that reader and writer cannot be wrong together. Every function that writes returns the offset of what it wrote. */
#ifndef QUERN_TESTS_GGUF_IMAGE_H
#define QUERN_TESTS_GGUF_IMAGE_H

#include "gguf/gguf.h"
#include "tests/gguf_touch.h"

#if defined __SANITIZE_ADDRESS__
enum { UNDER_ASAN = 1 };
#elif defined __has_feature
#if __has_feature(address_sanitizer)
enum { UNDER_ASAN = 1 };
#else
enum { UNDER_ASAN = 0 };
#endif
#else
enum { UNDER_ASAN = 0 };
#endif

struct image {
    unsigned char *data;
    size_t size, capacity;
};

size_t image_begin(struct image *im, uint32_t version, uint64_t n_tensors, uint64_t n_values);
void image_free(struct image *im);

size_t image_bytes(struct image *im, const void *data, size_t length);
size_t image_u8(struct image *im, uint8_t x);
size_t image_u16(struct image *im, uint16_t x);
size_t image_u32(struct image *im, uint32_t x);
size_t image_u64(struct image *im, uint64_t x);
size_t image_f32(struct image *im, float x);
size_t image_f64(struct image *im, double x);
size_t image_string(struct image *im, const char *text);
size_t image_key(struct image *im, const char *key, uint32_t kind);              /* the value follows */
size_t image_array(struct image *im, const char *key, uint32_t kind, uint64_t n); /* the elements follow */
size_t image_tensor(struct image *im, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, uint64_t offset);
size_t image_align(struct image *im, size_t alignment); /* zeros up to a multiple */
size_t image_zeros(struct image *im, size_t n);

/* Opens a copy of exactly `size` bytes on the heap, so that a sanitizer sees every byte read
 * beyond it. The copy is freed by image_close. */
struct opened {
    struct gguf *g;
    unsigned char *copy;
    struct error err;
};
struct opened image_open(const struct image *im, size_t size);
void image_close(struct opened *o);

/* Asserts that the image is refused with a message that contains all the texts (the list ends with NULL). */
void image_refused(const struct image *im, ...);
void image_accepted(const struct image *im);

#endif
