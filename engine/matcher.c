#include "engine/matcher.h"

#include "engine/grammar_internal.h"

#include <stdlib.h>
#include <string.h>

enum {
    FRAME_BOTTOM = 0,  /* below it nothing: the text may end */
    FRAME_UNKNOWN = 1, /* below it whatever it may be */
    STEPS_BEFORE_TABLE = 4
};
/* In the place of a node: */
#define AT_END (UINT32_MAX - 1)
#define AT_UNKNOWN UINT32_MAX
#define UNSEEN UINT32_MAX /* in a table of steps */

/* What is to be done when the rule on top of it ends (a call), or how often a repetition has
 * been done. Equal frames are the same frame. */
struct frame {
    grammar_node node; /* call: where to go on; loop: its number */
    uint32_t count;    /* loop: times begun so far */
    uint32_t parent;
    uint32_t depth : 31, is_loop : 1;
};

/* One way to read the text so far: at a node that takes a byte (or AT_END, AT_UNKNOWN), with a stack. */
struct way {
    grammar_node node;
    uint32_t frame;
};

struct state {
    uint32_t first, n_ways;
    uint32_t *steps; /* [256], or NULL: not asked often yet */
    uint32_t local;  /* matcher_local, or UNSEEN */
    uint8_t asked;
    bool may_end, escapes;
};

struct table { /* open addressing; 0: empty, else index + 1 */
    uint32_t *slots;
    size_t capacity, count;
};

struct matcher {
    const struct grammar *g;
    uint32_t horizon;
    struct frame *frames;
    struct way *ways; /* of all states, one after another */
    struct state *states;
    size_t n_frames, frames_capacity, n_ways, ways_capacity, n_states, states_capacity;
    struct table frame_table, state_table;
    size_t table_bytes;
    bool failed;

    struct way *found, *work; /* the closure being made */
    size_t n_found, found_capacity, n_work, work_capacity;
    struct seen { struct way way; uint32_t epoch; } *seen;
    size_t seen_capacity, n_seen;
    uint32_t epoch;
    matcher_state start;
};

static bool grow(struct matcher *m, void *array, size_t *capacity, size_t count, size_t size)
{
    void **p = array;
    if (count < *capacity)
        return true;
    size_t more = *capacity ? *capacity * 2 : 64;
    void *bigger = more > count ? realloc(*p, more * size) : NULL;
    if (!bigger) {
        m->failed = true;
        return false;
    }
    *p = bigger;
    *capacity = more;
    return true;
}

static uint64_t mix(uint64_t h, uint64_t x)
{
    h = (h ^ x) * 0x9E3779B97F4A7C15u;
    return h ^ h >> 29;
}

/* ---- frames ---- */

static uint64_t hash_frame(const struct frame *f)
{
    return mix(mix(f->is_loop, (uint64_t)f->node << 32 | f->count), f->parent);
}

static uint64_t hash_ways(const struct way *ways, size_t n)
{
    uint64_t h = n;
    for (size_t i = 0; i < n; i++)
        h = mix(h, (uint64_t)ways[i].node << 32 | ways[i].frame);
    return h;
}

static bool table_grow(struct matcher *m, struct table *t, bool of_frames)
{
    if (t->count * 2 < t->capacity)
        return true;
    size_t capacity = t->capacity ? t->capacity * 2 : 256;
    uint32_t *slots = calloc(capacity, sizeof *slots);
    if (!slots) {
        m->failed = true;
        return false;
    }
    for (size_t i = 0; i < t->capacity; i++) {
        uint32_t v = t->slots[i];
        if (!v)
            continue;
        const struct state *s = of_frames ? NULL : &m->states[v - 1];
        uint64_t h = of_frames ? hash_frame(&m->frames[v - 1]) : hash_ways(m->ways + s->first, s->n_ways);
        size_t k = h & (capacity - 1);
        while (slots[k])
            k = (k + 1) & (capacity - 1);
        slots[k] = v;
    }
    free(t->slots);
    t->slots = slots;
    t->capacity = capacity;
    return true;
}

static uint32_t intern_frame(struct matcher *m, struct frame f)
{
    f.depth = m->frames[f.parent].depth + 1;
    if (!table_grow(m, &m->frame_table, true))
        return FRAME_UNKNOWN;
    size_t mask = m->frame_table.capacity - 1, k = hash_frame(&f) & mask;
    for (uint32_t v; (v = m->frame_table.slots[k]); k = (k + 1) & mask) {
        const struct frame *o = &m->frames[v - 1];
        if (o->node == f.node && o->count == f.count && o->parent == f.parent && o->is_loop == f.is_loop)
            return v - 1;
    }
    if (!grow(m, &m->frames, &m->frames_capacity, m->n_frames, sizeof *m->frames))
        return FRAME_UNKNOWN;
    m->frames[m->n_frames++] = f;
    m->frame_table.slots[k] = (uint32_t)m->n_frames;
    m->frame_table.count++;
    return (uint32_t)m->n_frames - 1;
}

/* ---- closing a set of ways over the steps that take no byte ---- */

static bool new_here(struct matcher *m, struct way w)
{
    if (m->n_seen * 2 >= m->seen_capacity) {
        size_t capacity = m->seen_capacity ? m->seen_capacity * 2 : 1024;
        struct seen *bigger = calloc(capacity, sizeof *bigger);
        if (!bigger) {
            m->failed = true;
            return false;
        }
        for (size_t i = 0; i < m->seen_capacity; i++) {
            if (m->seen[i].epoch != m->epoch)
                continue;
            size_t k = mix(m->seen[i].way.node, m->seen[i].way.frame) & (capacity - 1);
            while (bigger[k].epoch)
                k = (k + 1) & (capacity - 1);
            bigger[k] = m->seen[i];
        }
        free(m->seen);
        m->seen = bigger;
        m->seen_capacity = capacity;
    }
    size_t mask = m->seen_capacity - 1, k = mix(w.node, w.frame) & mask;
    for (; m->seen[k].epoch == m->epoch; k = (k + 1) & mask)
        if (m->seen[k].way.node == w.node && m->seen[k].way.frame == w.frame)
            return false;
    m->seen[k] = (struct seen){w, m->epoch};
    m->n_seen++;
    return true;
}

static void begin(struct matcher *m)
{
    m->n_found = m->n_work = m->n_seen = 0;
    if (++m->epoch == 0) {
        memset(m->seen, 0, m->seen_capacity * sizeof *m->seen);
        m->epoch = 1;
    }
}

static void push(struct matcher *m, grammar_node node, uint32_t frame)
{
    if (node != GRAMMAR_NEVER && grow(m, &m->work, &m->work_capacity, m->n_work, sizeof *m->work))
        m->work[m->n_work++] = (struct way){node, frame};
}

static void found(struct matcher *m, grammar_node node, uint32_t frame)
{
    if (m->n_found < MATCHER_WAYS && grow(m, &m->found, &m->found_capacity, m->n_found, sizeof *m->found))
        m->found[m->n_found++] = (struct way){node, frame};
}

/* A repetition that has been done `count` times on top of parent: again, or on.
 * Beyond min a count without limit is not kept: all such counts are the same. */
static void enter_loop(struct matcher *m, uint32_t loop, uint32_t count, uint32_t parent)
{
    const struct grammar_loop *l = &m->g->loops[loop];
    if (count >= l->min)
        push(m, l->next, parent);
    if (count < l->max && l->body != GRAMMAR_NEVER) {
        uint32_t kept = l->max == GRAMMAR_UNLIMITED && count > l->min ? l->min : count;
        push(m, l->body, intern_frame(m, (struct frame){.node = loop, .count = kept, .parent = parent, .is_loop = 1}));
    }
}

static void follow(struct matcher *m, struct way w)
{
    const struct grammar_item *n = &m->g->nodes[w.node];
    struct frame f = m->frames[w.frame];
    switch (n->kind) {
    case NODE_STEP: found(m, w.node, w.frame); break;
    case NODE_CHOICE:
        for (uint32_t k = n->b; k-- > 0;) /* taken off the list in the order of the grammar */
            push(m, m->g->targets[n->a + k], w.frame);
        break;
    case NODE_CALL: /* a call that is the last thing in its rule returns where the rule would */
        push(m, n->a, n->b == GRAMMAR_RETURN ? w.frame : intern_frame(m, (struct frame){.node = n->b, .parent = w.frame}));
        break;
    case NODE_ENTER: enter_loop(m, n->a, 0, w.frame); break;
    case NODE_AGAIN:
        if (f.is_loop && f.node == n->a) /* always so, but after memory ran out */
            enter_loop(m, n->a, f.count + 1, f.parent);
        break;
    case NODE_RETURN:
        if (w.frame == FRAME_BOTTOM)
            found(m, AT_END, FRAME_BOTTOM);
        else if (w.frame == FRAME_UNKNOWN)
            found(m, AT_UNKNOWN, FRAME_UNKNOWN);
        else if (!f.is_loop)
            push(m, f.node, f.parent);
        break;
    default: break;
    }
}

static void close_over(struct matcher *m)
{
    while (m->n_work > 0) {
        struct way w = m->work[--m->n_work];
        if (new_here(m, w))
            follow(m, w);
    }
}

static int compare_ways(const void *x, const void *y)
{
    const struct way *a = x, *b = y;
    if (a->node != b->node)
        return a->node < b->node ? -1 : 1;
    return (a->frame > b->frame) - (a->frame < b->frame);
}

/* The state of the ways found. */
static matcher_state intern_state(struct matcher *m)
{
    size_t n = m->n_found;
    if (n == 0 || !table_grow(m, &m->state_table, false))
        return MATCHER_DEAD;
    if (n > 1)
        qsort(m->found, n, sizeof *m->found, compare_ways);
    size_t mask = m->state_table.capacity - 1, k = hash_ways(m->found, n) & mask;
    for (uint32_t v; (v = m->state_table.slots[k]); k = (k + 1) & mask) {
        const struct state *s = &m->states[v - 1];
        if (s->n_ways == n && memcmp(m->ways + s->first, m->found, n * sizeof *m->ways) == 0)
            return v - 1;
    }
    if (m->n_ways + n > UINT32_MAX || !grow(m, &m->states, &m->states_capacity, m->n_states, sizeof *m->states))
        return MATCHER_DEAD;
    struct state s = {.first = (uint32_t)m->n_ways, .n_ways = (uint32_t)n, .local = UNSEEN};
    for (size_t i = 0; i < n; i++) {
        if (!grow(m, &m->ways, &m->ways_capacity, m->n_ways, sizeof *m->ways))
            return MATCHER_DEAD;
        m->ways[m->n_ways++] = m->found[i];
        s.may_end |= m->found[i].node == AT_END;
        s.escapes |= m->found[i].node == AT_UNKNOWN;
    }
    m->states[m->n_states++] = s;
    m->state_table.slots[k] = (uint32_t)m->n_states;
    m->state_table.count++;
    return (matcher_state)m->n_states - 1;
}

/* ---- steps ---- */

static matcher_state compute_step(struct matcher *m, matcher_state from, uint8_t byte)
{
    begin(m);
    struct state s = m->states[from];
    for (uint32_t i = s.n_ways; i-- > 0;) {
        struct way w = m->ways[s.first + i];
        if (w.node >= AT_END)
            continue;
        const struct grammar_item *n = &m->g->nodes[w.node];
        for (uint32_t k = 0; k < n->b; k++) {
            const struct grammar_edge *e = &m->g->edges[n->a + k];
            if (byte >= e->low && byte <= e->high)
                push(m, e->next, w.frame);
        }
    }
    close_over(m);
    return intern_state(m);
}

matcher_state matcher_step(struct matcher *m, matcher_state s, uint8_t byte)
{
    struct state *from = &m->states[s];
    if (from->steps && from->steps[byte] != UNSEEN)
        return from->steps[byte];
    if (!from->steps && from->asked++ >= STEPS_BEFORE_TABLE && (from->steps = malloc(256 * sizeof *from->steps))) {
        memset(from->steps, 0xFF, 256 * sizeof *from->steps);
        m->table_bytes += 256 * sizeof *from->steps;
    }
    matcher_state to = compute_step(m, s, byte);
    if (m->states[s].steps)
        m->states[s].steps[byte] = to;
    return to;
}

matcher_state matcher_start(struct matcher *m)
{
    if (m->start == MATCHER_DEAD) {
        begin(m);
        push(m, m->g->root, FRAME_BOTTOM);
        close_over(m);
        m->start = intern_state(m);
    }
    return m->start;
}

bool matcher_may_end(const struct matcher *m, matcher_state s)
{
    return m->states[s].may_end;
}

bool matcher_escapes(const struct matcher *m, matcher_state s)
{
    return m->states[s].escapes;
}

void matcher_next_bytes(const struct matcher *m, matcher_state s, uint32_t set[8])
{
    const struct state *from = &m->states[s];
    for (uint32_t i = 0; i < from->n_ways; i++) {
        grammar_node node = m->ways[from->first + i].node;
        if (node >= AT_END)
            continue;
        const struct grammar_item *n = &m->g->nodes[node];
        for (uint32_t k = 0; k < n->b; k++)
            for (unsigned byte = m->g->edges[n->a + k].low; byte <= m->g->edges[n->a + k].high; byte++)
                set[byte / 32] |= 1u << byte % 32;
    }
}

/* ---- local states ---- */

/* The top frame that is below all ways, and no repetition: a body's end looks at the count, which must therefore be known. */
static uint32_t common_frame(const struct matcher *m, const struct state *s)
{
    const struct frame *f = m->frames;
    uint32_t common = UINT32_MAX;
    for (uint32_t i = 0; i < s->n_ways; i++) {
        const struct way *w = &m->ways[s->first + i];
        uint32_t other = w->frame;
        if (common == UINT32_MAX)
            common = other;
        while (common != other) {
            if (f[common].depth >= f[other].depth)
                common = f[common].parent;
            else
                other = f[other].parent;
        }
    }
    while (f[common].is_loop)
        common = f[common].parent;
    return common;
}

static uint32_t far_count(const struct matcher *m, uint32_t count, const struct grammar_loop *l)
{
    if (count < l->min)
        return l->min - count > m->horizon ? l->min - m->horizon - 1 : count;
    if (l->max == GRAMMAR_UNLIMITED || l->max - count <= m->horizon)
        return count;
    uint32_t far = l->max - m->horizon - 1;
    return far > l->min ? far : l->min;
}

/* The frame with its stack as it is above `base`, put on top of bottom. Of a very high stack only the top is known. */
static uint32_t move_frame(struct matcher *m, uint32_t frame, uint32_t base, uint32_t bottom)
{
    enum { DEEP = 4096 };
    uint32_t chain[DEEP], n = 0;
    for (; frame != base; frame = m->frames[frame].parent) {
        if (n == DEEP)
            return FRAME_UNKNOWN;
        chain[n++] = frame;
    }
    uint32_t to = bottom;
    while (n > 0) {
        struct frame f = m->frames[chain[--n]];
        f.parent = to;
        if (f.is_loop)
            f.count = far_count(m, f.count, &m->g->loops[f.node]);
        to = intern_frame(m, f);
    }
    return to;
}

matcher_state matcher_local(struct matcher *m, matcher_state s)
{
    if (m->states[s].local != UNSEEN)
        return m->states[s].local;
    struct state from = m->states[s];
    uint32_t base = common_frame(m, &from), bottom = base == FRAME_BOTTOM ? FRAME_BOTTOM : FRAME_UNKNOWN;
    begin(m);
    for (uint32_t i = 0; i < from.n_ways; i++) {
        struct way w = m->ways[from.first + i];
        w.frame = move_frame(m, w.frame, base, bottom);
        if (new_here(m, w)) /* two counts may have become the same */
            found(m, w.node, w.frame);
    }
    matcher_state local = intern_state(m);
    m->states[s].local = local;
    if (local != MATCHER_DEAD)
        m->states[local].local = local;
    return local;
}

/* ---- life ---- */

static void clear(struct matcher *m)
{
    for (size_t i = 0; i < m->n_states; i++)
        free(m->states[i].steps);
    m->table_bytes = 0;
    m->n_frames = m->n_ways = m->n_states = 0;
    memset(m->frame_table.slots, 0, m->frame_table.capacity * sizeof *m->frame_table.slots);
    memset(m->state_table.slots, 0, m->state_table.capacity * sizeof *m->state_table.slots);
    m->frame_table.count = m->state_table.count = 0;
    m->start = MATCHER_DEAD;
    m->frames[m->n_frames++] = (struct frame){0}; /* the bottom and the unknown are in no table */
    m->frames[m->n_frames++] = (struct frame){.depth = 0};
    m->states[m->n_states++] = (struct state){.local = MATCHER_DEAD};
}

struct matcher *matcher_new(const struct grammar *g, uint32_t horizon)
{
    struct matcher *m = calloc(1, sizeof *m);
    if (!m)
        return NULL;
    m->g = g;
    m->horizon = horizon;
    if (!grow(m, &m->frames, &m->frames_capacity, 0, sizeof *m->frames) ||
        !grow(m, &m->states, &m->states_capacity, 0, sizeof *m->states) ||
        !grow(m, &m->ways, &m->ways_capacity, 0, sizeof *m->ways) ||
        !grow(m, &m->found, &m->found_capacity, 0, sizeof *m->found) || !table_grow(m, &m->frame_table, true) ||
        !table_grow(m, &m->state_table, false)) {
        matcher_free(m);
        return NULL;
    }
    clear(m);
    return m;
}

void matcher_free(struct matcher *m)
{
    if (!m)
        return;
    for (size_t i = 0; i < m->n_states; i++)
        free(m->states[i].steps);
    free(m->frames);
    free(m->ways);
    free(m->states);
    free(m->frame_table.slots);
    free(m->state_table.slots);
    free(m->found);
    free(m->work);
    free(m->seen);
    free(m);
}

bool matcher_failed(const struct matcher *m)
{
    return m->failed;
}

uint32_t matcher_n_states(const struct matcher *m)
{
    return (uint32_t)m->n_states;
}

size_t matcher_bytes(const struct matcher *m)
{
    return m->frames_capacity * sizeof *m->frames + m->ways_capacity * sizeof *m->ways + m->states_capacity * sizeof *m->states +
           m->table_bytes + (m->frame_table.capacity + m->state_table.capacity) * sizeof(uint32_t);
}

/* The kept state's stacks are written out, and built again in the empty matcher.
 * Shared parts come together again by themselves. */
matcher_state matcher_forget(struct matcher *m, matcher_state keep)
{
    struct state s = m->states[keep];
    struct way *ways = malloc((s.n_ways + 1) * sizeof *ways);
    struct frame *old = malloc(m->n_frames * sizeof *old);
    uint32_t *to = malloc(m->n_frames * sizeof *to); /* a frame's parent has a lower number than itself */
    bool *used = calloc(m->n_frames, sizeof *used);
    matcher_state kept = MATCHER_DEAD;
    if (ways && old && to && used && keep != MATCHER_DEAD) {
        size_t n = m->n_frames;
        memcpy(ways, m->ways + s.first, s.n_ways * sizeof *ways);
        memcpy(old, m->frames, n * sizeof *old);
        for (uint32_t i = 0; i < s.n_ways; i++)
            used[ways[i].frame] = true;
        for (size_t i = n; i-- > 2;)
            if (used[i])
                used[old[i].parent] = true;
        clear(m);
        to[0] = 0;
        to[1] = 1;
        for (size_t i = 2; i < n; i++) {
            if (!used[i])
                continue;
            old[i].parent = to[old[i].parent];
            to[i] = intern_frame(m, old[i]);
        }
        begin(m);
        for (uint32_t i = 0; i < s.n_ways; i++)
            found(m, ways[i].node, to[ways[i].frame]);
        kept = intern_state(m);
    }
    free(ways);
    free(old);
    free(to);
    free(used);
    return kept;
}
