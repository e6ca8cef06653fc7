/* The queue from the engine thread to the network thread: copies of engine events, in order.
 *
 * events_push never waits for the other thread beyond the moment that a pointer is exchanged, and calls `wake` when the queue was
 * empty. If memory runs out an event is lost; `lost` then tells the taker once, who must give up what it was waiting for. */
#ifndef QUERN_EVENTS_H
#define QUERN_EVENTS_H

#include "engine/engine.h"

#include <pthread.h>

struct queued_event {
    struct queued_event *next;
    struct engine_event event; /* choices, text and error point into this block */
    _Alignas(struct token_choice) char bytes[];
};

struct events {
    pthread_mutex_t mutex;
    struct queued_event *first, **last;
    bool lost;
    void (*wake)(void *user);
    void *user;
};

void events_init(struct events *q, void (*wake)(void *user), void *user);
void events_free(struct events *q);
/* An engine_callback, with a struct events as its user. */
void events_push(void *queue, const struct engine_event *event);
/* Everything queued, as a list that the caller frees with free, one by one. */
struct queued_event *events_take(struct events *q, bool *lost);

#endif
