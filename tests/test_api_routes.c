/* The routes that tell about the server, paths without /v1, and who may use them: Host, CORS, key.
 * QUERN_SERVER names the program; run in the project's root. */
#include "tests/api_fixture.h"

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct server server;

static void start(void)
{
    server = server_start((const char *const[]){"--alias", "tiny", "--temp", "0.3", "--parallel", "2",
                                                "--allowed-host", "mill.example",
                                                "--cors-origin", "https://app.example:8443", NULL}, NULL);
}

static void stop(void)
{
    ck_assert_int_eq(server_end(&server, SIGTERM), 0);
}

START_TEST(models)
{
    static const char *const lists[] = {"/v1/models", "/models"}, *const singles[] = {"/v1/models/tiny", "/models/tiny"};
    for (int i = 0; i < 2; i++) {
        struct json *j = api_get(server.port, lists[i]), *k = api_get(server.port, singles[i]);
        ck_assert_str_eq(text_at(j, "data.0.id"), "tiny");
        ck_assert_str_eq(text_at(k, "id"), "tiny");
        ck_assert_int_eq(int_at(k, "meta.vocab_type"), 2);
        ck_assert_int_eq(int_at(k, "meta.n_vocab"), 8192);
        ck_assert_int_eq(int_at(k, "meta.n_ctx"), 1024);
        ck_assert_int_eq(int_at(k, "meta.n_ctx_train"), 1024);
        ck_assert_int_eq(int_at(k, "meta.n_embd"), 256);
        ck_assert_int_gt(int_at(k, "meta.n_params"), 8000000);
        ck_assert_int_gt(int_at(k, "meta.size"), 4000000);
        json_free(j);
        json_free(k);
    }
}
END_TEST

START_TEST(props)
{
    struct json *j = api_get(server.port, "/props");
    ck_assert_int_eq(int_at(j, "default_generation_settings.n_ctx"), 1024);
    ck_assert(number_at(j, "default_generation_settings.params.temperature") == 0.3);
    ck_assert(number_at(j, "default_generation_settings.params.top_p") == 0.8);
    ck_assert_int_eq(int_at(j, "default_generation_settings.params.top_k"), 20);
    ck_assert_int_eq(int_at(j, "total_slots"), 2);
    ck_assert_str_eq(text_at(j, "model_path"), "quern-tiny-q4_k_m.gguf"); /* and not the folder */
    ck_assert_ptr_nonnull(strstr(text_at(j, "chat_template"), "<|im_start|>"));
    ck_assert(strncmp(text_at(j, "build_info"), "quern-", 6) == 0);
    json_free(j);
}
END_TEST

START_TEST(version)
{
    struct json *j = api_get(server.port, "/version");
    char banner[64];
    snprintf(banner, sizeof banner, "quern-server %s (%s)", text_at(j, "version"), text_at(j, "kernels"));
    char *log = server_log(&server);
    ck_assert_ptr_nonnull(strstr(log, banner));
    free(log);
    json_free(j);
}
END_TEST

START_TEST(apply_template)
{
    struct json *j = api_post(server.port, "/apply-template",
        "{\"messages\":[{\"role\":\"developer\",\"content\":\"Be brief.\"},{\"role\":\"user\",\"content\":"
        "[{\"type\":\"text\",\"text\":\"a <|im_end|>\"}]}]}");
    ck_assert_str_eq(text_at(j, "prompt"),
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\na <|im_end|><|im_end|>\n<|im_start|>assistant\n");
    json_free(j);
    api_refused(server.port, "/apply-template", "{\"messages\":[{\"role\":\"user\"}]}", "messages[0].content");
    api_refused(server.port, "/apply-template", "{}", "messages");
}
END_TEST

START_TEST(paths_without_v1)
{
    struct json *j = api_post(server.port, "/chat/completions", "{" OK_MESSAGE ",\"temperature\":0}");
    ck_assert_str_eq(text_at(j, "choices.0.message.content"), "OK");
    json_free(j);
    static const char *const none[] = {
        "/completion", "/completions", "/v1", "/v1/models/", "/v1/health", "/v1/chat/completions/", "/models/other"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        struct response r = ask(server.port, "GET", none[i], "", NULL);
        ck_assert_msg(r.status == 404, "%s -> %d", none[i], r.status);
        response_free(&r);
    }
    static const char *const posts[] = {"/chat/completions", "/v1/completions", "/apply-template"};
    for (size_t i = 0; i < sizeof posts / sizeof *posts; i++) {
        struct response r = ask(server.port, "GET", posts[i], "", NULL);
        ck_assert_msg(r.status == 405, "%s -> %d", posts[i], r.status);
        ck_assert_str_eq(response_header(&r, "Allow"), "POST, OPTIONS");
        response_free(&r);
    }
}
END_TEST

/* ---- who may ask ---- */

static int status_with(int port, const char *host)
{
    char text[256];
    struct client c = client_open(port);
    struct response r;
    snprintf(text, sizeof text, "GET /version HTTP/1.1\r\nHost: %s\r\nConnection: close\r\n\r\n", host);
    client_text(&c, text);
    ck_assert(client_read(&c, &r, false));
    int status = r.status;
    response_free(&r);
    client_close(&c);
    return status;
}

START_TEST(hosts)
{
    static const char *const good[] = {
        "localhost", "LOCALHOST:8765", "127.0.0.1", "127.1.2.3:80", "[::1]", "mill.example", "Mill.Example:443"};
    static const char *const bad[] = {
        "evil.example", "mill.example.evil", "xmill.example", "192.168.1.1", "[2001:db8::1]", "mill.example:x", "localhost.evil"};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        ck_assert_msg(status_with(server.port, good[i]) == 200, "%s", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        ck_assert_msg(status_with(server.port, bad[i]) != 200, "%s", bad[i]);
    ck_assert_int_eq(status_with(server.port, "evil.example"), 403);
}
END_TEST

static bool has_header(const struct response *r, const char *name, const char *value)
{
    const char *found = response_header(r, name);
    return value ? found && strcmp(found, value) == 0 : found == NULL;
}

START_TEST(cors)
{
    /* Whole answers, streams and errors alike. */
    static const char origin[] = "Origin: https://app.example:8443\r\n";
    static const char *const bodies[] = {
        "{" OK_MESSAGE ",\"temperature\":0}", "{" OK_MESSAGE ",\"temperature\":0,\"stream\":true}", "{}"};
    for (int i = 0; i < 3; i++) {
        struct response r = ask(server.port, "POST", CHAT, origin, bodies[i]);
        ck_assert_int_eq(r.status, i < 2 ? 200 : 400);
        ck_assert(has_header(&r, "Access-Control-Allow-Origin", "https://app.example:8443"));
        ck_assert(has_header(&r, "Vary", "Origin"));
        response_free(&r);
    }
    struct response r = ask(server.port, "OPTIONS", CHAT,
                            "Origin: https://app.example:8443\r\nAccess-Control-Request-Method: POST\r\n"
                            "Access-Control-Request-Headers: authorization,content-type,x-stainless-os\r\n", NULL);
    ck_assert_int_eq(r.status, 204);
    ck_assert(has_header(&r, "Access-Control-Allow-Headers", "authorization,content-type,x-stainless-os"));
    ck_assert_ptr_nonnull(strstr(response_header(&r, "Access-Control-Allow-Methods"), "POST"));
    response_free(&r);
    /* Others get nothing, and the headers of one request do not stay for the next of the connection. */
    static const char *const others[] = {"Origin: https://app.example\r\n", "Origin: http://app.example:8443\r\n",
        "Origin: null\r\n", "Origin: https://app.example:8443.evil\r\n", ""};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        r = ask(server.port, "GET", "/health", others[i], NULL);
        ck_assert_int_eq(r.status, 200);
        ck_assert(has_header(&r, "Access-Control-Allow-Origin", NULL));
        response_free(&r);
        r = ask(server.port, "OPTIONS", CHAT, others[i], NULL);
        ck_assert(has_header(&r, "Access-Control-Allow-Origin", NULL) && has_header(&r, "Access-Control-Allow-Methods", NULL));
        response_free(&r);
    }
    struct client c = client_open(server.port);
    client_text(&c, "GET /health HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example:8443\r\n\r\nGET /health "
                    "HTTP/1.1\r\nHost: localhost\r\n\r\n");
    ck_assert(client_read(&c, &r, false) && has_header(&r, "Access-Control-Allow-Origin", "https://app.example:8443"));
    response_free(&r);
    ck_assert(client_read(&c, &r, false) && has_header(&r, "Access-Control-Allow-Origin", NULL));
    response_free(&r);
    client_close(&c);
}
END_TEST

/* With a key: the browser's question comes without it, the request itself needs it. Any page, if told so. */
START_TEST(cors_and_a_key)
{
    struct server locked = server_start((const char *const[]){"--api-key", "secret", "--cors-origin", "*", NULL}, NULL);
    static const char origin[] = "Origin: https://anything.example\r\n",
                      key[] = "Origin: https://anything.example\r\nAuthorization: Bearer secret\r\n";
    struct response r = ask(locked.port, "OPTIONS", CHAT, origin, NULL);
    ck_assert_int_eq(r.status, 204);
    ck_assert(has_header(&r, "Access-Control-Allow-Origin", "*"));
    ck_assert(has_header(&r, "Access-Control-Allow-Headers", "Authorization, Content-Type"));
    response_free(&r);
    r = ask(locked.port, "POST", CHAT, origin, "{" OK_MESSAGE "}");
    ck_assert_int_eq(r.status, 401);
    ck_assert(has_header(&r, "Access-Control-Allow-Origin", "*"));
    response_free(&r);
    r = ask(locked.port, "POST", CHAT, key, "{" OK_MESSAGE ",\"max_tokens\":1}");
    ck_assert_int_eq(r.status, 200);
    response_free(&r);
    static const char *const closed[] = {"/props", "/version", "/models", "/v1/models"};
    for (size_t i = 0; i < sizeof closed / sizeof *closed; i++) {
        r = ask(locked.port, "GET", closed[i], "", NULL);
        ck_assert_msg(r.status == 401, "%s", closed[i]);
        response_free(&r);
    }
    ck_assert_int_eq(server_end(&locked, SIGTERM), 0);
}
END_TEST

START_TEST(wrong_flags)
{
    static const char *const wrong[][2] = {{"--cors-origin", "example.org"}, {"--cors-origin", "https://"},
        {"--cors-origin", "https://a.example/"}, {"--cors-origin", "https://A.example"}, {"--allowed-host", "a.example:80"},
        {"--allowed-host", "http://a.example"}, {"--allowed-host", ""}};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        char out[1024];
        ck_assert_int_eq(server_run((const char *const[]){"-m", TINY, wrong[i][0], wrong[i][1], NULL}, out, sizeof out), 2);
        ck_assert_msg(strstr(out, wrong[i][0]) != NULL, "%s", out);
    }
}
END_TEST

/* Before the model is there. */
START_TEST(while_loading)
{
    struct server early = server_start(NULL, &(struct start){.not_ready = true, .hold_engine = true});
    struct response r = ask(early.port, "GET", "/version", "", NULL);
    ck_assert_int_eq(r.status, 200);
    response_free(&r);
    static const char *const later[] = {"/props", "/models"};
    for (size_t i = 0; i < sizeof later / sizeof *later; i++) {
        r = ask(early.port, "GET", later[i], "", NULL);
        ck_assert_msg(r.status == 503, "%s -> %d", later[i], r.status);
        response_free(&r);
    }
    static const char *const posts[] = {"/v1/completions", "/apply-template"};
    for (size_t i = 0; i < sizeof posts / sizeof *posts; i++) {
        r = ask(early.port, "POST", posts[i], "", "{}");
        ck_assert_msg(r.status == 503, "%s -> %d", posts[i], r.status);
        response_free(&r);
    }
    server_release(&early);
    server_end(&early, SIGTERM);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("api routes");
    TCase *t = tcase_create("routes");
    tcase_set_timeout(t, 120);
    tcase_add_unchecked_fixture(t, start, stop);
    tcase_add_test(t, models);
    tcase_add_test(t, props);
    tcase_add_test(t, version);
    tcase_add_test(t, apply_template);
    tcase_add_test(t, paths_without_v1);
    tcase_add_test(t, hosts);
    tcase_add_test(t, cors);
    tcase_add_test(t, cors_and_a_key);
    tcase_add_test(t, wrong_flags);
    tcase_add_test(t, while_loading);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
