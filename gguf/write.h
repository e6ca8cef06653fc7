/* Writing GGUF version 3 files, little-endian: metadata of every kind, and tensors whose data is streamed through a callback,
 * so that a file of any size is written in a few megabytes of memory.
 *
 *     struct gguf_writer *w = gguf_writer_new();
 *     gguf_writer_string(w, "general.architecture", "qwen2");
 *     gguf_writer_tensor(w, "output_norm.weight", GGUF_TYPE_F32, 1, (uint64_t[]){896});
 *     bool ok = gguf_writer_save(w, "out.gguf", fill, context, &err);
 *     gguf_writer_free(w);
 *
 * Metadata and tensors stand in the file in the order in which they were added. Errors on the way (memory,
 * a type of unknown size, rows that are no whole blocks) are kept, the first of them wins, and are reported
 * by gguf_writer_save or gguf_writer_image: the calls in between need no checks. That keys and tensors are
 * named once is the caller's business; the reader refuses the file otherwise.
 * Threads: one writer belongs to one thread. */
#ifndef QUERN_GGUF_WRITE_H
#define QUERN_GGUF_WRITE_H

#include "gguf/gguf.h"

struct gguf_writer;

/* NULL when memory is out; every other function then does nothing, or fails with that sentence. */
struct gguf_writer *gguf_writer_new(void);
void gguf_writer_free(struct gguf_writer *w);

/* Metadata. Strings are copied. gguf_writer_value takes a scalar of any kind but STRING and ARRAY,
 * gguf_writer_array packed scalars; both as the machine holds them (bool is one byte). */
void gguf_writer_value(struct gguf_writer *w, const char *key, enum gguf_kind kind, const void *value);
void gguf_writer_u32(struct gguf_writer *w, const char *key, uint32_t value);
void gguf_writer_f32(struct gguf_writer *w, const char *key, float value);
void gguf_writer_bool(struct gguf_writer *w, const char *key, bool value);
void gguf_writer_string(struct gguf_writer *w, const char *key, const char *value);
void gguf_writer_string_bytes(struct gguf_writer *w, const char *key, struct gguf_string value);
void gguf_writer_array(struct gguf_writer *w, const char *key, enum gguf_kind kind, const void *elements, uint64_t count);
void gguf_writer_strings(struct gguf_writer *w, const char *key, const struct gguf_string *strings, uint64_t count);

/* A tensor, placed behind the one before at the next multiple of 32 bytes. */
void gguf_writer_tensor(struct gguf_writer *w, const char *name, enum gguf_type type, uint32_t n_dims, const uint64_t *dims);

size_t gguf_writer_n_tensors(const struct gguf_writer *w);
uint64_t gguf_writer_size(struct gguf_writer *w); /* bytes of the finished file; 0 after an error */

/* Fills to[n_bytes], the bytes [offset, offset + n_bytes) of a tensor's data (tensor->data is NULL here). Called for every tensor
 * in order, from offset 0 to its end without gaps, always with whole blocks. False ends the writing with the sentence in err. */
typedef bool gguf_fill(
    void *context, const struct gguf_tensor *tensor, uint64_t offset, void *to, size_t n_bytes, struct error *err);

/* Writes PATH.part and renames it to PATH when it is complete; on failure nothing is left behind. */
bool gguf_writer_save(struct gguf_writer *w, const char *path, gguf_fill *fill, void *context, struct error *err);

/* The same bytes in anonymous memory, page-aligned, for gguf_open_memory;
 * *size is their number. Given back with gguf_image_free. */
void *gguf_writer_image(struct gguf_writer *w, gguf_fill *fill, void *context, size_t *size, struct error *err);
void gguf_image_free(void *image, size_t size); /* NULL is allowed */

#endif
