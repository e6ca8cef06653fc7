/* Arrays. */
#include "server/schema/schema_internal.h"

#include <stdlib.h>

bool schema_count(struct schema_compiler *c, const struct schema_all *all, const char *keyword, bool largest, uint32_t *value)
{
    for (int i = 0; i < all->n; i++) {
        const struct json_value *v = json_get(all->items[i].schema, keyword);
        int64_t n;
        if (!v)
            continue;
        if (!json_get_int(v, &n) || n < 0)
            return schema_fail(c, v, "'%s' must be an integer, 0 or more", keyword);
        uint32_t count = n < 1000000000 ? (uint32_t)n : 1000000000;
        if (largest ? count > *value : count < *value)
            *value = count;
    }
    return true;
}

/* What all items say of the element at `index`. */
static bool element(struct schema_compiler *c, const struct schema_all *all, uint32_t index, grammar_rule *rule)
{
    struct schema_all *of = malloc(sizeof *of);
    if (!of)
        return schema_out_of_memory(c);
    schema_all_begin(of, all);
    bool ok = true;
    for (int i = 0; i < all->n && ok; i++) {
        const struct json_value *prefix = json_get(all->items[i].schema, "prefixItems"),
                                *rest = json_get(all->items[i].schema, "items");
        const struct json_value *schema = rest;
        ok = schema_step(c, 1 + (prefix ? index : 0));
        if (prefix && index < prefix->count) {
            schema = prefix->first;
            for (uint32_t k = 0; k < index; k++)
                schema = schema->next;
        }
        if (schema && ok)
            ok = schema_all_add(c, of, schema, SCHEMA_NO_PARENT);
    }
    ok = ok && schema_rule_of(c, of, rule);
    free(of);
    return ok;
}

bool schema_array(struct schema_compiler *c, const struct schema_all *all, grammar_node *out)
{
    struct grammar_builder *b = c->b;
    uint32_t min = 0, max = GRAMMAR_UNLIMITED, n_prefix = 0;
    if (!schema_count(c, all, "minItems", true, &min) || !schema_count(c, all, "maxItems", false, &max))
        return false;
    *out = GRAMMAR_NEVER;
    if (min > max)
        return true;
    if (all->loose) /* if there is any array at all, there is one of the fewest elements */
        max = min;
    for (int i = 0; i < all->n; i++) {
        const struct json_value *prefix = json_get(all->items[i].schema, "prefixItems");
        if (prefix && prefix->count > n_prefix)
            n_prefix = prefix->count;
    }
    if (n_prefix > max)
        n_prefix = max;
    grammar_rule rule;
    grammar_node close = grammar_byte(b, ']', ']', GRAMMAR_RETURN), end = schema_space(c, close), node = end;
    /* Behind the elements that have places of their own: the others, each after a comma.
     * With none of the former, the first of the latter has no comma. */
    if (max > n_prefix) {
        uint32_t before = n_prefix > 0 ? n_prefix : 1;
        if (!element(c, all, n_prefix, &rule))
            return false;
        grammar_node again =
            grammar_repeat_begin(b, min > before ? min - before : 0, max == GRAMMAR_UNLIMITED ? max : max - before, end);
        grammar_node one = grammar_byte(b, ',', ',', schema_space(c, grammar_call(b, rule, again)));
        node = grammar_repeat_end(b, again, one);
        if (n_prefix == 0)
            node = grammar_call(b, rule, node);
    }
    for (uint32_t i = n_prefix; i-- > 0;) {
        if (i + 1 < n_prefix && i + 1 >= min) /* node: what follows when there is more behind element i */
            node = grammar_choice(b, (grammar_node[]){end, node}, 2);
        if (!element(c, all, i, &rule))
            return false;
        node = grammar_call(b, rule, node);
        if (i > 0)
            node = grammar_byte(b, ',', ',', schema_space(c, node));
    }
    if (max == 0)
        node = GRAMMAR_NEVER;
    if (min == 0)
        node = grammar_choice(b, (grammar_node[]){close, node}, 2);
    *out = grammar_byte(b, '[', '[', schema_space(c, node));
    return true;
}
