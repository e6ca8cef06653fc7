/* The engine as its callers see it: open a model, submit generations, receive tokens.
 *
 * One engine thread (created by engine_open's caller through engine_run) computes; everything else talks to it through
 * two functions that may be called from any thread, engine_submit and engine_cancel, and through the event callback,
 * which the engine thread calls and which must not block. */
#ifndef QUERN_ENGINE_H
#define QUERN_ENGINE_H

#include "engine/grammar.h"
#include "engine/logprobs.h"
#include "engine/sampler.h"
#include "gguf/error.h"
#include "tokenizer/tokenizer.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct engine;

struct engine_options {
    const char *model_path;
    int n_threads;     /* 0: the number of usable cores (sched_getaffinity, cgroup cpu.max) */
    int n_ctx;         /* positions a sequence may have; 0: 2048 or the model's own, whichever is less */
    int n_batch;       /* rows of a prefill step; 0: 512 */
    int n_parallel;    /* sequences that may run at the same time; 0: 4 */
    int n_draft;       /* tokens that may be guessed ahead of a step (engine/draft.h); 0: as many as this CPU's kernels compute at
                        * little cost; less than 0: none */
    int n_kv;          /* positions the KV cache holds for all sequences together, at least n_ctx;
                        * 0: n_ctx (several short generations or one long) */
    int max_queue;     /* generations that may wait for their turn; 0: 64 */
    bool no_mmap;
    bool mlock;        /* keep the weights in RAM; an error if the system does not allow it */
};

struct engine_info {
    const char *kernel_level;   /* "avx2", ... */
    const char *architecture;   /* "qwen2" */
    const char *name;           /* general.name, or "" */
    const char *chat_template;  /* tokenizer.chat_template as it stands in the file, or "" (tokenizer/chat.h is what
                                 * conversations are written with) */
    int n_threads;
    int n_ctx;                  /* positions per sequence in this run */
    int n_ctx_train;            /* the model's own */
    int n_parallel;             /* sequences that may run at the same time */
    int max_queue;              /* generations that may wait */
    int n_layers, n_embd, n_vocab;
    uint64_t n_params;
    uint64_t model_bytes;       /* of all tensors */
    uint64_t kv_bytes;          /* reserved for the KV cache; becomes resident as it is used */
    double load_seconds;
};

/* Loads the model (blocking, seconds). NULL with a sentence on failure. */
struct engine *engine_open(const struct engine_options *options, struct error *err);
/* Computes until engine_stop; call it on the thread that is to be the engine thread. Sleeps when there is nothing to do.
 * On return every submitted generation has received its DONE event. */
void engine_run(struct engine *e);
/* Any thread, also before engine_run: makes engine_run cancel what is queued or running (finish reason CANCELLED)
 * and return, after the step that is being computed. */
void engine_stop(struct engine *e);
/* After engine_run has returned (or if it was never called: then what is queued gets no event); NULL is allowed. */
void engine_close(struct engine *e);

const struct engine_info *engine_info(const struct engine *e);
const struct tokenizer *engine_tokenizer(const struct engine *e); /* any thread may use it */

/* For a watchdog, from any thread: `progress` grows with every layer that is computed, so even a long batch on a slow machine
 * moves it often. An engine whose progress stands still while it is not idle is stuck. idle: nothing is queued or running. */
struct engine_pulse {
    uint64_t progress;
    bool idle;
};
struct engine_pulse engine_pulse(const struct engine *e);

enum finish_reason {
    FINISH_STOP,      /* the model ended its turn, or a stop string was met */
    FINISH_LENGTH,    /* max_tokens or the context's end */
    FINISH_CANCELLED, /* engine_cancel or engine_stop */
    FINISH_ERROR      /* event.error says why */
};

enum event_kind {
    EVENT_STARTED, /* left the queue: prefill begins */
    EVENT_TEXT,    /* new text: whole UTF-8 characters, never part of a stop string */
    EVENT_DONE     /* the last event of a generation; text may hold what was still held back */
};

struct engine_event {
    enum event_kind kind;
    uint64_t id;          /* as engine_submit gave it */
    const char *text;     /* [text_length], valid only during the callback; "" if none */
    size_t text_length;   /* bytes */
    enum finish_reason finish; /* EVENT_DONE */
    int stop;             /* EVENT_DONE with FINISH_STOP: index of the stop string that was met;
                           * -1: none, the model ended its turn. -1 in every other event */
    const char *error;    /* EVENT_DONE with FINISH_ERROR: a sentence; else NULL */
    int n_prompt;         /* tokens of the prompt */
    int n_cached;         /* of them, taken from a cache instead of computed */
    const struct token_choice *choices; /* [n_choices], valid only during the callback: the tokens of this text,
                                         * if generation.logprobs; their bytes: tok_bytes */
    int n_choices;
    int n_generated;      /* tokens sampled so far (the end-of-turn token is not counted) */
    int n_drafted, n_accepted; /* guesses of tokens so far; of them, those that came true */
    double queue_seconds;     /* EVENT_STARTED, EVENT_DONE: from engine_submit to the start (or
                               * to the end, if it never started) */
    double prompt_seconds;    /* EVENT_DONE: from start to the first sampled token */
    double generate_seconds;  /* EVENT_DONE: from the first sampled token to the last */
};

typedef void engine_callback(void *user, const struct engine_event *event);

enum { ENGINE_MAX_STOPS = 16 };

struct generation {
    const int32_t *prompt; /* [n_prompt] token ids; copied */
    int n_prompt;          /* 1 .. n_ctx - 1 */
    int max_tokens;        /* > 0; or 0 for "until the context is full" */
    struct sampling sampling;
    const char *stops[ENGINE_MAX_STOPS]; /* NUL-terminated UTF-8, not empty; copied */
    int n_stops;
    bool logprobs;         /* tell each token's log probability, and those of the top_logprobs likeliest */
    int top_logprobs;      /* 0 .. LOGPROBS_MAX_TOP */
    bool ignore_eos;       /* keep going past end-of-turn tokens (for benchmarks) */
    const struct grammar *grammar; /* what the text must match, or NULL; the generation becomes one more owner */
    engine_callback *callback; /* engine thread; must not block and must not call engine_submit */
    void *user;
};

enum submit_result { SUBMIT_OK, SUBMIT_FULL, SUBMIT_INVALID, SUBMIT_STOPPED };

/* Any thread. Queues a generation; *id identifies it (never 0). SUBMIT_FULL when max_queue are waiting (or memory is short),
 * SUBMIT_INVALID (with a sentence) for a prompt that does not fit, ids outside the vocabulary, sampling values out of range,
 * or stop strings that are empty or not UTF-8; SUBMIT_STOPPED after engine_stop.
 *
 * Generations start in the order of submission. One starts when fewer than n_parallel run and the KV cache has room for its
 * prompt and a few more tokens. When answers have grown and there is no more room, the one that started last pauses until there
 * is again. What others have computed of a prompt's beginning, before it or beside it, is shared and not computed again, as long
 * as it is there. A prompt longer than a batch is computed in several; while others are generating, in smaller ones (a sixteenth
 * of n_batch), so that their next token is not long in coming; and a short prompt beside a long one does not wait for its end.
 *
 * The text: control tokens are not part of it, nor is the token that ends the turn.
 * FINISH_LENGTH comes with the max_tokens-th token, or when prompt and answer fill n_ctx.
 * With logprobs, every token of the text comes in exactly one event's choices, in order, in the
 * event that has the token's first character (or, for a token without any, what comes after it);
 * the tokens of a stop string and the end-of-turn token do not come.
 * With a grammar, tokens that do not fit it are never sampled, and the turn ends only where the grammar may: a text with
 * FINISH_STOP that no stop string has cut matches it. It ends at once where nothing can follow. Text that is certain to follow
 * is not sampled token by token but computed as one batch (not with logprobs, which need each token's logits).
 * The same prompt, options and seed give the same text, whatever else is running.
 * Events may come before engine_submit returns; *id is set by then. */
enum submit_result engine_submit(struct engine *e, const struct generation *g, uint64_t *id, struct error *err);

/* Any thread. The generation ends soon with FINISH_CANCELLED; unknown or finished ids are ignored. */
void engine_cancel(struct engine *e, uint64_t id);

/* How the engine is doing. Every number is right for a moment not long ago; they need not be of the same moment. */
struct engine_stats {
    uint64_t n_batches;           /* batches computed so far: prefill, decode, or both in one */
    uint64_t n_batch_sequences;   /* sequences that had rows in them, added up */
    int n_running, n_waiting;     /* generations */
    int n_kv;                     /* positions the KV cache holds */
    int n_kv_reserved;            /* of them, set aside for sequences, in whole blocks: what keeps others from starting */
    int n_kv_filled;              /* of them, with keys and values of running sequences */
    uint64_t n_preemptions;       /* times a generation had to pause because the KV cache was full */
};

/* Any thread; never waits for a batch. */
void engine_get_stats(struct engine *e, struct engine_stats *stats);

#endif
