/* The command line of quern-server. */
#ifndef QUERN_OPTIONS_H
#define QUERN_OPTIONS_H

#include "engine/engine.h"
#include "server/http/net.h"

enum { MAX_ALLOWED_HOSTS = 16 };

struct options {
    struct engine_options engine;
    struct net_options net;
    struct sampling sampling;
    int draft_max;       /* -1: as the engine thinks best */
    char *alias;         /* owned */
    char *key;           /* owned; NULL: none */
    bool allow_no_key;
    const char *hosts[MAX_ALLOWED_HOSTS + 1]; /* [n_hosts] the host it listens on, and the allowed ones */
    int n_hosts;
    const char *cors_origin; /* NULL: none */
    bool metrics;
    bool log;
    bool help, version;  /* asked for: nothing else was checked */
};

/* False with a sentence for what cannot be understood. options_free is needed in either case. */
bool options_read(struct options *o, int argc, char **argv, struct error *err);
void options_free(struct options *o);

void options_print_help(const char *program);

#endif
