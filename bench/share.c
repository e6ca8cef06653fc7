/* What the reports share: the processor's name, the list of figures, the parts of the work, and how two runs differ. */
#include "bench/report.h"

#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>

void report_cpu_name(char *name, size_t size)
{
    /* x86 has "model name"; Arm usually has numbers only. */
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[512], implementer[32] = "", part[32] = "";
    name[0] = 0;
    while (f && !name[0] && fgets(line, sizeof line, f)) {
        line[strcspn(line, "\n")] = 0;
        char *value = strchr(line, ':');
        if (!value)
            continue;
        *value++ = 0;
        value += strspn(value, " ");
        if (!strncmp(line, "model name", 10))
            snprintf(name, size, "%s", value);
        else if (!strncmp(line, "CPU implementer", 15))
            snprintf(implementer, sizeof implementer, "%.31s", value);
        else if (!strncmp(line, "CPU part", 8))
            snprintf(part, sizeof part, "%.31s", value);
    }
    if (f)
        fclose(f);
    struct utsname system;
    if (name[0] || uname(&system) != 0)
        return;
    if (part[0])
        snprintf(name, size, "%.32s (implementer %s, part %s)", system.machine, implementer, part);
    else
        snprintf(name, size, "%.64s", system.machine);
}

/* ---- the profile ---- */

static void name_part(int part, char *name, size_t size)
{
    static const char *const names[FORWARD_MATMUL] = {
        [FORWARD_EMBED] = "embedding", [FORWARD_NORM] = "norm, quantise", [FORWARD_ROPE] = "rope, cache",
        [FORWARD_ATTENTION] = "attention", [FORWARD_SWIGLU] = "swiglu, quantise", [FORWARD_HEAD] = "head",
    };
    if (part < FORWARD_MATMUL)
        snprintf(name, size, "%s", names[part]);
    else
        snprintf(name, size, "matmul %s", gguf_type_traits((uint32_t)(part - FORWARD_MATMUL))->name);
}

static int longest_first(const void *a, const void *b)
{
    double x = ((const struct part *)a)->seconds, y = ((const struct part *)b)->seconds;
    return (x < y) - (x > y);
}

int report_parts(const struct forward_times *t, int n_threads, struct part parts[PARTS_MOST])
{
    int n = 0;
    double waiting = t->elapsed;
    for (int i = 0; i < FORWARD_PARTS; i++) {
        const struct forward_part_time *p = &t->parts[i];
        if (p->seconds <= 0)
            continue;
        parts[n] = (struct part){.seconds = p->seconds / n_threads, .bytes = p->bytes, .multiply_adds = p->multiply_adds};
        name_part(i, parts[n].name, sizeof parts[n].name);
        waiting -= parts[n++].seconds;
    }
    qsort(parts, (size_t)n, sizeof *parts, longest_first);
    parts[n++] = (struct part){.name = "waiting", .seconds = waiting > 0 ? waiting : 0};
    return n;
}

/* ---- figures ---- */

static void add_series(struct figures *f, const char *name, const char *unit, const struct series *s)
{
    if (s->n > 0)
        figures_add(f, name, unit, series_median(s), series_min(s), series_max(s), false, false);
}

static void add_curve(struct figures *f, const char *what, const struct curve *c)
{
    for (int i = 0; i < c->n; i++) {
        char name[64];
        snprintf(name, sizeof name, "%s %d", what, c->points[i].at);
        add_series(f, name, "tokens/s", &c->points[i].speed);
    }
}

static void add_parts(struct figures *f, const char *of, const struct forward_times *t, int n_threads, int n_tokens)
{
    struct part parts[PARTS_MOST];
    int n = t->elapsed > 0 ? report_parts(t, n_threads, parts) : 0;
    for (int i = 0; i < n; i++) {
        char name[64];
        double ms = 1e3 * parts[i].seconds / n_tokens;
        snprintf(name, sizeof name, "%s: %.31s", of, parts[i].name);
        figures_add(f, name, "ms/token", ms, ms, ms, true, true);
    }
}

void report_figures(const struct report *r, struct figures *out)
{
    const struct measure_options *o = r->options;
    const struct measurements *m = r->measurements;
    char name[64];
    out->n = 0;
    add_series(out, "memory read", "bytes/s", &m->read);
    snprintf(name, sizeof name, "prefill %d", o->n_prompt);
    add_series(out, name, "tokens/s", &m->prefill);
    snprintf(name, sizeof name, "decode %d at %d", o->n_decode, o->depth);
    add_series(out, name, "tokens/s", &m->decode);
    add_curve(out, "sweep prefill", &m->sweep.prefill);
    add_curve(out, "sweep decode at", &m->sweep.decode);
    add_curve(out, "sweep batch", &m->sweep.batch);
    add_parts(out, "in prefill", &m->prefill_times, r->n_threads, o->n_prompt);
    add_parts(out, "in decode", &m->decode_times, r->n_threads, o->n_decode);
}

/* ---- two runs ---- */

static void differ(const char *what, const char *then, const char *now, char out[DIFFERENCES_MOST][DIFFERENCE_SIZE], int *n)
{
    if (strcmp(then, now) != 0)
        snprintf(out[(*n)++], DIFFERENCE_SIZE, "%s: %.120s then, %.120s now", what, then[0] ? then : "not said", now);
}

static void differ_in_number(const char *what, long long then, long long now, char out[DIFFERENCES_MOST][DIFFERENCE_SIZE], int *n)
{
    if (then != now)
        snprintf(out[(*n)++], DIFFERENCE_SIZE, "%s: %lld then, %lld now", what, then, now);
}

int report_differences(const struct report *r, char out[DIFFERENCES_MOST][DIFFERENCE_SIZE])
{
    const struct earlier *e = r->earlier;
    char source[sizeof e->model], cpu[sizeof e->cpu]; /* cut as those of the earlier run are */
    int n = 0;
    snprintf(source, sizeof source, "%s", r->source);
    snprintf(cpu, sizeof cpu, "%s", r->cpu);
    differ("kernels", e->level, r->kernel_level, out, &n);
    differ("model", e->model, source, out, &n);
    differ_in_number("threads", e->threads, r->n_threads, out, &n);
    differ_in_number("batch size", e->batch_size, r->options->n_batch, out, &n);
    differ("processor", e->cpu, cpu, out, &n);
    differ("version", e->version, QUERN_VERSION, out, &n);
    return n;
}
