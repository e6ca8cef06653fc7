/* Stop strings in a stream of text. Text that could be the beginning of a stop string is held back until it is known
 * not to be one; when a stop string is complete, nothing of it and nothing after it comes out.
 *
 * The first stop string to be completed ends the text; of several that end at the same byte, the longest.
 * Each is followed by the automaton of Knuth, Morris and Pratt ("Fast pattern matching in strings", 1977),
 * so the time is linear in the text, whatever the strings are. */
#ifndef QUERN_STOPS_H
#define QUERN_STOPS_H

#include <stdbool.h>
#include <stddef.h>

struct stops;

/* n >= 0 strings, copied; none is empty. NULL when out of memory. */
struct stops *stops_new(const char *const *strings, int n);
void stops_free(struct stops *s); /* NULL is allowed */

/* Feeds text[length]. *ready[*n_ready] is what may now be shown, valid until the next call. If
 * text and stop strings are valid UTF-8 and text comes in whole characters, so does what is ready.
 * After a stop string was met everything fed is dropped. False when out of memory. */
bool stops_feed(struct stops *s, const char *text, size_t length, const char **ready, size_t *n_ready);
/* The end of the text: what was held back is ready. */
void stops_end(struct stops *s, const char **ready, size_t *n_ready);
bool stops_met(const struct stops *s);
/* Which of the strings was met, by its index; of equal ones the first. -1: none. */
int stops_which(const struct stops *s);

#endif
