/* The pattern of Qwen2's tokenizer.json, by hand:
 *
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d) | [^\r\n\p{L}\p{N}]?\p{L}+ | \p{N} | ?[^\s\p{L}\p{N}]+[\r\n]* | \s*[\r\n]+ | \s+(?!\S) | \s+
 *
 * The first alternative that matches wins, with the lengths that backtracking finds:
 * that is what each step below computes at once.
 * No step looks at a byte more often than a constant number of times over a whole text: only white space is looked
 * at ahead, and at most three pieces come of one run of it. An ill-formed part of the text counts as one character
 * that is no letter, number or white space. */
#include "tokenizer/pretokenize.h"

#include "tokenizer/unicode.h"

#include <stdbool.h>
#include <stddef.h>

enum class { OTHER, LETTER, NUMBER, SPACE, NEWLINE };

/* ASCII letters, digits, white space (U+0009..000D, U+0020) and the two newlines of the pattern. */
static const unsigned char ascii_class[128] = {
    ['\t'] = SPACE,    ['\n'] = NEWLINE,  ['\v'] = SPACE,    ['\f'] = SPACE,    ['\r'] = NEWLINE,  [' '] = SPACE,
    ['0'] = NUMBER,    ['1'] = NUMBER,    ['2'] = NUMBER,    ['3'] = NUMBER,    ['4'] = NUMBER,    ['5'] = NUMBER,
    ['6'] = NUMBER,    ['7'] = NUMBER,    ['8'] = NUMBER,    ['9'] = NUMBER,    ['A'] = LETTER,    ['B'] = LETTER,
    ['C'] = LETTER,    ['D'] = LETTER,    ['E'] = LETTER,    ['F'] = LETTER,    ['G'] = LETTER,    ['H'] = LETTER,
    ['I'] = LETTER,    ['J'] = LETTER,    ['K'] = LETTER,    ['L'] = LETTER,    ['M'] = LETTER,    ['N'] = LETTER,
    ['O'] = LETTER,    ['P'] = LETTER,    ['Q'] = LETTER,    ['R'] = LETTER,    ['S'] = LETTER,    ['T'] = LETTER,
    ['U'] = LETTER,    ['V'] = LETTER,    ['W'] = LETTER,    ['X'] = LETTER,    ['Y'] = LETTER,    ['Z'] = LETTER,
    ['a'] = LETTER,    ['b'] = LETTER,    ['c'] = LETTER,    ['d'] = LETTER,    ['e'] = LETTER,    ['f'] = LETTER,
    ['g'] = LETTER,    ['h'] = LETTER,    ['i'] = LETTER,    ['j'] = LETTER,    ['k'] = LETTER,    ['l'] = LETTER,
    ['m'] = LETTER,    ['n'] = LETTER,    ['o'] = LETTER,    ['p'] = LETTER,    ['q'] = LETTER,    ['r'] = LETTER,
    ['s'] = LETTER,    ['t'] = LETTER,    ['u'] = LETTER,    ['v'] = LETTER,    ['w'] = LETTER,    ['x'] = LETTER,
    ['y'] = LETTER,    ['z'] = LETTER,
};

/* Classifies the character at p < end and sets *next behind it. */
static inline enum class classify(const unsigned char *p, const unsigned char *end, const unsigned char **next)
{
    if (*p < 0x80) {
        *next = p + 1;
        return (enum class)ascii_class[*p];
    }
    uint32_t code;
    *next = p + utf8_decode(p, end, &code);
    unsigned flags = unicode_lookup(code).flags;
    return flags & UNICODE_LETTER ? LETTER : flags & UNICODE_NUMBER ? NUMBER : flags & UNICODE_SPACE ? SPACE : OTHER;
}

static const unsigned char *skip(const unsigned char *p, const unsigned char *end, enum class class)
{
    const unsigned char *next;
    while (p < end && classify(p, end, &next) == class) {
        p = next;
    }
    return p;
}

/* Behind a contraction whose apostrophe stands at p; NULL if there is none. Without regard to case; of all characters that fold
 * to one of these letters only U+017F LATIN SMALL LETTER LONG S (C5 BF) is not ASCII. */
static const unsigned char *contraction(const unsigned char *p, const unsigned char *end)
{
    size_t rest = (size_t)(end - p);
    if (rest < 2) {
        return NULL;
    }
    unsigned char a = p[1] | 0x20, b = rest > 2 ? p[2] | 0x20 : 0;
    if (a == 's' || a == 't' || a == 'm' || a == 'd') {
        return p + 2;
    }
    if ((a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ||
        (p[1] == 0xC5 && rest > 2 && p[2] == 0xBF)) {
        return p + 3;
    }
    return NULL;
}

/* \s*[\r\n]+ | \s+(?!\S) | \s+ for white space at p */
static const unsigned char *white_space(const unsigned char *p, const unsigned char *end)
{
    const unsigned char *run = p, *last = p, *newline = NULL, *next;
    while (run < end) {
        enum class class = classify(run, end, &next);
        if (class != SPACE && class != NEWLINE) {
            break;
        }
        last = run;
        run = next;
        if (class == NEWLINE) {
            newline = run;
        }
    }
    if (newline) {
        return newline; /* through the last newline of the run */
    }
    /* All of it at the end of the text; otherwise all but the last, which goes with what follows, unless it is the only one. */
    return run == end || last == p ? run : last;
}

const unsigned char *pretokenize_next(const unsigned char *p, const unsigned char *end)
{
    if (*p == '\'') {
        const unsigned char *behind = contraction(p, end);
        if (behind) {
            return behind;
        }
    }
    const unsigned char *second, *third;
    enum class first = classify(p, end, &second);
    if (first == LETTER) {
        return skip(second, end, LETTER);
    }
    if (first == NUMBER) {
        return second;
    }
    if (first == NEWLINE) {
        return white_space(p, end);
    }
    enum class following = NEWLINE;
    if (second < end) {
        following = classify(second, end, &third);
    }
    if (following == LETTER) {
        return skip(third, end, LETTER); /* one character of any other kind goes with the word behind it */
    }
    if (first == OTHER || (*p == ' ' && second < end && following == OTHER)) {
        return skip(skip(second, end, OTHER), end, NEWLINE);
    }
    return white_space(p, end);
}
