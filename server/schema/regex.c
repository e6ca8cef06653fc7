#include "server/schema/regex.h"
#include "tokenizer/utf8.h"

#include <stdlib.h>
#include <string.h>

enum {
    MOST_NODES = 60000,      /* of the tree, and of the nondeterministic automaton */
    MOST_SET_RANGES = 200000,
    MOST_DEPTH = 200,        /* groups within one another */
    MOST_MEMBERS = 4000000   /* of all subsets together */
};
#define UNLIMITED UINT32_MAX

/* ---- sets of characters ---- */

struct range {
    uint32_t low, high;
};

struct ranges { /* a growing list */
    struct range *data;
    size_t count, capacity;
};

enum kind { EMPTY, SET, SEQUENCE, EITHER, REPEAT, BEGIN, END, FINAL };

/* Of the tree. SET: ranges a..a+b-1. SEQUENCE, EITHER: two nodes. REPEAT: node a, min to max times. */
struct node {
    enum kind kind;
    uint32_t a, b, min, max;
};

struct parser {
    const unsigned char *p, *end;
    struct ranges sets;
    struct node *nodes;
    uint32_t n_nodes;
    size_t nodes_capacity;
    int depth;
    struct error *err;
};

static bool grow(struct parser *r, void *array, size_t *capacity, size_t count, size_t size, size_t most)
{
    void **p = array;
    if (count >= most)
        return error_set(r->err, "it is too large");
    if (count < *capacity)
        return true;
    size_t more = *capacity ? 2 * *capacity : 64;
    void *bigger = realloc(*p, more * size);
    if (!bigger)
        return error_set(r->err, "out of memory");
    *p = bigger;
    *capacity = more;
    return true;
}

static bool add_range(struct parser *r, uint32_t low, uint32_t high)
{
    if (!grow(r, &r->sets.data, &r->sets.capacity, r->sets.count, sizeof *r->sets.data, MOST_SET_RANGES))
        return false;
    r->sets.data[r->sets.count++] = (struct range){low, high};
    return true;
}

static int compare_ranges(const void *x, const void *y)
{
    const struct range *a = x, *b = y;
    return (a->low > b->low) - (a->low < b->low);
}

/* The ranges from `first` on become ordered, without overlap and without surrogates; or the others. */
static bool tidy(struct parser *r, size_t first, bool negate)
{
    struct range *list = r->sets.data + first;
    size_t n = r->sets.count - first, out = 0;
    if (n > 1)
        qsort(list, n, sizeof *list, compare_ranges);
    for (size_t i = 0; i < n; i++) {
        if (out > 0 && list[i].low <= list[out - 1].high + 1)
            list[out - 1].high = list[i].high > list[out - 1].high ? list[i].high : list[out - 1].high;
        else
            list[out++] = list[i];
    }
    r->sets.count = first + out;
    size_t end = r->sets.count;
    uint32_t next = 0;
    for (size_t i = first; negate && i < end; i++) {
        struct range k = r->sets.data[i];
        if (k.low > next && !add_range(r, next, k.low - 1))
            return false;
        next = k.high + 1;
    }
    if (negate && next <= DFA_LAST_CHARACTER && !add_range(r, next, DFA_LAST_CHARACTER))
        return false;
    if (negate) {
        memmove(r->sets.data + first, r->sets.data + end, (r->sets.count - end) * sizeof *r->sets.data);
        r->sets.count -= end - first;
    }
    end = r->sets.count;
    for (size_t i = first; i < end; i++) { /* text has no surrogates */
        struct range k = r->sets.data[i];
        if (k.high < 0xD800 || k.low > 0xDFFF)
            continue;
        bool below = k.low < 0xD800, above = k.high > 0xDFFF;
        if (below) {
            r->sets.data[i].high = 0xD7FF;
            if (above && !add_range(r, 0xE000, k.high))
                return false;
        } else if (above) {
            r->sets.data[i].low = 0xE000;
        } else {
            memmove(r->sets.data + i, r->sets.data + i + 1, (r->sets.count - i - 1) * sizeof *r->sets.data);
            r->sets.count--;
            end--;
            i--;
        }
    }
    if (r->sets.count - first > 1)
        qsort(r->sets.data + first, r->sets.count - first, sizeof *list, compare_ranges);
    return true;
}

static bool add_class(struct parser *r, unsigned char c)
{
    static const struct range digits[] = {{'0', '9'}}, word[] = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}},
                              space[] = {{9, 13}, {' ', ' '}, {0xA0, 0xA0}, {0x1680, 0x1680}, {0x2000, 0x200A}, {0x2028, 0x2029},
                                  {0x202F, 0x202F}, {0x205F, 0x205F}, {0x3000, 0x3000}, {0xFEFF, 0xFEFF}};
    const struct range *list = c == 'd' || c == 'D' ? digits : c == 'w' || c == 'W' ? word : space;
    size_t n = list == digits ? 1 : list == word ? 4 : sizeof space / sizeof *space;
    bool negate = c < 'a';
    uint32_t next = 0;
    for (size_t i = 0; i < n; i++) {
        if (negate ? list[i].low > next && !add_range(r, next, list[i].low - 1) : !add_range(r, list[i].low, list[i].high))
            return false;
        next = list[i].high + 1;
    }
    return !negate || add_range(r, next, DFA_LAST_CHARACTER);
}

/* ---- the tree ---- */

static bool add_node(struct parser *r, struct node n, uint32_t *out)
{
    if (!grow(r, &r->nodes, &r->nodes_capacity, r->n_nodes, sizeof *r->nodes, MOST_NODES))
        return false;
    *out = r->n_nodes;
    r->nodes[r->n_nodes++] = n;
    return true;
}

static bool add_set(struct parser *r, size_t first, bool negate, uint32_t *out)
{
    return tidy(r, first, negate) &&
           add_node(r, (struct node){SET, (uint32_t)first, (uint32_t)(r->sets.count - first), 0, 0}, out);
}

static bool at(const struct parser *r, char c)
{
    return r->p < r->end && *r->p == (unsigned char)c;
}

static bool take(struct parser *r, char c)
{
    if (!at(r, c))
        return false;
    r->p++;
    return true;
}

static int hex(const struct parser *r, const unsigned char *p)
{
    if (p >= r->end)
        return -1;
    return *p >= '0' && *p <= '9'   ? *p - '0'
           : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
           : *p >= 'A' && *p <= 'F' ? *p - 'A' + 10
                                    : -1;
}

static bool take_hex(struct parser *r, int digits, uint32_t *out)
{
    uint32_t n = 0;
    for (int i = 0; i < digits; i++) {
        int d = hex(r, r->p + i);
        if (d < 0)
            return error_set(r->err, "a hexadecimal escape has too few digits");
        n = n * 16 + (uint32_t)d;
    }
    r->p += digits;
    *out = n;
    return true;
}

/* Behind \u. */
static bool take_unicode(struct parser *r, uint32_t *out)
{
    if (take(r, '{')) {
        uint32_t n = 0;
        int digits = 0;
        for (int d; n <= DFA_LAST_CHARACTER && (d = hex(r, r->p)) >= 0; r->p++, digits++)
            n = n * 16 + (uint32_t)d;
        *out = n;
        return (digits > 0 && n <= DFA_LAST_CHARACTER && take(r, '}')) || error_set(r->err, "\\u{...} does not name a character");
    }
    if (!take_hex(r, 4, out))
        return false;
    if (*out >= 0xD800 && *out <= 0xDBFF && r->end - r->p >= 6 && r->p[0] == '\\' && r->p[1] == 'u') {
        const unsigned char *back = r->p;
        uint32_t low = 0;
        r->p += 2;
        if (!take_hex(r, 4, &low))
            return false;
        if (low >= 0xDC00 && low <= 0xDFFF)
            *out = 0x10000 + ((*out - 0xD800) << 10) + (low - 0xDC00);
        else
            r->p = back;
    }
    return true;
}

/* Behind a backslash: one character; or a class, which is added to the sets, and *is_class. */
static bool take_escape(struct parser *r, bool in_class, uint32_t *out, bool *is_class)
{
    *is_class = false;
    if (r->p == r->end)
        return error_set(r->err, "it ends in a backslash");
    unsigned char c = *r->p++;
    static const char from[] = "tnvfr", to[] = "\t\n\v\f\r";
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        *out = (unsigned char)to[simple - from];
        return true;
    }
    if (c && strchr("dDwWsS", c)) {
        *is_class = true;
        return add_class(r, c);
    }
    if (c == 'x')
        return take_hex(r, 2, out);
    if (c == 'u')
        return take_unicode(r, out);
    if (c == '0' && hex(r, r->p) < 0) {
        *out = 0;
        return true;
    }
    if (c == 'c' && r->p < r->end && ((*r->p | 0x20) >= 'a' && (*r->p | 0x20) <= 'z')) {
        *out = *r->p++ & 0x1Fu;
        return true;
    }
    if (c == 'b' && in_class) {
        *out = 8;
        return true;
    }
    if (c >= '0' && c <= '9')
        return error_set(r->err, "back-references (\\%c) are not supported", c);
    if (c == 'b' || c == 'B')
        return error_set(r->err, "word boundaries (\\%c) are not supported", c);
    if (c == 'p' || c == 'P')
        return error_set(r->err, "Unicode properties (\\%c) are not supported", c);
    if (c == 'k' || c >= 0x80 || ((c | 0x20) >= 'a' && (c | 0x20) <= 'z'))
        return error_set(r->err, "the escape \\%c is not supported", c < 0x80 ? c : '?');
    *out = c;
    return true;
}

static bool take_class_item(struct parser *r, uint32_t *out, bool *is_class)
{
    *is_class = false;
    if (take(r, '\\'))
        return take_escape(r, true, out, is_class);
    r->p += utf8_decode(r->p, r->end, out);
    return *out <= DFA_LAST_CHARACTER || error_set(r->err, "it is not UTF-8");
}

/* Behind the bracket. */
static bool take_class(struct parser *r, uint32_t *out)
{
    size_t first = r->sets.count;
    bool negate = take(r, '^');
    while (!take(r, ']')) {
        uint32_t low, high;
        bool low_class, high_class;
        if (r->p == r->end)
            return error_set(r->err, "a character class is not closed");
        if (!take_class_item(r, &low, &low_class))
            return false;
        if (at(r, '-') && r->p + 1 < r->end && r->p[1] != ']') {
            r->p++;
            if (!take_class_item(r, &high, &high_class))
                return false;
            if (low_class || high_class || low > high)
                return error_set(r->err, "a character class has a range that is out of order");
            if (!add_range(r, low, high))
                return false;
        } else if (!low_class && !add_range(r, low, low)) {
            return false;
        }
    }
    return add_set(r, first, negate, out);
}

static bool take_either(struct parser *r, uint32_t *out);

static bool take_group(struct parser *r, uint32_t *out)
{
    if (take(r, '?') && !take(r, ':')) {
        bool behind = at(r, '<') && r->p + 1 < r->end && (r->p[1] == '=' || r->p[1] == '!');
        if (at(r, '=') || at(r, '!') || behind)
            return error_set(r->err, "lookahead and lookbehind are not supported");
        if (!take(r, '<'))
            return error_set(r->err, "a group begins with an unknown (?");
        while (r->p < r->end && *r->p != '>')
            r->p++;
        if (!take(r, '>'))
            return error_set(r->err, "the name of a group is not closed");
    }
    if (++r->depth > MOST_DEPTH)
        return error_set(r->err, "its groups are nested deeper than %d", (int)MOST_DEPTH);
    if (!take_either(r, out))
        return false;
    r->depth--;
    return take(r, ')') || error_set(r->err, "a group is not closed");
}

static bool take_atom(struct parser *r, uint32_t *out)
{
    size_t first = r->sets.count;
    uint32_t c;
    bool is_class;
    unsigned char next = *r->p;
    if (next && strchr("*+?{}]", next))
        return error_set(r->err, "'%c' stands where it has no meaning (write \\%c for the character)", next, next);
    switch (next) {
    case '(': r->p++; return take_group(r, out);
    case '[': r->p++; return take_class(r, out);
    case '^': r->p++; return add_node(r, (struct node){.kind = BEGIN}, out);
    case '$': r->p++; return add_node(r, (struct node){.kind = END}, out);
    case '.':
        r->p++;
        return add_range(r, '\n', '\n') && add_range(r, '\r', '\r') && add_range(r, 0x2028, 0x2029) &&
               add_set(r, first, true, out);
    case '\\':
        r->p++;
        if (!take_escape(r, false, &c, &is_class))
            return false;
        return (is_class || add_range(r, c, c)) && add_set(r, first, false, out);
    default:
        r->p += utf8_decode(r->p, r->end, &c);
        if (c > DFA_LAST_CHARACTER)
            return error_set(r->err, "it is not UTF-8");
        return add_range(r, c, c) && add_set(r, first, false, out);
    }
}

static bool take_number(struct parser *r, uint32_t *out)
{
    *out = 0;
    if (r->p == r->end || *r->p < '0' || *r->p > '9')
        return error_set(r->err, "'{' is not followed by a count");
    for (; r->p < r->end && *r->p >= '0' && *r->p <= '9'; r->p++)
        *out = *out > 1000000 ? *out : *out * 10 + (uint32_t)(*r->p - '0');
    return true;
}

static bool take_counts(struct parser *r, uint32_t *min, uint32_t *max)
{
    if (!take_number(r, min))
        return false;
    *max = *min;
    if (take(r, ',')) {
        *max = UNLIMITED;
        if (!at(r, '}') && !take_number(r, max))
            return false;
    }
    if (!take(r, '}'))
        return error_set(r->err, "a count in braces is not closed");
    return *min <= *max || error_set(r->err, "a count in braces is out of order");
}

static bool take_repeat(struct parser *r, uint32_t *out)
{
    uint32_t min = 0, max = 0;
    if (!take_atom(r, out))
        return false;
    if (take(r, '*'))
        min = 0, max = UNLIMITED;
    else if (take(r, '+'))
        min = 1, max = UNLIMITED;
    else if (take(r, '?'))
        min = 0, max = 1;
    else if (!take(r, '{'))
        return true;
    else if (!take_counts(r, &min, &max))
        return false;
    take(r, '?'); /* lazy */
    enum kind kind = r->nodes[*out].kind;
    if (kind == BEGIN || kind == END)
        return error_set(r->err, "^ and $ cannot be repeated");
    return add_node(r, (struct node){REPEAT, *out, 0, min, max}, out);
}

static bool take_sequence(struct parser *r, uint32_t *out)
{
    if (!add_node(r, (struct node){.kind = EMPTY}, out))
        return false;
    while (r->p < r->end && *r->p != '|' && *r->p != ')') {
        uint32_t next;
        if (!take_repeat(r, &next) || !add_node(r, (struct node){SEQUENCE, *out, next, 0, 0}, out))
            return false;
    }
    return true;
}

static bool take_either(struct parser *r, uint32_t *out)
{
    if (!take_sequence(r, out))
        return false;
    while (take(r, '|')) {
        uint32_t other;
        if (!take_sequence(r, &other) || !add_node(r, (struct node){EITHER, *out, other, 0, 0}, out))
            return false;
    }
    return true;
}

/* ---- the nondeterministic automaton ---- */

/* EMPTY: a, and b if not NOWHERE. SET: ranges min..min+max-1 lead to a. BEGIN, END: a. */
struct machine {
    struct parser *r;
    struct node *nodes;
    uint32_t n;
    size_t capacity;
};

#define NOWHERE UINT32_MAX

static bool machine_node(struct machine *m, struct node n, uint32_t *out)
{
    if (!grow(m->r, &m->nodes, &m->capacity, m->n, sizeof *m->nodes, MOST_NODES))
        return false;
    *out = m->n;
    m->nodes[m->n++] = n;
    return true;
}

/* The node by which to enter what matches the tree's node and goes on at next. Chains of SEQUENCE and EITHER lean to the left
 * and may be long: they are gone down in a loop. */
static bool build(struct machine *m, uint32_t tree, uint32_t next, uint32_t *out)
{
    struct node t = m->r->nodes[tree];
    while (t.kind == SEQUENCE) {
        if (!build(m, t.b, next, &next))
            return false;
        t = m->r->nodes[t.a];
    }
    switch (t.kind) {
    case SET: return machine_node(m, (struct node){SET, next, 0, t.a, t.b}, out);
    case BEGIN:
    case END: return machine_node(m, (struct node){t.kind, next, 0, 0, 0}, out);
    case EITHER: {
        uint32_t rest = NOWHERE, one;
        for (;; t = m->r->nodes[t.a]) {
            if (!build(m, t.b, next, &one) || !machine_node(m, (struct node){EMPTY, one, rest, 0, 0}, &rest))
                return false;
            if (m->r->nodes[t.a].kind != EITHER)
                break;
        }
        return build(m, t.a, next, &one) && machine_node(m, (struct node){EMPTY, one, rest, 0, 0}, out);
    }
    case REPEAT: {
        uint32_t end = next;
        if (t.max == UNLIMITED) { /* a loop node: once more, or on */
            uint32_t body;
            if (!machine_node(m, (struct node){EMPTY, next, NOWHERE, 0, 0}, &end) || !build(m, t.a, end, &body))
                return false;
            m->nodes[end].b = body;
        } else {
            for (uint32_t i = t.min; i < t.max; i++) {
                uint32_t body;
                if (!build(m, t.a, end, &body) || !machine_node(m, (struct node){EMPTY, next, body, 0, 0}, &end))
                    return false;
            }
        }
        /* A body of nothing adds nothing, however often. */
        for (uint32_t i = 0, before = UINT32_MAX; i < t.min && m->n != before; i++) {
            before = m->n;
            if (!build(m, t.a, end, &end))
                return false;
        }
        *out = end;
        return true;
    }
    default: *out = next; return true;
    }
}

/* ---- the deterministic one ---- */

struct subset {
    uint32_t first, count; /* in members */
};

struct subsets {
    const struct machine *m;
    struct subset *list; /* [n] of each state */
    uint32_t n;
    uint32_t *members;
    size_t n_members, members_capacity;
    uint32_t *slots, mask; /* hash table, index + 1 */
    uint32_t *stack, *closed;
    uint32_t n_closed;
    uint32_t *mark, epoch; /* [machine's nodes] */
    uint32_t work, most_work;
    struct range *cuts;
    size_t cuts_capacity;
};

enum { SUBSET_SLOTS = 1 << 16 };

static void begin_closing(struct subsets *s)
{
    s->epoch++;
    s->n_closed = 0;
}

/* Adds what is reached from node without a character. True if the end of the pattern is. */
static bool close_over(struct subsets *s, uint32_t node, bool at_begin, bool at_end)
{
    uint32_t n = 0;
    bool final = false;
    if (s->mark[node] != s->epoch) {
        s->mark[node] = s->epoch;
        s->stack[n++] = node;
    }
    while (n > 0) {
        uint32_t i = s->stack[--n];
        s->work++;
        const struct node *k = &s->m->nodes[i];
        uint32_t to[2] = {NOWHERE, NOWHERE};
        if (k->kind == EMPTY || (k->kind == BEGIN && at_begin) || (k->kind == END && at_end)) {
            to[0] = k->a;
            to[1] = k->kind == EMPTY ? k->b : NOWHERE;
        }
        if (k->kind == SET || k->kind == END)
            s->closed[s->n_closed++] = i;
        final |= k->kind == FINAL;
        for (int j = 0; j < 2; j++)
            if (to[j] != NOWHERE && s->mark[to[j]] != s->epoch) {
                s->mark[to[j]] = s->epoch;
                s->stack[n++] = to[j];
            }
    }
    return final;
}

static int compare_numbers(const void *x, const void *y)
{
    uint32_t a = *(const uint32_t *)x, b = *(const uint32_t *)y;
    return (a > b) - (a < b);
}

/* The state of what is closed over; state 0 is the start, state 1 where everything is accepted. */
static bool subset_state(struct subsets *s, bool fresh, uint32_t *number)
{
    struct parser *r = s->m->r;
    uint64_t h = 0;
    if (s->n_closed > 1)
        qsort(s->closed, s->n_closed, sizeof *s->closed, compare_numbers);
    for (uint32_t i = 0; i < s->n_closed; i++)
        h = (h ^ s->closed[i]) * 0x9E3779B97F4A7C15u, h ^= h >> 31;
    uint32_t k = (uint32_t)h & s->mask;
    for (; s->slots[k]; k = (k + 1) & s->mask) {
        const struct subset *o = &s->list[s->slots[k] - 1];
        if (!fresh && o->count == s->n_closed && memcmp(s->members + o->first, s->closed, o->count * sizeof *s->members) == 0) {
            *number = s->slots[k] - 1;
            return true;
        }
    }
    if (s->n == DFA_MOST_STATES || s->n_members + s->n_closed > MOST_MEMBERS)
        return error_set(r->err, "it is too large");
    while (s->n_members + s->n_closed > s->members_capacity) {
        size_t more = 2 * s->members_capacity + 1024;
        uint32_t *bigger = realloc(s->members, more * sizeof *bigger);
        if (!bigger)
            return error_set(r->err, "out of memory");
        s->members = bigger;
        s->members_capacity = more;
    }
    if (s->n_closed > 0)
        memcpy(s->members + s->n_members, s->closed, s->n_closed * sizeof *s->members);
    s->list[s->n] = (struct subset){(uint32_t)s->n_members, s->n_closed};
    s->n_members += s->n_closed;
    *number = s->n++;
    if (!fresh)
        s->slots[k] = s->n;
    return true;
}

static bool check(struct parser *r, enum dfa_result result)
{
    return result == DFA_OK || error_set(r->err, result == DFA_TOO_LARGE ? "it is too large" : "out of memory");
}

/* Where a state leads: the characters are cut at every place where a range of one of its members begins or ends. */
static bool subset_steps(struct subsets *s, struct subset from, struct dfa *out)
{
    struct parser *r = s->m->r;
    size_t n = 0;
    for (uint32_t i = 0; i < from.count; i++) {
        const struct node *k = &s->m->nodes[s->members[from.first + i]];
        if (k->kind != SET)
            continue;
        for (uint32_t j = 0; j < k->max; j++) {
            struct range set = r->sets.data[k->min + j];
            if (!grow(r, &s->cuts, &s->cuts_capacity, n + 1, sizeof *s->cuts, MOST_SET_RANGES))
                return false;
            s->cuts[n++] = (struct range){set.low, 0};
            s->cuts[n++] = (struct range){set.high + 1, 0};
        }
    }
    if (n > 1)
        qsort(s->cuts, n, sizeof *s->cuts, compare_ranges);
    for (size_t c = 0; c + 1 < n; c++) {
        uint32_t low = s->cuts[c].low, high = s->cuts[c + 1].low, number;
        if (low == high)
            continue;
        bool any = false, final = false;
        begin_closing(s);
        if (s->work > s->most_work)
            return error_set(r->err, "it is too large");
        for (uint32_t i = 0; i < from.count && !final; i++) {
            s->work += 1;
            const struct node *k = &s->m->nodes[s->members[from.first + i]];
            if (k->kind != SET)
                continue;
            bool inside = false;
            for (uint32_t j = 0; j < k->max && !inside; j++)
                s->work++, inside = r->sets.data[k->min + j].low <= low && r->sets.data[k->min + j].high >= low;
            if (inside)
                final |= close_over(s, k->a, false, false);
            any |= inside;
        }
        if (!any)
            continue;
        if (final)
            number = 1;
        else if (!subset_state(s, false, &number))
            return false;
        if (!check(r, dfa_add_range(out, low, high - 1, number)))
            return false;
    }
    return true;
}

static bool add_everything(struct parser *r, struct dfa *out, uint32_t state)
{
    return check(r, dfa_add_state(out, true)) && check(r, dfa_add_range(out, 0, 0xD7FF, state)) &&
           check(r, dfa_add_range(out, 0xE000, DFA_LAST_CHARACTER, state));
}

/* May the text end in this state: does $ lead from one of its members to the end? */
static bool ends_here(struct subsets *s, struct subset from, bool at_begin)
{
    bool final = false;
    begin_closing(s);
    for (uint32_t i = 0; i < from.count && !final; i++) {
        uint32_t member = s->members[from.first + i];
        if (s->m->nodes[member].kind == END)
            final = close_over(s, member, at_begin, true);
    }
    return final;
}

static bool determine(struct subsets *s, uint32_t start, struct dfa *out)
{
    struct parser *r = s->m->r;
    uint32_t number;
    begin_closing(s);
    if (close_over(s, start, true, false)) /* it matches the empty string, and so everywhere */
        return check(r, dfa_everything(out));
    if (!subset_state(s, true, &number))
        return false;
    s->n_closed = 0; /* its place is taken by the state that accepts everything; no set of members is it */
    s->list[s->n++] = (struct subset){0, 0};
    for (uint32_t i = 0; i < s->n; i++) {
        struct subset from = s->list[i];
        if (i == 1) {
            if (!add_everything(r, out, 1))
                return false;
            continue;
        }
        if (!check(r, dfa_add_state(out, ends_here(s, from, i == 0))) || !subset_steps(s, from, out))
            return false;
    }
    return check(r, dfa_trim(out));
}

static bool compile(struct parser *r, struct machine *m, uint32_t *work, struct dfa *out)
{
    uint32_t tree, final, entry, start, any, skip;
    if (!take_either(r, &tree))
        return false;
    if (r->p < r->end)
        return error_set(r->err, "a ')' has no '('");
    size_t first = r->sets.count;
    if (!add_set(r, first, true, &any) || !machine_node(m, (struct node){.kind = FINAL}, &final) ||
        !build(m, tree, final, &entry) || !machine_node(m, (struct node){EMPTY, entry, NOWHERE, 0, 0}, &start) ||
        !machine_node(m, (struct node){SET, start, 0, r->nodes[any].a, r->nodes[any].b}, &skip))
        return false;
    m->nodes[start].b = skip; /* a match may begin anywhere */
    struct subsets s = {.m = m, .list = malloc(DFA_MOST_STATES * sizeof *s.list), .slots = calloc(SUBSET_SLOTS, sizeof *s.slots),
                        .mask = SUBSET_SLOTS - 1,
                        .stack = malloc((m->n + 1) * sizeof *s.stack), .closed = malloc((m->n + 1) * sizeof *s.closed),
                        .mark = calloc(m->n + 1, sizeof *s.mark), .most_work = *work};
    bool ok = s.list && s.slots && s.stack && s.closed && s.mark ? determine(&s, start, out) : error_set(r->err, "out of memory");
    s.work += m->n;
    *work -= s.work < *work ? s.work : *work;
    free(s.list);
    free(s.members);
    free(s.slots);
    free(s.stack);
    free(s.closed);
    free(s.mark);
    free(s.cuts);
    return ok;
}

bool regex_compile(const char *pattern, size_t length, uint32_t *work, struct dfa *out, struct error *err)
{
    *out = (struct dfa){0};
    struct parser r = {.p = (const unsigned char *)pattern, .end = (const unsigned char *)pattern + length, .err = err};
    struct machine m = {.r = &r};
    bool ok = compile(&r, &m, work, out);
    free(r.sets.data);
    free(r.nodes);
    free(m.nodes);
    if (!ok)
        dfa_free(out);
    return ok;
}
