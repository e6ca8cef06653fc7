/* Objects: declared members in their order, then others. */
#include "server/schema/schema_internal.h"

#include <stdlib.h>
#include <string.h>

struct name {
    const char *text;
    uint32_t length;
    bool required;
    grammar_rule value;
};

struct object {
    struct schema_compiler *c;
    const struct schema_all *all;
    struct name *names; /* [n_names] */
    uint32_t n_names;
    /* Members of all patternProperties. */
    struct { const struct json_value *keyword; struct dfa set; } patterns[SCHEMA_MOST_PATTERNS];
    uint32_t n_patterns;
};

static struct name *find_name(struct object *o, const char *text, uint32_t length)
{
    for (uint32_t i = 0; i < o->n_names; i++)
        if (o->names[i].length == length && memcmp(o->names[i].text, text, length) == 0)
            return &o->names[i];
    return NULL;
}

static bool add_name(struct object *o, const struct json_value *where, const char *text, uint32_t length, bool required)
{
    if (!schema_step(o->c, 1 + o->n_names / 16))
        return false;
    struct name *known = find_name(o, text, length);
    if (known) {
        known->required |= required;
        return true;
    }
    if (o->n_names == SCHEMA_MOST_NAMES)
        return schema_fail(o->c, where, "an object can have at most %d declared members", (int)SCHEMA_MOST_NAMES);
    o->names[o->n_names++] = (struct name){.text = text, .length = length, .required = required};
    return true;
}

static bool collect(struct object *o)
{
    o->names = malloc(SCHEMA_MOST_NAMES * sizeof *o->names);
    if (!o->names)
        return schema_out_of_memory(o->c);
    for (int i = 0; i < o->all->n; i++) {
        const struct json_value *properties = json_get(o->all->items[i].schema, "properties"),
                                *patterns = json_get(o->all->items[i].schema, "patternProperties");
        for (const struct json_value *p = properties ? properties->first : NULL; p; p = p->next)
            if (!add_name(o, p, p->key, p->key_count, false))
                return false;
        for (const struct json_value *p = patterns ? patterns->first : NULL; p; p = p->next) {
            if (o->n_patterns == SCHEMA_MOST_PATTERNS)
                return schema_fail(
                    o->c, p, "'patternProperties' can be enforced for at most %d patterns", (int)SCHEMA_MOST_PATTERNS);
            if (!schema_pattern(o->c, p, p->key, p->key_count, &o->patterns[o->n_patterns].set))
                return false;
            o->patterns[o->n_patterns++].keyword = p;
        }
    }
    for (int i = 0; i < o->all->n; i++) {
        const struct json_value *required = json_get(o->all->items[i].schema, "required");
        for (const struct json_value *r = required ? required->first : NULL; r; r = r->next)
            if (!add_name(o, r, r->text, r->count, true))
                return false;
    }
    return true;
}

static const struct json_value *get(const struct json_value *object, const char *key, uint32_t length)
{
    for (const struct json_value *m = object ? object->first : NULL; m; m = m->next)
        if (m->key_count == length && memcmp(m->key, key, length) == 0)
            return m;
    return NULL;
}

/* The schema of a member: what every item says of it. name: of a declared member, else NULL.
 * matches: which patterns its name matches, by bit. *allowed: false is not among them. */
static bool member_rule(struct object *o, const struct name *name, uint32_t matches, grammar_rule *rule, bool *allowed)
{
    struct schema_compiler *c = o->c;
    struct schema_all *of = malloc(sizeof *of);
    if (!of)
        return schema_out_of_memory(c);
    schema_all_begin(of, o->all);
    bool ok = true;
    for (int i = 0; i < o->all->n && ok; i++) {
        const struct json_value *schema = o->all->items[i].schema, *properties = json_get(schema, "properties");
        const struct json_value *own = name ? get(properties, name->text, name->length) : NULL,
                                *patterns = json_get(schema, "patternProperties");
        const struct json_value *additional = json_get(schema, "additionalProperties");
        bool said = own != NULL;
        ok = schema_step(c, 1 + (properties ? properties->count / 16 : 0)) &&
             (!own || schema_all_add(c, of, own, SCHEMA_NO_PARENT));
        for (uint32_t k = 0; k < o->n_patterns && ok && patterns; k++) {
            bool mine = false;
            for (const struct json_value *p = patterns->first; p && !mine; p = p->next)
                mine = p == o->patterns[k].keyword;
            if (!mine || !(matches >> k & 1))
                continue;
            said = true;
            ok = schema_all_add(c, of, o->patterns[k].keyword, SCHEMA_NO_PARENT);
        }
        if (!said && additional && ok)
            ok = schema_all_add(c, of, additional, SCHEMA_NO_PARENT);
    }
    *allowed = !of->impossible;
    ok = ok && schema_rule_of(c, of, rule);
    free(of);
    return ok;
}

/* ---- members that are not declared ---- */

/* A set of names that match the same patterns. */
struct region {
    struct dfa names;
    uint32_t matches;
};

static bool fail_names(struct object *o, enum dfa_result r)
{
    static const struct dfa none = {0};
    return schema_dfa(o->c, o->all->items[0].schema, r, &none);
}

/* Divides the names by one more pattern. */
static bool divide(struct object *o, struct region *regions, size_t *n, uint32_t pattern)
{
    size_t before = *n, out = 0;
    struct region *all = malloc(2 * before * sizeof *all);
    enum dfa_result r = all ? DFA_OK : DFA_NO_MEMORY;
    for (size_t i = 0; i < before && r == DFA_OK; i++) {
        struct dfa in, outside;
        r = dfa_both(&regions[i].names, &o->patterns[pattern].set, &in);
        if (r == DFA_OK && (r = dfa_without(&regions[i].names, &o->patterns[pattern].set, &outside)) != DFA_OK)
            dfa_free(&in);
        if (r != DFA_OK)
            break;
        if (!dfa_is_empty(&in))
            all[out++] = (struct region){in, regions[i].matches | 1u << pattern};
        if (!dfa_is_empty(&outside))
            all[out++] = (struct region){outside, regions[i].matches};
    }
    if (out > 1u << SCHEMA_MOST_PATTERNS) /* cannot be: each region is a set of patterns of its own */
        out = 1u << SCHEMA_MOST_PATTERNS;
    for (size_t i = 0; i < before; i++)
        dfa_free(&regions[i].names);
    if (out > 0)
        memcpy(regions, all, out * sizeof *all);
    *n = out;
    free(all);
    return r == DFA_OK || fail_names(o, r);
}

static bool undeclared_names(struct object *o, struct dfa *out)
{
    struct dfa all, taken;
    struct dfa_text *texts = malloc((o->n_names + 1) * sizeof *texts);
    if (!texts)
        return schema_out_of_memory(o->c);
    for (uint32_t i = 0; i < o->n_names; i++)
        texts[i] = (struct dfa_text){o->names[i].text, o->names[i].length};
    *out = (struct dfa){0};
    enum dfa_result r = dfa_texts(texts, o->n_names, &taken);
    free(texts);
    if (r != DFA_OK)
        return fail_names(o, r);
    r = dfa_everything(&all);
    if (r == DFA_OK)
        r = dfa_without(&all, &taken, out);
    dfa_free(&all);
    dfa_free(&taken);
    return r == DFA_OK || fail_names(o, r);
}

/* One undeclared member and what follows it: node next. GRAMMAR_NEVER if there can be none. */
static bool other_member(struct object *o, grammar_node next, grammar_node *out)
{
    struct schema_compiler *c = o->c;
    grammar_rule value;
    bool allowed, ok = true;
    *out = GRAMMAR_NEVER;
    if (o->all->loose) /* whether there is any object at all does not depend on members that need not be there */
        return true;
    if (o->n_names == 0 && o->n_patterns == 0) { /* any name, in any spelling */
        if (!member_rule(o, NULL, 0, &value, &allowed))
            return false;
        *out = allowed ? grammar_call(c->b, c->string, schema_colon(c, grammar_call(c->b, value, next))) : GRAMMAR_NEVER;
        return true;
    }
    bool any = false; /* may there be one at all? Saves the work, in the usual case */
    for (uint32_t matches = 0; matches < 1u << o->n_patterns && ok && !any; matches++)
        ok = member_rule(o, NULL, matches, &value, &any);
    if (!ok || !any)
        return ok;
    struct region *regions = calloc(1u << SCHEMA_MOST_PATTERNS, sizeof *regions);
    grammar_node ways[1 << SCHEMA_MOST_PATTERNS];
    size_t n = 1, k = 0;
    ok = regions ? undeclared_names(o, &regions[0].names) : schema_out_of_memory(c);
    for (uint32_t p = 0; p < o->n_patterns && ok; p++)
        ok = divide(o, regions, &n, p);
    for (size_t i = 0; i < n && ok; i++) {
        grammar_node name;
        ok = member_rule(o, NULL, regions[i].matches, &value, &allowed);
        if (!ok || !allowed)
            continue;
        ok = schema_string_of(c, &regions[i].names, schema_colon(c, grammar_call(c->b, value, next)), &name);
        ways[k++] = grammar_byte(c->b, '"', '"', name);
    }
    for (size_t i = 0; regions && i < n; i++)
        dfa_free(&regions[i].names);
    free(regions);
    *out = grammar_choice(c->b, ways, k);
    return ok;
}

/* ---- the whole ---- */

static bool member_values(struct object *o)
{
    for (uint32_t i = 0; i < o->n_names; i++) {
        struct name *n = &o->names[i];
        uint32_t matches = 0;
        bool allowed;
        if (o->all->loose && !n->required)
            continue;
        for (uint32_t k = 0; k < o->n_patterns; k++)
            matches |= (uint32_t)dfa_matches(&o->patterns[k].set, n->text, n->length) << k;
        if (!member_rule(o, n, matches, &n->value, &allowed))
            return false;
    }
    return true;
}

/* "name": value, then next. */
static bool member(struct object *o, const struct name *n, grammar_node next, grammar_node *out)
{
    struct json_writer w = {0};
    json_string(&w, n->text, n->length);
    if (w.failed) {
        json_writer_free(&w);
        return schema_out_of_memory(o->c);
    }
    *out = grammar_literal(o->c->b, w.data, w.length, schema_colon(o->c, grammar_call(o->c->b, n->value, next)));
    json_writer_free(&w);
    return true;
}

static bool build(struct object *o, grammar_node *out)
{
    struct schema_compiler *c = o->c;
    struct grammar_builder *b = c->b;
    grammar_node close = grammar_byte(b, '}', '}', GRAMMAR_RETURN), closed = schema_space(c, close), other,
                 declared = GRAMMAR_NEVER;
    grammar_node behind = grammar_reserve(b);
    if (!other_member(o, behind, &other))
        return false;
    grammar_define_choice(
        b, behind, (grammar_node[]){closed, grammar_byte(b, ',', ',', schema_space(c, other))}, other == GRAMMAR_NEVER ? 1 : 2);
    /* From the last declared member to the first: `first` is where no member has been written yet, `more` where one has. */
    grammar_node first = grammar_choice(b, (grammar_node[]){close, other}, 2), more = behind;
    for (uint32_t i = o->n_names; i-- > 0;) {
        const struct name *n = &o->names[i];
        if (o->all->loose && !n->required)
            continue;
        if (!member(o, n, more, &declared))
            return false;
        grammar_node after_comma = grammar_byte(b, ',', ',', schema_space(c, declared));
        first = n->required ? declared : grammar_choice(b, (grammar_node[]){declared, first}, 2);
        more = n->required ? after_comma : grammar_choice(b, (grammar_node[]){after_comma, more}, 2);
    }
    *out = grammar_byte(b, '{', '{', schema_space(c, first));
    return true;
}

bool schema_object(struct schema_compiler *c, const struct schema_all *all, grammar_node *out)
{
    struct object o = {.c = c, .all = all};
    *out = GRAMMAR_NEVER;
    bool ok = collect(&o) && member_values(&o) && build(&o, out);
    for (uint32_t i = 0; i < o.n_patterns; i++)
        dfa_free(&o.patterns[i].set);
    free(o.names);
    return ok;
}
