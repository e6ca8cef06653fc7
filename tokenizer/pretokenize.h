/* Cutting text into the pieces within which BPE merges, as Qwen2's pattern does. */
#ifndef QUERN_PRETOKENIZE_H
#define QUERN_PRETOKENIZE_H

/* The end of the piece that begins at p < end; the next piece begins there. */
const unsigned char *pretokenize_next(const unsigned char *p, const unsigned char *end);

#endif
