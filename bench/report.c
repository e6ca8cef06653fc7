#include "bench/report.h"
#include "tokenizer/tokenizer.h"

#include <math.h>
#include <string.h>
#include <sys/utsname.h>

/* ---- the processor ---- */

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

/* ---- for people ---- */

static void row(FILE *f, const char *what, const struct series *s, double unit, const char *unit_name)
{
    fprintf(f, "  %-24s %10.2f %10.2f %10.2f   %s\n", what, series_median(s) / unit, series_min(s) / unit, series_max(s) / unit, unit_name);
}

void report_text(FILE *f, const struct report *r)
{
    const struct measure_options *o = r->options;
    const struct measurements *m = r->measurements;
    char what[64];
    fprintf(f, "model    %s%s%s%s, %.1f M parameters, %.1f MB of weights, loaded in %.2f s\n", r->synthetic ? "random weights in the shape of " : r->model_name,
            r->synthetic || !r->model_name[0] ? "" : " (", r->source, r->synthetic || !r->model_name[0] ? "" : ")", (double)r->n_params * 1e-6,
            (double)r->tensor_bytes * 1e-6, r->load_seconds);
    fprintf(f, "machine  %s, %d thread%s, %s kernels\n\n", r->cpu, r->n_threads, r->n_threads == 1 ? "" : "s", r->kernel_level);
    fprintf(f, "  %-24s %10s %10s %10s   (%d repetition%s)\n", "", "median", "min", "max", o->n_repetitions, o->n_repetitions == 1 ? "" : "s");
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
        fprintf(f, "\nA decode step reads %.1f MB (weights %.1f, keys and values %.1f): at the memory's speed at most %.1f tokens/s.\n"
                   "Decode reaches %.1f%% of that.%s\n",
                (double)(m->weight_bytes + m->kv_bytes) * 1e-6, (double)m->weight_bytes * 1e-6, (double)m->kv_bytes * 1e-6, limit, share,
                share > 100 ? " (More than all: weights this small stay in the processor's caches.)" : "");
    }
}

/* ---- for machines ---- */

/* A JSON string: names and paths may hold anything; bytes that are no UTF-8 become U+FFFD. */
static void json_string(FILE *f, const char *s)
{
    struct tok_stream stream = {0};
    char whole[3 * (1 + 3)];
    putc('"', f);
    for (bool more = true; more;) {
        more = *s != 0;
        size_t n = more ? tok_stream_feed(&stream, s++, 1, whole) : tok_stream_end(&stream, whole);
        for (size_t i = 0; i < n; i++) {
            unsigned char c = (unsigned char)whole[i];
            if (c == '"' || c == '\\')
                fprintf(f, "\\%c", c);
            else if (c < 0x20 || c == 0x7F)
                fprintf(f, "\\u%04x", (unsigned)c);
            else
                putc(c, f);
        }
    }
    putc('"', f);
}

static void json_number(FILE *f, double x)
{
    if (isfinite(x))
        fprintf(f, "%.9g", x);
    else
        fputs("null", f); /* JSON has no infinity */
}

static void json_series(FILE *f, const struct series *s)
{
    fputs("\"median\":", f);
    json_number(f, series_median(s));
    fputs(",\"min\":", f);
    json_number(f, series_min(s));
    fputs(",\"max\":", f);
    json_number(f, series_max(s));
    fputs(",\"values\":[", f);
    for (int i = 0; i < s->n; i++) {
        if (i > 0)
            putc(',', f);
        json_number(f, s->values[i]);
    }
    putc(']', f);
}

void report_json(FILE *f, const struct report *r)
{
    const struct measure_options *o = r->options;
    const struct measurements *m = r->measurements;
    fputs("{\"version\":", f);
    json_string(f, QUERN_VERSION);
    fputs(",\"model\":{\"name\":", f);
    json_string(f, r->model_name);
    fputs(",\"source\":", f);
    json_string(f, r->source);
    fprintf(f, ",\"synthetic\":%s,\"n_params\":%llu,\"tensor_bytes\":%llu,\"load_seconds\":", r->synthetic ? "true" : "false",
            (unsigned long long)r->n_params, (unsigned long long)r->tensor_bytes);
    json_number(f, r->load_seconds);
    fputs("},\"machine\":{\"cpu\":", f);
    json_string(f, r->cpu);
    fputs(",\"kernel_level\":", f);
    json_string(f, r->kernel_level);
    fprintf(f, ",\"threads\":%d},\"repetitions\":%d,\"batch_size\":%d,\"read\":{\"unit\":\"bytes/s\",\"buffer_bytes\":%llu,", r->n_threads, o->n_repetitions,
            o->n_batch, (unsigned long long)m->buffer_bytes);
    json_series(f, &m->read);
    fputs("},\"prefill\":", f);
    if (o->n_prompt > 0) {
        fprintf(f, "{\"unit\":\"tokens/s\",\"tokens\":%d,", o->n_prompt);
        json_series(f, &m->prefill);
        putc('}', f);
    } else {
        fputs("null", f);
    }
    fputs(",\"decode\":", f);
    if (o->n_decode > 0) {
        fprintf(f, "{\"unit\":\"tokens/s\",\"tokens\":%d,\"depth\":%d,", o->n_decode, o->depth);
        json_series(f, &m->decode);
        fprintf(f, ",\"weight_bytes_per_token\":%llu,\"kv_bytes_per_token\":%llu,\"limit\":", (unsigned long long)m->weight_bytes, (unsigned long long)m->kv_bytes);
        json_number(f, measure_limit(m));
        fputs(",\"percent_of_limit\":", f);
        json_number(f, 100 * series_median(&m->decode) / measure_limit(m));
        putc('}', f);
    } else {
        fputs("null", f);
    }
    fputs("}\n", f);
}
