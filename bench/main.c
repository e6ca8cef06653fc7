/* quern-bench: how fast this machine runs a model, and how fast it could. */
#include "bench/measure.h"
#include "bench/memory.h"
#include "bench/report.h"
#include "gguf/synthetic.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* Two strings: C promises no more than 4095 characters in one. */
static const char help[] =
    "Usage: quern-bench -m MODEL.gguf [options]\n"
    "       quern-bench --synthetic 0.5b|1.5b|3b [options]\n"
    "\n"
    "Measures how fast this machine runs a model, beside how fast its memory could deliver\n"
    "the weights. Every token that is generated reads all weights once, so memory speed\n"
    "divided by their size is the most tokens per second any program can reach here.\n"
    "\n"
    "  -m, --model FILE       a GGUF file\n"
    "      --synthetic SHAPE  no file: random weights in memory, of the size and kind of\n"
    "                         Qwen2.5 0.5b, 1.5b or 3b (Q4_K_M); as fast as the real one\n"
    "  -p, --prompt N         tokens of a prompt to compute (prefill); 0: none   [512]\n"
    "  -n, --gen N            tokens to generate (decode); 0: none               [64]\n"
    "  -d, --depth N          tokens that are in the context before decode       [0]\n"
    "  -t, --threads N        [the number of cores this process may use]\n"
    "  -b, --batch-size N     rows of a prefill step                             [512]\n"
    "  -r, --repetitions N    rounds, after one to warm up; medians are shown    [5]\n"
    "      --no-mmap          read the file instead of mapping it\n"
    "      --read-mib N       memory to read in a round, at least 64; what fits into the\n"
    "                         processor's caches is read faster than memory is    [1024]\n"
    "      --profile          also show where the time goes, part by part\n"
    "      --sweep            also prefill of 16 to 4096 tokens, decode at depths from 0 to\n"
    "                         32000, and 1 to 16 sequences at once; a few minutes or more\n"
    "      --ctx N            positions that the sweep may go to  [what the model and half of\n"
    "                         the memory available allow]\n"
    "      --svg FILE         draw the sweep (implies --sweep)\n"
    "      --compare FILE     put this run beside an earlier one that was kept with --json\n"
    "      --json             one JSON object instead of a table\n"
    "      --version          version, and the kernels in use on this machine\n"
    "  -h, --help             this text\n"
    "\n"
    "The environment variable QUERN_CPU (scalar, avx2, ...) forces a level of kernels.\n"
    "\n"
    "In every round the memory's read speed, prefill and decode are measured in turn, so\n"
    "that a busy neighbour slows all three alike. Read speed: all threads read --read-mib (or half\n"
    "of the memory available, if less) twice, the better pass counts. Decode: one forward\n"
    "pass per token and the choice of the likeliest. The percentage compares medians.\n"
    "\n";
static const char help_more[] =
    "Profile: one more prefill and one more decode, with the clock read at every piece of work.\n"
    "Time of all threads divided by their number, so that the parts add up to what passed;\n"
    "\"waiting\" is what is left: threads without work, waking, hand-over. GB/s are weights, or\n"
    "keys and values, read; mult-adds/ns the arithmetic done meanwhile. In decode a part is as\n"
    "good as it gets when its GB/s are those of the memory.\n"
    "\n"
    "Sweep: -r rounds over all points. Decode points are -n steps, at most 32. Depths beyond 512\n"
    "are filled with copies of the first 512 positions, which costs a decode step as much as\n"
    "computed ones. The limit of a point: weights, and keys and values of all sequences, at the\n"
    "memory's speed. -p 0 -n 0 leaves only the sweep.\n"
    "\n"
    "Comparison: ratio of medians, this run to the earlier one; marked better or WORSE where\n"
    "the two spreads, min to max, do not touch. A different model, kernel level, number of\n"
    "threads, batch size, processor or version is pointed out. Compare runs of a quiet machine,\n"
    "and look at \"memory read\" first: if that has moved, the machine is not the same.\n"
    "\n"
    "JSON: {\"version\", \"model\": {\"name\", \"source\", \"synthetic\", \"n_params\", \"tensor_bytes\",\n"
    "\"load_seconds\"}, \"machine\": {\"cpu\", \"kernel_level\", \"threads\"}, \"repetitions\",\n"
    "\"batch_size\", \"read\": {\"unit\", \"buffer_bytes\", \"median\", \"min\", \"max\", \"values\"},\n"
    "\"prefill\": {\"unit\", \"tokens\", \"median\", \"min\", \"max\", \"values\"} or null, \"decode\": {as\n"
    "prefill, and \"depth\", \"weight_bytes_per_token\", \"kv_bytes_per_token\", \"limit\" (tokens/s),\n"
    "\"percent_of_limit\"} or null,\n"
    "\"sweep\": {\"context\", \"short_of_memory\", \"steps\", \"prefill\": [{\"tokens\", \"unit\", \"median\",\n"
    "\"min\", \"max\", \"values\"}], \"decode\": [{\"depth\", ..., \"limit\"}], \"batch\": [{\"sequences\",\n"
    "..., \"limit\"}]} or null,\n"
    "\"profile\": {\"prefill\": {\"tokens\", \"seconds\", \"parts\": [{\"part\", \"seconds\", \"share\" (of 1),\n"
    "\"ms_per_token\", \"bytes\", \"multiply_adds\"}]} or null, \"decode\": as prefill} or null,\n"
    "\"compare\": {\"file\", \"differences\": [sentences], \"figures\": [{\"figure\", \"unit\", \"then\":\n"
    "{\"median\", \"min\", \"max\"}, \"now\": the same, \"ratio\" (now to then), \"verdict\": \"better\",\n"
    "\"worse\", \"same\", or null of what was measured once}]} or null}\n"
    "\n"
    "Exit status: 0 measured; 1 the model or a file cannot be had, or memory is short; 2 wrong usage.\n"
    "\n"
    "Examples:\n"
    "  quern-bench --synthetic 1.5b             what would this machine do with that model?\n"
    "  quern-bench -m model.gguf -n 64 -d 1500  generating late in a long conversation\n"
    "  QUERN_CPU=avx2 quern-bench -m model.gguf --json > avx2.json\n"
    "  quern-bench -m model.gguf --compare avx2.json\n"
    "  quern-bench -m model.gguf -p 0 -n 0 -r 3 --svg sweep.svg   the sweep as a picture\n"
    "  quern-bench -m model.gguf -d 4000 --profile  what takes the time in a long context?\n";

enum { EXIT_FAILED = 1, EXIT_USAGE = 2 };

struct arguments {
    const char *model, *synthetic;
    int n_threads;
    bool no_mmap, json;
    const char *svg, *compare;
    struct measure_options measure;
};

/* ---- progress ---- */

/* Only on a terminal, and on one line that is wiped at the end. */
static bool progress_shown;

static void progress(const char *what, int done, int of)
{
    if (!isatty(STDERR_FILENO))
        return;
    progress_shown = true;
    fprintf(stderr, "\r\033[K%s", what);
    if (of > 0 && done > 0)
        fprintf(stderr, ", round %d of %d", done, of);
    fputs(" ...", stderr);
    fflush(stderr);
}

static void progress_end(void)
{
    if (progress_shown)
        fputs("\r\033[K", stderr);
    progress_shown = false;
}

/* ---- arguments ---- */

static int usage(const char *format, const char *what)
{
    fputs("quern-bench: ", stderr);
    fprintf(stderr, format, what);
    fputs("\nquern-bench --help shows what is possible.\n", stderr);
    return EXIT_USAGE;
}

static bool parse_number(const char *text, int least, int most, int *out)
{
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < least || value > most)
        return false;
    *out = (int)value;
    return true;
}

static int print_version(void)
{
    struct error err;
    const struct kernels *k = kernels_select(&err);
    printf("quern-bench %s\n", QUERN_VERSION);
    if (!k) {
        fprintf(stderr, "quern-bench: %s\n", err.text);
        return EXIT_FAILED;
    }
    printf("kernels: %s\n", k->level);
    return EXIT_SUCCESS;
}

/* -1: go on; else the exit status. */
static int parse(int argc, char **argv, struct arguments *a)
{
    enum {
        OPTION_SYNTHETIC = 256, OPTION_NO_MMAP, OPTION_JSON, OPTION_VERSION, OPTION_PROFILE, OPTION_SWEEP, OPTION_CTX,
        OPTION_READ, OPTION_SVG, OPTION_COMPARE
    };
    static const struct option options[] = {
        {"model", required_argument, NULL, 'm'},       {"synthetic", required_argument, NULL, OPTION_SYNTHETIC},
        {"prompt", required_argument, NULL, 'p'},      {"gen", required_argument, NULL, 'n'},
        {"depth", required_argument, NULL, 'd'},       {"threads", required_argument, NULL, 't'},
        {"batch-size", required_argument, NULL, 'b'},  {"repetitions", required_argument, NULL, 'r'},
        {"no-mmap", no_argument, NULL, OPTION_NO_MMAP}, {"json", no_argument, NULL, OPTION_JSON},
        {"profile", no_argument, NULL, OPTION_PROFILE}, {"sweep", no_argument, NULL, OPTION_SWEEP},
        {"ctx", required_argument, NULL, OPTION_CTX},  {"svg", required_argument, NULL, OPTION_SVG},
        {"compare", required_argument, NULL, OPTION_COMPARE}, {"read-mib", required_argument, NULL, OPTION_READ},
        {"version", no_argument, NULL, OPTION_VERSION}, {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    const int most = 1 << 24;
    struct measure_options *m = &a->measure;
    for (int c; (c = getopt_long(argc, argv, "m:p:n:d:t:b:r:h", options, NULL)) != -1;) {
        bool good = true;
        switch (c) {
        case 'm': a->model = optarg; break;
        case OPTION_SYNTHETIC: a->synthetic = optarg; break;
        case 'p': good = parse_number(optarg, 0, most, &m->n_prompt); break;
        case 'n': good = parse_number(optarg, 0, most, &m->n_decode); break;
        case 'd': good = parse_number(optarg, 0, most, &m->depth); break;
        case 't': good = parse_number(optarg, 1, 4096, &a->n_threads); break;
        case 'b': good = parse_number(optarg, 1, 65536, &m->n_batch); break;
        case 'r': good = parse_number(optarg, 1, SERIES_MOST, &m->n_repetitions); break;
        case OPTION_NO_MMAP: a->no_mmap = true; break;
        case OPTION_PROFILE: m->profile = true; break;
        case OPTION_SWEEP: m->sweep = true; break;
        case OPTION_CTX: good = parse_number(optarg, KV_BLOCK, most, &m->n_ctx); break;
        case OPTION_READ: good = parse_number(optarg, READ_LEAST >> 20, 1 << 20, &m->read_mib); break;
        case OPTION_SVG: a->svg = optarg; m->sweep = true; break;
        case OPTION_COMPARE: a->compare = optarg; break;
        case OPTION_JSON: a->json = true; break;
        case OPTION_VERSION: return print_version();
        case 'h': fputs(help, stdout); fputs(help_more, stdout); return EXIT_SUCCESS;
        default: /* getopt has said what is wrong */
            fputs("quern-bench --help shows what is possible.\n", stderr);
            return EXIT_USAGE;
        }
        if (!good) {
            char short_flag[] = {'-', (char)c, 0}, text[256];
            const char *flag = c == OPTION_CTX ? "--ctx" : c == OPTION_READ ? "--read-mib" : short_flag;
            snprintf(text, sizeof text, "%s %s", flag, optarg);
            return usage("\"%s\" is not a number that is possible here", text);
        }
    }
    if (optind < argc)
        return usage("what is \"%s\"? A model is given with -m", argv[optind]);
    if (!a->model && !a->synthetic)
        return usage("%s", "which model? Give a file with -m, or --synthetic 0.5b, 1.5b or 3b");
    if (a->model && a->synthetic)
        return usage("%s", "-m and --synthetic exclude each other");
    if (m->n_prompt == 0 && m->n_decode == 0 && m->profile)
        return usage("%s", "with -p 0 and -n 0 there is nothing whose time --profile could show");
    if (m->n_prompt == 0 && m->n_decode == 0 && !m->sweep)
        return usage("%s", "with -p 0 and -n 0 nothing is left to measure");
    return -1;
}

/* ---- the model ---- */

struct subject_file {
    struct gguf *file;
    void *image; /* of a synthetic model */
    size_t image_size;
    char *name;
};

static bool open_subject(const struct arguments *a, struct subject_file *s, struct error *err)
{
    if (a->synthetic) {
        struct synthetic_shape shape;
        if (!synthetic_shape_named(a->synthetic, &shape))
            return error_set(err, "there is no synthetic model \"%s\": 0.5b, 1.5b and 3b there are", a->synthetic);
        progress("making random weights", 0, 0);
        s->image = synthetic_image(&shape, &s->image_size, err);
        if (!s->image || !(s->file = gguf_open_memory(s->image, s->image_size, err)))
            return false;
    } else {
        const struct gguf_options options = {.no_mmap = a->no_mmap};
        progress("opening the file", 0, 0);
        if (!(s->file = gguf_open(a->model, &options, err)))
            return false;
    }
    struct gguf_string name;
    if (!gguf_get_string(s->file, "general.name", &name, NULL))
        name = (struct gguf_string){"", 0};
    s->name = strndup(name.data, name.length);
    return s->name ? true : error_set(err, "out of memory");
}

static void close_subject(struct subject_file *s)
{
    gguf_close(s->file);
    gguf_image_free(s->image, s->image_size);
    free(s->name);
}

static bool fits(const struct model *m, const struct measure_options *o, struct error *err)
{
    int most = model_shape(m)->n_ctx_train;
    if (o->n_prompt > most)
        return error_set(err, "a prompt of %d tokens does not fit: this model was trained for %d", o->n_prompt, most);
    if (o->depth + o->n_decode > most)
        return error_set(err, "%d tokens at depth %d do not fit: this model was trained for %d", o->n_decode, o->depth, most);
    return true;
}

static bool write_svg(const char *path, const struct report *r, struct error *err)
{
    FILE *f = fopen(path, "we");
    if (!f)
        return error_set(err, "cannot create %s: %s", path, strerror(errno));
    report_svg(f, r);
    bool good = !ferror(f);
    return fclose(f) == 0 && good ? true : error_set(err, "cannot write %s: %s", path, strerror(errno));
}

static bool run(const struct arguments *a, struct error *err)
{
    static struct measurements measurements; /* large */
    static struct earlier earlier;
    struct subject_file subject = {0};
    struct threads *pool = NULL;
    struct model *model = NULL;
    struct timespec begin, end;
    const struct kernels *kernels = kernels_select(err);
    bool good = kernels && (!a->compare || earlier_read(&earlier, a->compare, err)) && open_subject(a, &subject, err);
    clock_gettime(CLOCK_MONOTONIC, &begin);
    if (good) {
        progress("loading the model", 0, 0);
        good = (pool = threads_new(a->n_threads ? a->n_threads : threads_usable_cores(), err)) &&
               (model = model_load(subject.file, kernels, pool, err));
    }
    clock_gettime(CLOCK_MONOTONIC, &end);
    good = good && fits(model, &a->measure, err) && measure(model, kernels, pool, &a->measure, progress, &measurements, err);
    progress_end();
    if (good) {
        char cpu[256];
        report_cpu_name(cpu, sizeof cpu);
        const struct report report = {
            .model_name = subject.name, .source = a->synthetic ? a->synthetic : a->model, .synthetic = a->synthetic != NULL,
            .cpu = cpu, .kernel_level = kernels->level, .n_threads = threads_count(pool),
            .load_seconds = (double)(end.tv_sec - begin.tv_sec) + 1e-9 * (double)(end.tv_nsec - begin.tv_nsec),
            .n_params = model_n_params(model), .tensor_bytes = model_tensor_bytes(model),
            .options = &a->measure, .measurements = &measurements, .earlier = a->compare ? &earlier : NULL,
        };
        if (!a->json)
            report_text(stdout, &report);
        else if (!report_json(stdout, &report))
            good = error_set(err, "out of memory for the result");
        if (a->svg && !write_svg(a->svg, &report, err))
            good = false;
    }
    model_free(model);
    threads_free(pool);
    close_subject(&subject);
    return good;
}

int main(int argc, char **argv)
{
    struct arguments a = {.measure = {.n_prompt = 512, .n_decode = 64, .n_batch = 512, .read_mib = 1024, .n_repetitions = 5}};
    int status = parse(argc, argv, &a);
    struct error err;
    if (status < 0) {
        status = run(&a, &err) ? EXIT_SUCCESS : EXIT_FAILED;
        if (status != EXIT_SUCCESS)
            fprintf(stderr, "quern-bench: %s\n", err.text);
    }
    if (fflush(stdout) != 0 || ferror(stdout)) {
        fprintf(stderr, "quern-bench: cannot write the result: %s\n", strerror(errno));
        return EXIT_FAILED;
    }
    return status;
}
