/* A validator, for the values that a schema itself holds: those of enum and const. */
#include "server/schema/schema_internal.h"

#include <string.h>

enum { MOST_DEPTH = 64 };

struct check {
    struct schema_compiler *c;
    const struct json_value *root, *source;
    bool loose;
    int depth;
};

bool schema_equal(const struct json_value *a, const struct json_value *b)
{
    if (a->kind != b->kind)
        return false;
    if (a->kind == JSON_NUMBER) {
        double x, y;
        return (a->count == b->count && memcmp(a->text, b->text, a->count) == 0) ||
               (json_get_double(a, &x) && json_get_double(b, &y) && x == y);
    }
    if (a->count != b->count)
        return false;
    if (a->kind == JSON_STRING)
        return memcmp(a->text, b->text, a->count) == 0;
    const struct json_value *q = b->first;
    for (const struct json_value *p = a->first; p; p = p->next, q = q->next) {
        const struct json_value *other = q;
        if (a->kind == JSON_OBJECT)
            for (other = b->first; other && (other->key_count != p->key_count || memcmp(other->key, p->key, p->key_count) != 0);)
                other = other->next;
        if (!other || !schema_equal(p, other))
            return false;
    }
    return true;
}

static bool valid(struct check *k, const struct json_value *schema, const struct json_value *v, bool *fits);
static bool satisfied(struct check *k, const struct schema_item *item, bool expanded, const struct json_value *v, bool *fits);

static bool type_fits(const struct json_value *type, const struct json_value *v)
{
    int64_t n;
    double d;
    switch (v->kind) {
    case JSON_NULL: return schema_type_is(type, "null");
    case JSON_BOOL: return schema_type_is(type, "boolean");
    case JSON_STRING: return schema_type_is(type, "string");
    case JSON_ARRAY: return schema_type_is(type, "array");
    case JSON_OBJECT: return schema_type_is(type, "object");
    default:
        return schema_type_is(type, "number") ||
               (schema_type_is(type, "integer") && (json_get_int(v, &n) || (json_get_double(v, &d) && (d > 9e15 || d < -9e15))));
    }
}

static bool in_bounds(const struct json_value *schema, const struct json_value *v)
{
    const struct json_value *b;
    double d, bound;
    if (!json_get_double(v, &d))
        return false;
    return !(((b = json_get(schema, "minimum")) && json_get_double(b, &bound) && d < bound) ||
             ((b = json_get(schema, "maximum")) && json_get_double(b, &bound) && d > bound) ||
             ((b = json_get(schema, "exclusiveMinimum")) && json_get_double(b, &bound) && d <= bound) ||
             ((b = json_get(schema, "exclusiveMaximum")) && json_get_double(b, &bound) && d >= bound));
}

static bool in_count(struct check *k, const struct json_value *schema, const char *min, const char *max, size_t n, bool *fits)
{
    struct schema_all one = {.n = 1, .items = {{.schema = schema}}};
    uint32_t low = 0, high = UINT32_MAX;
    if (!schema_count(k->c, &one, min, true, &low) || !schema_count(k->c, &one, max, false, &high))
        return false;
    *fits &= n >= low && n <= high;
    return true;
}

static bool string_fits(struct check *k, const struct json_value *schema, const struct json_value *v, bool *fits)
{
    static const char *const keywords[] = {"minLength", "maxLength", "pattern", "format"};
    bool says = false, limited;
    for (size_t i = 0; i < sizeof keywords / sizeof *keywords; i++)
        says |= json_get(schema, keywords[i]) != NULL;
    if (!says)
        return true;
    struct schema_item item = {.schema = schema};
    struct dfa set;
    size_t n = 0;
    for (uint32_t i = 0; i < v->count; i++)
        n += ((unsigned char)v->text[i] & 0xC0) != 0x80;
    if (!json_get(schema, "pattern") && !json_get(schema, "format"))
        return in_count(k, schema, "minLength", "maxLength", n, fits);
    bool ok = schema_string_set(k->c, &item, k->loose, &set, &limited);
    if (ok && limited)
        *fits &= dfa_matches(&set, v->text, v->count);
    dfa_free(&set);
    return ok;
}

static bool array_fits(struct check *k, const struct json_value *schema, const struct json_value *v, bool *fits)
{
    const struct json_value *prefix = json_get(schema, "prefixItems"), *items = json_get(schema, "items");
    const struct json_value *own = prefix ? prefix->first : NULL;
    bool ok = in_count(k, schema, "minItems", "maxItems", v->count, fits);
    for (const struct json_value *e = v->first; e && ok && *fits; e = e->next) {
        if (own || items)
            ok = valid(k, own ? own : items, e, fits);
        own = own ? own->next : NULL;
    }
    return ok;
}

static bool member_fits(struct check *k, const struct json_value *schema, const struct json_value *m, bool *fits)
{
    const struct json_value *properties = json_get(schema, "properties"), *patterns = json_get(schema, "patternProperties");
    const struct json_value *additional = json_get(schema, "additionalProperties");
    bool ok = true, said = false;
    for (const struct json_value *p = properties ? properties->first : NULL; p && ok; p = p->next) {
        if (p->key_count != m->key_count || memcmp(p->key, m->key, m->key_count) != 0)
            continue;
        said = true;
        ok = valid(k, p, m, fits);
    }
    for (const struct json_value *p = patterns ? patterns->first : NULL; p && ok; p = p->next) {
        struct dfa set;
        if (!schema_pattern(k->c, p, p->key, p->key_count, &set))
            return false;
        bool matches = dfa_matches(&set, m->key, m->key_count);
        dfa_free(&set);
        said |= matches;
        if (matches)
            ok = valid(k, p, m, fits);
    }
    if (!said && additional && ok)
        ok = valid(k, additional, m, fits);
    return ok;
}

static bool object_fits(struct check *k, const struct json_value *schema, const struct json_value *v, bool *fits)
{
    const struct json_value *required = json_get(schema, "required");
    bool ok = true;
    for (const struct json_value *r = required ? required->first : NULL; r && ok && *fits; r = r->next) {
        bool there = false;
        for (const struct json_value *m = v->first; m && !there; m = m->next)
            there = m->key_count == r->count && memcmp(m->key, r->text, r->count) == 0;
        *fits &= there;
        ok = schema_step(k->c, 1 + v->count / 16);
    }
    for (const struct json_value *m = v->first; m && ok && *fits; m = m->next)
        ok = member_fits(k, schema, m, fits);
    return ok;
}

/* How many of the schemas it fits. */
static bool count_fitting(struct check *k, const struct json_value *list, const struct json_value *v, uint32_t *n)
{
    *n = 0;
    for (const struct json_value *s = list->first; s; s = s->next) {
        bool fits = true;
        if (!valid(k, s, v, &fits))
            return false;
        *n += fits;
    }
    return true;
}

static bool choices_fit(struct check *k, const struct schema_item *item, bool expanded, const struct json_value *v, bool *fits)
{
    const struct json_value *schema = item->schema;
    const struct json_value *any = item->any_done ? NULL : json_get(schema, "anyOf"),
                            *one = item->one_done ? NULL : json_get(schema, "oneOf");
    const struct json_value *all = expanded ? NULL : json_get(schema, "allOf"), *ref = expanded ? NULL : json_get(schema, "$ref"),
                            *list = json_get(schema, "enum"), *same = json_get(schema, "const");
    uint32_t n;
    if (list && list != k->source) {
        bool found = false;
        for (const struct json_value *e = list->first; e && !found; e = e->next)
            found = schema_equal(e, v);
        *fits &= found;
        if (!schema_step(k->c, 1 + list->count / 16))
            return false;
    }
    *fits &= !same || schema_equal(same, v);
    if (ref && *fits) {
        const struct json_value *target = schema_resolve(k->c, k->root, ref);
        if (!target || !valid(k, target, v, fits))
            return false;
    }
    for (const struct json_value *s = all ? all->first : NULL; s && *fits; s = s->next)
        if (!valid(k, s, v, fits))
            return false;
    if (any && *fits) {
        if (!count_fitting(k, any, v, &n))
            return false;
        *fits &= n > 0;
    }
    if (one && *fits) {
        if (!count_fitting(k, one, v, &n))
            return false;
        *fits &= n == 1;
    }
    return true;
}

static bool valid(struct check *k, const struct json_value *schema, const struct json_value *v, bool *fits)
{
    if (schema->kind == JSON_OBJECT)
        return satisfied(k, &(struct schema_item){.schema = schema}, false, v, fits);
    *fits &= schema->kind == JSON_BOOL && schema->count;
    return true;
}

/* expanded: its $ref and allOf are items of the conjunction themselves. */
static bool satisfied(struct check *k, const struct schema_item *item, bool expanded, const struct json_value *v, bool *fits)
{
    const struct json_value *schema = item->schema;
    if (++k->depth > MOST_DEPTH)
        return schema_fail(k->c, schema, "the values of 'enum' or 'const' are nested too deeply to be checked");
    const struct json_value *type = json_get(schema, "type");
    *fits &= !type || type_fits(type, v);
    bool ok = schema_check(k->c, schema) && choices_fit(k, item, expanded, v, fits);
    if (ok && *fits) {
        switch (v->kind) {
        case JSON_NUMBER: *fits &= in_bounds(schema, v); break;
        case JSON_STRING: ok = string_fits(k, schema, v, fits); break;
        case JSON_ARRAY: ok = array_fits(k, schema, v, fits); break;
        case JSON_OBJECT: ok = object_fits(k, schema, v, fits); break;
        default: break;
        }
    }
    k->depth--;
    return ok;
}

bool schema_fits(struct schema_compiler *c, const struct schema_all *all, const struct json_value *value,
    const struct json_value *source, bool *fits)
{
    struct check k = {.c = c, .root = all->root, .source = source, .loose = all->loose};
    *fits = !all->impossible;
    for (int i = 0; i < all->n && *fits; i++)
        if (!satisfied(&k, &all->items[i], true, value, fits))
            return false;
    return true;
}
