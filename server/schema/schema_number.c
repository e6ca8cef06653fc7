/* Ranges of integers, and of decimal numbers between whole bounds, as automata over digits. */
#include "server/schema/schema_internal.h"

#include <math.h>
#include <string.h>

enum {
    MOST_DIGITS = 15,    /* of a number that a double holds exactly, whatever its digits */
    LIMIT_DIGITS = 18    /* of a bound */
};
static const int64_t limit = 999999999999999999, usual = 999999999999999;

struct bounds {
    int64_t min, max;
    bool has_min, has_max, above, below; /* above, below: the bound itself is excluded */
};

static grammar_node digits(struct schema_compiler *c, int n, grammar_node next)
{
    while (n-- > 0)
        next = grammar_byte(c->b, '0', '9', next);
    return next;
}

/* n digits between those of low and those of high, as numbers. tight_low,
 * tight_high: so far the digits are those of low, of high. */
static grammar_node between(
    struct schema_compiler *c, const char *low, const char *high, int n, bool tight_low, bool tight_high, grammar_node next)
{
    if (!tight_low && !tight_high)
        return digits(c, n, next);
    if (n == 0)
        return next;
    uint8_t from = (uint8_t)(tight_low ? *low : '0'), to = (uint8_t)(tight_high ? *high : '9');
    grammar_node ways[3];
    size_t k = 0;
    if (from == to)
        return grammar_byte(c->b, from, from, between(c, low + 1, high + 1, n - 1, tight_low, tight_high, next));
    if (tight_low) {
        ways[k++] = grammar_byte(c->b, from, from, between(c, low + 1, high + 1, n - 1, true, false, next));
        from++;
    }
    if (tight_high) {
        ways[k++] = grammar_byte(c->b, to, to, between(c, low + 1, high + 1, n - 1, false, true, next));
        to--;
    }
    if (from <= to)
        ways[k++] = grammar_byte(c->b, from, to, digits(c, n - 1, next));
    return grammar_choice(c->b, ways, k);
}

static int write_digits(int64_t n, char *out)
{
    char backwards[24];
    int count = 0;
    do
        backwards[count++] = (char)('0' + n % 10);
    while ((n /= 10) > 0);
    for (int i = 0; i < count; i++)
        out[i] = backwards[count - 1 - i];
    return count;
}

typedef grammar_node after_digits(struct schema_compiler *c, int n_digits);

static grammar_node nothing(struct schema_compiler *c, int n_digits)
{
    (void)c, (void)n_digits;
    return GRAMMAR_RETURN;
}

/* The whole numbers low..high (not negative) without leading zeros, each followed by what
 * `after` makes for its number of digits. */
static grammar_node whole(struct schema_compiler *c, int64_t low, int64_t high, after_digits *after)
{
    grammar_node ways[LIMIT_DIGITS + 1];
    size_t k = 0;
    if (low > high)
        return GRAMMAR_NEVER;
    int64_t first = 0, last = 9;
    for (int n = 1; n <= LIMIT_DIGITS; n++) {
        int64_t from = low > first ? low : first, to = high < last ? high : last;
        if (from <= to) {
            char a[24], b[24];
            write_digits(from, a);
            write_digits(to, b);
            ways[k++] = between(c, a, b, n, true, true, after(c, n));
        }
        first = last + 1;
        last = n < LIMIT_DIGITS ? last * 10 + 9 : last;
    }
    return grammar_choice(c->b, ways, k);
}

/* ---- fractions: with the digits before the point, never more than a double can tell apart ---- */

static grammar_node some_digits(struct schema_compiler *c, char low, char high, int most)
{
    grammar_node node = GRAMMAR_RETURN;
    for (int i = 0; i < most; i++)
        node = grammar_choice(c->b, (grammar_node[]){GRAMMAR_RETURN, grammar_byte(c->b, (uint8_t)low, (uint8_t)high, node)}, 2);
    return node;
}

static grammar_node point(struct schema_compiler *c, char low, char high, int n_digits)
{
    int most = MOST_DIGITS - n_digits;
    if (most < 1)
        return GRAMMAR_RETURN;
    grammar_node fraction =
        grammar_byte(c->b, '.', '.', grammar_byte(c->b, (uint8_t)low, (uint8_t)high, some_digits(c, low, high, most - 1)));
    return grammar_choice(c->b, (grammar_node[]){GRAMMAR_RETURN, fraction}, 2);
}

static grammar_node any_fraction(struct schema_compiler *c, int n_digits)
{
    return point(c, '0', '9', n_digits);
}

static grammar_node zero_fraction(struct schema_compiler *c, int n_digits)
{
    return point(c, '0', '0', n_digits);
}

/* A fraction that is not zero. */
static grammar_node real_fraction(struct schema_compiler *c, int n_digits)
{
    grammar_node node = GRAMMAR_NEVER;
    int most = MOST_DIGITS - n_digits;
    for (int i = 0; i < most; i++) {
        grammar_node end = grammar_byte(c->b, '1', '9', some_digits(c, '0', '9', i));
        node = grammar_choice(c->b, (grammar_node[]){end, grammar_byte(c->b, '0', '0', node)}, 2);
    }
    return grammar_byte(c->b, '.', '.', node);
}

/* Decimals from low to high (not negative). */
static grammar_node decimals(struct schema_compiler *c, int64_t low, bool above, int64_t high, bool below)
{
    grammar_node ways[3];
    size_t k = 0;
    if (low > high || (low == high && (above || below)))
        return GRAMMAR_NEVER;
    if (above && low < high)
        ways[k++] = whole(c, low, low, real_fraction);
    ways[k++] = whole(c, above ? low + 1 : low, high - 1, any_fraction);
    if (!below)
        ways[k++] = whole(c, high, high, zero_fraction);
    return grammar_choice(c->b, ways, k);
}

/* ---- the keywords ---- */

static bool read_bound(struct schema_compiler *c, const struct json_value *v, bool integer, bool lower, int64_t *n, bool *exact)
{
    double d;
    if (v->kind != JSON_NUMBER)
        return schema_fail(c, v, "'%s' must be a number, not %s", v->key, json_kind_name(v->kind));
    *exact = json_get_int(v, n);
    if (!*exact) {
        if (!json_get_double(v, &d))
            return schema_fail(c, v, "'%s' is too large to be enforced", v->key);
        if (!integer && d != floor(d))
            return schema_fail(c, v, "'%s' can only be enforced for integers, or where the bound is whole", v->key);
        if (fabs(d) > (double)limit)
            return schema_fail(c, v, "'%s' can only be enforced up to 18 digits", v->key);
        *n = (int64_t)(lower ? ceil(d) : floor(d));
    }
    if (*n > limit || *n < -limit)
        return schema_fail(c, v, "'%s' can only be enforced up to 18 digits", v->key);
    return true;
}

static bool read_bounds(struct schema_compiler *c, const struct json_value *schema, bool integer, struct bounds *b)
{
    static const struct { const char *name; bool lower, exclusive; } keywords[] = {
        {"minimum", true, false}, {"exclusiveMinimum", true, true}, {"maximum", false, false}, {"exclusiveMaximum", false, true}};
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++) {
        const struct json_value *v = json_get(schema, keywords[i].name);
        bool lower = keywords[i].lower, exact = false;
        int64_t n;
        if (!v)
            continue;
        if (!read_bound(c, v, integer, lower, &n, &exact))
            return false;
        bool exclusive = keywords[i].exclusive && exact;
        if (integer && exclusive) {
            n += lower ? 1 : -1;
            exclusive = false;
        }
        if (lower && (!b->has_min || n > b->min || (n == b->min && exclusive))) {
            b->min = n;
            b->above = exclusive;
            b->has_min = true;
        } else if (!lower && (!b->has_max || n < b->max || (n == b->max && exclusive))) {
            b->max = n;
            b->below = exclusive;
            b->has_max = true;
        }
    }
    return true;
}

bool schema_number(struct schema_compiler *c, const struct schema_all *all, bool integer, grammar_node *out)
{
    struct bounds b = {0};
    for (int i = 0; i < all->n; i++)
        if (!read_bounds(c, all->items[i].schema, integer, &b))
            return false;
    if (!b.has_min && !b.has_max) {
        *out = grammar_call(c->b, integer ? c->integer : c->number, GRAMMAR_RETURN);
        return true;
    }
    if (!b.has_min)
        b.min = b.max < -usual ? -limit : -usual;
    if (!b.has_max)
        b.max = b.min > usual ? limit : usual;
    grammar_node positive, negative;
    int64_t low = b.min > 0 ? b.min : 0, high = b.max < 0 ? -b.max : 0;
    if (integer) {
        positive = b.max >= 0 ? whole(c, low, b.max, nothing) : GRAMMAR_NEVER;
        negative = b.min < 0 ? whole(c, high > 1 ? high : 1, -b.min, nothing) : GRAMMAR_NEVER;
    } else {
        positive = b.max >= 0 ? decimals(c, low, b.above && b.min >= 0, b.max, b.below) : GRAMMAR_NEVER;
        negative = b.min < 0 ? decimals(c, high, b.below && b.max <= 0, -b.min, b.above) : GRAMMAR_NEVER;
    }
    *out = grammar_choice(c->b, (grammar_node[]){positive, grammar_byte(c->b, '-', '-', negative)}, 2);
    return true;
}
