/* Reading UTF-8 that need not be UTF-8.
 * Source: Unicode Standard 15.0, section 3.9, table 3-7 (well-formed byte sequences)
 * and "U+FFFD substitution of maximal subparts". */
#ifndef QUERN_UTF8_H
#define QUERN_UTF8_H

#include <stdint.h>

enum { UTF8_INVALID = 0x7FFFFFFF }; /* stands for a maximal ill-formed part; no character */

/* Bytes in the sequence that this lead byte begins: 2..4, or 0 where no sequence of several bytes begins with it. */
static inline int utf8_sequence_length(unsigned char lead)
{
    if (lead < 0xC2) {
        return 0; /* ASCII, a continuation byte, or the lead of an overlong form */
    }
    return lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

/* May `byte` stand at `index` (1..3) of a sequence that begins with `lead`? Overlong forms,
 * surrogates and everything above U+10FFFF end at their second byte. */
static inline int utf8_continues(unsigned char lead, int index, unsigned char byte)
{
    unsigned low = 0x80, high = 0xBF;
    if (index == 1) {
        if (lead == 0xE0) {
            low = 0xA0;
        } else if (lead == 0xED) {
            high = 0x9F;
        } else if (lead == 0xF0) {
            low = 0x90;
        } else if (lead == 0xF4) {
            high = 0x8F;
        }
    }
    return byte >= low && byte <= high;
}

/* Reads one character at p < end. Returns its length in bytes, at least 1; *code is the character, or UTF8_INVALID for a maximal
 * ill-formed part. */
static inline int utf8_decode(const unsigned char *p, const unsigned char *end, uint32_t *code)
{
    unsigned char lead = p[0];
    if (lead < 0x80) {
        *code = lead;
        return 1;
    }
    int length = utf8_sequence_length(lead);
    *code = UTF8_INVALID;
    if (length == 0) {
        return 1;
    }
    uint32_t c = lead & (0xFFU >> (length + 1));
    for (int i = 1; i < length; i++) {
        if (p + i == end || !utf8_continues(lead, i, p[i])) {
            return i;
        }
        c = c << 6 | (p[i] & 0x3F);
    }
    *code = c;
    return length;
}

/* Writes a character (at most U+10FFFF) to out[4]; returns its length in bytes. */
static inline int utf8_write(uint32_t code, char *out)
{
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    int length = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = length - 1; i > 0; i--) {
        out[i] = (char)(0x80 | (code & 0x3F));
        code >>= 6;
    }
    out[0] = (char)((0xF00U >> length & 0xFFU) | code);
    return length;
}

#endif
