/* The tables that scripts/gen-unicode.py writes to unicode_tables.c; unicode.h is the way to ask them. */
#ifndef QUERN_UNICODE_TABLES_H
#define QUERN_UNICODE_TABLES_H

#include <stdint.h>

enum { UNICODE_BLOCK_SHIFT = 7 }; /* characters that share an entry of stage 1: 1 << 7 */

/* What one character is. Few combinations occur, so a character names its record by one byte. */
struct unicode_record {
    unsigned char flags;           /* UNICODE_... of unicode.h */
    unsigned char combining_class; /* Canonical_Combining_Class */
};

/* Full (recursive) canonical decomposition; Hangul syllables are computed instead. */
struct unicode_decomposition {
    uint32_t code;
    uint16_t offset; /* into unicode_decomposition_pool */
    uint16_t length; /* 1..4 characters */
};

/* Primary composites: first + second = composed. */
struct unicode_pair {
    uint32_t first, second, composed;
};

extern const char unicode_version[];
extern const struct unicode_record unicode_records[];
extern const unsigned short unicode_stage1[]; /* [0x110000 >> UNICODE_BLOCK_SHIFT]: which block */
extern const unsigned char unicode_stage2[];  /* [block][1 << UNICODE_BLOCK_SHIFT]: which record */
extern const struct unicode_decomposition unicode_decompositions[]; /* [unicode_n_decompositions], by code */
extern const int unicode_n_decompositions;
extern const uint32_t unicode_decomposition_pool[];
extern const struct unicode_pair unicode_pairs[]; /* [unicode_n_pairs], by first, then second */
extern const int unicode_n_pairs;

#endif
