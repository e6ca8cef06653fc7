#include "engine/sequence.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- submission ---- */

/* What the detokeniser passes through unchanged and holds nothing of is UTF-8. */
static bool is_utf8(const char *text, size_t length, char *scratch)
{
    struct tok_stream stream = {0};
    size_t n = tok_stream_feed(&stream, text, length, scratch);
    return n == length && stream.n_pending == 0 && !memcmp(scratch, text, length);
}

static bool check_stops(const struct generation *g, enum submit_result *result, struct error *err)
{
    if (g->n_stops < 0 || g->n_stops > ENGINE_MAX_STOPS)
        return error_set(err, "%d stop strings: at most %d are possible", g->n_stops, (int)ENGINE_MAX_STOPS);
    for (int i = 0; i < g->n_stops; i++) {
        size_t length = g->stops[i] ? strlen(g->stops[i]) : 0;
        if (length == 0)
            return error_set(err, "stop string %d is empty", i);
        char *scratch = malloc(3 * (length + 3));
        if (!scratch) {
            *result = SUBMIT_FULL;
            return error_set(err, "out of memory for the stop strings");
        }
        bool good = is_utf8(g->stops[i], length, scratch);
        free(scratch);
        if (!good)
            return error_set(err, "stop string %d is not UTF-8", i);
    }
    return true;
}

static bool check(
    const struct generation *g, const struct vocabulary *v, int n_ctx, enum submit_result *result, struct error *err)
{
    *result = SUBMIT_INVALID;
    const struct sampling *o = &g->sampling;
    if (!g->callback)
        return error_set(err, "a generation needs a callback");
    if (g->n_prompt < 1 || !g->prompt)
        return error_set(err, "the prompt is empty");
    if (g->n_prompt >= n_ctx)
        return error_set(err,
            "the prompt has %d tokens, and the context of %d tokens has room for at most %d of them and one of the answer",
            g->n_prompt, n_ctx, n_ctx - 1);
    for (int i = 0; i < g->n_prompt; i++)
        if (g->prompt[i] < 0 || g->prompt[i] >= v->n_vocab)
            return error_set(err, "token %d of the prompt is %ld: ids go from 0 to %d", i, (long)g->prompt[i], v->n_vocab - 1);
    if (g->max_tokens < 0)
        return error_set(err, "max_tokens is %d: it must not be negative", g->max_tokens);
    if (!(o->temperature >= 0) || !isfinite(o->temperature))
        return error_set(err, "temperature is %g: it must be a number from 0 up", (double)o->temperature);
    if (o->top_k < 0)
        return error_set(err, "top_k is %d: it must not be negative", o->top_k);
    if (!(o->top_p >= 0 && o->top_p <= 1))
        return error_set(err, "top_p is %g: it must be from 0 to 1", (double)o->top_p);
    if (!(o->min_p >= 0 && o->min_p <= 1))
        return error_set(err, "min_p is %g: it must be from 0 to 1", (double)o->min_p);
    if (!isfinite(o->presence_penalty) || !isfinite(o->frequency_penalty))
        return error_set(err, "presence_penalty is %g and frequency_penalty %g: they must be finite", (double)o->presence_penalty,
            (double)o->frequency_penalty);
    if (!(o->repetition_penalty >= 0) || !isfinite(o->repetition_penalty))
        return error_set(err, "repetition_penalty is %g: it must be a number above 0", (double)o->repetition_penalty);
    for (int i = 0; i < o->n_biases; i++)
        if (o->biases[i].token < 0 || o->biases[i].token >= v->n_vocab || !isfinite(o->biases[i].bias))
            return error_set(err, "the bias of token %ld is %g: ids go from 0 to %d, and a bias is finite",
                (long)o->biases[i].token, (double)o->biases[i].bias, v->n_vocab - 1);
    if (g->top_logprobs < 0 || g->top_logprobs > LOGPROBS_MAX_TOP)
        return error_set(err, "top_logprobs is %d: it must be from 0 to %d", g->top_logprobs, (int)LOGPROBS_MAX_TOP);
    return check_stops(g, result, err);
}

/* False: out of memory. */
static bool constrain(struct sequence *s, const struct grammar *g, const struct vocabulary *v)
{
    s->grammar = grammar_retain(g);
    s->constraint = constraint_new(v->trie, g);
    s->allowed = malloc((size_t)v->n_vocab * sizeof *s->allowed);
    return s->constraint && s->allowed;
}

struct sequence *sequence_new(
    const struct generation *g, const struct vocabulary *v, int n_ctx, enum submit_result *result, struct error *err)
{
    if (!check(g, v, n_ctx, result, err))
        return NULL;
    struct sequence *s = calloc(1, sizeof *s);
    if (s) {
        int room = n_ctx - g->n_prompt;
        s->limit = g->max_tokens > 0 && g->max_tokens < room ? g->max_tokens : room;
        s->tokens = malloc((size_t)(g->n_prompt + s->limit) * sizeof *s->tokens);
        s->sampler = sampler_new(&g->sampling, v->n_vocab);
        s->stops = stops_new(g->stops, g->n_stops);
    }
    if (!s || !s->tokens || !s->sampler || !s->stops || (g->grammar && !constrain(s, g->grammar, v))) {
        sequence_free(s);
        *result = SUBMIT_FULL;
        error_set(err, "out of memory for another generation");
        return NULL;
    }
    memcpy(s->tokens, g->prompt, (size_t)g->n_prompt * sizeof *s->tokens);
    s->submitted = now();
    s->vocabulary = v;
    s->n_prompt = s->n_tokens = g->n_prompt;
    s->ignore_eos = g->ignore_eos;
    s->logprobs = g->logprobs;
    s->top_logprobs = g->top_logprobs;
    sampler_saw_prompt(s->sampler, s->tokens, s->n_prompt);
    s->callback = g->callback;
    s->user = g->user;
    *result = SUBMIT_OK;
    return s;
}

void sequence_free(struct sequence *s)
{
    if (!s)
        return;
    if (s->kv.pool)
        kv_sequence_clear(&s->kv);
    sampler_free(s->sampler);
    constraint_free(s->constraint);
    grammar_free(s->grammar);
    free(s->allowed);
    stops_free(s->stops);
    free(s->tokens);
    free(s->text);
    free(s->held);
    free(s->ready);
    free(s);
}

int sequence_positions(const struct sequence *s)
{
    return s->n_prompt + s->limit - 1;
}

/* ---- events ---- */

/* The held tokens that come with n more bytes of text. What is held at the last event comes with
 * it, but for the tokens of a stop string. */
static int release_tokens(struct sequence *s, size_t n, bool last)
{
    int k = 0;
    s->n_shown += n;
    while (k < s->n_held && (s->held[k].offset < s->n_shown || (last && !stops_met(s->stops)))) {
        s->ready[k] = s->held[k].choice;
        k++;
    }
    if (k == 0)
        return 0;
    s->n_held -= k;
    memmove(s->held, s->held + k, (size_t)s->n_held * sizeof *s->held);
    return k;
}

static bool hold_token(struct sequence *s, int32_t token)
{
    if (s->n_held == s->held_capacity) {
        int capacity = s->held_capacity ? 2 * s->held_capacity : 8;
        struct told_token *held = realloc(s->held, (size_t)capacity * sizeof *held);
        if (held)
            s->held = held;
        struct token_choice *ready = held ? realloc(s->ready, (size_t)capacity * sizeof *ready) : NULL;
        if (!ready)
            return false;
        s->ready = ready;
        s->held_capacity = capacity;
    }
    struct told_token *t = &s->held[s->n_held++];
    logprobs_of(s->logits, s->vocabulary->n_vocab, token, s->top_logprobs, &t->choice);
    t->offset = s->n_fed;
    return true;
}

static void tell(struct sequence *s, struct engine_event event)
{
    event.n_choices = release_tokens(s, event.text_length, event.kind == EVENT_DONE);
    event.choices = s->ready;
    event.id = s->id;
    event.stop = event.kind == EVENT_DONE && event.finish == FINISH_STOP ? stops_which(s->stops) : -1;
    if (!event.text)
        event.text = "";
    event.n_prompt = s->n_prompt;
    event.n_cached = s->n_cached;
    event.n_drafted = s->n_drafted;
    event.n_accepted = s->n_accepted;
    event.queue_seconds = (s->started > 0 ? s->started : now()) - s->submitted;
    event.n_generated = s->n_generated;
    s->callback(s->user, &event);
}

bool sequence_has_started(const struct sequence *s)
{
    return s->started > 0;
}

void sequence_start(struct sequence *s)
{
    if (sequence_has_started(s))
        return;
    s->started = now();
    tell(s, (struct engine_event){.kind = EVENT_STARTED});
}

static void tell_done(struct sequence *s, enum finish_reason reason, const char *error, const char *text, size_t length)
{
    bool sampled = s->first_token > 0;
    tell(s, (struct engine_event){.kind = EVENT_DONE, .text = text, .text_length = length, .finish = reason, .error = error,
                                  .prompt_seconds = sampled          ? s->first_token - s->started
                                                    : s->started > 0 ? now() - s->started
                                                                     : 0,
                                  .generate_seconds = sampled ? s->last_token - s->first_token : 0});
}

void sequence_finish(struct sequence *s, enum finish_reason reason, const char *error)
{
    /* What is held back was no stop string after all, and an incomplete character stays
     * incomplete. The two come out as one text. */
    char broken[3];
    size_t n_broken = tok_stream_end(&s->stream, broken), n_held, n_rest = 0;
    const char *held, *rest = "";
    if (n_broken == 0 || stops_met(s->stops)) {
        stops_end(s->stops, &held, &n_held);
        tell_done(s, reason, error, held, n_held);
        return;
    }
    if (stops_feed(s->stops, broken, n_broken, &held, &n_held) && n_held > 0)
        tell(s, (struct engine_event){.kind = EVENT_TEXT, .text = held, .text_length = n_held});
    if (!stops_met(s->stops))
        stops_end(s->stops, &rest, &n_rest);
    tell_done(s, reason, error, rest, n_rest);
}

/* ---- tokens ---- */

/* The text that a token adds, in s->text: whole characters. False: out of memory. */
static bool detokenize(struct sequence *s, int32_t token, size_t *length)
{
    *length = 0;
    if (s->vocabulary->silent[token])
        return true;
    struct gguf_string bytes = tok_bytes(s->vocabulary->tokenizer, token);
    size_t needed = 3 * (bytes.length + 3);
    if (needed > s->text_capacity) {
        char *text = realloc(s->text, needed);
        if (!text)
            return false;
        s->text = text;
        s->text_capacity = needed;
    }
    *length = tok_stream_feed(&s->stream, bytes.data, bytes.length, s->text);
    return true;
}

/* The next token, by the grammar if there is one. -1: it leaves nothing, or memory ran out. */
static int32_t sample(struct sequence *s)
{
    if (!s->constraint)
        return sampler_next(s->sampler, s->logits);
    if (!constraint_apply(s->constraint, s->logits, s->allowed))
        return -1;
    int32_t token = sampler_next(s->sampler, s->allowed);
    if (constraint_accept(s->constraint, token))
        return token;
    /* Every allowed token has minus infinity for a logit (a bias can do that): the first of them, then. */
    const uint32_t *mask = constraint_mask(s->constraint);
    for (token = 0; mask && token < s->vocabulary->n_vocab; token++)
        if ((mask[token / 32] >> token % 32 & 1) && constraint_accept(s->constraint, token))
            return token;
    return -1;
}

/* A token of the answer: its text. False if the generation has ended with it. */
static bool take(struct sequence *s, int32_t token)
{
    s->tokens[s->n_tokens++] = token;
    s->n_generated++;
    sampler_took(s->sampler, token);
    size_t length, n_ready;
    const char *ready;
    if ((s->logprobs && !hold_token(s, token)) || !detokenize(s, token, &length) ||
        !stops_feed(s->stops, s->text, length, &ready, &n_ready)) {
        sequence_finish(s, FINISH_ERROR, "out of memory for the generated text");
        return false;
    }
    s->n_fed += length;
    if (n_ready > 0)
        tell(s, (struct engine_event){.kind = EVENT_TEXT, .text = ready, .text_length = n_ready});
    if (stops_met(s->stops)) {
        tell_done(s, FINISH_STOP, NULL, "", 0);
        return false;
    }
    if (s->constraint && constraint_must_end(s->constraint)) { /* the end-of-turn token need not be waited for */
        sequence_finish(s, FINISH_STOP, NULL);
        return false;
    }
    if (s->n_generated == s->limit) {
        sequence_finish(s, FINISH_LENGTH, NULL);
        return false;
    }
    return true;
}

/* The tokens that the grammar leaves no choice about, up to where there is one. False if the generation has ended. */
static bool take_forced(struct sequence *s)
{
    struct tok_ids ids = {0};
    bool goes_on = true;
    constraint_forced(s->constraint, SEQUENCE_MOST_FORCED, &ids);
    for (size_t i = 0; i < ids.count && goes_on && constraint_accept(s->constraint, ids.data[i]); i++)
        goes_on = take(s, ids.data[i]);
    tok_ids_free(&ids);
    return goes_on;
}

void sequence_guess(struct sequence *s, int n)
{
    int left = s->limit - s->n_generated - 1; /* the last token is never computed */
    s->n_draft = draft_find(s->tokens, s->n_tokens, n < left ? n : left, s->draft);
}

/* One token, and those that follow from it. False if the generation has ended. */
static bool accept_one(struct sequence *s)
{
    int32_t token = sample(s);
    if (token < 0) {
        sequence_finish(s, FINISH_ERROR, "no token of the vocabulary fits the grammar, or memory ran out");
        return false;
    }
    s->last_token = now();
    if (!(s->first_token > 0))
        s->first_token = s->last_token;
    if (!s->ignore_eos && tok_is_end(s->vocabulary->tokenizer, token)) {
        sequence_finish(s, FINISH_STOP, NULL);
        return false;
    }
    return take(s, token) && (!s->constraint || s->logprobs || take_forced(s));
}

bool sequence_accept(struct sequence *s)
{
    const int n_draft = s->n_draft;
    s->n_drafted += n_draft;
    s->n_draft = 0;
    bool goes_on = accept_one(s);
    for (int i = 0; i < n_draft && goes_on && s->tokens[s->n_computed] == s->draft[i]; i++) {
        s->n_computed++; /* by the guess's row */
        s->n_accepted++;
        s->logits += s->vocabulary->n_vocab;
        if (s->n_computed == s->n_tokens) /* else the next token is known too: forced */
            goes_on = accept_one(s);
    }
    return goes_on;
}
