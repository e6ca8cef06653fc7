#include "server/schema/regex.h"
#include "server/schema/schema_internal.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SLOTS = 1 << 15 };

/* ---- errors, with the place ---- */

static void append(char *out, size_t size, const char *text, size_t length)
{
    size_t used = strlen(out);
    if (length > size - 1 - used)
        length = size - 1 - used;
    memcpy(out + used, text, length);
    out[used + length] = '\0';
}

/* The JSON pointer (RFC 6901) of a value: the way down to it is told by where things stand in the document. */
static void write_pointer(const struct json_value *root, const struct json_value *where, char *out, size_t size)
{
    out[0] = '\0';
    while (root && where && root != where && root->first) {
        const struct json_value *into = NULL;
        size_t index = 0, at = 0;
        for (const struct json_value *e = root->first; e && e->offset <= where->offset; e = e->next, index++) {
            into = e;
            at = index;
        }
        if (!into)
            return;
        char number[24];
        const char *key = into->key ? into->key : number;
        snprintf(number, sizeof number, "%zu", at);
        append(out, size, "/", 1);
        for (; *key; key++)
            append(out, size, *key == '~' ? "~0" : *key == '/' ? "~1" : key, *key == '~' || *key == '/' ? 2 : 1);
        root = into;
    }
}

bool schema_fail(struct schema_compiler *c, const struct json_value *where, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(c->err->text, sizeof c->err->text, format, args);
    va_end(args);
    write_pointer(c->root, where, c->err->pointer, sizeof c->err->pointer);
    c->err->document = c->document;
    return false;
}

bool schema_out_of_memory(struct schema_compiler *c)
{
    return schema_fail(c, NULL, "out of memory for a schema");
}

bool schema_step(struct schema_compiler *c, uint32_t steps)
{
    if (c->steps < steps)
        return schema_fail(c, NULL, "the schema is too large or too entangled to be enforced");
    c->steps -= steps;
    return true;
}

/* ---- keywords ---- */

bool schema_type_is(const struct json_value *type, const char *name)
{
    if (type->kind == JSON_STRING)
        return json_is(type, name);
    for (const struct json_value *t = type->first; t; t = t->next)
        if (json_is(t, name))
            return true;
    return false;
}

static bool is_type_name(const struct json_value *v)
{
    static const char *const names[] = {"null", "boolean", "integer", "number", "string", "array", "object"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (json_is(v, names[i]))
            return true;
    return false;
}

static bool check_type(struct schema_compiler *c, const struct json_value *v)
{
    const struct json_value *wrong = v->kind == JSON_ARRAY ? v->first : v;
    while (v->kind == JSON_ARRAY && wrong && is_type_name(wrong))
        wrong = wrong->next;
    if (v->kind == JSON_ARRAY ? v->count > 0 && !wrong : is_type_name(v))
        return true;
    return schema_fail(c, v, "'type' must be one of null, boolean, integer, number, string, array, object, or a list of them");
}

static bool check_kind(struct schema_compiler *c, const struct json_value *v, enum json_kind kind)
{
    return v->kind == kind || schema_fail(c, v, "'%s' must be %s, not %s", v->key, json_kind_name(kind), json_kind_name(v->kind));
}

static bool check_list(struct schema_compiler *c, const struct json_value *v)
{
    return check_kind(c, v, JSON_ARRAY) && (v->count > 0 || schema_fail(c, v, "'%s' must not be empty", v->key));
}

static bool check_names(struct schema_compiler *c, const struct json_value *v)
{
    if (!check_kind(c, v, JSON_ARRAY))
        return false;
    for (const struct json_value *e = v->first; e; e = e->next)
        if (e->kind != JSON_STRING)
            return schema_fail(c, e, "'%s' must hold strings", v->key);
    return true;
}

static bool check_schema(struct schema_compiler *c, const struct json_value *v)
{
    if (v->kind == JSON_ARRAY && json_key_is(v, "items"))
        return schema_fail(c, v, "'items' as a list is not supported: write 'prefixItems'");
    return v->kind == JSON_OBJECT || v->kind == JSON_BOOL ||
           schema_fail(c, v, "'%s' must be a schema (an object or a boolean)", v->key);
}

static bool check_object(struct schema_compiler *c, const struct json_value *v)
{
    return check_kind(c, v, JSON_OBJECT);
}

static bool check_array(struct schema_compiler *c, const struct json_value *v)
{
    return check_kind(c, v, JSON_ARRAY);
}

static bool check_string(struct schema_compiler *c, const struct json_value *v)
{
    return check_kind(c, v, JSON_STRING);
}

static bool check_number(struct schema_compiler *c, const struct json_value *v)
{
    return check_kind(c, v, JSON_NUMBER);
}

static bool check_format(struct schema_compiler *c, const struct json_value *v)
{
    if (!check_kind(c, v, JSON_STRING))
        return false;
    return schema_is_format(v->text) ||
           schema_fail(c, v,
               "the format \"%.40s\" cannot be enforced; supported are date, time, date-time, uuid, email, ipv4 and uri",
               v->text);
}

static bool check_id(struct schema_compiler *c, const struct json_value *v)
{
    return json_get(c->root, "$id") == v || schema_fail(c, v, "'$id' is supported for the whole schema only");
}

static bool check_false(struct schema_compiler *c, const struct json_value *v)
{
    return (v->kind == JSON_BOOL && !v->count) || schema_fail(c, v, "'%s' cannot be enforced", v->key);
}

static bool check_zero(struct schema_compiler *c, const struct json_value *v)
{
    int64_t n;
    return (json_get_int(v, &n) && n == 0) || schema_fail(c, v, "'%s' cannot be enforced", v->key);
}

static const struct {
    const char *name;
    bool (*check)(struct schema_compiler *c, const struct json_value *v); /* NULL: says nothing about values */
} keywords[] = {
    {"type", check_type}, {"description", NULL}, {"properties", check_object}, {"required", check_names}, {"items", check_schema},
    {"enum", check_list}, {"additionalProperties", check_schema}, {"title", NULL}, {"default", NULL}, {"$ref", check_string},
    {"const", NULL}, {"anyOf", check_list}, {"allOf", check_list}, {"oneOf", check_list}, {"minLength", check_number},
    {"maxLength", check_number}, {"pattern", check_string}, {"format", check_format}, {"minimum", check_number},
    {"maximum", check_number}, {"exclusiveMinimum", check_number}, {"exclusiveMaximum", check_number}, {"minItems", check_number},
    {"maxItems", check_number}, {"prefixItems", check_array}, {"patternProperties", check_object}, {"$defs", NULL},
    {"definitions", NULL}, {"examples", NULL}, {"$schema", NULL}, {"$id", check_id}, {"$comment", NULL}, {"deprecated", NULL},
    {"readOnly", NULL}, {"writeOnly", NULL}, {"uniqueItems", check_false}, {"minProperties", check_zero},
};

bool schema_check(struct schema_compiler *c, const struct json_value *schema)
{
    for (const struct json_value *k = schema->first; k; k = k->next) {
        size_t i = 0, n = sizeof keywords / sizeof *keywords;
        while (i < n && !json_key_is(k, keywords[i].name))
            i++;
        if (i == n && strncmp(k->key, "x-", 2) != 0)
            return schema_fail(c, k, "the keyword '%.40s' is not supported and cannot be enforced", k->key);
        if (i < n && keywords[i].check && !keywords[i].check(c, k))
            return false;
    }
    return schema_step(c, 1 + schema->count);
}

/* ---- references ---- */

static int hex_value(char d)
{
    return d >= '0' && d <= '9' ? d - '0' : d >= 'a' && d <= 'f' ? d - 'a' + 10 : d >= 'A' && d <= 'F' ? d - 'A' + 10 : -1;
}

/* One step of a JSON pointer in a URI fragment: percent-decoded, then ~1 and ~0. Returns where it ends, or NULL. */
static const char *read_step(const char *p, char *out, size_t size, size_t *length)
{
    *length = 0;
    while (*p && *p != '/') {
        char ch = *p++;
        if (ch == '%') {
            int high = hex_value(p[0]), low = high < 0 ? -1 : hex_value(p[1]);
            if (low < 0)
                return NULL;
            ch = (char)(high * 16 + low);
            p += 2;
        }
        if (ch == '~') {
            if (*p != '0' && *p != '1')
                return NULL;
            ch = *p++ == '0' ? '~' : '/';
        }
        if (*length + 1 >= size)
            return NULL;
        out[(*length)++] = ch;
    }
    out[*length] = '\0';
    return p;
}

const struct json_value *schema_resolve(struct schema_compiler *c, const struct json_value *root, const struct json_value *ref)
{
    const struct json_value *v = root;
    const char *p = ref->text;
    char step[256];
    size_t length;
    if (*p != '#' || (p[1] && p[1] != '/')) {
        schema_fail(c, ref, "'$ref' can only point into the same schema (\"#/...\")");
        return NULL;
    }
    for (p++; *p == '/' && v;) {
        p = read_step(p + 1, step, sizeof step, &length);
        if (!p)
            break;
        const struct json_value *e = v->kind == JSON_OBJECT || v->kind == JSON_ARRAY ? v->first : NULL;
        char *end;
        unsigned long index = v->kind == JSON_ARRAY ? strtoul(step, &end, 10) : 0;
        if (v->kind == JSON_ARRAY && (length == 0 || *end))
            e = NULL;
        while (e && (v->kind == JSON_ARRAY ? index-- > 0 : e->key_count != length || memcmp(e->key, step, length) != 0))
            e = e->next;
        if (!schema_step(c, 1 + v->count / 16))
            return NULL;
        v = e;
    }
    if (!p || !v) {
        schema_fail(c, ref, "'$ref' points to \"%.80s\", which is not there", ref->text);
        return NULL;
    }
    return v;
}

/* ---- conjunctions ---- */

void schema_all_begin(struct schema_all *all, const struct schema_all *like)
{
    all->root = like->root;
    all->document = like->document;
    all->loose = like->loose;
    all->impossible = false;
    all->n = 0;
}

bool schema_all_add(struct schema_compiler *c, struct schema_all *all, const struct json_value *schema, uint16_t parent)
{
    if (schema->kind == JSON_BOOL) {
        all->impossible |= !schema->count;
        return true;
    }
    if (schema->kind != JSON_OBJECT)
        return schema_fail(c, schema, "a schema must be an object or a boolean, not %s", json_kind_name(schema->kind));
    for (uint16_t p = parent; p != SCHEMA_NO_PARENT; p = all->items[p].parent)
        if (all->items[p].schema == schema)
            return schema_fail(c, schema, "this schema refers to itself without anything between");
    for (uint16_t i = 0; i < all->n; i++)
        if (all->items[i].schema == schema)
            return schema_step(c, 1);
    if (all->n == SCHEMA_MOST_ITEMS)
        return schema_fail(c, schema, "more than %d schemas would have to be satisfied at once", (int)SCHEMA_MOST_ITEMS);
    uint16_t own = all->n++;
    all->items[own] = (struct schema_item){.schema = schema, .parent = parent};
    if (!schema_check(c, schema))
        return false;
    const struct json_value *ref = json_get(schema, "$ref"), *list = json_get(schema, "allOf");
    if (ref) {
        const struct json_value *target = schema_resolve(c, all->root, ref);
        if (!target || !schema_all_add(c, all, target, own))
            return false;
    }
    for (const struct json_value *s = list ? list->first : NULL; s; s = s->next)
        if (!schema_all_add(c, all, s, own))
            return false;
    return true;
}

static int compare_keys(const void *x, const void *y)
{
    const struct schema_key *a = x, *b = y;
    return a->schema != b->schema ? ((uintptr_t)a->schema > (uintptr_t)b->schema) - ((uintptr_t)a->schema < (uintptr_t)b->schema)
                                  : (a->done > b->done) - (a->done < b->done);
}

static bool add_rule(struct schema_compiler *c, const struct schema_all *all, const struct schema_key *key, grammar_rule *rule)
{
    if (c->n_rules == SCHEMA_MOST_RULES)
        return schema_fail(
            c, NULL, "the schema is too large to be enforced: its parts combine in more than %d ways", (int)SCHEMA_MOST_RULES);
    struct schema_todo *todo = malloc(sizeof *todo);
    struct schema_key *copy = malloc(((size_t)all->n + 1) * sizeof *copy);
    if (!todo || !copy) {
        free(todo);
        free(copy);
        return schema_out_of_memory(c);
    }
    *rule = grammar_rule_new(c->b);
    memcpy(copy, key, all->n * sizeof *copy);
    c->rules[c->n_rules++] = (struct schema_rule){.rule = *rule, .n = all->n, .loose = all->loose, .key = copy};
    todo->next = NULL;
    todo->rule = *rule;
    todo->all = *all;
    *c->last_todo = todo;
    c->last_todo = &todo->next;
    return true;
}

bool schema_rule_of(struct schema_compiler *c, const struct schema_all *all, grammar_rule *rule)
{
    struct schema_key key[SCHEMA_MOST_ITEMS];
    if (all->impossible) {
        *rule = grammar_rule_new(c->b); /* never defined: matches nothing */
        return true;
    }
    if (all->n == 0) {
        *rule = c->any;
        return true;
    }
    memset(key, 0, sizeof key);
    for (uint16_t i = 0; i < all->n; i++)
        key[i] =
            (struct schema_key){all->items[i].schema, (uintptr_t)all->items[i].any_done | (uintptr_t)all->items[i].one_done << 1};
    qsort(key, all->n, sizeof *key, compare_keys);
    uint64_t h = all->loose;
    for (uint16_t i = 0; i < all->n; i++) {
        h = (h ^ (uintptr_t)key[i].schema ^ key[i].done) * 0x9E3779B97F4A7C15u;
        h ^= h >> 31;
    }
    for (uint32_t k = (uint32_t)h & (SLOTS - 1);; k = (k + 1) & (SLOTS - 1)) {
        if (!c->slots[k]) {
            if (!add_rule(c, all, key, rule))
                return false;
            c->slots[k] = c->n_rules;
            return true;
        }
        const struct schema_rule *r = &c->rules[c->slots[k] - 1];
        if (r->n == all->n && r->loose == all->loose && memcmp(r->key, key, all->n * sizeof *key) == 0) {
            *rule = r->rule;
            return true;
        }
    }
}

/* ---- what a conjunction matches ---- */

/* The rule for all and one more schema, which item i offers as an alternative. */
static bool branch(struct schema_compiler *c, const struct schema_all *all, uint16_t i, bool one_of,
    const struct json_value *first, const struct json_value *second, bool loose, grammar_rule *rule)
{
    struct schema_all *with = malloc(sizeof *with);
    if (!with)
        return schema_out_of_memory(c);
    *with = *all;
    with->loose |= loose;
    if (one_of)
        with->items[i].one_done = true;
    else
        with->items[i].any_done = true;
    bool ok =
        schema_all_add(c, with, first, i) && (!second || schema_all_add(c, with, second, i)) && schema_rule_of(c, with, rule);
    free(with);
    return ok;
}

static bool note_pair(
    struct schema_compiler *c, const struct schema_all *all, const struct json_value *keyword, grammar_rule rule)
{
    if (c->n_pairs == c->pairs_capacity) {
        uint32_t more = c->pairs_capacity ? 2 * c->pairs_capacity : 64;
        struct schema_pair *bigger = realloc(c->pairs, more * sizeof *bigger);
        if (!bigger)
            return schema_out_of_memory(c);
        c->pairs = bigger;
        c->pairs_capacity = more;
    }
    c->pairs[c->n_pairs++] = (struct schema_pair){rule, keyword, all->root, all->document};
    return true;
}

static bool alternatives(struct schema_compiler *c, const struct schema_all *all, uint16_t i, bool one_of, grammar_node *out)
{
    const struct json_value *list = json_get(all->items[i].schema, one_of ? "oneOf" : "anyOf");
    grammar_node ways[SCHEMA_MOST_BRANCHES];
    size_t n = 0;
    grammar_rule rule;
    int most = one_of ? SCHEMA_MOST_EXCLUSIVE : SCHEMA_MOST_BRANCHES;
    if (list->count > (uint32_t)most)
        return schema_fail(c, list, "'%s' can have at most %d alternatives here", list->key, most);
    for (const struct json_value *s = list->first; s; s = s->next) {
        if (!branch(c, all, i, one_of, s, NULL, false, &rule))
            return false;
        ways[n++] = grammar_call(c->b, rule, GRAMMAR_RETURN);
        for (const struct json_value *t = s->next; t && one_of; t = t->next)
            if (!branch(c, all, i, true, s, t, true, &rule) || !note_pair(c, all, list, rule))
                return false;
    }
    *out = grammar_choice(c->b, ways, n);
    return true;
}

/* The values of the first enum or const that satisfy all the rest. */
static bool listed_values(struct schema_compiler *c, const struct schema_all *all, const struct json_value *list,
    const struct json_value *same, grammar_node *out)
{
    size_t count = list ? list->count : 1, n = 0;
    struct json_writer *texts = calloc(count, sizeof *texts);
    struct grammar_text *literals = malloc(count * sizeof *literals);
    bool ok = texts && literals ? true : schema_out_of_memory(c);
    for (const struct json_value *v = list ? list->first : same; v && ok; v = list ? v->next : NULL) {
        bool fits;
        ok = schema_fits(c, all, v, list, &fits);
        if (!ok || !fits)
            continue;
        texts[n].spaced = true;
        json_value(&texts[n], v);
        ok = !texts[n].failed || schema_out_of_memory(c);
        literals[n] = (struct grammar_text){texts[n].data, texts[n].length};
        n++;
    }
    *out = ok ? grammar_literals(c->b, literals, n, GRAMMAR_RETURN) : GRAMMAR_NEVER;
    for (size_t i = 0; texts && i < count; i++)
        json_writer_free(&texts[i]);
    free(texts);
    free(literals);
    return ok;
}

static bool may_be(const struct schema_all *all, const char *type)
{
    for (uint16_t i = 0; i < all->n; i++) {
        const struct json_value *t = json_get(all->items[i].schema, "type");
        if (t && !schema_type_is(t, type) && !(strcmp(type, "integer") == 0 && schema_type_is(t, "number")))
            return false;
    }
    return true;
}

static bool by_type(struct schema_compiler *c, const struct schema_all *all, grammar_node *out)
{
    grammar_node ways[7];
    size_t n = 0;
    if (may_be(all, "string") && !schema_string(c, all, &ways[n++]))
        return false;
    bool number = may_be(all, "number");
    if ((number || may_be(all, "integer")) && !schema_number(c, all, !number, &ways[n++]))
        return false;
    if (may_be(all, "object") && !schema_object(c, all, &ways[n++]))
        return false;
    if (may_be(all, "array") && !schema_array(c, all, &ways[n++]))
        return false;
    if (may_be(all, "boolean")) {
        ways[n++] = grammar_literal(c->b, "true", 4, GRAMMAR_RETURN);
        ways[n++] = grammar_literal(c->b, "false", 5, GRAMMAR_RETURN);
    }
    if (may_be(all, "null"))
        ways[n++] = grammar_literal(c->b, "null", 4, GRAMMAR_RETURN);
    *out = grammar_choice(c->b, ways, n);
    return true;
}

static bool define(struct schema_compiler *c, const struct schema_all *all, grammar_node *out)
{
    *out = GRAMMAR_NEVER;
    if (!schema_step(c, 1 + all->n) || all->impossible)
        return all->impossible;
    for (uint16_t i = 0; i < all->n; i++) {
        if (json_get(all->items[i].schema, "anyOf") && !all->items[i].any_done)
            return alternatives(c, all, i, false, out);
        if (json_get(all->items[i].schema, "oneOf") && !all->items[i].one_done)
            return alternatives(c, all, i, true, out);
    }
    for (uint16_t i = 0; i < all->n; i++) {
        const struct json_value *list = json_get(all->items[i].schema, "enum"), *same = json_get(all->items[i].schema, "const");
        if (list || same)
            return listed_values(c, all, same ? NULL : list, same, out);
    }
    return by_type(c, all, out);
}

/* ---- the whole ---- */

static bool begin(struct schema_compiler *c, struct schema_error *err)
{
    *c = (struct schema_compiler){.err = err, .steps = SCHEMA_MOST_STEPS, .work = REGEX_WORK};
    *err = (struct schema_error){.text = ""};
    c->last_todo = &c->first_todo;
    c->b = grammar_builder_new(SCHEMA_MOST_NODES);
    c->rules = malloc(SCHEMA_MOST_RULES * sizeof *c->rules);
    c->slots = calloc(SLOTS, sizeof *c->slots);
    if (!c->b || !c->rules || !c->slots)
        return schema_out_of_memory(c);
    schema_common(c);
    return true;
}

static void end(struct schema_compiler *c)
{
    for (struct schema_todo *t = c->first_todo, *next; t; t = next) {
        next = t->next;
        free(t);
    }
    for (uint32_t i = 0; i < c->n_rules; i++)
        free(c->rules[i].key);
    free(c->rules);
    free(c->slots);
    free(c->pairs);
    grammar_builder_free(c->b);
}

static bool define_all(struct schema_compiler *c)
{
    bool ok = true;
    while (c->first_todo && ok) {
        struct schema_todo *t = c->first_todo;
        c->first_todo = t->next;
        if (!c->first_todo)
            c->last_todo = &c->first_todo;
        c->root = t->all.root;
        c->document = t->all.document;
        grammar_node entry;
        ok = define(c, &t->all, &entry);
        if (ok)
            grammar_rule_define(c->b, t->rule, entry);
        free(t);
        if (ok && grammar_builder_failed(c->b))
            ok = schema_fail(c, NULL, "the schema is too large to be enforced");
    }
    for (uint32_t i = 0; i < c->n_pairs && ok; i++) {
        const struct schema_pair *p = &c->pairs[i];
        c->root = p->root;
        c->document = p->document;
        if (grammar_rule_possible(c->b, p->rule))
            ok = schema_fail(c, p->keyword, "'oneOf' cannot be enforced where a value may satisfy two of its alternatives: use "
                "anyOf, or tell them apart by a required member");
    }
    return ok;
}

/* The rule for one whole schema; also: what else it must be, or NULL. */
static bool compile(
    struct schema_compiler *c, const struct json_value *schema, const struct json_value *also, int document, grammar_rule *rule)
{
    struct schema_all *all = calloc(1, sizeof *all);
    if (!all)
        return schema_out_of_memory(c);
    all->root = c->root = schema;
    all->document = c->document = document;
    bool ok = schema_all_add(c, all, schema, SCHEMA_NO_PARENT) && (!also || schema_all_add(c, all, also, SCHEMA_NO_PARENT)) &&
              schema_rule_of(c, all, rule) && define_all(c);
    free(all);
    c->root = schema;
    c->document = document;
    return ok && (grammar_rule_possible(c->b, *rule) || schema_fail(c, NULL, "no value can satisfy the schema"));
}

static struct grammar *finish(struct schema_compiler *c, bool ok, grammar_rule root)
{
    struct error problem;
    struct grammar *g = ok ? grammar_finish(c->b, root, &problem) : NULL;
    if (ok && !g)
        schema_fail(c, NULL, "the schema cannot be enforced: %.200s", problem.text);
    end(c);
    return g;
}

struct grammar *schema_compile(const struct json_value *schema, struct schema_error *err)
{
    struct schema_compiler c;
    grammar_rule root = 0;
    bool ok = begin(&c, err) && compile(&c, schema, NULL, 0, &root);
    return finish(&c, ok, root);
}

struct grammar *schema_any_object(struct schema_error *err)
{
    struct schema_compiler c;
    bool ok = begin(&c, err);
    return finish(&c, ok, ok ? c.object : 0);
}

/* ---- tool calls ---- */

static const char call_begin[] = "<tool_call>", call_end[] = "\n</tool_call>";

/* Behind <tool_call>: one of the tools with its arguments, then next. */
static bool call_body(struct schema_compiler *c, const struct schema_tool *tools, size_t n, const struct json_value *also,
    grammar_node next, grammar_node *out)
{
    grammar_node *ways = malloc((n + 1) * sizeof *ways),
                 ending = grammar_literal(c->b, "}", 1, grammar_literal(c->b, call_end, strlen(call_end), next));
    bool ok = ways != NULL || schema_out_of_memory(c);
    for (size_t i = 0; i < n && ok; i++) {
        grammar_rule rule = c->object;
        ok = !tools[i].parameters || compile(c, tools[i].parameters, also, (int)i, &rule);
        static const char between[] = "\", \"arguments\": ";
        grammar_node arguments = grammar_literal(c->b, between, strlen(between), grammar_call(c->b, rule, ending));
        ways[i] = grammar_literal(c->b, tools[i].name, strlen(tools[i].name), arguments);
    }
    static const char name[] = "\n{\"name\": \"";
    *out = ok ? grammar_literal(c->b, name, strlen(name), grammar_choice(c->b, ways, n)) : GRAMMAR_NEVER;
    free(ways);
    return ok;
}

/* Text in which <tool_call> does not occur; it may end anywhere between two characters. Behind the first <tool_call> comes body.
 * State i: the last i bytes are the first i of the word.
 * '<' stands in the word only at its beginning, so what does not go on begins anew at once. */
static grammar_node free_text(struct schema_compiler *c, grammar_node body)
{
    enum { LENGTH = sizeof call_begin - 1 };
    grammar_node state[LENGTH + 1];
    for (int i = 0; i < LENGTH; i++)
        state[i] = grammar_reserve(c->b);
    state[LENGTH] = body;
    for (int i = 0; i < LENGTH; i++) {
        struct grammar_edge edges[64];
        size_t n = 0;
        uint8_t goes_on = (uint8_t)call_begin[i], cut[2] = {'<', goes_on < '<' ? '<' : goes_on};
        cut[0] = goes_on < '<' ? goes_on : '<';
        edges[n++] = (struct grammar_edge){goes_on, goes_on, state[i + 1]};
        if (goes_on != '<')
            edges[n++] = (struct grammar_edge){'<', '<', state[1]};
        schema_utf8(c, 0, cut[0] - 1u, state[0], edges, &n);
        if (cut[1] > cut[0] + 1)
            schema_utf8(c, cut[0] + 1u, cut[1] - 1u, state[0], edges, &n);
        schema_utf8(c, cut[1] + 1u, 0x10FFFF, state[0], edges, &n);
        grammar_node step = grammar_reserve(c->b);
        grammar_define_edges(c->b, step, edges, n);
        grammar_define_choice(c->b, state[i], (grammar_node[]){GRAMMAR_RETURN, step}, 2);
    }
    return state[0];
}

static bool answer(struct schema_compiler *c, const struct schema_answer *a, const struct json_value *object, grammar_rule *root)
{
    grammar_node behind = a->parallel ? grammar_reserve(c->b) : GRAMMAR_RETURN, body;
    if (!call_body(c, a->tools, a->n_tools, object, behind, &body))
        return false;
    grammar_node call = grammar_literal(c->b, call_begin, strlen(call_begin), body), whole = call;
    if (a->parallel)
        grammar_define_choice(c->b, behind, (grammar_node[]){GRAMMAR_RETURN, grammar_byte(c->b, '\n', '\n', call)}, 2);
    grammar_rule content = c->object;
    if (a->content == SCHEMA_CONTENT_SCHEMA && !compile(c, a->schema, NULL, -1, &content))
        return false;
    if (a->content == SCHEMA_CONTENT_TEXT)
        whole = free_text(c, body);
    else if (a->content != SCHEMA_CONTENT_NONE)
        whole = grammar_choice(c->b, (grammar_node[]){grammar_call(c->b, content, GRAMMAR_RETURN), call}, 2);
    *root = grammar_rule_new(c->b);
    grammar_rule_define(c->b, *root, whole);
    return true;
}

struct grammar *schema_answer(const struct schema_answer *a, struct schema_error *err)
{
    static const char object_text[] = "{\"type\":\"object\"}";
    struct schema_compiler c;
    struct json *object = json_parse(object_text, sizeof object_text - 1, NULL, NULL);
    grammar_rule root = 0;
    bool ok = begin(&c, err) && (object != NULL || schema_out_of_memory(&c)) && answer(&c, a, json_root(object), &root);
    struct grammar *g = finish(&c, ok, root);
    json_free(object);
    return g;
}
