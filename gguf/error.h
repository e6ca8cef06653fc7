/* The one way a quern function says why it failed.
 *
 * A function that can fail returns bool (or a pointer) and takes a `struct error *` from its caller. On failure the text is one
 * sentence (no trailing newline) that names the offending thing and, where there is one, the remedy. The caller owns the struct;
 * nothing is allocated. Every function accepts NULL for "I do not want the text". */
#ifndef QUERN_ERROR_H
#define QUERN_ERROR_H

#include <stdbool.h>

struct error {
    char text[512]; /* NUL-terminated; longer messages are cut at a whole UTF-8 character */
};

/* Formats the sentence into err (may be NULL). Returns false, so that `return error_set(err, ...)` ends a function. */
bool error_set(struct error *err, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
