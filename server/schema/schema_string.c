/* Strings: lengths, patterns and formats. */
#include "server/schema/regex.h"
#include "server/schema/schema_internal.h"

#include <stdlib.h>
#include <string.h>

#define YEAR "(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
#define LEAP_YEAR "(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)"
#define DATE "(?:" YEAR \
    "-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))|" \
    LEAP_YEAR "-02-29)"
#define CLOCK "(?:[01][0-9]|2[0-3]):[0-5][0-9]"
#define TIME CLOCK ":[0-5][0-9](?:\\.[0-9]{1,9})?(?:Z|[+-]" CLOCK ")"
#define LABEL "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
#define ATEXT "[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
#define OCTET "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
#define PCHAR "(?:[A-Za-z0-9._~!$&'()*+,;=:@-]|%[0-9A-Fa-f]{2})"

/* RFC 3339 (dates and times; leap seconds are left out), RFC 9562, RFC 5321 with dot-atoms, RFC 2673 (dotted quads),
 * RFC 3986 (absolute, without IPv6 literals). */
static const struct {
    const char *name, *pattern;
} formats[] = {
    {"date", "^" DATE "$"},
    {"time", "^" TIME "$"},
    {"date-time", "^" DATE "T" TIME "$"},
    {"uuid", "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"},
    {"email", "^" ATEXT "(?:\\." ATEXT ")*@" LABEL "(?:\\." LABEL ")+$"},
    {"ipv4", "^" OCTET "(?:\\." OCTET "){3}$"},
    {"uri", "^[A-Za-z][A-Za-z0-9+.-]*:(?://"
            "(?:(?:[A-Za-z0-9._~!$&'()*+,;=:-]|%[0-9A-Fa-f]{2})*@)?(?:[A-Za-z0-9._~!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+(?::[0-9]{1,5})"
            "?(?:/" PCHAR "*)*|/?" PCHAR "+(?:/" PCHAR "*)*)(?:\\?(?:" PCHAR "|[/?])*)?(?:#(?:" PCHAR "|[/?])*)?$"},
};

static const char *format_pattern(const char *name)
{
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++)
        if (strcmp(name, formats[i].name) == 0)
            return formats[i].pattern;
    return NULL;
}

bool schema_is_format(const char *name)
{
    return format_pattern(name) != NULL;
}

bool schema_dfa(struct schema_compiler *c, const struct json_value *where, enum dfa_result result, const struct dfa *made)
{
    if (result == DFA_NO_MEMORY)
        return schema_out_of_memory(c);
    uint32_t cost = 8 * (made->n_states + made->n_ranges);
    c->work -= cost < c->work ? cost : c->work;
    if (result == DFA_TOO_LARGE || c->work == 0)
        return schema_fail(c, where, "what is asked of this string makes too large an automaton");
    return true;
}

bool schema_pattern(
    struct schema_compiler *c, const struct json_value *where, const char *pattern, size_t length, struct dfa *out)
{
    struct error problem;
    if (!regex_compile(pattern, length, &c->work, out, &problem))
        return schema_fail(c, where, "the pattern \"%.60s\" cannot be enforced: %s", pattern, problem.text);
    if (!schema_dfa(c, where, DFA_OK, out)) {
        dfa_free(out);
        return false;
    }
    return true;
}

/* d becomes what is in d and in other; other is freed. */
static bool narrow(struct schema_compiler *c, const struct json_value *where, struct dfa *d, bool *limited, struct dfa *other)
{
    struct dfa both = *other;
    enum dfa_result r = DFA_OK;
    if (*limited) {
        r = dfa_both(d, other, &both);
        dfa_free(other);
        dfa_free(d);
    }
    *limited = true;
    *d = both;
    return schema_dfa(c, where, r, d);
}

static bool narrow_by_patterns(
    struct schema_compiler *c, const struct schema_item *item, bool loose, struct dfa *d, bool *limited)
{
    const struct json_value *pattern = json_get(item->schema, "pattern"), *format = json_get(item->schema, "format");
    struct dfa other;
    if (pattern &&
        (!schema_pattern(c, pattern, pattern->text, pattern->count, &other) || !narrow(c, pattern, d, limited, &other)))
        return false;
    if (format && !loose) {
        const char *text = format_pattern(format->text);
        if (!schema_pattern(c, format, text, strlen(text), &other) || !narrow(c, format, d, limited, &other))
            return false;
    }
    return true;
}

static bool narrow_by_length(
    struct schema_compiler *c, const struct json_value *where, uint32_t min, uint32_t max, struct dfa *d, bool *limited)
{
    struct dfa lengths;
    if (min == 0 && max == DFA_UNLIMITED)
        return true;
    enum dfa_result r = dfa_lengths(min, max, &lengths);
    return schema_dfa(c, where, r, &lengths) && narrow(c, where, d, limited, &lengths);
}

bool schema_string_set(struct schema_compiler *c, const struct schema_item *item, bool loose, struct dfa *out, bool *limited)
{
    struct schema_all one = {.n = 1, .items = {*item}};
    uint32_t min = 0, max = DFA_UNLIMITED;
    *limited = false;
    *out = (struct dfa){0};
    return schema_count(c, &one, "minLength", true, &min) && schema_count(c, &one, "maxLength", false, &max) &&
           narrow_by_patterns(c, item, loose, out, limited) && narrow_by_length(c, item->schema, min, max, out, limited);
}

/* ---- to grammar ---- */

bool schema_string_of(struct schema_compiler *c, const struct dfa *d, grammar_node next, grammar_node *out)
{
    *out = GRAMMAR_NEVER;
    if (dfa_is_empty(d))
        return true;
    uint32_t most = 0;
    for (uint32_t i = 0; i < d->n_states; i++)
        most = d->states[i].count > most ? d->states[i].count : most;
    /* One range makes at most one edge for escapes, three for ASCII and five for each of the other lengths' first bytes. */
    struct grammar_edge *edges = malloc(((size_t)most * 24 + 8) * sizeof *edges);
    grammar_node *nodes = malloc(d->n_states * sizeof *nodes);
    bool ok = edges && nodes;
    for (uint32_t i = 0; ok && i < d->n_states; i++)
        nodes[i] = grammar_reserve(c->b);
    for (uint32_t i = 0; ok && i < d->n_states; i++) {
        size_t n = 0;
        for (uint32_t k = 0; k < d->states[i].count; k++) {
            const struct dfa_range *r = &d->ranges[d->states[i].first + k];
            schema_character_edges(c, r->low, r->high, nodes[r->to], edges, &n);
        }
        if (d->states[i].accepts)
            edges[n++] = (struct grammar_edge){'"', '"', next};
        grammar_define_edges(c->b, nodes[i], edges, n);
    }
    if (ok)
        *out = nodes[0];
    free(edges);
    free(nodes);
    return ok || schema_out_of_memory(c);
}

bool schema_string(struct schema_compiler *c, const struct schema_all *all, grammar_node *out)
{
    uint32_t min = 0, max = DFA_UNLIMITED;
    struct dfa d = {0};
    bool limited = false, ok;
    *out = GRAMMAR_NEVER;
    if (!schema_count(c, all, "minLength", true, &min) || !schema_count(c, all, "maxLength", false, &max))
        return false;
    if (min > max)
        return true;
    ok = true;
    for (int i = 0; i < all->n && ok; i++)
        ok = narrow_by_patterns(c, &all->items[i], all->loose, &d, &limited);
    if (!ok) {
        dfa_free(&d);
        return false;
    }
    if (limited) {
        ok = narrow_by_length(c, all->items[0].schema, min, max, &d, &limited) && schema_string_of(c, &d, GRAMMAR_RETURN, out);
        *out = grammar_byte(c->b, '"', '"', *out);
        dfa_free(&d);
        return ok;
    }
    if (min == 0 && max == DFA_UNLIMITED) {
        *out = grammar_call(c->b, c->string, GRAMMAR_RETURN);
        return true;
    }
    grammar_node end = grammar_repeat_begin(c->b, min, max, grammar_byte(c->b, '"', '"', GRAMMAR_RETURN));
    *out = grammar_byte(c->b, '"', '"', grammar_repeat_end(c->b, end, schema_string_character(c, end)));
    return true;
}
