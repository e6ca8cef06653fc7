/* For suites that test the engine as its callers see it: an engine on a thread of its own with the shipped model, and what became
 * of generations. Suites that use it run in the project's root. Failures end the test. */
#ifndef QUERN_ENGINE_FIXTURE_H
#define QUERN_ENGINE_FIXTURE_H

#include "engine/engine.h"

#include <pthread.h>

enum { CTX = 512 }; /* positions, where the options say nothing */

extern const char model_path[];
extern struct engine *engine; /* of the running test */

/* Loads; n_ctx 0 is CTX. The engine computes from run_engine on; start_engine does both. */
void open_engine(struct engine_options options);
void run_engine(void);
void start_engine(struct engine_options options);
void join_engine(void); /* once it has been told to stop */
void stop_engine(void); /* and closes it */

struct result {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool started, done;
    char *text;         /* [length + 1] all so far */
    size_t length;
    int n_texts;
    int n_choices;
    uint64_t choices;   /* what comes of all tokens' ids and log probabilities, to the last bit */
    struct engine_event last;
    uint64_t id;
    uint64_t cancel_at; /* cancel from the callback when that many texts have come; 0: never */
    int order;          /* when it started among all */
    int answered;       /* when its first text came among all, from 1 */
    int wrong;          /* events that should not have come */
};

extern int n_started; /* generations so far: the next one's order */

/* The callback of what request() makes; user: a struct result. */
void result_note(void *user, const struct engine_event *event);
void result_init(struct result *r);
void result_free(struct result *r);
void result_wait(struct result *r); /* for its end; all events must have been right */
void result_wait_texts(struct result *r, int n);

struct tok_ids chat_prompt(const char *user);     /* after a system prompt, ready for the answer */
void extend(struct tok_ids *ids, const char *text); /* control tokens in the text count as such */
/* Greedy, of at most 60 tokens. */
struct generation request(const struct tok_ids *ids, struct result *r);
/* Options of the i-th of several generations: some greedy, some sampled in different ways. */
void vary(struct generation *g, int i);
uint64_t submit(const struct generation *g);
/* Submits a request, varied by i, and waits for its end. */
struct result ask(const struct tok_ids *ids, int i);

extern const char *const questions[];
enum { N_QUESTIONS = 8 };

#endif
