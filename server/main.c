/* quern-server: puts the command line, the network thread and the engine thread together. */
#include "kernels/kernels.h"
#include "server/api/api.h"
#include "server/notify.h"
#include "server/options.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { EXIT_USAGE = 2 };

struct server {
    struct options options;
    struct net *net;
    struct api *api;
    struct notify notify; /* the service manager, if one started us */
    struct watchdog watchdog;
    bool stuck; /* said so: the engine makes no progress. Network thread */
    _Atomic(struct engine *) engine; /* NULL until loaded */
    atomic_bool load_failed;
    struct error load_error; /* written before load_failed is set */
};

static struct net *signal_net;
static const struct notify *signal_notify;

/* The first signal asks for an end, the second one takes it. */
static void on_signal(int number)
{
    static volatile sig_atomic_t seen;
    if (seen)
        _exit(128 + number);
    seen = 1;
    notify_send(signal_notify, "STOPPING=1\nSTATUS=stopping: answers that have begun may finish");
    net_stop(signal_net);
}

static void set_signals(const struct server *s)
{
    signal_net = s->net;
    signal_notify = &s->notify;
    struct sigaction stop = {.sa_handler = on_signal, .sa_flags = SA_RESTART}, ignore = {.sa_handler = SIG_IGN};
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

static void notify_serving(const struct server *s)
{
    notify_status(&s->notify, "serving %s on %s:%d", s->options.alias, net_address(s->net), net_port(s->net));
}

static void *engine_thread(void *arg)
{
    struct server *s = arg;
    pthread_setname_np(pthread_self(), "quern-engine");
    struct engine *engine = engine_open(&s->options.engine, &s->load_error);
    if (!engine) {
        atomic_store(&s->load_failed, true);
        api_engine_failed(s->api);
        net_stop(s->net); /* not at once: who waits is told */
        return NULL;
    }
    const struct engine_info *info = engine_info(engine);
    fprintf(stderr, "model %s: %.1f M parameters, %.1f MB in %.2f s, context %d, %d threads\n", s->options.alias,
        (double)info->n_params / 1e6, (double)info->model_bytes / 1e6, info->load_seconds, info->n_ctx, info->n_threads);
    atomic_store(&s->engine, engine);
    api_engine_ready(s->api, engine); /* before READY: whoever asks after that finds a server that answers */
    notify_send(&s->notify, "READY=1");
    notify_serving(s);
    engine_run(engine);
    return NULL;
}

/* Signals are for the network thread, whose sleep they must end. */
static bool start_engine_thread(struct server *s, pthread_t *thread)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int code = pthread_create(thread, NULL, engine_thread, s);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return code == 0;
}

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* On the network thread, so a sign of life vouches for both threads: this one turned its loop, and the engine made progress. */
static void look_at_engine(void *arg)
{
    struct server *s = arg;
    struct engine *engine = atomic_load(&s->engine);
    if (!engine)
        return; /* still loading: the manager's time limit for starting holds */
    struct engine_pulse pulse = engine_pulse(engine);
    int64_t now = now_ms(), stood = now - s->watchdog.last_progress_ms;
    if (watchdog_due(&s->watchdog, pulse.progress, pulse.idle, now))
        notify_send(&s->notify, "WATCHDOG=1");
    bool moves = s->watchdog.last_progress_ms == now;
    if (stood < s->watchdog.watchdog_ms * 3 / 4 || (s->stuck && !moves) || (!s->stuck && moves))
        return;
    s->stuck = !moves;
    if (s->stuck) {
        fprintf(stderr, "the engine has made no progress for %.1f s: until it does, the watchdog gets no sign of life\n",
            (double)stood / 1000);
        notify_status(&s->notify, "the engine has made no progress for %.1f s", (double)stood / 1000);
    } else {
        fprintf(stderr, "the engine makes progress again\n");
        notify_serving(s);
    }
}

static void start_watchdog(struct server *s)
{
    if (s->notify.watchdog_ms == 0)
        return;
    watchdog_start(&s->watchdog, s->notify.watchdog_ms, now_ms());
    net_every(s->net, watchdog_period_ms(&s->watchdog), look_at_engine, s);
}

static int fail(int status, const char *text)
{
    fprintf(stderr, "quern-server: %s\n", text);
    return status;
}

static int run(struct server *s, pthread_t thread)
{
    net_run(s->net);
    if (atomic_load(&s->load_failed)) {
        pthread_join(thread, NULL);
        notify_status(&s->notify, "%s", s->load_error.text); /* shown by systemctl status */
        return fail(EXIT_FAILURE, s->load_error.text);
    }
    struct engine *engine = atomic_load(&s->engine);
    if (!engine) {
        /* Told to stop while the model was still being loaded: there is nothing to finish,
         * and no reason to wait for the rest of a gigabyte. */
        fflush(NULL);
        _exit(EXIT_SUCCESS);
    }
    engine_stop(engine);
    pthread_join(thread, NULL); /* from here on nobody else uses the network or the engine */
    net_close(s->net);          /* may still cancel what it drops: before the engine is gone */
    s->net = NULL;
    engine_close(engine);
    fprintf(stderr, "stopped\n");
    return EXIT_SUCCESS;
}

static int serve(struct server *s, const struct kernels *kernels)
{
    struct options *o = &s->options;
    struct error err;
    if (!notify_open(&s->notify, &err)) /* whatever set it, a server that answers is worth more than one that reports */
        fprintf(stderr, "quern-server: %s; going on without telling a service manager\n", err.text);
    int inherited;
    if (!notify_inherited_socket(&inherited, &err))
        return fail(EXIT_USAGE, err.text);
    if (inherited >= 0)
        o->net.inherited = inherited;
    /* wait_for_engine: a socket that is handed from server to server is there so that a restart turns nobody away. */
    struct api_options api_options = {.model = o->alias, .model_path = o->engine.model_path, .hosts = o->hosts,
                                      .n_hosts = o->n_hosts, .cors_origin = o->cors_origin, .key = o->key,
                                      .kernel_level = kernels->level, .metrics = o->metrics, .log = o->log,
                                      .sampling = o->sampling, .wait_for_engine = inherited >= 0};
    s->api = api_new(&api_options);
    if (!s->api)
        return fail(EXIT_FAILURE, "out of memory");
    struct net_handler handler = api_handler(s->api);
    s->net = net_open(&o->net, &handler, &err);
    if (!s->net)
        return fail(EXIT_FAILURE, err.text);
    if (!net_is_loopback(s->net) && !o->key && !o->allow_no_key)
        return fail(
            EXIT_USAGE, "listening beyond this machine needs a key (--api-key-file), or --allow-no-key if anyone may use it");
    api_attach(s->api, s->net);
    set_signals(s);
    fprintf(stderr, "quern-server " QUERN_VERSION " (%s)\nlistening on http://%s:%d\n", kernels->level, net_address(s->net),
        net_port(s->net));
    notify_status(&s->notify, "loading %s", o->alias);
    start_watchdog(s);
    pthread_t thread;
    if (!start_engine_thread(s, &thread))
        return fail(EXIT_FAILURE, "cannot start a thread");
    return run(s, thread);
}

int main(int argc, char **argv)
{
    struct server s = {.notify.fd = -1};
    struct error err;
    int status;
    setvbuf(stderr, NULL, _IOLBF, 1024); /* a line of the log is one write */
    if (!options_read(&s.options, argc, argv, &err)) {
        status = fail(EXIT_USAGE, err.text);
    } else if (s.options.help) {
        options_print_help(argv[0]);
        status = EXIT_SUCCESS;
    } else {
        const struct kernels *kernels = kernels_select(&err);
        if (!kernels) {
            status = fail(EXIT_FAILURE, err.text);
        } else if (s.options.version) {
            printf("quern " QUERN_VERSION " (%s)\n", kernels->level);
            status = EXIT_SUCCESS;
        } else {
            status = serve(&s, kernels);
        }
    }
    net_close(s.net);
    notify_close(&s.notify);
    api_free(s.api);
    options_free(&s.options);
    return status;
}
