/* GET /metrics and GET / of a real quern-server: what the numbers say after known requests,
 * how the page is served, and the limits of a request.
 * QUERN_SERVER names the program; run in the project's root. */
#include "tests/server_fixture.h"

#include <check.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHAT "/v1/chat/completions"
#define SAY_OK "{\"messages\":[{\"role\":\"user\",\"content\":\"Say OK\"}],\"max_tokens\":5,\"temperature\":0}"
#define STORY "{\"messages\":[{\"role\":\"user\",\"content\":\"Tell me a story about a cat and a ball.\"}],\"temperature\":0"
#define FIRST_TEXT "\"delta\":{\"content\":\"O" /* of a streamed story: it has begun */
#define SLOW_ENV (const char *const[]){"QUERN_CPU=scalar", NULL}

/* The page of metrics; free it. */
static char *scrape(int port)
{
    struct response r = ask(port, "GET", "/metrics", "", NULL);
    ck_assert_int_eq(r.status, 200);
    ck_assert_str_eq(response_header(&r, "Content-Type"), "text/plain; version=0.0.4; charset=utf-8");
    char *page = strdup(r.body);
    response_free(&r);
    return page;
}

/* Of the line that begins with the name (and its labels) and a space; -1 if there is none. */
static double find(const char *page, const char *name)
{
    size_t n = strlen(name);
    for (const char *line = page; line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL)
        if (strncmp(line, name, n) == 0 && line[n] == ' ')
            return strtod(line + n + 1, NULL);
    return -1;
}

static double value(const char *page, const char *name)
{
    double v = find(page, name);
    ck_assert_msg(v >= 0, "no %s in\n%s", name, page);
    return v;
}

static double scraped(int port, const char *name)
{
    char *page = scrape(port);
    double v = value(page, name);
    free(page);
    return v;
}

static void wait_for(int port, const char *name, double wanted)
{
    double end = seconds() + 60, v;
    while ((v = scraped(port, name)) != wanted) {
        ck_assert_msg(seconds() < end, "%s stays at %g, not %g", name, v, wanted);
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}

static int status_of(int port, const char *method, const char *path, const char *headers, const char *body)
{
    struct response r = ask(port, method, path, headers, body);
    int status = r.status;
    response_free(&r);
    return status;
}

static struct client stream_story(int port)
{
    static const char body[] = STORY ",\"stream\":true}";
    char head[256];
    snprintf(head, sizeof head,
        "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        strlen(body));
    struct client c = client_open(port);
    client_text(&c, head);
    client_text(&c, body);
    return c;
}

START_TEST(off_unless_asked_for)
{
    struct server s = server_start(NULL, NULL);
    struct response r = ask(s.port, "GET", "/metrics", "", NULL);
    ck_assert_int_eq(r.status, 404);
    ck_assert_ptr_nonnull(strstr(r.body, "--metrics"));
    response_free(&r);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(counts_what_was_done)
{
    struct server s = server_start((const char *const[]){"--metrics", "--alias", "a\"b\\c", "--draft-max", "3", NULL}, NULL);
    int64_t n_prompt = 0, n_computed = 0, n_generated = 0, n_drafted = 0, n_accepted = 0;
    double prompt_ms = 0, predicted_ms = 0;
    static const char *const bodies[] = {SAY_OK, STORY ",\"max_tokens\":60}", STORY ",\"max_tokens\":1}"};
    for (int i = 0; i < 3; i++) {
        struct response r = ask(s.port, "POST", CHAT, "", bodies[i]);
        ck_assert_int_eq(r.status, 200);
        struct json *j = response_json(&r);
        int64_t prompt, cached, generated;
        double ms;
        ck_assert(json_get_int(json_at(json_root(j), "usage.prompt_tokens"), &prompt));
        ck_assert(json_get_int(json_at(json_root(j), "usage.prompt_tokens_details.cached_tokens"), &cached));
        ck_assert(json_get_int(json_at(json_root(j), "usage.completion_tokens"), &generated));
        n_prompt += prompt;
        n_computed += prompt - cached;
        n_generated += generated;
        int64_t drafted, accepted;
        if (json_get_int(json_at(json_root(j), "timings.draft_n"), &drafted)) { /* not there: none */
            ck_assert(json_get_int(json_at(json_root(j), "timings.draft_n_accepted"), &accepted));
            n_drafted += drafted;
            n_accepted += accepted;
        }
        ck_assert(json_get_double(json_at(json_root(j), "timings.prompt_ms"), &ms));
        prompt_ms += ms;
        ck_assert(json_get_double(json_at(json_root(j), "timings.predicted_ms"), &ms));
        predicted_ms += ms;
        json_free(j);
        response_free(&r);
    }
    wait_for(s.port, "quern:requests_processing", 0);
    wait_for(s.port, "quern:kv_cache_usage_ratio", 0);
    char *page = scrape(s.port);
    ck_assert_double_eq(value(page, "quern:prompt_tokens_total"), (double)n_computed);
    ck_assert_double_eq(value(page, "quern:prefix_cache_queries_total"), (double)n_prompt);
    ck_assert_double_eq(value(page, "quern:prefix_cache_hits_total"), (double)(n_prompt - n_computed));
    ck_assert_int_gt(n_prompt - n_computed, 20); /* a story was asked for twice */
    ck_assert_double_eq(value(page, "quern:spec_decode_num_draft_tokens_total"), (double)n_drafted);
    ck_assert_double_eq(value(page, "quern:spec_decode_num_accepted_tokens_total"), (double)n_accepted);
    ck_assert_int_gt(n_drafted, 0);
    ck_assert_double_eq(value(page, "quern:tokens_predicted_total"), (double)n_generated);
    ck_assert_double_eq_tol(value(page, "quern:prompt_seconds_total"), prompt_ms / 1000, 1e-9);
    ck_assert_double_eq_tol(value(page, "quern:tokens_predicted_seconds_total"), predicted_ms / 1000, 1e-9);
    ck_assert_double_eq_tol(value(page, "quern:prompt_tokens_seconds") * prompt_ms / 1000, (double)n_computed, 1e-6);
    ck_assert_double_eq_tol(value(page, "quern:predicted_tokens_seconds") * predicted_ms / 1000, (double)n_generated, 1e-6);
    /* One batch for each prompt and one for each token after the first that no guess brought; "OK" is followed by the token
     * that ends the turn. */
    ck_assert_double_eq(value(page, "quern:n_decode_total"), 2 + 60 + 1 - (double)n_accepted);
    ck_assert_double_eq(value(page, "quern:n_busy_slots_per_decode"), 1);
    ck_assert_double_eq(value(page, "quern:kv_cache_tokens"), 0);
    ck_assert_double_eq(value(page, "quern:requests_deferred"), 0);
    ck_assert_double_eq(value(page, "quern:prompt_tokens_count"), 3);
    ck_assert_double_eq(value(page, "quern:prompt_tokens_sum"), (double)n_prompt);
    ck_assert_double_eq(value(page, "quern:output_tokens_count"), 3);
    ck_assert_double_eq(value(page, "quern:output_tokens_sum"), (double)n_generated);
    ck_assert_double_eq(value(page, "quern:output_tokens_bucket{le=\"8\"}"), 2);
    ck_assert_double_eq(value(page, "quern:output_tokens_bucket{le=\"16\"}"), 2);
    ck_assert_double_eq(value(page, "quern:output_tokens_bucket{le=\"32\"}"), 2);
    ck_assert_double_eq(value(page, "quern:output_tokens_bucket{le=\"64\"}"), 3);
    ck_assert_double_eq(value(page, "quern:output_tokens_bucket{le=\"+Inf\"}"), 3);
    ck_assert_double_eq(value(page, "quern:time_to_first_token_seconds_count"), 3);
    ck_assert_double_eq_tol(value(page, "quern:time_to_first_token_seconds_sum"),
                            prompt_ms / 1000 + value(page, "quern:queue_wait_seconds_sum"), 1e-9);
    /* One answer had a single token and nothing after it. */
    ck_assert_double_eq(value(page, "quern:time_per_output_token_seconds_count"), 2);
    ck_assert_double_eq(value(page, "quern:queue_wait_seconds_count"), 3);
    ck_assert_ptr_nonnull(strstr(page, "quern:build_info{version=\""));
    ck_assert_ptr_nonnull(strstr(page, ",model=\"a\\\"b\\\\c\"} 1\n"));
    ck_assert_double_gt(value(page, "process_resident_memory_bytes"), 1e6);
    ck_assert_double_gt(value(page, "process_cpu_seconds_total"), 0);
    ck_assert_double_eq_tol(value(page, "process_start_time_seconds"), (double)time(NULL), 600);
    free(page);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(counts_requests)
{
    struct server s = server_start((const char *const[]){"--metrics", NULL}, NULL);
    char path[64];
    for (int i = 0; i < 700; i++) { /* more names than there is room for series */
        snprintf(path, sizeof path, i % 2 ? "/nothing-%d" : "/v1/models/no-%d", i);
        ck_assert_int_eq(status_of(s.port, "GET", path, "", NULL), 404);
    }
    ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", "", NULL), 200);
    ck_assert_int_eq(status_of(s.port, "GET", "/v1/models?limit=1", "", NULL), 200);
    ck_assert_int_eq(status_of(s.port, "GET", CHAT, "", NULL), 405);
    ck_assert_int_eq(status_of(s.port, "POST", CHAT, "", "{}"), 400);
    struct client c = client_open(s.port);
    struct response r;
    client_text(&c, "nonsense\r\n\r\n");
    ck_assert(client_read(&c, &r, false));
    response_free(&r);
    client_close(&c);
    wait_for(s.port, "quern:http_requests_total{route=\"other\",status=\"400\"}", 1);
    char *page = scrape(s.port);
    ck_assert_double_eq(value(page, "quern:http_requests_total{route=\"other\",status=\"404\"}"), 350);
    ck_assert_double_eq(value(page, "quern:http_requests_total{route=\"/v1/models/{id}\",status=\"404\"}"), 350);
    ck_assert_double_eq(value(page, "quern:http_requests_total{route=\"/v1/models\",status=\"200\"}"), 2);
    ck_assert_double_eq(value(page, "quern:http_requests_total{route=\"" CHAT "\",status=\"405\"}"), 1);
    ck_assert_double_eq(value(page, "quern:http_requests_total{route=\"" CHAT "\",status=\"400\"}"), 1);
    ck_assert_ptr_null(strstr(page, "nothing-"));
    free(page);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(shows_what_is_going_on)
{
    struct server s =
        server_start((const char *const[]){"--metrics", "-t", "1", "-np", "1", NULL}, &(struct start){.env = SLOW_ENV});
    struct client running = stream_story(s.port);
    client_wait(&running, FIRST_TEXT);
    struct client waiting = stream_story(s.port);
    wait_for(s.port, "quern:requests_deferred", 1);
    for (double end = seconds() + 60; scraped(s.port, "quern:kv_cache_tokens") < 40;)
        ck_assert(seconds() < end);
    char *page = scrape(s.port);
    ck_assert_double_eq(value(page, "quern:requests_processing"), 1);
    ck_assert_double_gt(value(page, "quern:kv_cache_usage_ratio"), 0);
    ck_assert_double_lt(value(page, "quern:kv_cache_usage_ratio"), 1);
    ck_assert_double_eq(value(page, "quern:num_preemptions_total"), 0);
    ck_assert_double_gt(value(page, "quern:kv_cache_tokens"), 20);
    ck_assert_double_eq(value(page, "quern:queue_wait_seconds_count"), 0); /* told at the end */
    free(page);
    client_close(&waiting);
    wait_for(s.port, "quern:requests_deferred", 0);
    client_close(&running);
    wait_for(s.port, "quern:requests_processing", 0);
    wait_for(s.port, "quern:kv_cache_tokens", 0);
    wait_for(s.port, "quern:kv_cache_usage_ratio", 0);
    wait_for(s.port, "quern:queue_wait_seconds_count", 2);
    page = scrape(s.port);
    /* The one that never started counts for nothing but its wait; the other for all it had said. */
    ck_assert_double_eq(value(page, "quern:output_tokens_count"), 1);
    ck_assert_double_gt(value(page, "quern:tokens_predicted_total"), 0);
    ck_assert_double_gt(value(page, "quern:queue_wait_seconds_sum"), 0);
    ck_assert_double_eq(value(page, "quern:http_requests_total{route=\"" CHAT "\",status=\"200\"}"), 2);
    free(page);
    /* A client that leaves before its answer has begun. */
    struct client c = client_open(s.port);
    static const char body[] = STORY "}";
    char head[256];
    snprintf(head, sizeof head,
        "POST " CHAT " HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
        strlen(body));
    client_text(&c, head);
    client_text(&c, body);
    wait_for(s.port, "quern:requests_processing", 1);
    client_close(&c);
    wait_for(s.port, "quern:requests_processing", 0);
    ck_assert_double_eq(scraped(s.port, "quern:http_requests_total{route=\"" CHAT "\",status=\"499\"}"), 1);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

/* Before the model is there, and with a key. */
START_TEST(is_there_while_loading)
{
    static const char *const env[] = {"QUERN_API_KEY=sesame", NULL};
    struct server s = server_start(
        (const char *const[]){"--metrics", NULL}, &(struct start){.hold_engine = true, .not_ready = true, .env = env});
    ck_assert_int_eq(status_of(s.port, "GET", "/metrics", "", NULL), 401);
    struct response r = ask(s.port, "GET", "/metrics", "Authorization: Bearer sesame\r\n", NULL);
    ck_assert_int_eq(r.status, 200);
    ck_assert_double_eq(value(r.body, "quern:n_decode_total"), 0);
    ck_assert_double_eq(value(r.body, "quern:http_requests_total{route=\"/metrics\",status=\"401\"}"), 1);
    ck_assert_ptr_nonnull(strstr(r.body, "quern:build_info{"));
    response_free(&r);
    r = ask(s.port, "GET", "/", "", NULL); /* the page asks for the key itself */
    ck_assert_int_eq(r.status, 200);
    response_free(&r);
    server_release(&s);
    server_wait_log(&s, "model ");
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(page)
{
    struct server s = server_start(NULL, NULL);
    struct response r = ask(s.port, "GET", "/", "", NULL);
    ck_assert_int_eq(r.status, 200);
    ck_assert_str_eq(response_header(&r, "Content-Type"), "text/html; charset=utf-8");
    ck_assert_str_eq(response_header(&r, "Cache-Control"), "no-cache");
    ck_assert_str_eq(response_header(&r, "X-Content-Type-Options"), "nosniff");
    ck_assert_str_eq(response_header(&r, "Referrer-Policy"), "no-referrer");
    ck_assert_uint_eq(strtoul(response_header(&r, "Content-Length"), NULL, 10), r.length);
    char policy[1024], etag[64], request[256], length[32];
    snprintf(policy, sizeof policy, "%s", response_header(&r, "Content-Security-Policy"));
    snprintf(etag, sizeof etag, "%s", response_header(&r, "ETag"));
    snprintf(length, sizeof length, "%zu", r.length);
    ck_assert_ptr_nonnull(strstr(policy, "default-src 'none'; script-src 'sha256-"));
    ck_assert_ptr_nonnull(strstr(policy, "connect-src 'self'"));
    ck_assert_ptr_nonnull(strstr(policy, "frame-ancestors 'none'"));
    ck_assert_ptr_null(strstr(policy, "unsafe"));
    ck_assert(strncmp(r.body, "<!doctype html>", 15) == 0 && strcmp(r.body + r.length - 8, "</html>\n") == 0);
    /* Nothing from elsewhere. (The one address in it names SVG.) */
    for (const char *p = r.body; (p = strstr(p, "//")) != NULL; p++)
        if (p > r.body && p[-1] == ':')
            ck_assert_msg(strncmp(p, "//www.w3.org/2000/svg", 21) == 0, "%.80s", p);
    ck_assert_ptr_null(strstr(r.body, "innerHTML ="));
    response_free(&r);
    r = ask(s.port, "HEAD", "/", "", NULL);
    ck_assert_int_eq(r.status, 200);
    ck_assert_str_eq(response_header(&r, "Content-Length"), length);
    response_free(&r);
    static const struct {
        const char *format;
        int status;
    } known[] = {{"If-None-Match: %s\r\n", 304}, {"If-None-Match: \"x\", W/%s\r\n", 304}, {"If-None-Match: *\r\n", 304},
                 {"If-None-Match: \"other\"\r\n", 200}, {"If-None-Match: x%s\r\n", 200}, {"If-None-Match:\r\n", 200}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        struct client c = client_open(s.port); /* twice on one connection: a 304 ends where it should */
        char *at = request;
        at += snprintf(at, 64, "GET / HTTP/1.1\r\nHost: localhost\r\n");
        const char *percent = strstr(known[i].format, "%s");
        at += snprintf(at, 128, "%.*s%s%s\r\n", percent ? (int)(percent - known[i].format) : (int)strlen(known[i].format),
            known[i].format, percent ? etag : "", percent ? percent + 2 : "");
        for (int turn = 0; turn < 2; turn++) {
            client_text(&c, request);
            ck_assert(client_read(&c, &r, known[i].status == 304));
            ck_assert_msg(r.status == known[i].status, "%s -> %d", request, r.status);
            ck_assert_str_eq(response_header(&r, "ETag"), etag);
            response_free(&r);
        }
        client_close(&c);
    }
    ck_assert_int_eq(status_of(s.port, "POST", "/", "", "{}"), 405);
    struct client c = client_open(s.port);
    client_text(&c, "GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n");
    ck_assert(client_read(&c, &r, false));
    ck_assert_int_eq(r.status, 403);
    response_free(&r);
    client_close(&c);
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
}
END_TEST

START_TEST(limits)
{
    struct server s = server_start((const char *const[]){"--max-body", "2000", "--max-head=1024", NULL}, NULL);
    char body[2600], header[1400];
    for (int size = 2000; size <= 2001; size++) {
        memset(body, ' ', sizeof body);
        memcpy(body, SAY_OK, strlen(SAY_OK));
        body[size] = '\0';
        ck_assert_int_eq(status_of(s.port, "POST", CHAT, "", body), size == 2000 ? 200 : 413);
    }
    for (int zeros = 800; zeros <= 1100; zeros += 300) {
        struct client c = client_open(s.port);
        struct response r;
        snprintf(header, sizeof header, "GET /health HTTP/1.1\r\nHost: localhost\r\nX: %0*d\r\n\r\n", zeros, 0);
        client_text(&c, header);
        ck_assert(client_read(&c, &r, false));
        ck_assert_int_eq(r.status, zeros == 800 ? 200 : 431);
        response_free(&r);
        client_close(&c);
    }
    ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    static const char *const wrong[][2] = {{"--max-body", "12"}, {"--max-body", "1e6"}, {"--max-body", "-1"},
        {"--max-head", "99999999"}, {"--max-body", "99999999999999999999"}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char out[4096];
        ck_assert_int_eq(server_run((const char *const[]){"-m", TINY, wrong[i][0], wrong[i][1], NULL}, out, sizeof out), 2);
        ck_assert_msg(strstr(out, wrong[i][0]) && strstr(out, "from"), "%s", out);
    }
}
END_TEST

/* Neither in the log nor in what other users of the machine can read. */
START_TEST(keeps_the_key_secret)
{
    for (int joined = 0; joined < 2; joined++) {
        const char *const apart[] = {"--api-key", "open-sesame", NULL}, *const together[] = {"--api-key=open-sesame", NULL};
        struct server s = server_start(joined ? together : apart, NULL);
        ck_assert_int_eq(status_of(s.port, "GET", "/v1/models", "Authorization: Bearer open-sesame\r\n", NULL), 200);
        ck_assert_int_eq(
            status_of(s.port, "GET", "/v1/models?key=open-sesame", "Authorization: Bearer wrong-sesame\r\n", NULL), 401);
        ck_assert_int_eq(
            status_of(s.port, "GET", "/health", "Authorization: Bearer open-sesame\r\nAuthorization: x\r\n", NULL), 200);
        char path[64], arguments[4096];
        snprintf(path, sizeof path, "/proc/%d/cmdline", (int)s.pid);
        FILE *f = fopen(path, "r");
        ck_assert_ptr_nonnull(f);
        size_t n = fread(arguments, 1, sizeof arguments, f);
        fclose(f);
        ck_assert_ptr_nonnull(memmem(arguments, n, "--api-key", 9));
        ck_assert_ptr_null(memmem(arguments, n, "sesame", 6));
        server_wait_log(&s, "/v1/models 401");
        char *log = server_log(&s);
        ck_assert_ptr_null(strstr(log, "sesame"));
        free(log);
        ck_assert_int_eq(server_end(&s, SIGTERM), 0);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("metrics and page");
    TCase *t = tcase_create("metrics");
    tcase_set_timeout(t, 120);
    tcase_add_test(t, off_unless_asked_for);
    tcase_add_test(t, counts_what_was_done);
    tcase_add_test(t, counts_requests);
    tcase_add_test(t, shows_what_is_going_on);
    tcase_add_test(t, is_there_while_loading);
    tcase_add_test(t, page);
    tcase_add_test(t, limits);
    tcase_add_test(t, keeps_the_key_secret);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
