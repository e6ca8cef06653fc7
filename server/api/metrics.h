/* GET /metrics: what the server has done and is doing, in Prometheus' text format.
 * Source of the format: "Exposition formats", text-based, version 0.0.4 (Prometheus' documentation).
 *
 * Names that llama-server has too mean the same here, with the prefix quern: in place of llamacpp: :
 *
 *   prompt_tokens_total, prompt_seconds_total       counters  of prompts that were computed to their end;
 *                                                             cached tokens are not counted
 *   tokens_predicted_total,
 *   tokens_predicted_seconds_total                  counters  of generations that have ended, cancelled ones too;
 *                                                             from first token to last
 *   n_decode_total                                  counter   batches
 *   n_busy_slots_per_decode                         gauge     sequences in a batch, on average since the start
 *   prompt_tokens_seconds, predicted_tokens_seconds gauges    tokens per second, on average since the start
 *                                                             (reading changes nothing)
 *   kv_cache_usage_ratio, kv_cache_tokens           gauges    room set aside for running sequences; tokens whose
 *                                                             keys and values are held
 *   requests_processing, requests_deferred          gauges    generations that are computed, that wait
 *
 * with vLLM's:
 *
 *   prefix_cache_queries_total,
 *   prefix_cache_hits_total                         counters  tokens of those prompts; of them, those found in the cache
 *   num_preemptions_total                           counter   times a generation had to pause because the KV cache was full
 *   spec_decode_num_draft_tokens_total,
 *   spec_decode_num_accepted_tokens_total           counters  tokens that were guessed; of them, those that came true
 *
 * and quern's own: histograms time_to_first_token_seconds, time_per_output_token_seconds, queue_wait_seconds, prompt_tokens,
 * output_tokens, each filled when a generation ends; http_requests_total{route,status}, where a route is one of the API's or
 * "other", and status 499 is a client that left before its answer began; build_info{version,kernel_level,model}. Under their
 * usual names: process_resident_memory_bytes, process_start_time_seconds, process_cpu_seconds_total.
 *
 * Network thread only. What the engine thread knows comes with its events, and from engine_get_stats. */
#ifndef QUERN_METRICS_H
#define QUERN_METRICS_H

#include "engine/engine.h"
#include "server/json/json.h"

extern const char metrics_content_type[];

enum { METRICS_MAX_BUCKETS = 16, METRICS_MAX_SERIES = 512 };

struct metrics_histogram {
    const double *bounds;                      /* [n_bounds] upper ends, rising; the last bucket has none */
    int n_bounds;
    uint64_t counts[METRICS_MAX_BUCKETS];      /* [n_bounds + 1], each of its own bucket only */
    double sum;
};

struct metrics {
    const char *kernel_level, *model;
    double start_time;                         /* of the process: seconds since 1970 */
    uint64_t n_asked_tokens, n_cached_tokens; /* of prompts: all; found in the cache */
    uint64_t n_draft_tokens, n_accepted_tokens;
    uint64_t n_prompt_tokens, n_predicted_tokens;
    double prompt_seconds, predicted_seconds;
    struct metrics_histogram first_token, per_token, queue_wait, prompt_length, output_length;
    struct metrics_requests {
        const char *route;
        int status;
        uint64_t count;
    } requests[METRICS_MAX_SERIES];            /* [n_requests], in the order they first came */
    int n_requests;
};

/* The strings are kept. */
void metrics_init(struct metrics *m, const char *kernel_level, const char *model);

/* A response has ended. route: a static string, one of few. status 0: there was no answer any more. */
void metrics_count_request(struct metrics *m, const char *route, int status);
/* Every event of every generation. */
void metrics_take_event(struct metrics *m, const struct engine_event *e);

/* The whole page, as text. stats: NULL while the model loads. */
void metrics_write(const struct metrics *m, const struct engine_stats *stats, struct json_writer *w);

#endif
