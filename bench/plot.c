/* The sweep as an SVG drawing: three plots side by side, tokens/s upwards; medians as a line, min to max as whiskers,
 * the memory's limit dashed, an earlier run in grey. */
#include "bench/report.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 1080, HEIGHT = 440, TOP = 96, BOTTOM = 356, PLOT_WIDTH = 292, FIRST = 68, STEP = 348 };

/* XML text: names and paths may hold anything; bytes that are no plain ASCII become "?". */
static void text_escaped(FILE *f, const char *s)
{
    for (; *s; s++)
        switch (*s) {
        case '<': fputs("&lt;", f); break;
        case '>': fputs("&gt;", f); break;
        case '&': fputs("&amp;", f); break;
        case '"': fputs("&quot;", f); break;
        default: putc(*s >= 0x20 && *s < 0x7F ? *s : '?', f);
        }
}

/* The least of 1, 2, 5 times a power of ten that is x or more. */
static double round_step(double x)
{
    double power = pow(10, floor(log10(x)));
    return x <= power ? power : x <= 2 * power ? 2 * power : x <= 5 * power ? 5 * power : 10 * power;
}

struct plot {
    FILE *f;
    const struct curve *curve;
    const struct figures *earlier; /* or NULL */
    const char *title, *axis, *figure;
    int left;
    double top_value;
};

static double x_of(const struct plot *p, int i)
{
    return p->curve->n > 1 ? p->left + 12 + (PLOT_WIDTH - 24.0) * i / (p->curve->n - 1) : p->left + PLOT_WIDTH / 2.0;
}

static double y_of(const struct plot *p, double speed)
{
    return BOTTOM - (BOTTOM - TOP) * speed / p->top_value;
}

static const struct figure *earlier_point(const struct plot *p, int i)
{
    char name[64];
    snprintf(name, sizeof name, "%s %d", p->figure, p->curve->points[i].at);
    return p->earlier ? figures_find(p->earlier, name) : NULL;
}

static void axes(const struct plot *p)
{
    FILE *f = p->f;
    fprintf(f, "<text x='%d' y='%d' class='title'>%s</text>\n", p->left, TOP - 16, p->title);
    double step = round_step(p->top_value / 5.01);
    for (double v = 0; v <= p->top_value * 1.0001; v += step) {
        fprintf(f, "<line x1='%d' y1='%.1f' x2='%d' y2='%.1f' class='grid'/>\n", p->left, y_of(p, v), p->left + PLOT_WIDTH,
            y_of(p, v));
        fprintf(f, "<text x='%d' y='%.1f' class='tick' text-anchor='end'>%g</text>\n", p->left - 6, y_of(p, v) + 4, v);
    }
    for (int i = 0; i < p->curve->n; i++)
        fprintf(f, "<text x='%.1f' y='%d' class='tick small' text-anchor='middle'>%d</text>\n", x_of(p, i), BOTTOM + 18,
            p->curve->points[i].at);
    fprintf(f, "<text x='%d' y='%d' class='tick' text-anchor='middle'>%s</text>\n", p->left + PLOT_WIDTH / 2, BOTTOM + 38,
        p->axis);
}

static void line_of_limits(const struct plot *p)
{
    fputs("<polyline class='limit' points='", p->f);
    for (int i = 0; i < p->curve->n; i++)
        fprintf(p->f, "%.1f,%.1f ", x_of(p, i), y_of(p, p->curve->points[i].limit));
    fputs("'/>\n", p->f);
}

static void line_of_earlier(const struct plot *p)
{
    fputs("<polyline class='earlier' points='", p->f);
    for (int i = 0; i < p->curve->n; i++)
        if (earlier_point(p, i))
            fprintf(p->f, "%.1f,%.1f ", x_of(p, i), y_of(p, earlier_point(p, i)->median));
    fputs("'/>\n", p->f);
}

static void line_of_medians(const struct plot *p)
{
    FILE *f = p->f;
    fputs("<polyline class='now' points='", f);
    for (int i = 0; i < p->curve->n; i++)
        fprintf(f, "%.1f,%.1f ", x_of(p, i), y_of(p, series_median(&p->curve->points[i].speed)));
    fputs("'/>\n", f);
    for (int i = 0; i < p->curve->n; i++) {
        const struct series *s = &p->curve->points[i].speed;
        double x = x_of(p, i), median = series_median(s);
        /* The line goes up: the number stands below it. */
        bool below = i + 1 < p->curve->n && series_median(&p->curve->points[i + 1].speed) > median;
        fprintf(f,
            "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' class='spread'/><circle cx='%.1f' cy='%.1f' r='3.5' class='dot'/>\n",
            x, y_of(p, series_min(s)), x, y_of(p, series_max(s)), x, y_of(p, median));
        fprintf(f, "<text x='%.1f' y='%.1f' class='value' text-anchor='middle'>%.*f</text>\n", x,
            y_of(p, median) + (below ? 18 : -9), median < 99.95 ? 1 : 0, median);
    }
}

static void plot(struct plot *p)
{
    double most = 0;
    for (int i = 0; i < p->curve->n; i++) {
        const struct point *at = &p->curve->points[i];
        const struct figure *then = earlier_point(p, i);
        most = fmax(most, fmax(series_max(&at->speed), then ? then->median : 0));
    }
    bool limited = p->curve->n > 0 && p->curve->points[0].limit > 0;
    const double measured = most;
    /* A limit far above would press everything to the ground: it may leave at the top. */
    for (int i = 0; limited && i < p->curve->n; i++)
        most = fmax(most, fmin(p->curve->points[i].limit, 2 * measured));
    p->top_value = most > 0 ? most * 1.1 : 1;
    axes(p);
    fprintf(p->f, "<svg x='0' y='%d' width='%d' height='%d' viewBox='0 %d %d %d'>\n", TOP - 12, WIDTH, BOTTOM - TOP + 24,
        TOP - 12, WIDTH, BOTTOM - TOP + 24);
    if (limited)
        line_of_limits(p);
    if (p->earlier)
        line_of_earlier(p);
    fputs("</svg>\n", p->f);
    line_of_medians(p);
}

void report_svg(FILE *f, const struct report *r)
{
    const struct sweep *s = &r->measurements->sweep;
    fprintf(f, "<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 %d %d' width='%d' height='%d'>\n", WIDTH, HEIGHT, WIDTH,
        HEIGHT);
    fputs("<style>text{font-family:sans-serif;fill:#222}.head{font-size:17px;font-weight:bold}.sub,.tick{font-size:12px;"
          "fill:#555}.small{font-size:10.5px}.title{font-size:14px;"
          "font-weight:bold}.value{font-size:11px;paint-order:stroke;stroke:#fff;stroke-width:3px}.grid{stroke:#e2e2e2}"
          ".now{fill:none;stroke:#0b62a8;stroke-width:2.2}"
          ".dot{fill:#0b62a8}.spread{stroke:#0b62a8;stroke-width:1.2}.limit{fill:none;stroke:#c8641a;stroke-width:1.6;"
          "stroke-dasharray:6 4}"
          ".earlier{fill:none;stroke:#999;stroke-width:2.2}</style>\n<rect width='100%' height='100%' fill='#fff'/>\n", f);
    fprintf(f, "<text x='%d' y='30' class='head'>quern %s: ", FIRST, QUERN_VERSION);
    text_escaped(f, r->synthetic || !r->model_name[0] ? r->source : r->model_name);
    fprintf(f, "%s, tokens/s</text>\n<text x='%d' y='52' class='sub'>", r->synthetic ? " (random weights)" : "", FIRST);
    text_escaped(f, r->cpu);
    fprintf(f, ", %d thread%s, %s kernels; median of %d, whiskers min to max; memory read %.1f GB/s</text>\n", r->n_threads,
        r->n_threads == 1 ? "" : "s", r->kernel_level, r->options->n_repetitions, 1e-9 * series_median(&r->measurements->read));
    struct plot plots[] = {
        {.curve = &s->prefill, .title = "Prefill", .axis = "tokens of the prompt", .figure = "sweep prefill"},
        {.curve = &s->decode, .title = "Decode", .axis = "depth: tokens in the context", .figure = "sweep decode at"},
        {.curve = &s->batch, .title = "Batch decode", .axis = "sequences, all together", .figure = "sweep batch"},
    };
    for (int i = 0; i < 3; i++) {
        plots[i].f = f;
        plots[i].left = FIRST + i * STEP;
        plots[i].earlier = r->earlier ? &r->earlier->figures : NULL;
        plot(&plots[i]);
    }
    const int y = HEIGHT - 16;
    fprintf(f, "<line x1='%d' y1='%d' x2='%d' y2='%d' class='now'/><text x='%d' y='%d' class='tick'>this run</text>\n", FIRST,
        y - 4, FIRST + 30, y - 4, FIRST + 36, y);
    fprintf(f, "<line x1='%d' y1='%d' x2='%d' y2='%d' class='limit'/><text x='%d' y='%d' class='tick'>as fast as memory delivers "
            "weights, keys and values</text>\n",
            FIRST + 110, y - 4, FIRST + 140, y - 4, FIRST + 146, y);
    bool any = false;
    for (int i = 0; i < 3; i++)
        for (int p = 0; p < plots[i].curve->n; p++)
            any = any || earlier_point(&plots[i], p);
    if (any) {
        fprintf(f, "<line x1='%d' y1='%d' x2='%d' y2='%d' class='earlier'/><text x='%d' y='%d' class='tick'>", FIRST + 510, y - 4,
            FIRST + 540, y - 4, FIRST + 546, y);
        text_escaped(f, r->earlier->file);
        fputs(" (", f);
        text_escaped(f, r->earlier->level);
        fputs(")</text>\n", f);
    }
    fputs("</svg>\n", f);
}
