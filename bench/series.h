/* One value per repetition, and what is said of them. */
#ifndef QUERN_BENCH_SERIES_H
#define QUERN_BENCH_SERIES_H

enum { SERIES_MOST = 1000 };

struct series {
    int n;
    double values[SERIES_MOST];
};

void series_add(struct series *s, double value);
double series_median(const struct series *s); /* of an even number, the mean of the two in the middle; 0 of none */
double series_min(const struct series *s);
double series_max(const struct series *s);

#endif
