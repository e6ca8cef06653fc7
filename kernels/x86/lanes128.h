/* What lanes256.h and lanes512.h share. */
#ifndef QUERN_LANES128_H
#define QUERN_LANES128_H

#include <immintrin.h>
#include <stdint.h>

#define LANES static inline __attribute__((always_inline))

/* Sums of q[16]: pair[0] of bytes 4j and 4j + 1, pair[1] of bytes 4j + 2 and 4j + 3. */
LANES void store_pair(int16_t pair[2], __m128i q)
{
    q = _mm_maddubs_epi16(_mm_set1_epi8(1), q);
    q = _mm_add_epi16(q, _mm_shuffle_epi32(q, _MM_SHUFFLE(1, 0, 3, 2)));
    q = _mm_add_epi16(q, _mm_shuffle_epi32(q, _MM_SHUFFLE(2, 3, 0, 1)));
    _mm_storeu_si32(pair, q);
}

#endif
