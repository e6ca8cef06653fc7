#include "bench/measure.h"
#include "bench/memory.h"
#include "bench/subject.h"

#include <string.h>

double measure_limit(const struct measurements *m)
{
    double bytes = (double)(m->weight_bytes + m->kv_bytes);
    return bytes > 0 ? series_median(&m->read) / bytes : 0;
}

/* ---- the sweep: what there is to measure ---- */

static int larger(int a, int b)
{
    return a > b ? a : b;
}

static void add_points(struct curve *c, const int at[], int n, int most)
{
    for (int i = 0; i < n; i++)
        if (at[i] <= most)
            c->points[c->n++].at = at[i];
}

static int last_point(const struct curve *c)
{
    return c->n > 0 ? c->points[c->n - 1].at : 0;
}

/* Lengths and depths that the model, the option and half of the memory allow. */
static void plan_sweep(struct sweep *s, const struct model *m, const struct measure_options *o)
{
    static const int tokens[] = {16, 32, 64, 128, 256, 512, 1024, 2048, 4096}, depths[] = {0, 512, 2048, 8192, 32000},
                     sequences[] = {1, 2, 4, 8, 16};
    const struct model_shape *shape = model_shape(m);
    const double position = 4.0 * shape->n_layers * shape->n_kv_heads * shape->head_dim; /* bytes: keys and values, f16 */
    const int others = 4096 + 16 * 32; /* positions of the longest prefill and of all batches, at most */
    const double room = (double)available_memory() / 2 / position - others;
    s->n_steps = o->n_decode > 0 && o->n_decode < 32 ? o->n_decode : 32;
    s->n_ctx = o->n_ctx > 0 && o->n_ctx < shape->n_ctx_train ? o->n_ctx : shape->n_ctx_train;
    if (room > -others && room < s->n_ctx) { /* 0 available means that the system does not say */
        s->n_ctx = room > s->n_steps ? (int)room : s->n_steps;
        s->short_of_memory = true;
    }
    add_points(&s->prefill, tokens, CURVE_MOST, s->n_ctx);
    add_points(&s->decode, depths, 5, s->n_ctx - s->n_steps);
    add_points(&s->batch, sequences, 5, s->n_steps <= s->n_ctx ? SUBJECT_MOST_ANSWERS : 0);
}

/* ---- rounds ---- */

struct bench {
    const struct measure_options *options;
    struct subject subject;
    struct reading reading;
    struct threads *pool;
    measure_progress *progress;
    struct measurements *out;
};

/* One prefill, one decode of n steps; their speeds are kept where keep is set. */
static void prefill(struct bench *b, int n, struct series *keep)
{
    double begin = seconds_now();
    subject_prefill(&b->subject, &b->subject.prompt, n);
    if (keep)
        series_add(keep, n / (seconds_now() - begin));
}

static void decode(struct bench *b, int n_answers, int depth, int n, struct series *keep)
{
    double begin = seconds_now();
    subject_decode(&b->subject, n_answers, depth, n);
    if (keep)
        series_add(keep, (double)n_answers * n / (seconds_now() - begin));
}

static void read_memory(struct bench *b, struct series *keep)
{
    double speed = read_speed(&b->reading, b->pool);
    if (keep)
        series_add(keep, speed);
}

static void measure_rounds(struct bench *b)
{
    const struct measure_options *o = b->options;
    struct measurements *out = b->out;
    if (o->n_decode > 0 && o->depth > 0) {
        b->progress("filling the context", 0, 0);
        subject_prefill(&b->subject, &b->subject.answers[0], o->depth);
    }
    for (int i = 0; i <= o->n_repetitions; i++) {
        bool warm = i > 0; /* the first round is for caches, pages and the clock of the processor */
        b->progress(warm ? "measuring" : "warming up", i, o->n_repetitions);
        read_memory(b, warm ? &out->read : NULL);
        if (o->n_prompt > 0)
            prefill(b, o->n_prompt, warm ? &out->prefill : NULL);
        if (o->n_decode > 0)
            decode(b, 1, o->depth, warm || o->n_decode < 8 ? o->n_decode : 8, warm ? &out->decode : NULL);
    }
}

static void measure_sweep(struct bench *b)
{
    struct sweep *s = &b->out->sweep;
    const int deepest = last_point(&s->decode), computed = deepest < SWEEP_FILL ? deepest : SWEEP_FILL;
    if (computed > 0) {
        b->progress("filling the context", 0, 0);
        subject_prefill(&b->subject, &b->subject.answers[0], computed);
        subject_deepen(&b->subject, computed, deepest);
    }
    for (int i = 1; i <= b->options->n_repetitions; i++) {
        b->progress("sweep: reading memory", i, b->options->n_repetitions);
        read_memory(b, &b->out->read);
        b->progress("sweep: prefill", i, b->options->n_repetitions);
        for (int p = 0; p < s->prefill.n; p++)
            prefill(b, s->prefill.points[p].at, &s->prefill.points[p].speed);
        b->progress("sweep: decode", i, b->options->n_repetitions);
        for (int p = s->decode.n - 1; p >= 0; p--)
            decode(b, 1, s->decode.points[p].at, s->n_steps, &s->decode.points[p].speed);
        b->progress("sweep: batches", i, b->options->n_repetitions);
        for (int p = 0; p < s->batch.n; p++)
            decode(b, s->batch.points[p].at, 0, s->n_steps, &s->batch.points[p].speed);
    }
    const double read = series_median(&b->out->read), weights = (double)model_decode_bytes(b->subject.model);
    const double position = (double)kv_position_bytes(b->subject.kv), half = 0.5 * (s->n_steps + 1);
    for (int p = 0; p < s->decode.n; p++)
        s->decode.points[p].limit = read / (weights + position * (s->decode.points[p].at + half));
    for (int p = 0; p < s->batch.n; p++)
        s->batch.points[p].limit = s->batch.points[p].at * read / (weights + position * half * s->batch.points[p].at);
}

/* Apart from the rounds, so that reading the clock is in no figure. */
static bool measure_profile(struct bench *b, struct error *err)
{
    const struct measure_options *o = b->options;
    b->progress("where the time goes", 0, 0);
    if (o->n_prompt > 0) {
        if (!forward_measure(b->subject.forward, err))
            return false;
        prefill(b, o->n_prompt, NULL);
        forward_measure_end(b->subject.forward, &b->out->prefill_times);
    }
    if (o->n_decode > 0) {
        if (!forward_measure(b->subject.forward, err))
            return false;
        decode(b, 1, o->depth, o->n_decode, NULL);
        forward_measure_end(b->subject.forward, &b->out->decode_times);
    }
    return true;
}

bool measure(const struct model *m, const struct kernels *kernels, struct threads *pool, const struct measure_options *o,
    measure_progress *progress, struct measurements *out, struct error *err)
{
    memset(out, 0, sizeof *out);
    if (o->sweep)
        plan_sweep(&out->sweep, m, o);
    const struct sweep *s = &out->sweep;
    const struct subject_room room = {
        .n_batch = o->n_batch,
        .prompt = larger(o->n_prompt, last_point(&s->prefill)),
        .answer = larger(o->depth + o->n_decode, last_point(&s->decode) + s->n_steps),
        .n_answers = larger(last_point(&s->batch), 1),
        .others = s->n_steps,
    };
    struct bench b = {.options = o, .pool = pool, .progress = progress, .out = out};
    progress("preparing", 0, 0);
    if (!subject_init(&b.subject, m, pool, &room, err) ||
        !reading_init(&b.reading, (size_t)o->read_mib << 20, kernels, pool, err)) {
        subject_end(&b.subject);
        return false;
    }
    out->buffer_bytes = b.reading.bytes;
    if (o->n_decode > 0) {
        out->weight_bytes = model_decode_bytes(m);
        /* Step i attends to depth + i + 1 positions; i goes from 0 to n - 1. */
        out->kv_bytes = (uint64_t)((double)kv_position_bytes(b.subject.kv) * (o->depth + 0.5 * (o->n_decode + 1)));
    }
    if (o->n_prompt > 0 || o->n_decode > 0)
        measure_rounds(&b);
    bool good = !o->profile || measure_profile(&b, err); /* before the sweep, which writes over the context */
    if (good && o->sweep)
        measure_sweep(&b);
    reading_end(&b.reading);
    subject_end(&b.subject);
    return good;
}
