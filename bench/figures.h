/* Everything that was measured as one list of named figures, so that runs can be compared figure by figure;
 * also read back from what an earlier run wrote as JSON. */
#ifndef QUERN_BENCH_FIGURES_H
#define QUERN_BENCH_FIGURES_H

#include "gguf/error.h"

#include <stdbool.h>
#include <stddef.h>

enum { FIGURES_MOST = 160 };

struct figure {
    char name[64];     /* "prefill 512", "sweep decode at 2048", ...: what equal names measure is the same thing */
    const char *unit;
    double median, min, max;
    bool once;         /* measured once: min and max say nothing of its spread */
    bool less_is_better;
};

struct figures {
    int n;
    struct figure list[FIGURES_MOST];
};

/* A run that was written with --json. */
struct earlier {
    char file[256], version[32], model[128], cpu[128], level[32];
    long long threads, batch_size;
    struct figures figures;
};

void figures_add(
    struct figures *f, const char *name, const char *unit, double median, double min, double max, bool once, bool less_is_better);
const struct figure *figures_find(const struct figures *f, const char *name);

/* False with a sentence when the file cannot be read or is no result of quern-bench --json. */
bool earlier_read(struct earlier *e, const char *path, struct error *err);

enum verdict { VERDICT_SAME, VERDICT_BETTER, VERDICT_WORSE, VERDICT_UNKNOWN };
/* Better or worse where the spreads, min to max, of the two do not touch; unknown where one was measured once. */
enum verdict figures_verdict(const struct figure *before, const struct figure *now);

#endif
