#include "bench/report.h"
#include "server/json/json.h"

#include <stdlib.h>
#include <string.h>

/* ---- for people ---- */

static void row(FILE *f, const char *what, const struct series *s, double unit, const char *unit_name)
{
    fprintf(f, "  %-24s %10.2f %10.2f %10.2f   %s\n", what, series_median(s) / unit, series_min(s) / unit, series_max(s) / unit,
        unit_name);
}

static void text_curve(FILE *f, const char *title, const char *at, const struct curve *c)
{
    if (c->n == 0)
        return;
    fprintf(f, "\n  %-24s %10s %10s %10s   %s\n", title, "median", "min", "max",
        c->points[0].limit > 0 ? "tokens/s, and of the memory's limit" : "tokens/s");
    for (int i = 0; i < c->n; i++) {
        const struct point *p = &c->points[i];
        char what[48];
        snprintf(what, sizeof what, at, p->at);
        fprintf(f, "  %-24s %10.2f %10.2f %10.2f", what, series_median(&p->speed), series_min(&p->speed), series_max(&p->speed));
        if (p->limit > 0)
            fprintf(f, "   %5.1f%%", 100 * series_median(&p->speed) / p->limit);
        putc('\n', f);
    }
}

static void text_sweep(FILE *f, const struct sweep *s)
{
    text_curve(f, "sweep: prefill", "%d tokens", &s->prefill);
    text_curve(f, "sweep: decode", "at depth %d", &s->decode);
    text_curve(f, "sweep: batch decode", "%d sequences", &s->batch);
    fprintf(f, "\nThe sweep went up to %d positions: %s. Each decode point is %d steps.\n", s->n_ctx,
            s->short_of_memory ? "half of the memory available holds no more" : "the model or --ctx sets that", s->n_steps);
}

static void text_parts(FILE *f, const char *title, const struct forward_times *t, int n_threads, int n_tokens)
{
    struct part parts[PARTS_MOST];
    int n = report_parts(t, n_threads, parts);
    fprintf(f, "\n  %-24s %10s %10s %10s %14s\n", title, "ms/token", "share", "GB/s", "mult-adds/ns");
    for (int i = 0; i < n; i++) {
        const struct part *p = &parts[i];
        fprintf(f, "  %-24s %10.4f %9.1f%%", p->name, 1e3 * p->seconds / n_tokens, 100 * p->seconds / t->elapsed);
        if (p->bytes > 0 && p->seconds > 0)
            fprintf(f, " %10.2f %14.2f", 1e-9 * p->bytes / p->seconds, 1e-9 * p->multiply_adds / p->seconds);
        putc('\n', f);
    }
}

static void text_comparison(FILE *f, const struct report *r)
{
    static const char *const marks[] = {
        [VERDICT_SAME] = "", [VERDICT_BETTER] = "  better", [VERDICT_WORSE] = "  WORSE", [VERDICT_UNKNOWN] = ""};
    struct figures now;
    char differences[DIFFERENCES_MOST][DIFFERENCE_SIZE];
    report_figures(r, &now);
    fprintf(f, "\nCompared with %s (%s kernels, %lld threads, %s):\n", r->earlier->file, r->earlier->level, r->earlier->threads,
        r->earlier->model);
    int n = report_differences(r, differences), missing = 0;
    for (int i = 0; i < n; i++)
        fprintf(f, "  DIFFERENT  %s\n", differences[i]);
    fprintf(f, "  %-32s %12s %12s %8s\n", "", "then", "now", "ratio");
    for (int i = 0; i < now.n; i++) {
        const struct figure *a = figures_find(&r->earlier->figures, now.list[i].name), *b = &now.list[i];
        if (!a) {
            missing++;
            continue;
        }
        double unit = strcmp(b->unit, "bytes/s") == 0 ? 1e9 : 1;
        fprintf(f, "  %-32s %12.4g %12.4g %8.3f  %s%s\n", b->name, a->median / unit, b->median / unit,
            a->median > 0 ? b->median / a->median : 0, unit > 1 ? "GB/s" : b->unit, marks[figures_verdict(a, b)]);
    }
    fputs("Medians; better or WORSE where the spreads, from min to max, of both do not touch. "
          "What is measured once has no mark.\n", f);
    if (missing > 0)
        fprintf(f, "%d figure%s of this run %s not in the earlier one.\n", missing, missing == 1 ? "" : "s",
            missing == 1 ? "is" : "are");
}

void report_text(FILE *f, const struct report *r)
{
    const struct measure_options *o = r->options;
    const struct measurements *m = r->measurements;
    char what[64];
    fprintf(f, "model    %s%s%s%s, %.1f M parameters, %.1f MB of weights, loaded in %.2f s\n",
        r->synthetic ? "random weights in the shape of " : r->model_name, r->synthetic || !r->model_name[0] ? "" : " (",
        r->source, r->synthetic || !r->model_name[0] ? "" : ")", (double)r->n_params * 1e-6, (double)r->tensor_bytes * 1e-6,
        r->load_seconds);
    fprintf(f, "machine  %s, %d thread%s, %s kernels\n\n", r->cpu, r->n_threads, r->n_threads == 1 ? "" : "s", r->kernel_level);
    fprintf(f, "  %-24s %10s %10s %10s   (%d repetition%s)\n", "", "median", "min", "max", o->n_repetitions,
        o->n_repetitions == 1 ? "" : "s");
    if (o->n_prompt > 0) {
        snprintf(what, sizeof what, "prefill %d", o->n_prompt);
        row(f, what, &m->prefill, 1, "tokens/s");
    }
    if (o->n_decode > 0) {
        if (o->depth > 0)
            snprintf(what, sizeof what, "decode %d at %d", o->n_decode, o->depth);
        else
            snprintf(what, sizeof what, "decode %d", o->n_decode);
        row(f, what, &m->decode, 1, "tokens/s");
    }
    row(f, "memory read", &m->read, 1e9, "GB/s");
    if (o->n_decode > 0) {
        double limit = measure_limit(m), share = 100 * series_median(&m->decode) / limit;
        const char *more = share <= 100                  ? ""
                           : m->weight_bytes < 100000000 ? " (More than all: weights this small stay in the processor's caches.)"
                                                         : " (More than all: the memory has become faster since it was "
                                                           "measured. Measure again.)";
        fprintf(f,
            "\nA decode step reads %.1f MB (weights %.1f, keys and values %.1f): at the memory's speed at most %.1f tokens/s.\n"
            "Decode reaches %.1f%% of that.%s\n",
            (double)(m->weight_bytes + m->kv_bytes) * 1e-6, (double)m->weight_bytes * 1e-6, (double)m->kv_bytes * 1e-6, limit,
            share, more);
    }
    if (o->profile && o->n_prompt > 0) {
        snprintf(what, sizeof what, "in prefill %d", o->n_prompt);
        text_parts(f, what, &m->prefill_times, r->n_threads, o->n_prompt);
    }
    if (o->profile && o->n_decode > 0) {
        snprintf(what, sizeof what, "in decode %d at %d", o->n_decode, o->depth);
        text_parts(f, what, &m->decode_times, r->n_threads, o->n_decode);
    }
    if (o->sweep)
        text_sweep(f, &m->sweep);
    if (r->earlier)
        text_comparison(f, r);
}

/* ---- for machines ---- */

static void member_text(struct json_writer *w, const char *key, const char *text)
{
    json_key(w, key);
    json_text(w, text);
}

static void member_int(struct json_writer *w, const char *key, uint64_t n)
{
    json_key(w, key);
    json_int(w, (int64_t)n);
}

static void member_double(struct json_writer *w, const char *key, double d)
{
    json_key(w, key);
    json_double(w, d);
}

static void members_series(struct json_writer *w, const struct series *s)
{
    member_double(w, "median", series_median(s));
    member_double(w, "min", series_min(s));
    member_double(w, "max", series_max(s));
    json_key(w, "values");
    json_begin_array(w);
    for (int i = 0; i < s->n; i++)
        json_double(w, s->values[i]);
    json_end_array(w);
}

static void json_curve(struct json_writer *w, const char *key, const char *at, const struct curve *c)
{
    json_key(w, key);
    json_begin_array(w);
    for (int i = 0; i < c->n; i++) {
        json_begin_object(w);
        member_int(w, at, (uint64_t)c->points[i].at);
        member_text(w, "unit", "tokens/s");
        members_series(w, &c->points[i].speed);
        if (c->points[i].limit > 0)
            member_double(w, "limit", c->points[i].limit);
        json_end_object(w);
    }
    json_end_array(w);
}

static void json_sweep(struct json_writer *w, const struct sweep *s)
{
    json_begin_object(w);
    member_int(w, "context", (uint64_t)s->n_ctx);
    json_key(w, "short_of_memory");
    json_bool(w, s->short_of_memory);
    member_int(w, "steps", (uint64_t)s->n_steps);
    json_curve(w, "prefill", "tokens", &s->prefill);
    json_curve(w, "decode", "depth", &s->decode);
    json_curve(w, "batch", "sequences", &s->batch);
    json_end_object(w);
}

static void json_times(struct json_writer *w, const char *key, const struct forward_times *t, int n_threads, int n_tokens)
{
    struct part parts[PARTS_MOST];
    json_key(w, key);
    if (n_tokens == 0) {
        json_null(w);
        return;
    }
    json_begin_object(w);
    member_int(w, "tokens", (uint64_t)n_tokens);
    member_double(w, "seconds", t->elapsed);
    json_key(w, "parts");
    json_begin_array(w);
    int n = report_parts(t, n_threads, parts);
    for (int i = 0; i < n; i++) {
        json_begin_object(w);
        member_text(w, "part", parts[i].name);
        member_double(w, "seconds", parts[i].seconds);
        member_double(w, "share", parts[i].seconds / t->elapsed);
        member_double(w, "ms_per_token", 1e3 * parts[i].seconds / n_tokens);
        member_double(w, "bytes", parts[i].bytes);
        member_double(w, "multiply_adds", parts[i].multiply_adds);
        json_end_object(w);
    }
    json_end_array(w);
    json_end_object(w);
}

static void json_spread(struct json_writer *w, const char *key, const struct figure *f)
{
    json_key(w, key);
    json_begin_object(w);
    member_double(w, "median", f->median);
    member_double(w, "min", f->min);
    member_double(w, "max", f->max);
    json_end_object(w);
}

static void json_comparison(struct json_writer *w, const struct report *r)
{
    static const char *const verdicts[] = {
        [VERDICT_SAME] = "same", [VERDICT_BETTER] = "better", [VERDICT_WORSE] = "worse", [VERDICT_UNKNOWN] = NULL};
    struct figures now;
    char differences[DIFFERENCES_MOST][DIFFERENCE_SIZE];
    report_figures(r, &now);
    json_begin_object(w);
    member_text(w, "file", r->earlier->file);
    json_key(w, "differences");
    json_begin_array(w);
    int n = report_differences(r, differences);
    for (int i = 0; i < n; i++)
        json_text(w, differences[i]);
    json_end_array(w);
    json_key(w, "figures");
    json_begin_array(w);
    for (int i = 0; i < now.n; i++) {
        const struct figure *a = figures_find(&r->earlier->figures, now.list[i].name), *b = &now.list[i];
        if (!a)
            continue;
        json_begin_object(w);
        member_text(w, "figure", b->name);
        member_text(w, "unit", b->unit);
        json_spread(w, "then", a);
        json_spread(w, "now", b);
        member_double(w, "ratio", b->median / a->median);
        json_key(w, "verdict");
        json_text(w, verdicts[figures_verdict(a, b)]);
        json_end_object(w);
    }
    json_end_array(w);
    json_end_object(w);
}

bool report_json(FILE *f, const struct report *r)
{
    const struct measure_options *o = r->options;
    const struct measurements *m = r->measurements;
    struct json_writer writer = {0}, *w = &writer;
    json_begin_object(w);
    member_text(w, "version", QUERN_VERSION);
    json_key(w, "model");
    json_begin_object(w);
    member_text(w, "name", r->model_name);
    member_text(w, "source", r->source);
    json_key(w, "synthetic");
    json_bool(w, r->synthetic);
    member_int(w, "n_params", r->n_params);
    member_int(w, "tensor_bytes", r->tensor_bytes);
    member_double(w, "load_seconds", r->load_seconds);
    json_end_object(w);
    json_key(w, "machine");
    json_begin_object(w);
    member_text(w, "cpu", r->cpu);
    member_text(w, "kernel_level", r->kernel_level);
    member_int(w, "threads", (uint64_t)r->n_threads);
    json_end_object(w);
    member_int(w, "repetitions", (uint64_t)o->n_repetitions);
    member_int(w, "batch_size", (uint64_t)o->n_batch);
    json_key(w, "read");
    json_begin_object(w);
    member_text(w, "unit", "bytes/s");
    member_int(w, "buffer_bytes", m->buffer_bytes);
    members_series(w, &m->read);
    json_end_object(w);
    json_key(w, "prefill");
    if (o->n_prompt > 0) {
        json_begin_object(w);
        member_text(w, "unit", "tokens/s");
        member_int(w, "tokens", (uint64_t)o->n_prompt);
        members_series(w, &m->prefill);
        json_end_object(w);
    } else {
        json_null(w);
    }
    json_key(w, "decode");
    if (o->n_decode > 0) {
        json_begin_object(w);
        member_text(w, "unit", "tokens/s");
        member_int(w, "tokens", (uint64_t)o->n_decode);
        member_int(w, "depth", (uint64_t)o->depth);
        members_series(w, &m->decode);
        member_int(w, "weight_bytes_per_token", m->weight_bytes);
        member_int(w, "kv_bytes_per_token", m->kv_bytes);
        member_double(w, "limit", measure_limit(m));
        member_double(w, "percent_of_limit", 100 * series_median(&m->decode) / measure_limit(m));
        json_end_object(w);
    } else {
        json_null(w);
    }
    json_key(w, "sweep");
    if (o->sweep)
        json_sweep(w, &m->sweep);
    else
        json_null(w);
    json_key(w, "profile");
    if (o->profile) {
        json_begin_object(w);
        json_times(w, "prefill", &m->prefill_times, r->n_threads, o->n_prompt);
        json_times(w, "decode", &m->decode_times, r->n_threads, o->n_decode);
        json_end_object(w);
    } else {
        json_null(w);
    }
    json_key(w, "compare");
    if (r->earlier)
        json_comparison(w, r);
    else
        json_null(w);
    json_end_object(w);
    json_raw(w, "\n", 1);
    bool good = !w->failed;
    if (good)
        fwrite(w->data, 1, w->length, f);
    json_writer_free(w);
    return good;
}
