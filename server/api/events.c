#include "server/api/events.h"

#include <stdlib.h>
#include <string.h>

void events_init(struct events *q, void (*wake)(void *user), void *user)
{
    *q = (struct events){.wake = wake, .user = user};
    pthread_mutex_init(&q->mutex, NULL);
    q->last = &q->first;
}

void events_free(struct events *q)
{
    bool lost;
    struct queued_event *e = events_take(q, &lost);
    while (e) {
        struct queued_event *next = e->next;
        free(e);
        e = next;
    }
    pthread_mutex_destroy(&q->mutex);
}

void events_push(void *queue, const struct engine_event *event)
{
    struct events *q = queue;
    size_t error_bytes = event->error ? strlen(event->error) + 1 : 0;
    size_t choice_bytes = (size_t)event->n_choices * sizeof *event->choices; /* first, where they are aligned */
    struct queued_event *e = malloc(sizeof *e + choice_bytes + event->text_length + error_bytes);
    if (e) {
        e->next = NULL;
        e->event = *event;
        if (choice_bytes > 0)
            e->event.choices = memcpy(e->bytes, event->choices, choice_bytes);
        char *text = e->bytes + choice_bytes;
        if (event->text_length > 0)
            memcpy(text, event->text, event->text_length);
        e->event.text = text;
        if (event->error)
            e->event.error = memcpy(text + event->text_length, event->error, error_bytes);
    }
    pthread_mutex_lock(&q->mutex);
    bool was_empty = !q->first && !q->lost;
    if (e) {
        *q->last = e;
        q->last = &e->next;
    } else {
        q->lost = true;
    }
    pthread_mutex_unlock(&q->mutex);
    if (was_empty)
        q->wake(q->user);
}

struct queued_event *events_take(struct events *q, bool *lost)
{
    pthread_mutex_lock(&q->mutex);
    struct queued_event *e = q->first;
    q->first = NULL;
    q->last = &q->first;
    *lost = q->lost;
    q->lost = false;
    pthread_mutex_unlock(&q->mutex);
    return e;
}
