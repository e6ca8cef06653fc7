#include "server/schema/dfa.h"
#include "tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

static const uint32_t nowhere = UINT32_MAX;

void dfa_free(struct dfa *d)
{
    free(d->states);
    free(d->ranges);
    *d = (struct dfa){0};
}

bool dfa_is_empty(const struct dfa *d)
{
    return d->n_states == 0;
}

/* Capacities are powers of two from 16 up, so the count tells when to grow. */
static bool make_room(void *array, uint32_t count, size_t size)
{
    void **p = array;
    if (count != 0 && (count < 16 || (count & (count - 1)) != 0))
        return true;
    void *bigger = realloc(*p, (count ? 2 * (size_t)count : 16) * size);
    if (bigger)
        *p = bigger;
    return bigger != NULL;
}

enum dfa_result dfa_add_state(struct dfa *d, bool accepts)
{
    if (d->n_states == DFA_MOST_STATES)
        return DFA_TOO_LARGE;
    if (!make_room(&d->states, d->n_states, sizeof *d->states) || (!d->ranges && !make_room(&d->ranges, 0, sizeof *d->ranges)))
        return DFA_NO_MEMORY;
    d->states[d->n_states++] = (struct dfa_state){.first = d->n_ranges, .accepts = accepts};
    return DFA_OK;
}

enum dfa_result dfa_add_range(struct dfa *d, uint32_t low, uint32_t high, uint32_t to)
{
    struct dfa_state *s = &d->states[d->n_states - 1];
    if (s->count > 0) { /* neighbours that lead to the same state are one */
        struct dfa_range *last = &d->ranges[d->n_ranges - 1];
        if (last->to == to && last->high + 1 == low) {
            last->high = high;
            return DFA_OK;
        }
    }
    if (d->n_ranges == DFA_MOST_RANGES)
        return DFA_TOO_LARGE;
    if (!make_room(&d->ranges, d->n_ranges, sizeof *d->ranges))
        return DFA_NO_MEMORY;
    d->ranges[d->n_ranges++] = (struct dfa_range){low, high, to};
    s->count++;
    return DFA_OK;
}

static uint32_t step(const struct dfa *d, uint32_t state, uint32_t c)
{
    const struct dfa_range *r = d->ranges + d->states[state].first;
    uint32_t low = 0, high = d->states[state].count;
    while (low < high) {
        uint32_t mid = low + (high - low) / 2;
        if (r[mid].high < c)
            low = mid + 1;
        else
            high = mid;
    }
    return low < d->states[state].count && r[low].low <= c ? r[low].to : nowhere;
}

bool dfa_matches(const struct dfa *d, const char *utf8, size_t length)
{
    const unsigned char *p = (const unsigned char *)utf8, *end = p + length;
    uint32_t state = d->n_states ? 0 : nowhere;
    while (p < end && state != nowhere) {
        uint32_t c;
        p += utf8_decode(p, end, &c);
        state = step(d, state, c);
    }
    return state != nowhere && d->states[state].accepts;
}

/* ---- trimming ---- */

/* Marks the states that lead to an accepting one. */
static bool mark_alive(const struct dfa *d, bool *alive)
{
    uint32_t *first = calloc((size_t)d->n_states + 2, sizeof *first), *from = malloc(((size_t)d->n_ranges + 1) * sizeof *from);
    uint32_t *work = malloc(((size_t)d->n_states + 1) * sizeof *work), n = 0;
    bool ok = first && from && work;
    if (ok) {
        for (uint32_t i = 0; i < d->n_ranges; i++)
            first[d->ranges[i].to + 2]++;
        for (uint32_t i = 0; i < d->n_states; i++)
            first[i + 1] += first[i];
        for (uint32_t s = 0; s < d->n_states; s++)
            for (uint32_t k = 0; k < d->states[s].count; k++)
                from[first[d->ranges[d->states[s].first + k].to + 1]++] = s;
        for (uint32_t s = 0; s < d->n_states; s++)
            if ((alive[s] = d->states[s].accepts))
                work[n++] = s;
        while (n > 0) {
            uint32_t s = work[--n];
            for (uint32_t k = first[s]; k < first[s + 1]; k++)
                if (!alive[from[k]]) {
                    alive[from[k]] = true;
                    work[n++] = from[k];
                }
        }
    }
    free(first);
    free(from);
    free(work);
    return ok;
}

enum dfa_result dfa_trim(struct dfa *d)
{
    struct dfa out = {0};
    bool *alive = calloc((size_t)d->n_states + 1, sizeof *alive);
    uint32_t *number = malloc(((size_t)d->n_states + 1) * sizeof *number),
             *order = malloc(((size_t)d->n_states + 1) * sizeof *order), n = 0;
    enum dfa_result result = alive && number && order && mark_alive(d, alive) ? DFA_OK : DFA_NO_MEMORY;
    if (result == DFA_OK && d->n_states > 0 && alive[0]) {
        memset(number, 0xFF, d->n_states * sizeof *number);
        order[n] = 0;
        number[0] = n++;
        for (uint32_t i = 0; i < n && result == DFA_OK; i++) {
            const struct dfa_state *s = &d->states[order[i]];
            result = dfa_add_state(&out, s->accepts);
            for (uint32_t k = 0; k < s->count && result == DFA_OK; k++) {
                struct dfa_range r = d->ranges[s->first + k];
                if (!alive[r.to])
                    continue;
                if (number[r.to] == nowhere) {
                    order[n] = r.to;
                    number[r.to] = n++;
                }
                result = dfa_add_range(&out, r.low, r.high, number[r.to]);
            }
        }
    }
    free(alive);
    free(number);
    free(order);
    dfa_free(d);
    *d = out;
    if (result != DFA_OK)
        dfa_free(d);
    return result;
}

/* ---- simple sets ---- */

static enum dfa_result add_any(struct dfa *d, uint32_t to)
{
    enum dfa_result r = dfa_add_range(d, 0, 0xD7FF, to);
    return r == DFA_OK ? dfa_add_range(d, 0xE000, DFA_LAST_CHARACTER, to) : r;
}

enum dfa_result dfa_lengths(uint32_t min, uint32_t max, struct dfa *out)
{
    *out = (struct dfa){0};
    uint32_t last = max == DFA_UNLIMITED ? min : max;
    enum dfa_result r = min > max ? DFA_OK : last >= DFA_MOST_STATES ? DFA_TOO_LARGE : DFA_OK;
    for (uint32_t i = 0; r == DFA_OK && min <= max && i <= last; i++) {
        r = dfa_add_state(out, i >= min);
        if (r == DFA_OK && (i < last || max == DFA_UNLIMITED))
            r = add_any(out, i < last ? i + 1 : i);
    }
    if (r != DFA_OK)
        dfa_free(out);
    return r;
}

enum dfa_result dfa_everything(struct dfa *d)
{
    return dfa_lengths(0, DFA_UNLIMITED, d);
}

static int compare_texts(const void *x, const void *y)
{
    const struct dfa_text *a = x, *b = y;
    int c = memcmp(a->data, b->data, a->length < b->length ? a->length : b->length);
    return c ? c : (a->length > b->length) - (a->length < b->length);
}

/* A group of texts that agree in their first `at` bytes: the texts of one state. */
struct group {
    uint32_t first, count;
    size_t at;
};

/* UTF-8 sorts as its characters do, so the texts of a state are neighbours, and those that go on with the same character too. */
static enum dfa_result build_texts(const struct dfa_text *texts, struct group *groups, struct dfa *out)
{
    uint32_t n = 1;
    enum dfa_result r = DFA_OK;
    for (uint32_t i = 0; i < n && r == DFA_OK; i++) {
        struct group g = groups[i];
        uint32_t k = g.first, end = g.first + g.count;
        bool accepts = false;
        for (; k < end && texts[k].length == g.at; k++)
            accepts = true;
        r = dfa_add_state(out, accepts);
        while (k < end && r == DFA_OK) {
            uint32_t c, other, same = k;
            int length = utf8_decode(
                (const unsigned char *)texts[k].data + g.at, (const unsigned char *)texts[k].data + texts[k].length, &c);
            do
                same++;
            while (same < end && (utf8_decode((const unsigned char *)texts[same].data + g.at,
                                              (const unsigned char *)texts[same].data + texts[same].length, &other), other == c));
            if (n == DFA_MOST_STATES)
                return DFA_TOO_LARGE;
            groups[n] = (struct group){k, same - k, g.at + (size_t)length};
            r = dfa_add_range(out, c, c, n++);
            k = same;
        }
    }
    return r;
}

enum dfa_result dfa_texts(const struct dfa_text *texts, size_t n, struct dfa *out)
{
    *out = (struct dfa){0};
    if (n == 0)
        return DFA_OK;
    struct dfa_text *sorted = malloc(n * sizeof *sorted);
    struct group *groups = malloc(DFA_MOST_STATES * sizeof *groups);
    enum dfa_result r = sorted && groups && n < UINT32_MAX ? DFA_OK : DFA_NO_MEMORY;
    if (r == DFA_OK) {
        memcpy(sorted, texts, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, compare_texts);
        groups[0] = (struct group){0, (uint32_t)n, 0};
        r = build_texts(sorted, groups, out);
    }
    free(sorted);
    free(groups);
    if (r != DFA_OK)
        dfa_free(out);
    return r;
}

/* ---- products ---- */

struct pair {
    uint32_t a, b; /* b: nowhere when b has left its automaton for good */
};

struct product {
    struct pair *pairs; /* [n] the pair of each state */
    uint32_t n;
    uint32_t *slots;    /* hash table of pairs, index + 1 */
    uint32_t mask;
};

enum { PRODUCT_SLOTS = 1 << 16 };

static enum dfa_result product_state(struct product *p, struct pair pair, uint32_t *number)
{
    uint64_t h = ((uint64_t)pair.a << 32 | pair.b) * 0x9E3779B97F4A7C15u;
    for (uint32_t k = (uint32_t)(h >> 40) & p->mask;; k = (k + 1) & p->mask) {
        uint32_t v = p->slots[k];
        if (v && p->pairs[v - 1].a == pair.a && p->pairs[v - 1].b == pair.b) {
            *number = v - 1;
            return DFA_OK;
        }
        if (!v) {
            if (p->n == DFA_MOST_STATES)
                return DFA_TOO_LARGE;
            p->pairs[p->n] = pair;
            *number = p->n++;
            p->slots[k] = p->n;
            return DFA_OK;
        }
    }
}

/* The ranges of a pair's state: those of a, cut where b's ranges begin and end. */
static enum dfa_result product_ranges(
    struct product *p, const struct dfa *a, const struct dfa *b, struct pair pair, bool without, struct dfa *out)
{
    const struct dfa_range *ra = a->ranges + a->states[pair.a].first, *ra_end = ra + a->states[pair.a].count;
    const struct dfa_range *rb = NULL, *rb_end = NULL;
    if (pair.b != nowhere) {
        rb = b->ranges + b->states[pair.b].first;
        rb_end = rb + b->states[pair.b].count;
    }
    enum dfa_result r = DFA_OK;
    for (; ra < ra_end && r == DFA_OK; ra++) {
        uint32_t low = ra->low;
        while (low <= ra->high && r == DFA_OK) {
            while (rb < rb_end && rb->high < low)
                rb++;
            bool inside = rb < rb_end && rb->low <= low;
            uint32_t high = inside ? rb->high : rb < rb_end ? rb->low - 1 : UINT32_MAX, number;
            if (high > ra->high)
                high = ra->high;
            if (inside || without) {
                r = product_state(p, (struct pair){ra->to, inside ? rb->to : nowhere}, &number);
                if (r == DFA_OK)
                    r = dfa_add_range(out, low, high, number);
            }
            low = high + 1;
        }
    }
    return r;
}

static enum dfa_result product(const struct dfa *a, const struct dfa *b, bool without, struct dfa *out)
{
    *out = (struct dfa){0};
    if (a->n_states == 0 || (b->n_states == 0 && !without))
        return DFA_OK;
    struct product p = {.pairs = calloc(DFA_MOST_STATES, sizeof *p.pairs), .slots = calloc(PRODUCT_SLOTS, sizeof *p.slots),
        .mask = PRODUCT_SLOTS - 1};
    enum dfa_result r = p.pairs && p.slots ? DFA_OK : DFA_NO_MEMORY;
    uint32_t number;
    if (r == DFA_OK)
        r = product_state(&p, (struct pair){0, b->n_states ? 0 : nowhere}, &number);
    for (uint32_t i = 0; r == DFA_OK && i < p.n; i++) {
        struct pair pair = p.pairs[i];
        bool in_b = pair.b != nowhere && b->states[pair.b].accepts;
        r = dfa_add_state(out, a->states[pair.a].accepts && in_b != without);
        if (r == DFA_OK)
            r = product_ranges(&p, a, b, pair, without, out);
    }
    free(p.pairs);
    free(p.slots);
    if (r == DFA_OK)
        return dfa_trim(out);
    dfa_free(out);
    return r;
}

enum dfa_result dfa_both(const struct dfa *a, const struct dfa *b, struct dfa *out)
{
    return product(a, b, false, out);
}

enum dfa_result dfa_without(const struct dfa *a, const struct dfa *b, struct dfa *out)
{
    return product(a, b, true, out);
}
