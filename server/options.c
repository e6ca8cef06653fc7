#include "server/options.h"

#include "engine/draft.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_KEY = 512 };

struct reading {
    struct options *o;
    const char *key_file;
};

enum kind { HEADING, FLAG, NUMBER, SIZE, FLOAT, TEXT };

/* One line of the help and one flag. What it sets is a member of struct reading, by its offset from there. */
struct flag {
    const char *name, *short_name; /* HEADING: the text, NULL */
    const char *argument, *help;
    enum kind kind;
    size_t where;     /* in struct options; with key_file: handled by name */
    double low, high; /* NUMBER, SIZE, FLOAT */
};

#define AT(member) offsetof(struct options, member)

static const struct flag flags[] = {
    {"Model", NULL, NULL, NULL, HEADING, 0, 0, 0},
    {"--model", "-m", "FILE", "the model: a GGUF file (required)", TEXT, AT(engine.model_path), 0, 0},
    {"--alias", "-a", "NAME", "the model's name in the API (default: the file's name without .gguf)", TEXT, AT(alias), 0, 0},
    {"--ctx-size", "-c", "N", "tokens a conversation may have, answer included\n"
     "(default: 2048, or what the model was trained for if that is less)", NUMBER, AT(engine.n_ctx), 0, 1 << 24},
    {"--no-mmap", NULL, NULL, "read the file into memory instead of mapping it", FLAG, AT(engine.no_mmap), 0, 0},
    {"--mlock", NULL, NULL, "keep the model in RAM, never in swap (needs a large enough `ulimit -l`)",
     FLAG, AT(engine.mlock), 0, 0},
    {"Speed", NULL, NULL, NULL, HEADING, 0, 0, 0},
    {"--threads", "-t", "N", "threads that compute (default: the cores this process may use)",
     NUMBER, AT(engine.n_threads), 1, 4096},
    {"--batch-size", "-b", "N", "tokens of a prompt that are computed at a time (default: 512)",
     NUMBER, AT(engine.n_batch), 1, 65536},
    {"--parallel", "-np", "N", "answers that are computed at the same time (default: 4)", NUMBER, AT(engine.n_parallel), 1, 1024},
    {"--draft-max", NULL, "N", "tokens to guess ahead, from what stands in the prompt and the answer already; 0: none\n"
     "(default: as many as this CPU computes at little cost). The answers are the same",
     NUMBER, AT(draft_max), 0, DRAFT_MOST},
    {"--queue", NULL, "N", "requests that may wait for their turn; more get a 503 (default: 64)",
     NUMBER, AT(engine.max_queue), 1, 1 << 20},
    {"Sampling, where a request does not say", NULL, NULL, NULL, HEADING, 0, 0, 0},
    {"--temp", NULL, "X", "temperature; 0 always takes the likeliest token (default: 0.7)",
     FLOAT, AT(sampling.temperature), 0, 2},
    {"--top-p", NULL, "X", "keep the likeliest tokens up to this probability (default: 0.8)", FLOAT, AT(sampling.top_p), 0, 1},
    {"--top-k", NULL, "N", "keep this many of the likeliest tokens; 0: all (default: 20)",
     NUMBER, AT(sampling.top_k), 0, INT_MAX},
    {"--min-p", NULL, "X", "keep tokens at least this likely relative to the likeliest (default: 0)",
     FLOAT, AT(sampling.min_p), 0, 1},
    {"Network", NULL, NULL, NULL, HEADING, 0, 0, 0},
    {"--host", NULL, "ADDRESS", "the address to listen on (default: 127.0.0.1)", TEXT, AT(net.host), 0, 0},
    {"--port", NULL, "N", "the port to listen on; 0: any free one (default: 8765)", NUMBER, AT(net.port), 0, 65535},
    {"--timeout", NULL, "SECONDS", "for a client to send its request, or to take more of its answer (default: 30)",
     NUMBER, AT(net.timeout_seconds), 1, 86400},
    {"--sse-ping-interval", NULL, "SECONDS", "a sign of life in a stream that is silent for so long (while a long prompt is\n"
     "computed, say), so that no client gives up; 0: none (default: 10)", NUMBER, AT(net.quiet_seconds), 0, 86400},
    {"--shutdown-grace", NULL, "SECONDS", "after SIGTERM, for answers to finish before they are cut (default: 5)",
     NUMBER, AT(net.grace_seconds), 0, 86400},
    {"--max-connections", NULL, "N", "connections at the same time (default: 128)", NUMBER, AT(net.max_connections), 1, 4096},
    {"--max-body", NULL, "BYTES", "of a request's body; more gets a 413 (default: 1048576)",
     SIZE, AT(net.limits.max_body), 1024, 1 << 30},
    {"--max-head", NULL, "BYTES", "of a request's first line and headers; more gets a 431 (default: 16384)",
     SIZE, AT(net.limits.max_head), 1024, 1 << 20},
    {"Access", NULL, NULL, NULL, HEADING, 0, 0, 0},
    {"--api-key", NULL, "KEY", "requests must carry 'Authorization: Bearer KEY'; only /health and the page are open.\n"
     "Shells and process managers keep command lines: QUERN_API_KEY or --api-key-file keeps the key off it", TEXT, AT(key), 0, 0},
    {"--api-key-file", NULL, "FILE", "the key is the first line of this file", TEXT, SIZE_MAX, 0, 0},
    {"--allowed-host", NULL, "NAME", "answer requests for this host name too (a reverse proxy's, say); may be given several "
     "times", TEXT, AT(hosts), 0, 0},
    {"--cors-origin", NULL, "ORIGIN", "let web pages of this origin (https://example.org) use the server; *: of any (default: "
     "none)", TEXT, AT(cors_origin), 0, 0},
    {"--allow-no-key", NULL, NULL, "listen beyond this machine without a key: anyone who can reach the port can use it",
     FLAG, AT(allow_no_key), 0, 0},
    {"Other", NULL, NULL, NULL, HEADING, 0, 0, 0},
    {"--metrics", NULL, NULL, "answer GET /metrics, in Prometheus' format", FLAG, AT(metrics), 0, 0},
    {"--log-disable", "-q", NULL, "no line on standard error for each request (also --quiet)", FLAG, AT(log), 0, 0},
    {"--version", NULL, NULL, "print the version and the kernels this CPU gets", FLAG, AT(version), 0, 0},
    {"--help", "-h", NULL, "print this", FLAG, AT(help), 0, 0},
};

enum { N_FLAGS = sizeof flags / sizeof *flags };

void options_print_help(const char *program)
{
    printf("quern-server answers chats with a Qwen2.5 model, in the schema of OpenAI's API.\n\nUsage: %s -m MODEL.gguf [flags]\n",
        program);
    for (int i = 0; i < N_FLAGS; i++) {
        const struct flag *f = &flags[i];
        if (f->kind == HEADING) {
            printf("\n%s:\n", f->name);
            continue;
        }
        char left[64];
        snprintf(left, sizeof left, "%s%s%s%s%s", f->short_name ? f->short_name : "", f->short_name ? ", " : "", f->name,
            f->argument ? " " : "", f->argument ? f->argument : "");
        const char *line = f->help, *end;
        printf("  %-27s ", left);
        while ((end = strchr(line, '\n')) != NULL) {
            printf("%.*s\n%30s", (int)(end - line), line, "");
            line = end + 1;
        }
        printf("%s\n", line);
    }
    printf("\nExamples:\n"
           "  %s -m models/quern-tiny-q4_k_m.gguf\n"
           "  %s -m qwen2.5-1.5b-instruct-q4_k_m.gguf -a qwen2.5-1.5b-instruct -c 4096 --mlock\n"
           "  curl http://127.0.0.1:8765/v1/chat/completions -H 'Content-Type: application/json' \\\n"
           "       -d '{\"messages\":[{\"role\":\"user\",\"content\":\"Say OK\"}],\"max_tokens\":10}'\n"
           "\nEnvironment:\n"
           "  QUERN_API_KEY   the key, if no flag gives one\n"
           "  QUERN_CPU       use the kernels of this level (scalar, avx2, neon ...) instead of the best\n"
           "\nExit status: 0 after SIGTERM or SIGINT, 1 if the model or the port cannot be had, 2 for a wrong command line.\n",
           program, program);
}

/* How many letters must be changed, added or left out to make b of a (Levenshtein distance). */
static size_t distance(const char *a, const char *b)
{
    enum { LONGEST = 40 };
    size_t n = strlen(a), m = strlen(b), row[LONGEST + 1];
    if (n > LONGEST || m > LONGEST)
        return SIZE_MAX;
    for (size_t j = 0; j <= m; j++)
        row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t change = diagonal + (a[i - 1] != b[j - 1]), gap = (row[j] < row[j - 1] ? row[j] : row[j - 1]) + 1;
            diagonal = row[j];
            row[j] = change < gap ? change : gap;
        }
    }
    return row[m];
}

static bool unknown_flag(const char *name, struct error *err)
{
    const char *nearest = NULL;
    size_t best = strlen(name) / 2 + 1; /* further away is no suggestion */
    for (int i = 0; i < N_FLAGS; i++) {
        size_t d = flags[i].kind == HEADING ? SIZE_MAX : distance(name, flags[i].name);
        if (d < best) {
            best = d;
            nearest = flags[i].name;
        }
    }
    if (nearest)
        return error_set(err, "unknown flag '%s': did you mean %s? (--help lists them all)", name, nearest);
    return error_set(err, "unknown flag '%s' (--help lists them all)", name);
}

static const struct flag *find_flag(const char *name)
{
    if (strcmp(name, "--quiet") == 0)
        name = "--log-disable";
    for (int i = 0; i < N_FLAGS; i++)
        if (flags[i].kind != HEADING &&
            (strcmp(name, flags[i].name) == 0 || (flags[i].short_name && strcmp(name, flags[i].short_name) == 0)))
            return &flags[i];
    return NULL;
}

static bool set_text(char **where, const char *text, struct error *err)
{
    char *copy = strdup(text);
    if (!copy)
        return error_set(err, "out of memory");
    free(*where);
    *where = copy;
    return true;
}

/* A name as a Host header has it, without the port. */
static bool add_host(struct options *o, const char *name, struct error *err)
{
    if (strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") != strlen(name) || strlen(name) > 253)
        return error_set(err, "--allowed-host takes a host name without a port, not '%.64s'", name);
    if (o->n_hosts > MAX_ALLOWED_HOSTS)
        return error_set(err, "--allowed-host can be given %d times", (int)MAX_ALLOWED_HOSTS);
    o->hosts[o->n_hosts++] = name;
    return true;
}

/* "*", or scheme://host[:port] and nothing after it: browsers send it so, and it is compared as it is. */
static bool check_origin(const char *origin, struct error *err)
{
    if (strcmp(origin, "*") == 0)
        return true;
    size_t scheme = strspn(origin, "abcdefghijklmnopqrstuvwxyz-");
    const char *host = strncmp(origin + scheme, "://", 3) == 0 ? origin + scheme + 3 : "";
    if (scheme == 0 || *host == '\0' || strlen(origin) > 255 ||
        strspn(host, "abcdefghijklmnopqrstuvwxyz0123456789-._:[]") != strlen(host))
        return error_set(err, "--cors-origin takes an origin as browsers send it (https://example.org, without a path, in lower "
            "case) or *, not '%.64s'", origin);
    return true;
}

static bool set_flag(struct reading *r, const struct flag *f, const char *value, struct error *err)
{
    char *base = (char *)r->o, *end;
    if (f->kind == FLAG) {
        *(bool *)(base + f->where) = f->where != AT(log);
        return true;
    }
    if (f->kind == TEXT) {
        if (*value == '\0')
            return error_set(err, "%s needs %s that is not empty", f->name, f->argument);
        if (f->where == SIZE_MAX)
            r->key_file = value;
        else if (f->where == AT(hosts))
            return add_host(r->o, value, err);
        else if (f->where == AT(alias) || f->where == AT(key))
            return set_text((char **)(void *)(base + f->where), value, err);
        else
            *(const char **)(void *)(base + f->where) = value;
        return true;
    }
    errno = 0;
    double d = f->kind == FLOAT ? strtod(value, &end) : (double)strtol(value, &end, 10);
    if (errno || end == value || *end != '\0' || !(d >= f->low && d <= f->high))
        return error_set(err, "%s takes %s from %.0f to %.0f, not '%s'", f->name,
            f->kind == FLOAT ? "a number" : "a whole number", f->low, f->high, value);
    if (f->kind == FLOAT)
        *(float *)(void *)(base + f->where) = (float)d;
    else if (f->kind == SIZE)
        *(size_t *)(void *)(base + f->where) = (size_t)d;
    else
        *(int *)(void *)(base + f->where) = (int)d;
    return true;
}

static bool read_key_file(struct options *o, const char *path, struct error *err)
{
    char line[MAX_KEY + 2];
    FILE *f = fopen(path, "re");
    if (!f)
        return error_set(err, "cannot read the key from %s: %s", path, strerror(errno));
    bool got = fgets(line, sizeof line, f) != NULL;
    fclose(f);
    line[got ? strcspn(line, "\r\n") : 0] = '\0';
    if (line[0] == '\0')
        return error_set(err, "%s has no key in its first line", path);
    return set_text(&o->key, line, err);
}

/* What a header can carry. */
static bool check_key(const char *key, struct error *err)
{
    size_t n = strlen(key);
    for (size_t i = 0; i < n; i++)
        if (key[i] <= 0x20 || key[i] >= 0x7F)
            return error_set(err, "the API key may have visible ASCII characters only, and no spaces");
    return n <= MAX_KEY || error_set(err, "the API key is longer than %d characters", MAX_KEY);
}

/* The file's name without folders and without .gguf. */
static bool default_alias(struct options *o, struct error *err)
{
    const char *slash = strrchr(o->engine.model_path, '/');
    if (!set_text(&o->alias, slash ? slash + 1 : o->engine.model_path, err))
        return false;
    size_t n = strlen(o->alias);
    if (n > 5 && strcmp(o->alias + n - 5, ".gguf") == 0)
        o->alias[n - 5] = '\0';
    return true;
}

static bool read_flags(struct reading *r, int argc, char **argv, struct error *err)
{
    for (int i = 1; i < argc; i++) {
        char name[64];
        const char *equals = strncmp(argv[i], "--", 2) == 0 ? strchr(argv[i], '=') : NULL;
        snprintf(name, sizeof name, "%.*s", equals ? (int)(equals - argv[i]) : INT_MAX, argv[i]);
        if (argv[i][0] != '-')
            return error_set(err, "'%s' is no flag; the model is given with -m (--help lists all flags)", argv[i]);
        const struct flag *f = find_flag(name);
        if (!f)
            return unknown_flag(name, err);
        const char *value = equals ? equals + 1 : NULL;
        if (f->kind == FLAG && value)
            return error_set(err, "%s takes no value", f->name);
        if (f->kind != FLAG && !value) {
            if (++i == argc)
                return error_set(err, "%s needs a value: %s", f->name, f->argument);
            value = argv[i];
        }
        if (!set_flag(r, f, value, err))
            return false;
        if (f->where == AT(key)) /* ps shows the command line to every user of the machine */
            memset(argv[i] + (value - argv[i]), '*', strlen(value));
    }
    return true;
}

bool options_read(struct options *o, int argc, char **argv, struct error *err)
{
    struct reading r = {.o = o};
    *o = (struct options){
        .net = {.host = "127.0.0.1", .port = 8765, .max_connections = 128, .timeout_seconds = 30, .idle_seconds = 75,
                .quiet_seconds = 10,
                .grace_seconds = 5, .limits = http_default_limits},
        /* Qwen's own recommendation for Qwen2.5-Instruct. */
        .sampling = {.temperature = 0.7f, .top_k = 20, .top_p = 0.8f},
        .draft_max = -1,
        .log = true,
    };
    o->n_hosts = 1; /* the first is what --host will be */
    if (!read_flags(&r, argc, argv, err))
        return false;
    o->hosts[0] = o->net.host;
    o->engine.n_draft = o->draft_max < 0 ? 0 : o->draft_max == 0 ? -1 : o->draft_max;
    if (o->help || o->version)
        return true;
    if (!o->engine.model_path)
        return error_set(err, "no model is given: -m MODEL.gguf (--help tells more)");
    if (o->cors_origin && !check_origin(o->cors_origin, err))
        return false;
    const char *env = getenv("QUERN_API_KEY");
    if (r.key_file && o->key)
        return error_set(err, "--api-key and --api-key-file exclude each other");
    if (r.key_file && !read_key_file(o, r.key_file, err))
        return false;
    if (!o->key && env && *env && !set_text(&o->key, env, err))
        return false;
    if (o->key && !check_key(o->key, err))
        return false;
    return o->alias || default_alias(o, err);
}

void options_free(struct options *o)
{
    free(o->alias);
    free(o->key);
    o->alias = o->key = NULL;
}
