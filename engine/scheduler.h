/* Whose turn it is: a queue of waiting sequences, the few that run, and the rows of the next batch.
 *
 * Admission is in the order of submission: the first in the queue starts when a place is free (n_parallel) and the KV pool has
 * room for its prompt and the beginning of an answer, which is then reserved. Nothing overtakes the first in the queue.
 *
 * An answer takes more room as it grows. When there is none, the youngest sequence is preempted: it gives its room up, goes
 * back to the front of the queue, and goes on from where it was when it starts again, with what the cache still has of it. (So
 * vLLM does it.) The oldest one always has room, so all come to their ends; and as every batch computes the same bits, to the
 * same ends.
 *
 * A batch has one row for every sequence that is generating (and one for each token that its grammar has left no choice about),
 * then prompt rows of the sequences still in prefill, up to n_batch rows in all. While anybody generates, at most a sixteenth of
 * n_batch are prompt rows: a long prompt then delays each next token by that much and no more. Of prompt rows half go to the
 * oldest sequence in prefill, the rest to the others, the shortest first: a short prompt does not wait for a long one.
 *
 * Where nobody is in prefill, guesses of the next tokens (engine/draft.h) fill up a batch to 1 + n_draft rows, the oldest
 * sequence's first.
 *
 * A prompt's beginning that the KV cache has (engine/kv.h) is not computed. Where one goes on like an older one that is being
 * computed, it waits for what comes of that: many answers to one prompt compute it once.
 *
 * Threads: scheduler_submit, scheduler_cancel, scheduler_stop and scheduler_count may be called from any
 * thread, the rest from the engine thread. */
#ifndef QUERN_SCHEDULER_H
#define QUERN_SCHEDULER_H

#include "engine/model.h"
#include "engine/sequence.h"

struct scheduler;

/* n_draft: 0 .. DRAFT_MOST; see above. */
struct scheduler *scheduler_new(
    struct kv_pool *kv, int n_parallel, int n_batch, int n_draft, int max_queue, struct error *err);
void scheduler_free(struct scheduler *s); /* and what is still queued or running; NULL is allowed */

/* Queues a sequence and owns it from now on, unless the result is SUBMIT_FULL or SUBMIT_STOPPED. */
enum submit_result scheduler_submit(struct scheduler *s, struct sequence *sequence, uint64_t *id, struct error *err);
void scheduler_cancel(struct scheduler *s, uint64_t id);
void scheduler_stop(struct scheduler *s);
void scheduler_count(struct scheduler *s, int *n_running, int *n_waiting);

/* Sleeps until there is something to do. False after scheduler_stop. */
bool scheduler_wait(struct scheduler *s);
/* Takes out one sequence that is cancelled (after scheduler_stop: any), or NULL. The caller ends and frees it. */
struct sequence *scheduler_take_cancelled(struct scheduler *s);
/* Starts the first in the queue (again, if it was preempted), if it can start now; returns it, or NULL. */
struct sequence *scheduler_admit(struct scheduler *s);

uint64_t scheduler_n_preemptions(const struct scheduler *s);

/* The most rows scheduler_plan makes, and the most of them that have logits. */
int scheduler_max_rows(const struct scheduler *s);
int scheduler_max_logits(const struct scheduler *s);
/* The rows of the next batch; sets n_planned of every running sequence, and logits of those that will
 * be sampled (logits: [scheduler_max_logits][n_vocab]). */
int scheduler_plan(struct scheduler *s, struct row *rows, float *logits, int n_vocab);
int scheduler_n_running(const struct scheduler *s);
struct sequence *scheduler_running(const struct scheduler *s, int index);
/* The sequence does not run any more. The caller frees it. Those behind it move up by one index. */
void scheduler_remove(struct scheduler *s, int index);

#endif
