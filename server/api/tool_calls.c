#include "server/api/tool_calls.h"
#include "server/json/json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* The opening one with or without its line feed. */
static const char open_mark[] = "\n<tool_call>", close_mark[] = "</tool_call>";

enum {
    OPEN_LENGTH = sizeof open_mark - 1,
    CLOSE_LENGTH = sizeof close_mark - 1,
    MOST_HEAD = 1024 /* bytes from the mark to the arguments; with more it is not streamed, but read when it is complete */
};

enum phase {
    OUTSIDE,   /* content */
    HEAD,      /* {"name": "...", "arguments": is not complete yet */
    ARGUMENTS, /* the name is known, the arguments are being written */
    BROKEN,    /* they are no JSON: up to the mark */
    WHOLE,     /* some other order: up to the mark, and then all at once */
    TAIL       /* the arguments are complete: a brace and the mark */
};

struct tool_parser {
    bool streaming;
    tool_callback *callback;
    void *user;
    char **names; /* [n_names] */
    size_t n_names;

    enum phase phase;
    struct json_writer text; /* bytes not told yet; inside of a call all of it, from its "<tool_call>" on */
    size_t at;               /* bytes of text that were looked at */
    bool after_call;         /* only white space since the last call */

    /* The call. */
    char id[TOOL_CALL_ID_BYTES];
    const char *name;       /* one of names */
    size_t arguments, told; /* where in text they begin; up to where they were told */
    size_t arguments_end;   /* once complete */
    bool started;           /* TOOL_CALL_START was told */
    int depth;              /* of the arguments at `at` */
    bool in_string, escaped;
    bool brace;             /* TAIL: the last one was seen */
    int index, n_valid;
};

void tool_call_id(char out[TOOL_CALL_ID_BYTES])
{
    unsigned char random[12] = {0};
    static unsigned fallback; /* distinct even where the system has no random numbers */
    if (getrandom(random, sizeof random, 0) != (ssize_t)sizeof random) {
        fallback++;
        memcpy(random, &fallback, sizeof fallback);
    }
    int n = snprintf(out, TOOL_CALL_ID_BYTES, "call_");
    for (size_t i = 0; i < sizeof random; i++)
        n += snprintf(out + n, TOOL_CALL_ID_BYTES - (size_t)n, "%02x", random[i]);
}

struct tool_parser *tool_parser_new(
    const struct chat_text *names, size_t n_names, bool streaming, tool_callback *callback, void *user)
{
    struct tool_parser *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->streaming = streaming;
    p->callback = callback;
    p->user = user;
    p->names = calloc(n_names ? n_names : 1, sizeof *p->names);
    for (size_t i = 0; p->names && i < n_names; i++) {
        p->names[i] = strndup(names[i].data, names[i].length);
        if (!p->names[i])
            break;
        p->n_names++;
    }
    if (!p->names || p->n_names < n_names) {
        tool_parser_free(p);
        return NULL;
    }
    return p;
}

void tool_parser_free(struct tool_parser *p)
{
    if (!p)
        return;
    for (size_t i = 0; i < p->n_names; i++)
        free(p->names[i]);
    free(p->names);
    json_writer_free(&p->text);
    free(p);
}

int tool_parser_n_valid(const struct tool_parser *p)
{
    return p->n_valid;
}

/* ---- telling ---- */

static void tell(struct tool_parser *p, enum tool_event_kind kind, const char *text, size_t length, bool valid)
{
    struct tool_event event = {.kind = kind, .text = text, .length = length, .valid = valid};
    if (kind != TOOL_CONTENT) {
        event.index = p->index;
        event.id = p->id;
        event.name = p->name;
    }
    p->callback(p->user, &event);
}

/* Drops the first n bytes of the text. */
static void drop(struct tool_parser *p, size_t n)
{
    p->text.length -= n;
    memmove(p->text.data, p->text.data + n, p->text.length);
}

/* The first n bytes are content. */
static void tell_content(struct tool_parser *p, size_t n)
{
    if (n > 0)
        tell(p, TOOL_CONTENT, p->text.data, n, false);
    drop(p, n);
}

static void start_call(struct tool_parser *p)
{
    tool_call_id(p->id);
    p->started = true;
    tell(p, TOOL_CALL_START, "", 0, false);
}

static void end_call(struct tool_parser *p, const char *arguments, size_t length, bool valid)
{
    tell(p, TOOL_CALL_END, arguments, length, valid);
    p->n_valid += valid;
    p->index++;
    p->started = false;
}

static void tell_whole_call(struct tool_parser *p, const char *arguments, size_t length)
{
    start_call(p);
    tell(p, TOOL_CALL_ARGUMENTS, arguments, length, false);
    end_call(p, arguments, length, true);
}

/* ---- reading ---- */

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\n' || c == '\r';
}

static const char *find_name(const struct tool_parser *p, const char *name, size_t length)
{
    for (size_t i = 0; i < p->n_names; i++)
        if (strlen(p->names[i]) == length && memcmp(p->names[i], name, length) == 0)
            return p->names[i];
    return NULL;
}

static bool is_object(const char *text, size_t length)
{
    struct json *j = json_parse(text, length, NULL, NULL);
    bool ok = j && json_root(j)->kind == JSON_OBJECT;
    json_free(j);
    return ok;
}

enum match { MATCHES, DIFFERS, TOO_SHORT };

/* White space, then the word. */
static enum match match(const char **at, const char *end, const char *word)
{
    while (*at < end && is_space(**at))
        (*at)++;
    for (; *word; word++, (*at)++) {
        if (*at == end)
            return TOO_SHORT;
        if (**at != *word)
            return DIFFERS;
    }
    return MATCHES;
}

/* The beginning of a call as Qwen2.5 writes it. */
static enum match match_head(struct tool_parser *p)
{
    static const char *const before[] = {"{", "\"name\"", ":", "\""}, *const after[] = {",", "\"arguments\"", ":", "{"};
    const char *at = p->text.data + OPEN_LENGTH - 1, *end = p->text.data + p->text.length;
    enum match m;
    for (size_t i = 0; i < sizeof before / sizeof *before; i++)
        if ((m = match(&at, end, before[i])) != MATCHES)
            return m;
    const char *name = at;
    while (at < end && *at != '"' && *at != '\\')
        at++;
    if (at == end)
        return TOO_SHORT;
    if (*at == '\\' || !(p->name = find_name(p, name, (size_t)(at - name))))
        return DIFFERS;
    at++;
    for (size_t i = 0; i < sizeof after / sizeof *after; i++)
        if ((m = match(&at, end, after[i])) != MATCHES)
            return m;
    p->arguments = (size_t)(at - 1 - p->text.data);
    return MATCHES;
}

/* Does the text at `at` (which it ends with) have the mark, or may it yet? */
static enum match match_close(const struct tool_parser *p, size_t at)
{
    size_t n = p->text.length - at;
    if (memcmp(p->text.data + at, close_mark, n < CLOSE_LENGTH ? n : CLOSE_LENGTH) != 0)
        return DIFFERS;
    return n < CLOSE_LENGTH ? TOO_SHORT : MATCHES;
}

/* Looks for the mark from `at` on. MATCHES: p->at is where it begins. */
static enum match find_close(struct tool_parser *p)
{
    for (; p->at < p->text.length; p->at++) {
        const char *next = memchr(p->text.data + p->at, '<', p->text.length - p->at);
        p->at = next ? (size_t)(next - p->text.data) : p->text.length;
        enum match m = next ? match_close(p, p->at) : DIFFERS;
        if (m != DIFFERS)
            return m;
        if (!next)
            break;
    }
    return TOO_SHORT;
}

/* ---- phases; each returns true if it got on, false if it needs more text ---- */

static void leave_call(struct tool_parser *p, size_t end)
{
    drop(p, end);
    p->at = 0;
    p->phase = OUTSIDE;
}

/* Everything up to end was no call. */
static bool was_content(struct tool_parser *p, size_t end)
{
    tell_content(p, end);
    p->at = 0;
    p->after_call = false;
    p->phase = OUTSIDE;
    return true;
}

static bool outside(struct tool_parser *p)
{
    const char *text = p->text.data;
    size_t n = p->text.length, at = 0;
    while (at < n) {
        size_t skip = text[at] == '\n' ? 0 : 1; /* of open_mark: its line feed may be missing */
        size_t rest = n - at, wanted = OPEN_LENGTH - skip;
        if ((text[at] == '\n' || text[at] == '<') && memcmp(text + at, open_mark + skip, rest < wanted ? rest : wanted) == 0) {
            if (rest < wanted)
                break; /* perhaps */
            bool only_space = p->after_call;
            for (size_t i = 0; i < at && only_space; i++)
                only_space = is_space(text[i]);
            if (only_space)
                drop(p, at);
            else
                tell_content(p, at);
            drop(p, 1 - skip); /* the line feed: from here on every call begins with "<" */
            p->phase = HEAD;
            p->name = NULL;
            p->started = p->brace = p->in_string = p->escaped = false;
            p->depth = 0;
            p->after_call = false;
            return true;
        }
        at++;
    }
    if (p->after_call) { /* white space is held until more is known */
        size_t i = 0;
        while (i < at && is_space(text[i]))
            i++;
        if (i == at)
            return false;
        p->after_call = false;
    }
    tell_content(p, at);
    return false;
}

static bool head(struct tool_parser *p)
{
    enum match m = p->text.length > MOST_HEAD ? DIFFERS : match_head(p);
    if (m == TOO_SHORT && p->text.length <= MOST_HEAD)
        return false;
    if (m == MATCHES) {
        p->phase = ARGUMENTS;
        p->at = p->told = p->arguments;
        if (p->streaming)
            start_call(p);
        return true;
    }
    const char *at = p->text.data + OPEN_LENGTH - 1, *end = p->text.data + p->text.length;
    if (match(&at, end, "{") == DIFFERS) /* somebody speaks of the mark */
        return was_content(p, OPEN_LENGTH - 1);
    p->phase = WHOLE;
    p->at = OPEN_LENGTH - 1;
    return true;
}

static void tell_arguments(struct tool_parser *p, size_t end)
{
    if (p->streaming && end > p->told)
        tell(p, TOOL_CALL_ARGUMENTS, p->text.data + p->told, end - p->told, false);
    p->told = end;
}

/* Follows strings and brackets, which is enough to find the end; whether all of it is JSON is asked then. */
static bool arguments(struct tool_parser *p)
{
    for (; p->at < p->text.length; p->at++) {
        unsigned char c = (unsigned char)p->text.data[p->at];
        if (p->in_string) {
            if (c < 0x20) { /* JSON has none in strings; a string that was forgotten to be closed ends so */
                p->phase = BROKEN;
                return true;
            }
            if (p->escaped)
                p->escaped = false;
            else if (c == '\\')
                p->escaped = true;
            else if (c == '"')
                p->in_string = false;
        } else if (c == '"') {
            p->in_string = true;
        } else if (c == '<') {
            p->phase = BROKEN;
            return true;
        } else if (c == '{' || c == '[') {
            p->depth++;
        } else if ((c == '}' || c == ']') && --p->depth == 0) {
            p->arguments_end = ++p->at;
            size_t length = p->arguments_end - p->arguments;
            tell_arguments(p, p->arguments_end);
            bool valid = is_object(p->text.data + p->arguments, length);
            if (!p->streaming && !valid) {
                p->phase = BROKEN;
                return true;
            }
            if (p->streaming)
                end_call(p, p->text.data + p->arguments, length, valid);
            else
                tell_whole_call(p, p->text.data + p->arguments, length);
            p->phase = TAIL;
            return true;
        }
    }
    tell_arguments(p, p->at);
    return false;
}

static bool broken(struct tool_parser *p)
{
    enum match m = find_close(p);
    tell_arguments(p, p->at);
    if (m != MATCHES)
        return false;
    if (!p->streaming)
        return was_content(p, p->at + CLOSE_LENGTH);
    end_call(p, p->text.data + p->arguments, p->at - p->arguments, false);
    leave_call(p, p->at + CLOSE_LENGTH);
    p->after_call = true;
    return true;
}

/* The object in text[0, length), if it is a call: name and arguments, and nothing else. */
static bool read_whole(struct tool_parser *p, const char *text, size_t length)
{
    struct json *j = json_parse(text, length, NULL, NULL);
    const struct json_value *root = j ? json_root(j) : NULL;
    const struct json_value *name = json_get(root, "name"), *given = json_get(root, "arguments");
    struct json_writer w = {.spaced = true};
    bool ok =
        name && name->kind == JSON_STRING && root->count == (given ? 2 : 1) && (p->name = find_name(p, name->text, name->count));
    if (ok && !given)
        json_raw(&w, "{}", 2);
    else if (ok && given->kind == JSON_STRING && is_object(given->text, given->count))
        json_raw(&w, given->text, given->count);
    else if (ok && given->kind == JSON_OBJECT)
        json_value(&w, given);
    else
        ok = false;
    p->text.failed |= w.failed;
    if (ok && !w.failed)
        tell_whole_call(p, w.data, w.length);
    json_writer_free(&w);
    json_free(j);
    return ok;
}

static bool whole(struct tool_parser *p)
{
    if (find_close(p) != MATCHES)
        return false;
    size_t begin = OPEN_LENGTH - 1, end = p->at + CLOSE_LENGTH;
    if (!read_whole(p, p->text.data + begin, p->at - begin))
        return was_content(p, end);
    leave_call(p, end);
    p->after_call = true;
    return true;
}

static bool tail(struct tool_parser *p)
{
    for (; p->at < p->text.length; p->at++) {
        char c = p->text.data[p->at];
        if (is_space(c))
            continue;
        if (c == '}' && !p->brace) {
            p->brace = true;
            continue;
        }
        enum match m = match_close(p, p->at);
        if (m == TOO_SHORT)
            return false;
        leave_call(p, m == MATCHES ? p->at + CLOSE_LENGTH : p->at);
        p->after_call = m == MATCHES;
        return true;
    }
    return false;
}

static bool advance(struct tool_parser *p)
{
    if (p->text.failed || p->text.length == 0)
        return false;
    switch (p->phase) {
    case OUTSIDE: return outside(p);
    case HEAD: return head(p);
    case ARGUMENTS: return arguments(p);
    case BROKEN: return broken(p);
    case WHOLE: return whole(p);
    case TAIL: return tail(p);
    }
    return false;
}

bool tool_parser_feed(struct tool_parser *p, const char *text, size_t length)
{
    if (length > 0)
        json_raw(&p->text, text, length);
    while (advance(p))
        ;
    return !p->text.failed;
}

bool tool_parser_end(struct tool_parser *p)
{
    size_t n = p->text.length;
    if (p->text.failed || n == 0)
        return !p->text.failed;
    if (p->phase == OUTSIDE && p->after_call) {
        const char *text = p->text.data;
        size_t i = 0;
        while (i < n && is_space(text[i]))
            i++;
        if (i == n) {
            drop(p, n);
            return true;
        }
    }
    if (p->phase == WHOLE && read_whole(p, p->text.data + OPEN_LENGTH - 1, n - (OPEN_LENGTH - 1))) {
        drop(p, n);
    } else if (p->phase == TAIL) {
        drop(p, n); /* white space, a brace, and a part of the mark */
    } else if (p->started) {
        tell_arguments(p, n);
        end_call(p, p->text.data + p->arguments, n - p->arguments, false);
        drop(p, n);
    } else {
        tell_content(p, n);
    }
    p->phase = OUTSIDE;
    p->at = 0;
    return !p->text.failed;
}
