/* Reads everything that an open GGUF file hands out; for tests and the fuzz target, under a sanitizer above all. */
#ifndef QUERN_TESTS_GGUF_TOUCH_H
#define QUERN_TESTS_GGUF_TOUCH_H

#include "gguf/gguf.h"

/* Every byte of tensors, and of the values under the keys that test images and models use.
 * Aborts where what is handed out contradicts itself. The sum depends on all of it. */
uint64_t gguf_touch_all(struct gguf *g);

#endif
