#include "bench/series.h"

#include <stdlib.h>

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

void series_add(struct series *s, double value)
{
    if (s->n < SERIES_MOST)
        s->values[s->n++] = value;
}

double series_median(const struct series *s)
{
    if (s->n == 0)
        return 0;
    struct series sorted = *s;
    qsort(sorted.values, (size_t)s->n, sizeof sorted.values[0], ascending);
    return 0.5 * (sorted.values[(s->n - 1) / 2] + sorted.values[s->n / 2]);
}

double series_min(const struct series *s)
{
    double least = s->n ? s->values[0] : 0;
    for (int i = 1; i < s->n; i++)
        least = s->values[i] < least ? s->values[i] : least;
    return least;
}

double series_max(const struct series *s)
{
    double most = s->n ? s->values[0] : 0;
    for (int i = 1; i < s->n; i++)
        most = s->values[i] > most ? s->values[i] : most;
    return most;
}
