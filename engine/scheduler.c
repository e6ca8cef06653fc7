#include "engine/scheduler.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

/* Of a batch, what may be prompt rows while answers are generated. Sixteen or thirty-two rows at a time take little longer for a
 * prompt than hundreds do. */
enum { PART_BESIDE_ANSWERS = 16 };

struct scheduler {
    pthread_mutex_t mutex; /* guards the queue, and changes of running[] and n_running against scheduler_cancel */
    pthread_cond_t something;
    struct sequence *first, *last; /* the queue */
    int n_waiting, max_queue;
    uint64_t next_id;
    bool stopping;
    bool any_cancelled; /* some sequence may have been cancelled since the last look */
    uint64_t n_preemptions; /* engine thread only */

    struct sequence **running; /* [n_running], in the order of admission; changed by the engine thread only */
    int n_running, n_parallel, n_batch, n_draft;
    struct kv_pool *kv;
};

struct scheduler *scheduler_new(
    struct kv_pool *kv, int n_parallel, int n_batch, int n_draft, int max_queue, struct error *err)
{
    struct scheduler *s = calloc(1, sizeof *s);
    struct sequence **running = calloc((size_t)n_parallel, sizeof(struct sequence *));
    if (!s || !running) {
        free(s);
        free(running);
        error_set(err, "out of memory for %d parallel sequences", n_parallel);
        return NULL;
    }
    *s = (struct scheduler){.running = running, .n_parallel = n_parallel, .n_batch = n_batch, .n_draft = n_draft,
                            .max_queue = max_queue, .next_id = 1, .kv = kv};
    pthread_mutex_init(&s->mutex, NULL);
    pthread_cond_init(&s->something, NULL);
    return s;
}

void scheduler_free(struct scheduler *s)
{
    if (!s)
        return;
    while (s->first) {
        struct sequence *next = s->first->next;
        sequence_free(s->first);
        s->first = next;
    }
    for (int i = 0; i < s->n_running; i++)
        sequence_free(s->running[i]);
    free(s->running);
    pthread_cond_destroy(&s->something);
    pthread_mutex_destroy(&s->mutex);
    free(s);
}

/* ---- any thread ---- */

enum submit_result scheduler_submit(struct scheduler *s, struct sequence *sequence, uint64_t *id, struct error *err)
{
    enum submit_result result = SUBMIT_OK;
    pthread_mutex_lock(&s->mutex);
    if (s->stopping) {
        result = SUBMIT_STOPPED;
        error_set(err, "the engine is stopping");
    } else if (s->n_waiting >= s->max_queue) {
        result = SUBMIT_FULL;
        error_set(err, "%d generations are waiting already; try again later", s->n_waiting);
    } else {
        sequence->id = s->next_id++;
        if (id)
            *id = sequence->id;
        sequence->next = NULL;
        if (s->last)
            s->last->next = sequence;
        else
            s->first = sequence;
        s->last = sequence;
        s->n_waiting++;
        pthread_cond_signal(&s->something);
    }
    pthread_mutex_unlock(&s->mutex);
    return result;
}

void scheduler_cancel(struct scheduler *s, uint64_t id)
{
    pthread_mutex_lock(&s->mutex);
    struct sequence *found = NULL;
    for (struct sequence *q = s->first; q && !found; q = q->next)
        if (q->id == id)
            found = q;
    for (int i = 0; i < s->n_running && !found; i++)
        if (s->running[i]->id == id)
            found = s->running[i];
    if (found) {
        atomic_store(&found->cancelled, true);
        s->any_cancelled = true;
        pthread_cond_signal(&s->something);
    }
    pthread_mutex_unlock(&s->mutex);
}

void scheduler_stop(struct scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    s->stopping = true;
    pthread_cond_signal(&s->something);
    pthread_mutex_unlock(&s->mutex);
}

void scheduler_count(struct scheduler *s, int *n_running, int *n_waiting)
{
    pthread_mutex_lock(&s->mutex);
    *n_running = s->n_running;
    *n_waiting = s->n_waiting;
    pthread_mutex_unlock(&s->mutex);
}

/* ---- the engine thread: who runs ---- */

bool scheduler_wait(struct scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    while (!s->stopping && !s->first && s->n_running == 0)
        pthread_cond_wait(&s->something, &s->mutex);
    bool go = !s->stopping;
    pthread_mutex_unlock(&s->mutex);
    return go;
}

static void unlink_running(struct scheduler *s, int index)
{
    s->n_running--;
    memmove(&s->running[index], &s->running[index + 1], (size_t)(s->n_running - index) * sizeof *s->running);
}

void scheduler_remove(struct scheduler *s, int index)
{
    pthread_mutex_lock(&s->mutex);
    unlink_running(s, index);
    pthread_mutex_unlock(&s->mutex);
}

struct sequence *scheduler_take_cancelled(struct scheduler *s)
{
    struct sequence *taken = NULL;
    pthread_mutex_lock(&s->mutex);
    if (s->any_cancelled || s->stopping) {
        for (int i = 0; i < s->n_running && !taken; i++)
            if (s->stopping || atomic_load(&s->running[i]->cancelled)) {
                taken = s->running[i];
                unlink_running(s, i);
            }
        struct sequence *before = NULL;
        for (struct sequence *q = s->first; q && !taken; before = q, q = q->next)
            if (s->stopping || atomic_load(&q->cancelled)) {
                taken = q;
                if (before)
                    before->next = q->next;
                else
                    s->first = q->next;
                if (s->last == q)
                    s->last = before;
                s->n_waiting--;
            }
        if (!taken)
            s->any_cancelled = false;
    }
    pthread_mutex_unlock(&s->mutex);
    return taken;
}

struct sequence *scheduler_admit(struct scheduler *s)
{
    if (s->n_running == s->n_parallel)
        return NULL;
    pthread_mutex_lock(&s->mutex);
    struct sequence *q = s->first;
    if (q) {
        /* What the cache has need not fit in again. The last token is computed in any case: for its logits. */
        int room = q->n_tokens + KV_BLOCK, most = sequence_positions(q), known = q->n_tokens - 1;
        kv_sequence_init(&q->kv, s->kv);
        q->n_computed = kv_match(&q->kv, q->tokens, known, 0);
        if (kv_reserve(&q->kv, room < most ? room : most)) {
            q->n_computed = kv_match(&q->kv, q->tokens, known, q->n_computed);
            if (!sequence_has_started(q) || q->n_computed < q->n_cached) /* or what it had from the cache is gone meanwhile */
                q->n_cached = q->n_computed;
            s->first = q->next;
            if (!s->first)
                s->last = NULL;
            s->n_waiting--;
            s->running[s->n_running++] = q;
        } else {
            kv_sequence_clear(&q->kv);
            q = NULL;
        }
    }
    pthread_mutex_unlock(&s->mutex);
    return q;
}

/* The youngest goes back to the front of the queue. What it has computed stays in the cache as long as it can. */
static void preempt_youngest(struct scheduler *s)
{
    pthread_mutex_lock(&s->mutex);
    struct sequence *q = s->running[--s->n_running];
    q->next = s->first;
    s->first = q;
    if (!s->last)
        s->last = q;
    s->n_waiting++;
    pthread_mutex_unlock(&s->mutex);
    kv_sequence_clear(&q->kv);
    q->n_computed = 0;
    s->n_preemptions++;
}

uint64_t scheduler_n_preemptions(const struct scheduler *s)
{
    return s->n_preemptions;
}

int scheduler_n_running(const struct scheduler *s)
{
    return s->n_running;
}

struct sequence *scheduler_running(const struct scheduler *s, int index)
{
    return s->running[index];
}

/* ---- the engine thread: the next batch ---- */

int scheduler_max_rows(const struct scheduler *s)
{
    return s->n_parallel * (1 + SEQUENCE_MOST_FORCED) + s->n_draft + s->n_batch;
}

int scheduler_max_logits(const struct scheduler *s)
{
    return s->n_parallel + s->n_draft;
}

/* A prompt, or what a preempted sequence has to compute again, is not computed up to its last token. */
static bool in_prefill(const struct sequence *q)
{
    return q->n_generated == 0 || q->n_tokens - q->n_computed > 1 + SEQUENCE_MOST_FORCED;
}

/* The next n tokens of a sequence become rows. There is room for them. */
static struct row *plan(struct sequence *q, int n, struct row *rows)
{
    q->n_planned = n;
    for (int i = q->n_computed; i < q->n_computed + n; i++)
        *rows++ = (struct row){.token = q->tokens[i], .position = i, .sequence = &q->kv};
    return rows;
}

/* The tokens of a sequence that generates, and guesses: those of them that it has room for in the batch. */
static struct row *plan_generating(struct sequence *q, int n_guesses, struct row *rows, float **logits, int n_vocab)
{
    int known = q->n_tokens - q->n_computed;
    struct row *end = plan(q, known, rows);
    sequence_guess(q, n_guesses);
    if (!kv_grow(&q->kv, q->n_tokens + q->n_draft))
        q->n_draft = 0;
    for (int i = 0; i < q->n_draft; i++)
        *end++ = (struct row){.token = q->draft[i], .position = q->n_tokens + i, .sequence = &q->kv};
    q->logits = *logits;
    for (struct row *r = rows + known - 1; r < end; r++, *logits += n_vocab)
        r->logits = *logits;
    return end;
}

/* How many guesses the next batch may hold. While prompts are computed, none: arithmetic is what takes the time then. */
static int room_for_guesses(const struct scheduler *s)
{
    int room = s->n_draft + 1;
    for (int i = 0; i < s->n_running; i++) {
        const struct sequence *q = s->running[i];
        if (in_prefill(q))
            return 0;
        room -= q->n_tokens - q->n_computed;
    }
    return room > 0 ? room : 0;
}

/* What the cache has got of its tokens since the sequence started. */
static void catch_up(struct sequence *q)
{
    int n = kv_match(&q->kv, q->tokens, q->n_tokens - 1, q->n_computed);
    if (q->n_generated == 0)
        q->n_cached += n - q->n_computed;
    q->n_computed = n;
}

/* Whether a prompt goes on like one before it that is not computed yet, for as long as it lasts or for a while: then it waits
 * for that one, and shares what comes of it. */
static bool must_wait(const struct scheduler *s, int index)
{
    enum { A_WHILE = 8 };
    const struct sequence *q = s->running[index];
    int left = q->n_tokens - 1 - q->n_computed;
    for (int i = 0; i < index; i++) {
        const struct sequence *older = s->running[i];
        if (!in_prefill(older) || atomic_load(&older->cancelled))
            continue;
        int same =
            kv_follows(&q->kv, q->tokens, q->n_tokens - 1, q->n_computed, &older->kv, older->tokens, older->n_tokens);
        if (same > 0 && (same >= A_WHILE || same == left))
            return true;
    }
    return false;
}

/* Makes room for the next tokens of the running sequence number i, if need be at the cost of the youngest ones. False if that is
 * itself: it does not run any more. The oldest always finds room, as the pool holds one context at least. */
static bool make_room(struct scheduler *s, int i)
{
    struct sequence *q = s->running[i];
    while (i < s->n_running) {
        if (kv_grow(&q->kv, q->n_tokens))
            return true;
        preempt_youngest(s);
    }
    return false;
}

/* Up to `most` tokens of a sequence in prefill; its logits, if the last one is among them. */
static struct row *plan_prefill(struct sequence *q, int most, struct row *rows, float **logits, int n_vocab)
{
    int left = q->n_tokens - q->n_computed, count = left < most ? left : most;
    if (count <= 0)
        return rows;
    kv_grow(&q->kv, q->n_computed + count); /* reserved at the start */
    rows = plan(q, count, rows);
    if (count == left) {
        rows[-1].logits = q->logits = *logits;
        *logits += n_vocab;
    }
    return rows;
}

/* The sequence in prefill with the fewest tokens left, of those after the running number `oldest` that are not planned yet and
 * need not wait; or NULL. */
static struct sequence *shortest(const struct scheduler *s, int oldest)
{
    struct sequence *best = NULL;
    for (int i = oldest + 1; i < s->n_running; i++) {
        struct sequence *q = s->running[i];
        if (in_prefill(q) && q->n_planned == 0 && !q->waits &&
            (!best || q->n_tokens - q->n_computed < best->n_tokens - best->n_computed))
            best = q;
    }
    return best;
}

/* Shares the rows out among the sequences in prefill: half of them, or more if the others need fewer, to the oldest; the rest
 * to the others, the shortest first. */
static struct row *plan_prefills(struct scheduler *s, int budget, struct row *rows, float *logits, int n_vocab)
{
    int oldest = 0;
    while (oldest < s->n_running && !in_prefill(s->running[oldest]))
        oldest++;
    if (oldest == s->n_running)
        return rows;
    for (int i = oldest; i < s->n_running; i++)
        if (in_prefill(s->running[i])) {
            catch_up(s->running[i]);
            s->running[i]->waits = must_wait(s, i);
        }
    struct sequence *first = s->running[oldest], *q;
    int left = first->n_tokens - first->n_computed, half = (budget + 1) / 2, kept = left < half ? left : half;
    budget -= kept;
    while (budget > 0 && (q = shortest(s, oldest)) != NULL) {
        rows = plan_prefill(q, budget, rows, &logits, n_vocab);
        budget -= q->n_planned;
    }
    return plan_prefill(first, kept + budget, rows, &logits, n_vocab);
}

int scheduler_plan(struct scheduler *s, struct row *rows, float *logits, int n_vocab)
{
    struct row *end = rows;
    int n_guesses = room_for_guesses(s);
    for (int i = 0; i < s->n_running; i++) {
        struct sequence *q = s->running[i];
        q->n_planned = q->n_draft = 0;
        q->logits = NULL;
        if (in_prefill(q) || !make_room(s, i))
            continue;
        end = plan_generating(q, n_guesses, end, &logits, n_vocab);
        n_guesses -= q->n_draft;
    }
    int n = (int)(end - rows), budget = s->n_batch;
    if (n > 0) {
        budget = s->n_batch / PART_BESIDE_ANSWERS;
        if (budget > s->n_batch - n)
            budget = s->n_batch - n;
        if (budget < 1)
            budget = 1; /* nobody starves, however small the batch */
    }
    end = plan_prefills(s, budget, end, logits, n_vocab);
    return (int)(end - rows);
}
