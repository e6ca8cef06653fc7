#include "server/api/metrics.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Before the names of everything that is not the process's. */
#define PREFIX "quern:"

enum { STATUS_CLIENT_GONE = 499 };

const char metrics_content_type[] = "text/plain; version=0.0.4; charset=utf-8";

/* From a cached prompt on a fast machine to 32k tokens on a slow one. */
static const double first_token_bounds[] = {0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300};
static const double per_token_bounds[] = {
    0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.04, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5};
static const double queue_bounds[] = {0.001, 0.01, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 25, 60, 120, 300, 600};
static const double token_bounds[] = {8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768};

#define HISTOGRAM(b) (struct metrics_histogram){.bounds = b, .n_bounds = sizeof b / sizeof *b}
_Static_assert(sizeof per_token_bounds / sizeof *per_token_bounds < METRICS_MAX_BUCKETS, "a bucket more than there are bounds");

/* ---- the process ---- */

static double seconds_of(clockid_t clock)
{
    struct timespec t = {0};
    clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* proc(5): field 22 of /proc/self/stat is the start, in clock ticks since boot.
 * The name before it, in parentheses, may hold anything. */
static double process_start_time(void)
{
    char text[1024];
    FILE *f = fopen("/proc/self/stat", "re");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f)
        fclose(f);
    text[n] = '\0';
    char *p = strrchr(text, ')');
    for (int field = 2; p && field < 22; field++)
        p = strchr(p + 1, ' ');
    double ticks = p ? strtod(p, NULL) : 0;
    if (!(ticks > 0)) /* no /proc: nearly right, since this is called at the start */
        return seconds_of(CLOCK_REALTIME);
    return seconds_of(CLOCK_REALTIME) - seconds_of(CLOCK_BOOTTIME) + ticks / (double)sysconf(_SC_CLK_TCK);
}

static double resident_bytes(void)
{
    double pages = 0;
    FILE *f = fopen("/proc/self/statm", "re"); /* "size resident ...", in pages */
    if (f && fscanf(f, "%*s %lf", &pages) != 1)
        pages = 0;
    if (f)
        fclose(f);
    return pages * (double)sysconf(_SC_PAGESIZE);
}

/* ---- counting ---- */

void metrics_init(struct metrics *m, const char *kernel_level, const char *model)
{
    *m = (struct metrics){
        .kernel_level = kernel_level, .model = model, .start_time = process_start_time(),
        .first_token = HISTOGRAM(first_token_bounds), .per_token = HISTOGRAM(per_token_bounds),
        .queue_wait = HISTOGRAM(queue_bounds), .prompt_length = HISTOGRAM(token_bounds), .output_length = HISTOGRAM(token_bounds),
    };
}

static void observe(struct metrics_histogram *h, double value)
{
    int i = 0;
    while (i < h->n_bounds && value > h->bounds[i])
        i++;
    h->counts[i]++;
    h->sum += value;
}

void metrics_count_request(struct metrics *m, const char *route, int status)
{
    if (status == 0)
        status = STATUS_CLIENT_GONE;
    struct metrics_requests *r = m->requests, *end = r + m->n_requests;
    while (r < end && (r->status != status || strcmp(r->route, route) != 0))
        r++;
    if (r == end) {
        if (m->n_requests == METRICS_MAX_SERIES)
            return; /* more than there are routes times statuses */
        m->n_requests++;
        *r = (struct metrics_requests){.route = route, .status = status};
    }
    r->count++;
}

void metrics_take_event(struct metrics *m, const struct engine_event *e)
{
    if (e->kind != EVENT_DONE)
        return;
    observe(&m->queue_wait, e->queue_seconds);
    /* An answer may be empty, when the model ends its turn at once; one that was cancelled before
     * its first token has no prompt worth counting. */
    bool sampled = e->n_generated > 0 || e->finish == FINISH_STOP || e->finish == FINISH_LENGTH;
    if (!sampled)
        return;
    m->n_asked_tokens += (uint64_t)e->n_prompt;
    m->n_cached_tokens += (uint64_t)e->n_cached;
    m->n_prompt_tokens += (uint64_t)(e->n_prompt - e->n_cached);
    m->prompt_seconds += e->prompt_seconds;
    m->n_draft_tokens += (uint64_t)e->n_drafted;
    m->n_accepted_tokens += (uint64_t)e->n_accepted;
    m->n_predicted_tokens += (uint64_t)e->n_generated;
    m->predicted_seconds += e->generate_seconds;
    observe(&m->first_token, e->queue_seconds + e->prompt_seconds);
    observe(&m->prompt_length, e->n_prompt);
    observe(&m->output_length, e->n_generated);
    /* The time to the token that ends the turn is in generate_seconds, the token is not in n_generated. */
    int n_gaps = e->finish == FINISH_STOP ? e->n_generated : e->n_generated - 1;
    if (n_gaps > 0)
        observe(&m->per_token, e->generate_seconds / n_gaps);
}

/* ---- writing ---- */

static void put(struct json_writer *w, const char *text)
{
    json_raw(w, text, strlen(text));
}

/* "PREFIXname{labels} value\n"; labels may be "". */
static void put_sample(struct json_writer *w, const char *prefix, const char *name, const char *labels, double value)
{
    char number[40];
    snprintf(number, sizeof number, value == floor(value) && fabs(value) < 1e15 ? " %.0f\n" : " %.15g\n", value);
    put(w, prefix);
    put(w, name);
    put(w, labels);
    put(w, number);
}

static void put_header(struct json_writer *w, const char *prefix, const char *name, const char *type, const char *help)
{
    put(w, "# HELP ");
    put(w, prefix);
    put(w, name);
    put(w, " ");
    put(w, help);
    put(w, "\n# TYPE ");
    put(w, prefix);
    put(w, name);
    put(w, " ");
    put(w, type);
    put(w, "\n");
}

static void put_one(struct json_writer *w, const char *prefix, const char *name, const char *type, const char *help, double value)
{
    put_header(w, prefix, name, type, help);
    put_sample(w, prefix, name, "", value);
}

static void put_histogram(struct json_writer *w, const char *name, const char *help, const struct metrics_histogram *h)
{
    char part[64], label[48];
    uint64_t total = 0;
    put_header(w, PREFIX, name, "histogram", help);
    snprintf(part, sizeof part, "%s_bucket", name);
    for (int i = 0; i < h->n_bounds; i++) {
        total += h->counts[i];
        snprintf(label, sizeof label, "{le=\"%g\"}", h->bounds[i]);
        put_sample(w, PREFIX, part, label, (double)total);
    }
    total += h->counts[h->n_bounds];
    put_sample(w, PREFIX, part, "{le=\"+Inf\"}", (double)total);
    snprintf(part, sizeof part, "%s_sum", name);
    put_sample(w, PREFIX, part, "", h->sum);
    snprintf(part, sizeof part, "%s_count", name);
    put_sample(w, PREFIX, part, "", (double)total);
}

/* A label's value: backslash, quote and line feed escaped. What is not UTF-8 becomes question marks,
 * since one bad byte would spoil the whole page. */
static void put_label_value(struct json_writer *w, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (*p == '\n')
            put(w, "\\n");
        else if (*p == '\\' || *p == '"')
            json_raw(w, (char[]){'\\', *p}, 2);
        else
            json_raw(w, (unsigned char)*p < 0x80 ? p : "?", 1);
    }
}

static void put_build_info(struct json_writer *w, const struct metrics *m)
{
    put_header(w, PREFIX, "build_info", "gauge", "Always 1; what is running is in the labels.");
    put(w, PREFIX "build_info{version=\"" QUERN_VERSION "\",kernel_level=\"");
    put_label_value(w, m->kernel_level);
    put(w, "\",model=\"");
    put_label_value(w, m->model);
    put(w, "\"} 1\n");
}

static void put_requests(struct json_writer *w, const struct metrics *m)
{
    char labels[128];
    put_header(w, PREFIX, "http_requests_total", "counter", "Requests that have been answered, by route and status.");
    for (int i = 0; i < m->n_requests; i++) {
        const struct metrics_requests *r = &m->requests[i];
        snprintf(labels, sizeof labels, "{route=\"%s\",status=\"%d\"}", r->route, r->status);
        put_sample(w, PREFIX, "http_requests_total", labels, (double)r->count);
    }
}

static double ratio(double a, double b)
{
    return b > 0 ? a / b : 0;
}

void metrics_write(const struct metrics *m, const struct engine_stats *stats, struct json_writer *w)
{
    static const struct engine_stats none;
    const struct engine_stats *s = stats ? stats : &none;
    double n_prompt = (double)m->n_prompt_tokens, n_predicted = (double)m->n_predicted_tokens;
    put_one(w, PREFIX, "prompt_tokens_total", "counter", "Prompt tokens computed; those found in a cache do not count.",
        n_prompt);
    put_one(w, PREFIX, "prompt_seconds_total", "counter", "Time spent on prompts, added up over generations.", m->prompt_seconds);
    put_one(w, PREFIX, "tokens_predicted_total", "counter", "Tokens generated.", n_predicted);
    put_one(w, PREFIX, "tokens_predicted_seconds_total", "counter", "Time from first to last token, added up over generations.",
            m->predicted_seconds);
    put_one(w, PREFIX, "n_decode_total", "counter", "Batches computed.", (double)s->n_batches);
    put_one(w, PREFIX, "n_busy_slots_per_decode", "gauge", "Sequences in a batch, on average since the start.",
            ratio((double)s->n_batch_sequences, (double)s->n_batches));
    put_one(w, PREFIX, "prompt_tokens_seconds", "gauge", "Prompt tokens per second, on average since the start.",
        ratio(n_prompt, m->prompt_seconds));
    put_one(w, PREFIX, "predicted_tokens_seconds", "gauge", "Generated tokens per second, on average since the start.",
            ratio(n_predicted, m->predicted_seconds));
    put_one(w, PREFIX, "kv_cache_usage_ratio", "gauge",
        "Part of the KV cache that is set aside for running generations; 1 is all of it.", ratio(s->n_kv_reserved, s->n_kv));
    put_one(w, PREFIX, "kv_cache_tokens", "gauge", "Tokens of running generations whose keys and values are in the KV cache.",
        s->n_kv_filled);
    put_one(w, PREFIX, "prefix_cache_queries_total", "counter", "Prompt tokens that were looked up in the prefix cache.",
        (double)m->n_asked_tokens);
    put_one(w, PREFIX, "prefix_cache_hits_total", "counter", "Prompt tokens that the prefix cache had.",
        (double)m->n_cached_tokens);
    put_one(w, PREFIX, "num_preemptions_total", "counter", "Times a generation had to pause because the KV cache was full.",
        (double)s->n_preemptions);
    put_one(w, PREFIX, "spec_decode_num_draft_tokens_total", "counter", "Tokens of answers that were guessed ahead.",
        (double)m->n_draft_tokens);
    put_one(w, PREFIX, "spec_decode_num_accepted_tokens_total", "counter", "Guessed tokens that came true.",
        (double)m->n_accepted_tokens);
    put_one(w, PREFIX, "requests_processing", "gauge", "Generations that are being computed.", s->n_running);
    put_one(w, PREFIX, "requests_deferred", "gauge", "Generations that wait for their turn.", s->n_waiting);
    put_histogram(w, "time_to_first_token_seconds", "From a generation's submission to its first token.", &m->first_token);
    put_histogram(
        w, "time_per_output_token_seconds", "Time between two tokens of a generation, averaged over it.", &m->per_token);
    put_histogram(w, "queue_wait_seconds", "From a generation's submission to its start, or to its end if it never started.",
        &m->queue_wait);
    put_histogram(w, "prompt_tokens", "Tokens of a prompt, cached ones included.", &m->prompt_length);
    put_histogram(w, "output_tokens", "Tokens of an answer.", &m->output_length);
    put_requests(w, m);
    put_build_info(w, m);
    put_one(w, "", "process_resident_memory_bytes", "gauge", "Resident memory of the process.", resident_bytes());
    put_one(w, "", "process_start_time_seconds", "gauge", "Start of the process, since 1970.", m->start_time);
    put_one(w, "", "process_cpu_seconds_total", "counter", "User and system time of the process.",
        seconds_of(CLOCK_PROCESS_CPUTIME_ID));
}
