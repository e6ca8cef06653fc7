/* Character properties and Normalization Form C.
 * Sources: Unicode Standard Annex #44 (properties), Annex #15 (normalisation); the tables are made by scripts/gen-unicode.py. */
#ifndef QUERN_UNICODE_H
#define QUERN_UNICODE_H

#include "tokenizer/unicode_tables.h"
#include "tokenizer/utf8.h"

#include <stdbool.h>
#include <stddef.h>

enum {
    UNICODE_LETTER = 1,     /* General_Category L*: \p{L} */
    UNICODE_NUMBER = 2,     /* General_Category N*: \p{N} */
    UNICODE_SPACE = 4,      /* White_Space: \s */
    UNICODE_QC_NO = 8,      /* NFC_Quick_Check=No */
    UNICODE_QC_MAYBE = 16,  /* NFC_Quick_Check=Maybe */
    UNICODE_DECOMPOSES = 32 /* has an entry in unicode_decompositions */
};

/* For code up to U+10FFFF, and for UTF8_INVALID, which is nothing: no flag, class 0. */
static inline struct unicode_record unicode_lookup(uint32_t code)
{
    if (code >= 0x110000) {
        return (struct unicode_record){0, 0};
    }
    unsigned block = unicode_stage1[code >> UNICODE_BLOCK_SHIFT];
    return unicode_records[unicode_stage2[(block << UNICODE_BLOCK_SHIFT) + (code & ((1U << UNICODE_BLOCK_SHIFT) - 1))]];
}

/* A text in NFC. Where nothing had to change, data is the text that was given and owned is NULL. */
struct unicode_text {
    const char *data;
    size_t length; /* bytes */
    char *owned;   /* for free() */
};

/* Brings text[length] to Normalization Form C. Ill-formed parts stay as they are, as characters that combine with nothing.
 * O(n) for any input. False: out of memory (nothing to free). */
bool unicode_nfc(const char *text, size_t length, struct unicode_text *out);

#endif
