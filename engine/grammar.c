#include "engine/grammar_internal.h"

#include <stdlib.h>
#include <string.h>

enum { BYTE_CACHE_FIRST = 1024 };

struct grammar_builder {
    struct grammar_item *nodes;
    struct grammar_edge *edges;
    grammar_node *targets, *rules; /* rules: their entry nodes */
    struct grammar_loop *loops;
    size_t n_nodes, n_edges, n_targets, n_rules, n_loops;
    size_t nodes_capacity, edges_capacity, targets_capacity, rules_capacity, loops_capacity;
    size_t max_nodes;
    bool failed, too_large;
    grammar_node *same; /* [same_capacity] hash table of nodes made by grammar_byte; 0: empty */
    size_t same_capacity, n_same;
    bool *possible; /* [n_nodes] or NULL: not known */
};

static bool grow(struct grammar_builder *b, void *array, size_t *capacity, size_t count, size_t size)
{
    void **p = array;
    if (b->failed)
        return false;
    if (b->n_nodes + b->n_edges + b->n_targets >= b->max_nodes) {
        b->failed = b->too_large = true;
        return false;
    }
    if (count < *capacity)
        return true;
    size_t more = *capacity ? *capacity * 2 : 256;
    while (more <= count)
        more *= 2;
    void *bigger = realloc(*p, more * size);
    if (!bigger) {
        b->failed = true;
        return false;
    }
    *p = bigger;
    *capacity = more;
    return true;
}

static grammar_node add_node(struct grammar_builder *b, enum grammar_kind kind, uint32_t x, uint32_t y)
{
    free(b->possible);
    b->possible = NULL;
    if (!grow(b, &b->nodes, &b->nodes_capacity, b->n_nodes, sizeof *b->nodes))
        return GRAMMAR_NEVER;
    b->nodes[b->n_nodes] = (struct grammar_item){kind, x, y};
    return (grammar_node)b->n_nodes++;
}

struct grammar_builder *grammar_builder_new(size_t max_nodes)
{
    struct grammar_builder *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->max_nodes = max_nodes < 16 ? 16 : max_nodes < UINT32_MAX / 4 ? max_nodes : UINT32_MAX / 4;
    b->same_capacity = BYTE_CACHE_FIRST;
    b->same = calloc(b->same_capacity, sizeof *b->same);
    add_node(b, NODE_RETURN, 0, 0);
    add_node(b, NODE_NEVER, 0, 0);
    if (!b->same || b->failed) {
        grammar_builder_free(b);
        return NULL;
    }
    return b;
}

void grammar_builder_free(struct grammar_builder *b)
{
    if (!b)
        return;
    free(b->nodes);
    free(b->edges);
    free(b->targets);
    free(b->rules);
    free(b->loops);
    free(b->same);
    free(b->possible);
    free(b);
}

bool grammar_builder_failed(const struct grammar_builder *b)
{
    return b->failed;
}

/* ---- nodes ---- */

static size_t hash_byte(uint8_t low, uint8_t high, grammar_node next)
{
    uint64_t h = ((uint64_t)next << 16 | (uint64_t)low << 8 | high) * 0x9E3779B97F4A7C15u;
    return (size_t)(h >> 20);
}

/* Where this node stands in the table, or would stand. */
static grammar_node *find_same(const struct grammar_builder *b, uint8_t low, uint8_t high, grammar_node next)
{
    for (size_t i = hash_byte(low, high, next) & (b->same_capacity - 1);; i = (i + 1) & (b->same_capacity - 1)) {
        const struct grammar_item *n = &b->nodes[b->same[i]];
        if (!b->same[i])
            return &b->same[i];
        const struct grammar_edge *e = &b->edges[n->a];
        if (e->low == low && e->high == high && e->next == next)
            return &b->same[i];
    }
}

static void grow_same(struct grammar_builder *b)
{
    grammar_node *old = b->same;
    size_t n = b->same_capacity;
    grammar_node *bigger = calloc(2 * n, sizeof *bigger);
    if (!bigger) {
        b->failed = true;
        return;
    }
    b->same = bigger;
    b->same_capacity = 2 * n;
    for (size_t i = 0; i < n; i++)
        if (old[i]) {
            const struct grammar_edge *e = &b->edges[b->nodes[old[i]].a];
            *find_same(b, e->low, e->high, e->next) = old[i];
        }
    free(old);
}

grammar_node grammar_reserve(struct grammar_builder *b)
{
    return add_node(b, NODE_STEP, 0, 0);
}

void grammar_define_edges(struct grammar_builder *b, grammar_node reserved, const struct grammar_edge *edges, size_t n)
{
    free(b->possible);
    b->possible = NULL;
    size_t first = b->n_edges;
    for (size_t i = 0; i < n; i++) {
        if (!grow(b, &b->edges, &b->edges_capacity, b->n_edges, sizeof *b->edges))
            return;
        b->edges[b->n_edges++] = edges[i];
    }
    if (!b->failed)
        b->nodes[reserved] = (struct grammar_item){NODE_STEP, (uint32_t)first, (uint32_t)n};
}

grammar_node grammar_byte(struct grammar_builder *b, uint8_t low, uint8_t high, grammar_node next)
{
    if (b->failed || next == GRAMMAR_NEVER || low > high)
        return GRAMMAR_NEVER;
    grammar_node *place = find_same(b, low, high, next);
    if (*place)
        return *place;
    grammar_node made = grammar_reserve(b);
    grammar_define_edges(b, made, &(struct grammar_edge){low, high, next}, 1);
    if (b->failed)
        return GRAMMAR_NEVER;
    *place = made;
    if (++b->n_same * 2 > b->same_capacity)
        grow_same(b);
    return made;
}

grammar_node grammar_literal(struct grammar_builder *b, const char *bytes, size_t length, grammar_node next)
{
    while (length-- > 0)
        next = grammar_byte(b, (uint8_t)bytes[length], (uint8_t)bytes[length], next);
    return next;
}

static int compare_texts(const void *x, const void *y)
{
    const struct grammar_text *a = x, *b = y;
    int c = memcmp(a->data, b->data, a->length < b->length ? a->length : b->length);
    return c ? c : (a->length > b->length) - (a->length < b->length);
}

/* The sorted texts agree in `depth` bytes. Each level of recursion divides the list,
 * so it is never deeper than the list is long. */
static grammar_node literals(
    struct grammar_builder *b, const struct grammar_text *texts, size_t n, size_t depth, grammar_node next)
{
    if (n == 1)
        return grammar_literal(b, texts->data + depth, texts->length - depth, next);
    size_t common = depth; /* the first and the last tell what all agree in */
    const struct grammar_text *last = &texts[n - 1];
    while (common < texts->length && common < last->length && texts->data[common] == last->data[common])
        common++;
    if (common > depth)
        return grammar_literal(b, texts->data + depth, common - depth, literals(b, texts, n, common, next));
    bool ends = texts->length == depth;
    size_t i = 0;
    while (i < n && texts[i].length == depth)
        i++;
    struct grammar_edge edges[256];
    size_t n_edges = 0;
    while (i < n && !b->failed) {
        size_t end = i + 1;
        while (end < n && texts[end].data[depth] == texts[i].data[depth])
            end++;
        uint8_t byte = (uint8_t)texts[i].data[depth];
        edges[n_edges++] = (struct grammar_edge){byte, byte, literals(b, &texts[i], end - i, depth + 1, next)};
        i = end;
    }
    grammar_node node = grammar_reserve(b);
    if (n_edges == 0)
        return next;
    grammar_define_edges(b, node, edges, n_edges);
    return ends ? grammar_choice(b, (grammar_node[]){next, node}, 2) : node;
}

grammar_node grammar_literals(struct grammar_builder *b, struct grammar_text *texts, size_t n, grammar_node next)
{
    if (n == 0 || b->failed)
        return GRAMMAR_NEVER;
    qsort(texts, n, sizeof *texts, compare_texts);
    return literals(b, texts, n, 0, next);
}

grammar_node grammar_choice(struct grammar_builder *b, const grammar_node *nodes, size_t n)
{
    if (n == 1)
        return nodes[0];
    size_t first = b->n_targets, count = 0;
    for (size_t i = 0; i < n; i++) {
        if (nodes[i] == GRAMMAR_NEVER)
            continue;
        if (!grow(b, &b->targets, &b->targets_capacity, b->n_targets, sizeof *b->targets))
            return GRAMMAR_NEVER;
        b->targets[b->n_targets++] = nodes[i];
        count++;
    }
    return count ? add_node(b, NODE_CHOICE, (uint32_t)first, (uint32_t)count) : GRAMMAR_NEVER;
}

void grammar_define_choice(struct grammar_builder *b, grammar_node reserved, const grammar_node *nodes, size_t n)
{
    grammar_node choice = n == 1 ? grammar_choice(b, (grammar_node[]){nodes[0], nodes[0]}, 2) : grammar_choice(b, nodes, n);
    if (!b->failed)
        b->nodes[reserved] = b->nodes[choice]; /* the targets are shared */
}

grammar_rule grammar_rule_new(struct grammar_builder *b)
{
    if (!grow(b, &b->rules, &b->rules_capacity, b->n_rules, sizeof *b->rules))
        return 0;
    b->rules[b->n_rules] = GRAMMAR_NEVER;
    return (grammar_rule)b->n_rules++;
}

void grammar_rule_define(struct grammar_builder *b, grammar_rule rule, grammar_node entry)
{
    free(b->possible);
    b->possible = NULL;
    if (!b->failed)
        b->rules[rule] = entry;
}

grammar_node grammar_call(struct grammar_builder *b, grammar_rule rule, grammar_node next)
{
    return next == GRAMMAR_NEVER ? GRAMMAR_NEVER : add_node(b, NODE_CALL, rule, next);
}

grammar_node grammar_repeat_begin(struct grammar_builder *b, uint32_t min, uint32_t max, grammar_node next)
{
    if (!grow(b, &b->loops, &b->loops_capacity, b->n_loops, sizeof *b->loops))
        return GRAMMAR_NEVER;
    b->loops[b->n_loops] = (struct grammar_loop){min, max, GRAMMAR_NEVER, next};
    return add_node(b, NODE_AGAIN, (uint32_t)b->n_loops++, 0);
}

grammar_node grammar_repeat_end(struct grammar_builder *b, grammar_node end_of_body, grammar_node body)
{
    if (b->failed)
        return GRAMMAR_NEVER;
    struct grammar_loop *l = &b->loops[b->nodes[end_of_body].a];
    if (l->min > l->max)
        return GRAMMAR_NEVER;
    if (l->max == 0)
        return l->next;
    l->body = body;
    return add_node(b, NODE_ENTER, b->nodes[end_of_body].a, 0);
}

/* ---- what leads to an end ---- */

/* Which nodes depend on which, the other way round: a list for each node. */
struct dependents {
    uint32_t *first;  /* [n_nodes + 1] */
    grammar_node *of; /* those that depend on node i: of[first[i] .. first[i + 1] - 1] */
};

typedef void visit(void *context, grammar_node from, grammar_node to);

/* All pairs (node, one that it leads to). For a call: what is called and what follows. */
static void for_each_link(const struct grammar_builder *b, visit *say, void *context)
{
    for (grammar_node i = 0; i < b->n_nodes; i++) {
        const struct grammar_item *n = &b->nodes[i];
        switch (n->kind) {
        case NODE_STEP:
            for (uint32_t k = 0; k < n->b; k++)
                say(context, i, b->edges[n->a + k].next);
            break;
        case NODE_CHOICE:
            for (uint32_t k = 0; k < n->b; k++)
                say(context, i, b->targets[n->a + k]);
            break;
        case NODE_CALL:
            say(context, i, b->rules[n->a]);
            say(context, i, n->b);
            break;
        case NODE_ENTER:
        case NODE_AGAIN:
            say(context, i, b->loops[n->a].body);
            say(context, i, b->loops[n->a].next);
            break;
        default: break;
        }
    }
}

static void count_link(void *context, grammar_node from, grammar_node to)
{
    (void)from;
    ((struct dependents *)context)->first[to + 1]++;
}

static void fill_link(void *context, grammar_node from, grammar_node to)
{
    struct dependents *d = context;
    d->of[d->first[to]++] = from;
}

static bool list_dependents(const struct grammar_builder *b, struct dependents *d)
{
    *d = (struct dependents){.first = calloc(b->n_nodes + 2, sizeof *d->first)};
    if (!d->first)
        return false;
    for_each_link(b, count_link, d);
    for (size_t i = 0; i < b->n_nodes; i++)
        d->first[i + 1] += d->first[i];
    d->of = malloc(((size_t)d->first[b->n_nodes] + 1) * sizeof *d->of);
    if (!d->of) {
        free(d->first);
        return false;
    }
    for_each_link(b, fill_link, d);
    memmove(d->first + 1, d->first, b->n_nodes * sizeof *d->first); /* filling moved each start to the next one's */
    d->first[0] = 0;
    return true;
}

/* Given what is known of the others: does this node lead to the end of its rule? */
static bool leads_on(const struct grammar_builder *b, const bool *possible, const struct grammar_item *n)
{
    const struct grammar_loop *l;
    switch (n->kind) {
    case NODE_RETURN: return true;
    case NODE_STEP:
        for (uint32_t k = 0; k < n->b; k++)
            if (possible[b->edges[n->a + k].next])
                return true;
        return false;
    case NODE_CHOICE:
        for (uint32_t k = 0; k < n->b; k++)
            if (possible[b->targets[n->a + k]])
                return true;
        return false;
    case NODE_CALL: return possible[b->rules[n->a]] && possible[n->b];
    case NODE_ENTER:
        l = &b->loops[n->a];
        return possible[l->next] && (l->min == 0 || possible[l->body]);
    /* Whoever comes here has been through the body, so the body can be done again. */
    case NODE_AGAIN: return possible[b->loops[n->a].next];
    default: return false;
    }
}

static bool find_possible(struct grammar_builder *b)
{
    struct dependents d;
    if (b->possible)
        return true;
    if (b->failed || !list_dependents(b, &d))
        return false;
    bool *possible = calloc(b->n_nodes, sizeof *possible);
    grammar_node *work = malloc(b->n_nodes * sizeof *work);
    if (possible && work) {
        size_t n = 0;
        possible[GRAMMAR_RETURN] = true;
        work[n++] = GRAMMAR_RETURN;
        while (n > 0) { /* every node is put on the list once at most */
            grammar_node node = work[--n];
            for (uint32_t k = d.first[node]; k < d.first[node + 1]; k++) {
                grammar_node other = d.of[k];
                if (!possible[other] && leads_on(b, possible, &b->nodes[other])) {
                    possible[other] = true;
                    work[n++] = other;
                }
            }
        }
        b->possible = possible;
        possible = NULL;
    }
    free(possible);
    free(work);
    free(d.first);
    free(d.of);
    return b->possible != NULL;
}

bool grammar_rule_possible(struct grammar_builder *b, grammar_rule rule)
{
    return find_possible(b) && b->possible[b->rules[rule]];
}

/* ---- finishing ---- */

/* Copies what can be reached and leads to an end. */
struct copy {
    struct grammar_builder *b;
    struct grammar *g;
    grammar_node *to;    /* [b->n_nodes] the node's new number; 0: not yet given one */
    grammar_node *work;
    size_t n_work;
    uint32_t *loop_to;   /* [b->n_loops], UINT32_MAX: not yet copied */
};

static grammar_node renumber(struct copy *c, grammar_node old)
{
    if (!c->b->possible[old])
        return GRAMMAR_NEVER;
    if (old == GRAMMAR_RETURN)
        return GRAMMAR_RETURN;
    if (!c->to[old]) {
        c->to[old] = c->g->n_nodes++;
        c->work[c->n_work++] = old;
    }
    return c->to[old];
}

static uint32_t copy_loop(struct copy *c, uint32_t old)
{
    if (c->loop_to[old] == UINT32_MAX) {
        uint32_t new = c->loop_to[old] = c->g->n_loops++;
        struct grammar_loop l = c->b->loops[old];
        l.body = renumber(c, l.body);
        l.next = renumber(c, l.next);
        c->g->loops[new] = l;
    }
    return c->loop_to[old];
}

static void copy_node(struct copy *c, grammar_node old)
{
    struct grammar *g = c->g;
    const struct grammar_item *n = &c->b->nodes[old];
    struct grammar_item *out = &g->nodes[c->to[old]];
    out->kind = n->kind;
    switch (n->kind) {
    case NODE_STEP:
        out->a = g->n_edges;
        for (uint32_t k = 0; k < n->b; k++) {
            struct grammar_edge e = c->b->edges[n->a + k];
            e.next = renumber(c, e.next);
            if (e.next != GRAMMAR_NEVER)
                g->edges[g->n_edges++] = e;
        }
        out->b = g->n_edges - out->a;
        break;
    case NODE_CHOICE:
        out->a = g->n_targets;
        for (uint32_t k = 0; k < n->b; k++) {
            grammar_node to = renumber(c, c->b->targets[n->a + k]);
            if (to != GRAMMAR_NEVER)
                g->targets[g->n_targets++] = to;
        }
        out->b = g->n_targets - out->a;
        break;
    case NODE_CALL:
        out->a = renumber(c, c->b->rules[n->a]);
        out->b = renumber(c, n->b);
        break;
    default: out->a = copy_loop(c, n->a); break;
    }
}

static struct grammar *copy_reachable(struct grammar_builder *b, grammar_rule root)
{
    struct grammar *g = calloc(1, sizeof *g);
    struct copy c = {.b = b, .g = g};
    c.to = calloc(b->n_nodes, sizeof *c.to);
    c.work = malloc(b->n_nodes * sizeof *c.work);
    c.loop_to = malloc((b->n_loops + 1) * sizeof *c.loop_to);
    if (g) {
        atomic_init(&g->owners, 1);
        g->nodes = calloc(b->n_nodes, sizeof *g->nodes);
        g->edges = malloc((b->n_edges + 1) * sizeof *g->edges);
        g->targets = malloc((b->n_targets + 1) * sizeof *g->targets);
        g->loops = malloc((b->n_loops + 1) * sizeof *g->loops);
    }
    bool ok = c.to && c.work && c.loop_to && g && g->nodes && g->edges && g->targets && g->loops;
    if (ok) {
        memset(c.loop_to, 0xFF, b->n_loops * sizeof *c.loop_to);
        g->nodes[GRAMMAR_NEVER].kind = NODE_NEVER;
        g->n_nodes = 2;
        g->root = renumber(&c, b->rules[root]);
        while (c.n_work > 0)
            copy_node(&c, c.work[--c.n_work]);
    }
    free(c.to);
    free(c.work);
    free(c.loop_to);
    if (!ok) {
        grammar_free(g);
        return NULL;
    }
    return g;
}

/* The nodes that follow node i without a byte between: the k-th, or GRAMMAR_NEVER behind the last.
 * nullable: nodes from which the rule's end is reached without a byte. */
static bool silent_link(const struct grammar *g, const bool *nullable, grammar_node i, uint32_t k, grammar_node *to)
{
    const struct grammar_item *n = &g->nodes[i];
    switch (n->kind) {
    case NODE_CHOICE:
        if (k >= n->b)
            return false;
        *to = g->targets[n->a + k];
        return true;
    case NODE_CALL:
        *to = k == 0 ? n->a : n->b;
        return k == 0 || (k == 1 && nullable[n->a]);
    case NODE_ENTER:
        *to = k == 0 ? g->loops[n->a].body : g->loops[n->a].next;
        return k == 0 || (k == 1 && g->loops[n->a].min == 0);
    case NODE_AGAIN:
        *to = k == 0 ? g->loops[n->a].body : g->loops[n->a].next;
        return k < 2;
    default: return false;
    }
}

/* Fills nullable. Whenever a pass over all nodes finds something new another is made; passes are few because nodes are numbered
 * close to their order. Past a bound, the answer for the rest would be too slow to find and the grammar is refused. */
static bool find_nullable(const struct grammar *g, bool *nullable)
{
    enum { PASSES = 64 };
    nullable[GRAMMAR_RETURN] = true;
    for (int pass = 0; pass < PASSES; pass++) {
        bool changed = false;
        for (uint32_t r = g->n_nodes; r-- > 2;) {
            if (nullable[r])
                continue;
            const struct grammar_item *n = &g->nodes[r];
            bool yes = false;
            grammar_node to;
            if (n->kind == NODE_CALL)
                yes = nullable[n->a] && nullable[n->b];
            else
                for (uint32_t k = 0; !yes && silent_link(g, nullable, r, k, &to); k++)
                    yes = nullable[to];
            nullable[r] = yes;
            changed |= yes;
        }
        if (!changed)
            return true;
    }
    return false;
}

/* Looks for a cycle of steps without a byte, by depth-first search. */
static bool has_silent_cycle(const struct grammar *g, bool *failed)
{
    enum { NEW, OPEN, DONE };
    struct visit {
        grammar_node node;
        uint32_t link;
    } *stack = malloc(g->n_nodes * sizeof *stack);
    bool *nullable = calloc(g->n_nodes, sizeof *nullable);
    unsigned char *state = calloc(g->n_nodes, 1);
    bool cycle = false;
    *failed = !stack || !nullable || !state || !find_nullable(g, nullable);
    for (uint32_t start = 0; !*failed && !cycle && start < g->n_nodes; start++) {
        size_t n = 0;
        if (state[start] == NEW) {
            state[start] = OPEN;
            stack[n++] = (struct visit){start, 0};
        }
        while (n > 0 && !cycle) {
            struct visit *top = &stack[n - 1];
            grammar_node to;
            if (!silent_link(g, nullable, top->node, top->link++, &to)) {
                state[top->node] = DONE;
                n--;
            } else if (state[to] == OPEN) {
                cycle = true;
            } else if (state[to] == NEW) {
                state[to] = OPEN;
                stack[n++] = (struct visit){to, 0};
            }
        }
    }
    free(stack);
    free(nullable);
    free(state);
    return cycle;
}

struct grammar *grammar_finish(struct grammar_builder *b, grammar_rule root, struct error *err)
{
    if (b->too_large) {
        error_set(err, "the grammar is too large: it would need more than %zu nodes", b->max_nodes);
        return NULL;
    }
    bool failed = !find_possible(b);
    if (!failed && !b->possible[b->rules[root]]) {
        error_set(err, "nothing can match the grammar");
        return NULL;
    }
    struct grammar *g = failed ? NULL : copy_reachable(b, root);
    if (!g) {
        error_set(err, "out of memory for a grammar");
        return NULL;
    }
    if (has_silent_cycle(g, &failed) || failed) {
        error_set(err,
            failed ? "out of memory for a grammar, or its empty rules are too deeply entangled"
                   : "a rule of the grammar calls itself before it has matched anything, or a repetition may repeat nothing");
        grammar_free(g);
        return NULL;
    }
    return g;
}

struct grammar *grammar_retain(const struct grammar *g)
{
    struct grammar *mine = (struct grammar *)(uintptr_t)g; /* the count of owners is the only thing that ever changes */
    if (mine)
        atomic_fetch_add(&mine->owners, 1);
    return mine;
}

void grammar_free(struct grammar *g)
{
    if (!g || atomic_fetch_sub(&g->owners, 1) > 1)
        return;
    free(g->nodes);
    free(g->edges);
    free(g->targets);
    free(g->loops);
    free(g);
}

size_t grammar_n_nodes(const struct grammar *g)
{
    return g->n_nodes;
}
