#include "tests/engine_fixture.h"
#include "tokenizer/chat.h"

#include <check.h>
#include <stdlib.h>
#include <string.h>

const char model_path[] = "models/quern-tiny-q4_k_m.gguf";

/* ---- an engine on a thread of its own ---- */

struct engine *engine;
static pthread_t engine_thread;

static void *engine_main(void *arg)
{
    engine_run(arg);
    return NULL;
}

void open_engine(struct engine_options options)
{
    struct error err;
    options.model_path = model_path;
    if (!options.n_ctx)
        options.n_ctx = CTX;
    engine = engine_open(&options, &err);
    ck_assert_msg(engine != NULL, "%s", engine ? "" : err.text);
}

void run_engine(void)
{
    ck_assert_int_eq(pthread_create(&engine_thread, NULL, engine_main, engine), 0);
}

void start_engine(struct engine_options options)
{
    open_engine(options);
    run_engine();
}

void join_engine(void)
{
    pthread_join(engine_thread, NULL);
}

void stop_engine(void)
{
    engine_stop(engine);
    join_engine();
    engine_close(engine);
}

/* ---- what became of a generation ---- */

int n_started;
static int n_answered;

/* FNV-1a */
static void hash(uint64_t *h, const void *data, size_t n)
{
    for (size_t i = 0; i < n; i++)
        *h = (*h ^ ((const uint8_t *)data)[i]) * 1099511628211u;
}

void result_note(void *user, const struct engine_event *event)
{
    struct result *r = user;
    pthread_mutex_lock(&r->mutex);
    r->wrong += r->done || (event->kind == EVENT_STARTED && r->started) ||
                (event->kind == EVENT_TEXT && (!r->started || event->text_length == 0));
    if (event->kind == EVENT_STARTED) {
        r->started = true;
        r->order = n_started++;
    }
    r->text = realloc(r->text, r->length + event->text_length + 1);
    memcpy(r->text + r->length, event->text, event->text_length);
    r->length += event->text_length;
    r->text[r->length] = 0;
    r->n_texts += event->kind == EVENT_TEXT;
    if (r->length > 0 && r->answered == 0)
        r->answered = ++n_answered;
    for (int i = 0; i < event->n_choices; i++) {
        const struct token_choice *t = &event->choices[i];
        hash(&r->choices, &t->chosen.token, sizeof t->chosen.token);
        hash(&r->choices, &t->chosen.logprob, sizeof t->chosen.logprob);
        for (int k = 0; k < t->n_top; k++) {
            hash(&r->choices, &t->top[k].token, sizeof t->top[k].token);
            hash(&r->choices, &t->top[k].logprob, sizeof t->top[k].logprob);
        }
    }
    r->n_choices += event->n_choices;
    r->last = *event;
    r->done = event->kind == EVENT_DONE;
    r->wrong += r->id && r->id != event->id;
    r->id = event->id;
    if (r->cancel_at && (uint64_t)r->n_texts >= r->cancel_at)
        engine_cancel(engine, event->id);
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->mutex);
}

void result_init(struct result *r)
{
    memset(r, 0, sizeof *r);
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->text = calloc(1, 1);
}

void result_wait(struct result *r)
{
    pthread_mutex_lock(&r->mutex);
    while (!r->done)
        pthread_cond_wait(&r->changed, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
    ck_assert_int_eq(r->wrong, 0);
}

void result_wait_texts(struct result *r, int n)
{
    pthread_mutex_lock(&r->mutex);
    while (!r->done && r->n_texts < n)
        pthread_cond_wait(&r->changed, &r->mutex);
    pthread_mutex_unlock(&r->mutex);
}

void result_free(struct result *r)
{
    free(r->text);
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->mutex);
}

/* ---- prompts ---- */

static const char persona[] = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.";

struct tok_ids chat_prompt(const char *user)
{
    struct chat_message messages[2] = {
        {.role = CHAT_SYSTEM, .content = {persona, strlen(persona)}}, {.role = CHAT_USER, .content = {user, strlen(user)}}};
    const struct chat chat = {.messages = messages, .n_messages = 2, .add_generation_prompt = true};
    struct tok_ids ids = {0};
    struct error err;
    ck_assert_msg(chat_encode(engine_tokenizer(engine), &chat, &ids, &err), "cannot encode");
    return ids;
}

struct generation request(const struct tok_ids *ids, struct result *r)
{
    struct generation g = {.prompt = ids->data, .n_prompt = (int)ids->count, .max_tokens = 60, .sampling = sampling_default(),
        .callback = result_note, .user = r};
    g.sampling.temperature = 0;
    return g;
}

uint64_t submit(const struct generation *g)
{
    struct error err = {""};
    uint64_t id = 0;
    enum submit_result result = engine_submit(engine, g, &id, &err);
    ck_assert_msg(result == SUBMIT_OK, "%s", err.text);
    ck_assert_uint_ne(id, 0);
    return id;
}

const char *const questions[N_QUESTIONS] = {
    "Tell me a story about a cat and a ball.", "Who are you?", "Hello", "I want to book a table for two people in San Jose.",
    "Tell me a story about a dog.", "What is your favourite movie?", "Say OK", "Do you like music?",
};
void vary(struct generation *g, int i)
{
    if (i % 3 == 0)
        return;
    g->sampling =
        (struct sampling){.temperature = 0.9f, .top_k = i % 3 == 1 ? 40 : 0, .top_p = 0.95f, .min_p = 0, .seed = (uint64_t)i};
}

void extend(struct tok_ids *ids, const char *text)
{
    ck_assert(tok_encode(engine_tokenizer(engine), text, strlen(text), true, ids, NULL));
}

struct result ask(const struct tok_ids *ids, int kind)
{
    struct result r;
    result_init(&r);
    struct generation g = request(ids, &r);
    vary(&g, kind);
    submit(&g);
    result_wait(&r);
    return r;
}
