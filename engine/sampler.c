#include "engine/exp.h"
#include "engine/sampler.h"

#include <math.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

struct candidate {
    float logit;
    int32_t id;
};

struct sampler {
    struct sampling options; /* without its biases */
    int n_vocab;
    uint64_t state[4];
    double *weights;              /* [n_vocab]; NULL where top_k makes it unnecessary */
    struct candidate *candidates; /* [n_candidates]; NULL where nothing is ordered */

    float *adjusted;           /* [n_vocab]; NULL where no penalty and no bias is asked for */
    int32_t *counts;           /* [n_vocab]: how often generated; -1: stands in the prompt only,
                                * 0: nowhere. NULL without penalties */
    int32_t *seen;             /* [n_seen] the tokens whose count is not 0 */
    int n_seen;
    struct token_bias *biases; /* [n_biases] */
    int n_biases;
};

/* ---- the generator ---- */

static uint64_t splitmix64(uint64_t *x)
{
    uint64_t z = *x += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

static uint64_t rotate_left(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

static uint64_t xoshiro256ss(uint64_t s[4])
{
    uint64_t result = rotate_left(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate_left(s[3], 45);
    return result;
}

/* Uniform in [0, 1), a multiple of 2^-53. */
static double uniform(struct sampler *s)
{
    return (double)(xoshiro256ss(s->state) >> 11) * 0x1p-53;
}

/* ---- weights ---- */

static inline double weight(const struct sampler *s, float logit, float best)
{
    return exp_negative(((double)logit - (double)best) / (double)s->options.temperature);
}

/* ---- choosing ---- */

static int32_t greedy(const float *logits, int n)
{
    int32_t best = 0;
    float value = -INFINITY;
    for (int32_t i = 0; i < n; i++)
        if (logits[i] > value) {
            value = logits[i];
            best = i;
        }
    return best;
}

/* a is less likely than b: by logit, then by id. */
static inline bool worse(struct candidate a, struct candidate b)
{
    return a.logit < b.logit || (!(a.logit > b.logit) && a.id > b.id);
}

/* A binary heap whose top is the worst (or, turned, the best): moves the element at i down to its place. */
static void sift_down(struct candidate *heap, size_t n, size_t i, bool best_on_top)
{
    struct candidate moved = heap[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= n)
            break;
        if (child + 1 < n && worse(heap[child + 1], heap[child]) != best_on_top)
            child++;
        if (worse(heap[child], moved) == best_on_top)
            break;
        heap[i] = heap[child];
        i = child;
    }
    heap[i] = moved;
}

static void make_heap(struct candidate *heap, size_t n, bool best_on_top)
{
    for (size_t i = n / 2; i-- > 0;)
        sift_down(heap, n, i, best_on_top);
}

/* Draws from candidates[0 .. n), best first. */
static int32_t draw_ordered(struct sampler *s, const struct candidate *candidates, size_t n)
{
    float best = candidates[0].logit;
    double total = 0;
    for (size_t i = 0; i < n; i++)
        total += weight(s, candidates[i].logit, best);
    double target = uniform(s) * total, sum = 0;
    size_t last = 0; /* rounding may leave the target at the very end: then the last that has a weight */
    for (size_t i = 0; i < n; i++) {
        double w = weight(s, candidates[i].logit, best);
        sum += w;
        if (sum > target)
            return candidates[i].id;
        if (w > 0)
            last = i;
    }
    return candidates[last].id;
}

static int32_t sample_top_k(struct sampler *s, const float *logits)
{
    size_t k = (size_t)s->options.top_k, n = 0;
    struct candidate *heap = s->candidates;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        /* Ids ascend: one that only equals the worst of the kept is worse than it. */
        if (n == k && !(logits[i] > heap[0].logit))
            continue;
        if (!(logits[i] > -INFINITY))
            continue;
        struct candidate c = {logits[i], i};
        if (n < k) {
            heap[n++] = c;
            if (n == k)
                make_heap(heap, n, false);
        } else {
            heap[0] = c;
            sift_down(heap, n, 0, false);
        }
    }
    if (n < k)
        make_heap(heap, n, false);
    for (size_t m = n; m-- > 1;) { /* the worst to the end: best first */
        struct candidate c = heap[0];
        heap[0] = heap[m];
        heap[m] = c;
        sift_down(heap, m, 0, false);
    }
    double total = 0, sum = 0;
    for (size_t i = 0; i < n; i++)
        total += weight(s, heap[i].logit, heap[0].logit);
    size_t kept = 0;
    while (kept < n) {
        double w = weight(s, heap[kept].logit, heap[0].logit);
        if (kept > 0 && (w < (double)s->options.min_p || (s->options.top_p < 1 && sum >= (double)s->options.top_p * total)))
            break;
        sum += w;
        kept++;
    }
    return draw_ordered(s, heap, kept);
}

/* Fills s->weights and returns their sum. */
static double weigh_all(struct sampler *s, const float *logits, float best)
{
    double *w = s->weights, total = 0;
    for (int i = 0; i < s->n_vocab; i++)
        w[i] = weight(s, logits[i], best);
    for (int i = 0; i < s->n_vocab; i++)
        total += w[i];
    return total;
}

static int32_t sample_top_p(struct sampler *s, const float *logits, float best)
{
    /* No full sort: all tokens with a weight below (1 - p) / n of the total weigh less than 1 - p together, so the nucleus
     * is full before it comes to any of them. (Half of that, to be safe from rounding.) What is left, usually a few hundred,
     * becomes a heap that gives the best first until there is enough. */
    double total = weigh_all(s, logits, best);
    double p = (double)s->options.top_p, least = 0.5 * (1 - p) / s->n_vocab * total;
    if (least < (double)s->options.min_p)
        least = (double)s->options.min_p;
    if (least > 1)
        least = 1;
    struct candidate *heap = s->candidates;
    size_t n = 0;
    for (int32_t i = 0; i < s->n_vocab; i++)
        if (s->weights[i] >= least && s->weights[i] > 0)
            heap[n++] = (struct candidate){logits[i], i};
    make_heap(heap, n, true);
    double sum = 0;
    size_t left = n;
    while (left > 0 && (left == n || sum < p * total)) {
        struct candidate c = heap[0];
        heap[0] = heap[--left];
        sift_down(heap, left, 0, true);
        heap[left] = c; /* taken ones gather at the end, best last */
        sum += s->weights[c.id];
    }
    for (size_t i = left, j = n - 1; i < j; i++, j--) {
        struct candidate c = heap[i];
        heap[i] = heap[j];
        heap[j] = c;
    }
    return draw_ordered(s, heap + left, n - left);
}

/* All tokens, or all above min_p: no order is needed. Draws in the order of ids. */
static int32_t sample_all(struct sampler *s, const float *logits, float best)
{
    double total = weigh_all(s, logits, best);
    double least = (double)s->options.min_p;
    if (least > 0) {
        if (least > 1)
            least = 1;
        total = 0;
        for (int i = 0; i < s->n_vocab; i++) {
            if (s->weights[i] < least)
                s->weights[i] = 0;
            total += s->weights[i];
        }
    }
    double target = uniform(s) * total, sum = 0;
    int32_t last = 0;
    for (int32_t i = 0; i < s->n_vocab; i++) {
        sum += s->weights[i];
        if (sum > target)
            return i;
        if (s->weights[i] > 0)
            last = i;
    }
    return last;
}

/* ---- penalties and biases ---- */

static void see(struct sampler *s, int32_t token, bool generated)
{
    int32_t *count = &s->counts[token];
    if (*count == 0)
        s->seen[s->n_seen++] = token;
    if (generated)
        *count = *count < 0 ? 1 : *count + 1;
    else if (*count == 0)
        *count = -1;
}

void sampler_saw_prompt(struct sampler *s, const int32_t *tokens, int n)
{
    for (int i = 0; s->counts && i < n; i++)
        see(s, tokens[i], false);
}

void sampler_took(struct sampler *s, int32_t token)
{
    if (s->counts)
        see(s, token, true);
}

static const float *adjust(struct sampler *s, const float *logits)
{
    const struct sampling *o = &s->options;
    float *out = s->adjusted;
    memcpy(out, logits, (size_t)s->n_vocab * sizeof *out);
    for (int i = 0; i < s->n_seen; i++) {
        int32_t token = s->seen[i], count = s->counts[token];
        float logit = out[token];
        logit = logit > 0 ? logit / o->repetition_penalty : logit * o->repetition_penalty;
        if (count > 0)
            logit -= o->presence_penalty + (float)count * o->frequency_penalty;
        out[token] = logit;
    }
    for (int i = 0; i < s->n_biases; i++) {
        float bias = s->biases[i].bias;
        out[s->biases[i].token] += bias > SAMPLER_BAN ? bias : -INFINITY;
    }
    return out;
}

int32_t sampler_next(struct sampler *s, const float *logits)
{
    if (s->adjusted)
        logits = adjust(s, logits);
    int32_t first = greedy(logits, s->n_vocab);
    float best = logits[first];
    if (!(s->options.temperature > 0) || s->options.top_k == 1 || !isfinite(best))
        return first;
    if (s->options.top_k > 0)
        return sample_top_k(s, logits);
    return s->options.top_p < 1 ? sample_top_p(s, logits, best) : sample_all(s, logits, best);
}

/* ---- life ---- */

struct sampling sampling_default(void)
{
    return (struct sampling){.temperature = 1, .top_p = 1, .repetition_penalty = 1};
}

/* Memory for penalties and biases, where any are asked for. */
static bool prepare_adjusting(struct sampler *s, const struct sampling *o)
{
    if (!(s->options.repetition_penalty > 0))
        s->options.repetition_penalty = 1;
    size_t n = (size_t)s->n_vocab;
    bool penalties = s->options.repetition_penalty != 1 || o->presence_penalty != 0 || o->frequency_penalty != 0;
    s->options.biases = NULL;
    if (penalties) {
        s->counts = calloc(n, sizeof *s->counts);
        s->seen = malloc(n * sizeof *s->seen);
    }
    if (o->n_biases > 0) {
        s->n_biases = o->n_biases;
        s->biases = malloc((size_t)o->n_biases * sizeof *s->biases);
        if (s->biases)
            memcpy(s->biases, o->biases, (size_t)o->n_biases * sizeof *s->biases);
    }
    if (penalties || s->n_biases > 0)
        s->adjusted = malloc(n * sizeof *s->adjusted);
    return (!penalties || (s->counts && s->seen)) && (!s->n_biases || s->biases) && (s->adjusted || (!penalties && !s->n_biases));
}

struct sampler *sampler_new(const struct sampling *options, int n_vocab)
{
    if (n_vocab < 1)
        return NULL;
    struct sampler *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->options = *options;
    s->n_vocab = n_vocab;
    if (s->options.top_k < 0 || s->options.top_k >= n_vocab)
        s->options.top_k = n_vocab == 1 ? 1 : 0;
    uint64_t seed = options->seed;
    for (int i = 0; i < 4; i++)
        s->state[i] = splitmix64(&seed);
    bool draws = s->options.temperature > 0 && s->options.top_k != 1;
    bool ordered = draws && (s->options.top_k > 0 || s->options.top_p < 1);
    if (draws && !s->options.top_k)
        s->weights = malloc((size_t)n_vocab * sizeof *s->weights);
    if (ordered)
        s->candidates = malloc((size_t)(s->options.top_k ? s->options.top_k : n_vocab) * sizeof *s->candidates);
    if ((draws && !s->options.top_k && !s->weights) || (ordered && !s->candidates) || !prepare_adjusting(s, options)) {
        sampler_free(s);
        return NULL;
    }
    return s;
}

void sampler_free(struct sampler *s)
{
    if (!s)
        return;
    free(s->weights);
    free(s->candidates);
    free(s->adjusted);
    free(s->counts);
    free(s->seen);
    free(s->biases);
    free(s);
}
