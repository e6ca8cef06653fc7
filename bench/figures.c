#include "bench/figures.h"
#include "server/json/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void figures_add(
    struct figures *f, const char *name, const char *unit, double median, double min, double max, bool once, bool less_is_better)
{
    if (f->n == FIGURES_MOST || figures_find(f, name))
        return;
    struct figure *g = &f->list[f->n++];
    *g = (struct figure){.unit = unit, .median = median, .min = min, .max = max, .once = once, .less_is_better = less_is_better};
    snprintf(g->name, sizeof g->name, "%.63s", name);
}

const struct figure *figures_find(const struct figures *f, const char *name)
{
    for (int i = 0; i < f->n; i++)
        if (strncmp(f->list[i].name, name, sizeof f->list[i].name - 1) == 0)
            return &f->list[i];
    return NULL;
}

enum verdict figures_verdict(const struct figure *before, const struct figure *now)
{
    if (before->once || now->once)
        return VERDICT_UNKNOWN;
    bool more = now->min > before->max, less = now->max < before->min;
    if (!more && !less)
        return VERDICT_SAME;
    return more != now->less_is_better ? VERDICT_BETTER : VERDICT_WORSE;
}

/* ---- an earlier run ---- */

static char *read_file(const char *path, size_t *length, struct error *err)
{
    enum { MOST = 64 << 20 };
    FILE *f = fopen(path, "re");
    if (!f) {
        error_set(err, "cannot open %s: %s", path, strerror(errno));
        return NULL;
    }
    char *data = NULL;
    size_t n = 0, room = 0;
    do {
        if (n == room) {
            char *more = room < MOST ? realloc(data, room = room ? 2 * room : 1 << 16) : NULL;
            if (!more) {
                error_set(err, "%s is too long to be a result of quern-bench", path);
                free(data);
                fclose(f);
                return NULL;
            }
            data = more;
        }
        n += fread(data + n, 1, room - n, f);
    } while (!feof(f) && !ferror(f));
    if (ferror(f)) {
        error_set(err, "cannot read %s: %s", path, strerror(errno));
        free(data);
        data = NULL;
    }
    fclose(f);
    *length = n;
    return data;
}

static void take_text(const struct json_value *object, const char *key, char *out, size_t size)
{
    const struct json_value *v = json_get(object, key);
    snprintf(out, size, "%s", v && v->kind == JSON_STRING ? v->text : "");
}

static long long take_int(const struct json_value *object, const char *key)
{
    int64_t n;
    const struct json_value *v = json_get(object, key);
    return v && json_get_int(v, &n) ? (long long)n : -1;
}

/* An object with median, min and max; nothing where it is null or something else. */
static void take_figure(struct figures *f, const struct json_value *v, const char *unit, const char *name)
{
    double median, min, max;
    if (json_get_double(json_get(v, "median"), &median) && json_get_double(json_get(v, "min"), &min) &&
        json_get_double(json_get(v, "max"), &max) && median > 0)
        figures_add(f, name, unit, median, min, max, false, false);
}

static void take_curve(struct figures *f, const struct json_value *curve, const char *key, const char *name_format)
{
    for (const struct json_value *p = curve && curve->kind == JSON_ARRAY ? curve->first : NULL; p; p = p->next) {
        char name[64];
        snprintf(name, sizeof name, "%s %lld", name_format, take_int(p, key));
        take_figure(f, p, "tokens/s", name);
    }
}

static void take_parts(struct figures *f, const struct json_value *times, const char *of)
{
    const struct json_value *parts = json_get(times, "parts");
    for (const struct json_value *p = parts && parts->kind == JSON_ARRAY ? parts->first : NULL; p; p = p->next) {
        char part[32], name[64];
        double ms;
        take_text(p, "part", part, sizeof part);
        snprintf(name, sizeof name, "%s: %s", of, part);
        if (json_get_double(json_get(p, "ms_per_token"), &ms))
            figures_add(f, name, "ms/token", ms, ms, ms, true, true);
    }
}

bool earlier_read(struct earlier *e, const char *path, struct error *err)
{
    size_t length;
    char *data = read_file(path, &length, err);
    if (!data)
        return false;
    struct json_error why;
    struct json *j = json_parse(data, length, NULL, &why);
    free(data);
    if (!j)
        return error_set(err, "%s is not JSON: line %zu, column %zu: %s", path, why.line, why.column, why.text);
    const struct json_value *root = json_root(j), *machine = json_get(root, "machine"), *model = json_get(root, "model");
    memset(e, 0, sizeof *e);
    snprintf(e->file, sizeof e->file, "%s", path);
    take_text(root, "version", e->version, sizeof e->version);
    take_text(model, "source", e->model, sizeof e->model);
    take_text(machine, "cpu", e->cpu, sizeof e->cpu);
    take_text(machine, "kernel_level", e->level, sizeof e->level);
    e->threads = take_int(machine, "threads");
    e->batch_size = take_int(root, "batch_size");
    char name[64];
    const struct json_value *prefill = json_get(root, "prefill"), *decode = json_get(root, "decode"),
                            *sweep = json_get(root, "sweep"), *profile = json_get(root, "profile");
    take_figure(&e->figures, json_get(root, "read"), "bytes/s", "memory read");
    snprintf(name, sizeof name, "prefill %lld", take_int(prefill, "tokens"));
    take_figure(&e->figures, prefill, "tokens/s", name);
    snprintf(name, sizeof name, "decode %lld at %lld", take_int(decode, "tokens"), take_int(decode, "depth"));
    take_figure(&e->figures, decode, "tokens/s", name);
    take_curve(&e->figures, json_get(sweep, "prefill"), "tokens", "sweep prefill");
    take_curve(&e->figures, json_get(sweep, "decode"), "depth", "sweep decode at");
    take_curve(&e->figures, json_get(sweep, "batch"), "sequences", "sweep batch");
    take_parts(&e->figures, json_get(profile, "prefill"), "in prefill");
    take_parts(&e->figures, json_get(profile, "decode"), "in decode");
    json_free(j);
    if (!e->level[0] || e->figures.n == 0)
        return error_set(
            err, "%s is no result of quern-bench --json: it has no %s", path, e->level[0] ? "figure" : "kernel level");
    return true;
}
