#include "engine/stops.h"

#include <stdlib.h>
#include <string.h>

struct pattern {
    char *text;
    size_t length;
    size_t *border; /* [length]: of text[0..i], the length of the longest proper prefix that is also a suffix */
    size_t matched; /* bytes of text that the stream's end matches */
};

struct stops {
    struct pattern *patterns; /* [n_patterns] */
    int n_patterns;
    int met; /* index of the string that was met; -1: none */
    char *buffer; /* [capacity]; bytes start..end-1 are held back, bytes before start were ready at the last call */
    size_t start, end, capacity;
};

static bool pattern_init(struct pattern *p, const char *text)
{
    p->length = strlen(text);
    p->text = malloc(p->length + 1);
    p->border = malloc((p->length + 1) * sizeof *p->border);
    if (!p->text || !p->border)
        return false;
    memcpy(p->text, text, p->length + 1);
    p->border[0] = 0;
    size_t k = 0;
    for (size_t i = 1; i < p->length; i++) {
        while (k > 0 && text[i] != text[k])
            k = p->border[k - 1];
        k += text[i] == text[k];
        p->border[i] = k;
    }
    return true;
}

/* Takes one byte; true if the pattern is complete. */
static bool pattern_step(struct pattern *p, char byte)
{
    while (p->matched > 0 && byte != p->text[p->matched])
        p->matched = p->border[p->matched - 1];
    p->matched += byte == p->text[p->matched];
    return p->matched == p->length;
}

struct stops *stops_new(const char *const *strings, int n)
{
    struct stops *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->patterns = calloc(n > 0 ? (size_t)n : 1, sizeof *s->patterns);
    if (!s->patterns) {
        free(s);
        return NULL;
    }
    s->met = -1;
    for (; s->n_patterns < n; s->n_patterns++)
        if (!pattern_init(&s->patterns[s->n_patterns], strings[s->n_patterns])) {
            s->n_patterns++; /* frees the half-made one too */
            stops_free(s);
            return NULL;
        }
    return s;
}

void stops_free(struct stops *s)
{
    if (!s)
        return;
    for (int i = 0; i < s->n_patterns; i++) {
        free(s->patterns[i].text);
        free(s->patterns[i].border);
    }
    free(s->patterns);
    free(s->buffer);
    free(s);
}

/* Room for length more bytes. What was handed out before is dropped only when it is as large as what must
 * be moved, which keeps the moving linear. */
static bool make_room(struct stops *s, size_t length)
{
    if (s->start >= s->end - s->start) {
        memmove(s->buffer, s->buffer + s->start, s->end - s->start);
        s->end -= s->start;
        s->start = 0;
    }
    if (length <= s->capacity - s->end)
        return true;
    if (length > (size_t)-1 / 4 || s->end > (size_t)-1 / 4)
        return false;
    size_t capacity = 2 * (s->end + length);
    char *buffer = realloc(s->buffer, capacity);
    if (!buffer)
        return false;
    s->buffer = buffer;
    s->capacity = capacity;
    return true;
}

bool stops_feed(struct stops *s, const char *text, size_t length, const char **ready, size_t *n_ready)
{
    *ready = "";
    *n_ready = 0;
    if (stops_met(s) || length == 0)
        return true;
    if (!s->buffer && !(s->buffer = malloc(s->capacity = 256)))
        return false;
    if (!make_room(s, length))
        return false;
    size_t held = 0; /* bytes at the end that may be the beginning of a stop string */
    for (size_t i = 0; i < length && !stops_met(s); i++) {
        s->buffer[s->end++] = text[i];
        held = 0;
        for (int k = 0; k < s->n_patterns; k++) {
            struct pattern *p = &s->patterns[k];
            bool complete = pattern_step(p, text[i]);
            if (complete && !stops_met(s)) { /* from here on only complete ones count */
                s->met = k;
                held = 0;
            }
            if ((complete || !stops_met(s)) && p->matched > held) {
                held = p->matched;
                if (complete)
                    s->met = k;
            }
        }
    }
    *ready = s->buffer + s->start;
    *n_ready = s->end - held - s->start;
    s->start = s->end - held;
    if (stops_met(s))
        s->end = s->start;
    return true;
}

void stops_end(struct stops *s, const char **ready, size_t *n_ready)
{
    *ready = s->end > s->start ? s->buffer + s->start : "";
    *n_ready = s->end - s->start;
    s->start = s->end;
}

bool stops_met(const struct stops *s)
{
    return s->met >= 0;
}

int stops_which(const struct stops *s)
{
    return s->met;
}
