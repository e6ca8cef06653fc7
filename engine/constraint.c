#include "engine/constraint.h"

#include "engine/matcher.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
    MOST_MASKS = 96,                 /* kept at a time: 19 kB each for 152,000 tokens */
    MOST_MATCHER_BYTES = 16 << 20,   /* then it forgets what it does not need */
    MOST_FORCED_BYTES = 512
};

/* What is known of a place in the grammar (a local state). */
struct place {
    uint32_t *allowed;  /* mask of the tokens that stay within it */
    uint32_t *leaving;  /* [n_leaving] nodes of the trie that begin behind the end of it: all below is to be decided elsewhere */
    uint32_t n_leaving;
};

struct constraint {
    const struct trie *trie;
    struct matcher *matcher;
    matcher_state state;
    struct place *places;     /* [n_places] by local state; allowed NULL: not known yet */
    size_t n_places, n_known;
    size_t words;             /* of a mask */
    uint32_t *mask;           /* of the current state, if mask_valid */
    bool mask_valid, mask_empty;
    matcher_state *path;      /* [trie->longest + 1] where the walk is, by depth */
    uint32_t *leaving;        /* [leaving_capacity] being found */
    size_t leaving_capacity;
};

struct constraint *constraint_new(const struct trie *trie, const struct grammar *g)
{
    struct constraint *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->trie = trie;
    c->words = ((size_t)trie->n_vocab + 31) / 32;
    c->matcher = matcher_new(g, trie->longest);
    c->mask = malloc(c->words * sizeof *c->mask);
    c->path = malloc((trie->longest + 1) * sizeof *c->path);
    if (!c->matcher || !c->mask || !c->path || (c->state = matcher_start(c->matcher)) == MATCHER_DEAD) {
        constraint_free(c);
        return NULL;
    }
    return c;
}

static void forget_places(struct constraint *c)
{
    for (size_t i = 0; i < c->n_places; i++) {
        free(c->places[i].allowed);
        free(c->places[i].leaving);
    }
    free(c->places);
    c->places = NULL;
    c->n_places = c->n_known = 0;
}

void constraint_free(struct constraint *c)
{
    if (!c)
        return;
    forget_places(c);
    matcher_free(c->matcher);
    free(c->mask);
    free(c->path);
    free(c->leaving);
    free(c);
}

/* ---- walking the vocabulary ---- */

static void allow(const struct trie *t, const struct trie_node *n, uint32_t *mask)
{
    for (uint32_t k = 0; k < n->n_tokens; k++) {
        uint32_t id = (uint32_t)t->tokens[n->tokens + k];
        mask[id / 32] |= 1u << id % 32;
    }
}

static bool note_leaving(struct constraint *c, size_t n, uint32_t node)
{
    if (n == c->leaving_capacity) {
        size_t more = n ? 2 * n : 256;
        uint32_t *bigger = realloc(c->leaving, more * sizeof *bigger);
        if (!bigger)
            return false;
        c->leaving = bigger;
        c->leaving_capacity = more;
    }
    c->leaving[n] = node;
    return true;
}

/* Goes through the nodes from..to-1, with path[depth of the first - 1] given. leaving: where to count nodes below which
 * it depends on what the place is nested in; NULL in a full state, where nothing does. False: out of memory. */
static bool walk(struct constraint *c, uint32_t from, uint32_t to, uint32_t *mask, size_t *n_leaving)
{
    const struct trie *t = c->trie;
    for (uint32_t i = from; i < to;) {
        const struct trie_node *n = &t->nodes[i];
        matcher_state s = matcher_step(c->matcher, c->path[n->depth - 1], n->byte);
        if (s == MATCHER_DEAD) {
            i = n->skip;
            continue;
        }
        c->path[n->depth] = s;
        allow(t, n, mask);
        if (n_leaving && n->skip > i + 1 && matcher_escapes(c->matcher, s) && !note_leaving(c, (*n_leaving)++, i))
            return false;
        i++;
    }
    return true;
}

static const struct place *find_place(struct constraint *c, matcher_state local)
{
    if (local >= c->n_places) {
        size_t n = 2 * (size_t)local + 64;
        struct place *bigger = realloc(c->places, n * sizeof *bigger);
        if (!bigger)
            return NULL;
        memset(bigger + c->n_places, 0, (n - c->n_places) * sizeof *bigger);
        c->places = bigger;
        c->n_places = n;
    }
    struct place *p = &c->places[local];
    if (p->allowed)
        return p;
    uint32_t *mask = calloc(c->words, sizeof *mask);
    size_t n = 0;
    c->path[0] = local;
    if (!mask || !walk(c, 0, c->trie->n_nodes, mask, &n)) {
        free(mask);
        return NULL;
    }
    p->leaving = malloc((n + 1) * sizeof *p->leaving);
    if (!p->leaving) {
        free(mask);
        return NULL;
    }
    if (n > 0)
        memcpy(p->leaving, c->leaving, n * sizeof *p->leaving);
    p->n_leaving = (uint32_t)n;
    p->allowed = mask;
    c->n_known++;
    return p;
}

/* Decides what is below the nodes where a token leaves the place. */
static bool decide_leaving(struct constraint *c, const struct place *p)
{
    const struct trie *t = c->trie;
    uint32_t done = 0;
    for (uint32_t k = 0; k < p->n_leaving; k++) {
        uint32_t node = p->leaving[k];
        if (node < done)
            continue; /* below one that has been decided */
        const struct trie_node *n = &t->nodes[node];
        /* The bytes down to this node are those of any token below it. */
        uint32_t below = node;
        while (t->nodes[below].n_tokens == 0)
            below++;
        const char *bytes = tok_bytes(t->tokenizer, t->tokens[t->nodes[below].tokens]).data;
        matcher_state s = c->state;
        for (uint32_t d = 0; d < n->depth; d++)
            s = matcher_step(c->matcher, s, (uint8_t)bytes[d]);
        c->path[n->depth] = s;
        done = n->skip;
        if (s != MATCHER_DEAD && !walk(c, node + 1, n->skip, c->mask, NULL))
            return false;
    }
    return true;
}

static void keep_small(struct constraint *c)
{
    if (c->n_known < MOST_MASKS && matcher_bytes(c->matcher) < MOST_MATCHER_BYTES)
        return;
    matcher_state kept = matcher_forget(c->matcher, c->state);
    if (kept != MATCHER_DEAD)
        c->state = kept;
    forget_places(c);
}

const uint32_t *constraint_mask(struct constraint *c)
{
    if (c->mask_valid)
        return c->mask;
    keep_small(c);
    matcher_state local = matcher_local(c->matcher, c->state);
    const struct place *p = local == MATCHER_DEAD ? NULL : find_place(c, local);
    if (!p)
        return NULL;
    memcpy(c->mask, p->allowed, c->words * sizeof *c->mask);
    if (!decide_leaving(c, p) || matcher_failed(c->matcher))
        return NULL;
    if (matcher_may_end(c->matcher, c->state))
        for (uint32_t i = 0; i < c->trie->n_ends; i++)
            c->mask[c->trie->ends[i] / 32] |= 1u << c->trie->ends[i] % 32;
    c->mask_empty = true;
    for (size_t i = 0; i < c->words; i++)
        c->mask_empty &= c->mask[i] == 0;
    c->mask_valid = true;
    return c->mask;
}

bool constraint_apply(struct constraint *c, const float *logits, float *out)
{
    const uint32_t *mask = constraint_mask(c);
    if (!mask || c->mask_empty)
        return false;
    for (int i = 0; i < c->trie->n_vocab; i += 32) {
        uint32_t bits = mask[i / 32];
        int n = c->trie->n_vocab - i < 32 ? c->trie->n_vocab - i : 32;
        for (int k = 0; k < n; k++)
            out[i + k] = bits >> k & 1 ? logits[i + k] : -INFINITY;
    }
    return true;
}

/* ---- going on ---- */

static bool is_end(const struct constraint *c, int32_t token)
{
    for (uint32_t i = 0; i < c->trie->n_ends; i++)
        if (c->trie->ends[i] == token)
            return true;
    return false;
}

bool constraint_accept(struct constraint *c, int32_t token)
{
    if (is_end(c, token))
        return matcher_may_end(c->matcher, c->state);
    if (token < 0 || token >= c->trie->n_vocab || !c->trie->in_tree[token])
        return false;
    struct gguf_string s = tok_bytes(c->trie->tokenizer, token);
    matcher_state to = c->state;
    for (size_t i = 0; i < s.length && to != MATCHER_DEAD; i++)
        to = matcher_step(c->matcher, to, (uint8_t)s.data[i]);
    if (to == MATCHER_DEAD)
        return false;
    c->mask_valid &= to == c->state;
    c->state = to;
    return true;
}

bool constraint_may_end(const struct constraint *c)
{
    return matcher_may_end(c->matcher, c->state);
}

bool constraint_must_end(const struct constraint *c)
{
    uint32_t next[8] = {0}, any = 0;
    matcher_next_bytes(c->matcher, c->state, next);
    for (int i = 0; i < 8; i++)
        any |= next[i];
    return !any;
}

/* ---- what is certain ---- */

/* The only byte that may follow, or -1. */
static int only_byte(const struct constraint *c, matcher_state s)
{
    uint32_t next[8] = {0};
    if (matcher_may_end(c->matcher, s))
        return -1;
    matcher_next_bytes(c->matcher, s, next);
    int byte = -1;
    for (int i = 0; i < 8; i++) {
        if (!next[i])
            continue;
        if (byte >= 0 || (next[i] & (next[i] - 1)))
            return -1;
        byte = 32 * i + __builtin_ctz(next[i]);
    }
    return byte;
}

/* The user-defined token that begins at p, or -1: the longest. */
static int32_t added_token(const struct trie *t, const char *p, size_t length, size_t *taken)
{
    int32_t best = -1;
    *taken = 0;
    for (uint32_t i = 0; i < t->n_added; i++) {
        struct gguf_string s = tok_bytes(t->tokenizer, t->added[i]);
        if (s.length <= length && s.length > *taken && memcmp(s.data, p, s.length) == 0) {
            best = t->added[i];
            *taken = s.length;
        }
    }
    return best;
}

/* As tok_encode with parse_special, but for control tokens, which no grammar can mean. */
static bool encode(const struct trie *t, const char *text, size_t length, struct tok_ids *out)
{
    struct error err;
    size_t plain = 0;
    for (size_t i = 0; i < length;) {
        size_t taken;
        int32_t id = added_token(t, text + i, length - i, &taken);
        if (id < 0) {
            i++;
            continue;
        }
        if (!tok_encode(t->tokenizer, text + plain, i - plain, false, out, &err) || !tok_ids_push(out, id))
            return false;
        i += taken;
        plain = i;
    }
    return tok_encode(t->tokenizer, text + plain, length - plain, false, out, &err);
}

void constraint_forced(struct constraint *c, size_t most, struct tok_ids *out)
{
    char text[MOST_FORCED_BYTES];
    size_t n = 0, first = out->count;
    matcher_state s = c->state;
    for (int byte; n < sizeof text && (byte = only_byte(c, s)) >= 0; n++) {
        matcher_state next = matcher_step(c->matcher, s, (uint8_t)byte);
        if (next == MATCHER_DEAD)
            break;
        text[n] = (char)byte;
        s = next;
    }
    if (n < 2 || !encode(c->trie, text, n, out)) {
        out->count = first;
        return;
    }
    /* Only as far as the tokens spell exactly these bytes. */
    size_t spelled = 0, good = first;
    for (; good < out->count; good++) {
        struct gguf_string b = tok_bytes(c->trie->tokenizer, out->data[good]);
        if (b.length == 0 || spelled + b.length > n || memcmp(text + spelled, b.data, b.length) != 0)
            break;
        spelled += b.length;
    }
    if (good == out->count && good > first)
        good--;
    else
        good = first;
    if (good - first > most)
        good = first + most;
    out->count = good;
}
