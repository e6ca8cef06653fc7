#include "server/json/json.h"
#include "tokenizer/utf8.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUES_PER_CHUNK = 256, DEFAULT_DEPTH = 64, DEFAULT_VALUES = 262144, FEW_KEYS = 8 };

struct chunk {
    struct chunk *next;
    struct json_value values[VALUES_PER_CHUNK];
};

struct json {
    struct chunk *chunks;
    size_t used; /* of the first chunk */
    char *text;  /* all unescaped strings and numbers, each with its NUL: never more than the document plus one byte */
    struct json_value *root;
};

struct reader {
    struct json *json;
    const char *data;
    size_t length, at;
    size_t text_used;
    int depth, max_depth;
    uint32_t n_values, max_values;
    struct json_error *err;
};

static bool fail_at(struct reader *r, size_t offset, const char *format, ...) __attribute__((format(printf, 3, 4)));

static bool fail_at(struct reader *r, size_t offset, const char *format, ...)
{
    struct json_error *e = r->err;
    if (!e)
        return false;
    va_list args;
    va_start(args, format);
    vsnprintf(e->text, sizeof e->text, format, args);
    va_end(args);
    e->offset = offset;
    e->line = 1;
    e->column = 1;
    for (size_t i = 0; i < offset; i++) {
        if (r->data[i] == '\n') {
            e->line++;
            e->column = 1;
        } else if (((unsigned char)r->data[i] & 0xC0) != 0x80) {
            e->column++;
        }
    }
    return false;
}

/* Names what stands at an offset, for messages. */
static bool fail_unexpected(struct reader *r, const char *wanted)
{
    if (r->at >= r->length)
        return fail_at(r, r->at, "the text ends where %s was expected", wanted);
    unsigned char c = (unsigned char)r->data[r->at];
    if (c > 0x20 && c < 0x7F)
        return fail_at(r, r->at, "found '%c' where %s was expected", c, wanted);
    return fail_at(r, r->at, "found byte 0x%02X where %s was expected", c, wanted);
}

static void skip_space(struct reader *r)
{
    while (r->at < r->length) {
        char c = r->data[r->at];
        if (c != ' ' && c != '\t' && c != '\n' && c != '\r')
            return;
        r->at++;
    }
}

static struct json_value *new_value(struct reader *r)
{
    struct json *j = r->json;
    if (r->n_values == r->max_values) {
        fail_at(r, r->at, "the text holds more than %u values", r->max_values);
        return NULL;
    }
    if (!j->chunks || j->used == VALUES_PER_CHUNK) {
        struct chunk *c = malloc(sizeof *c);
        if (!c) {
            fail_at(r, r->at, "out of memory");
            return NULL;
        }
        c->next = j->chunks;
        j->chunks = c;
        j->used = 0;
    }
    r->n_values++;
    struct json_value *v = &j->chunks->values[j->used++];
    *v = (struct json_value){.offset = (uint32_t)r->at};
    return v;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* Four hex digits at r->at; -1 if they are not. */
static int read_hex4(struct reader *r)
{
    if (r->length - r->at < 4)
        return -1;
    int n = 0;
    for (size_t i = 0; i < 4; i++) {
        int d = hex_digit(r->data[r->at + i]);
        if (d < 0)
            return -1;
        n = n * 16 + d;
    }
    r->at += 4;
    return n;
}

/* The escape whose backslash is at r->at. */
static bool read_escape(struct reader *r, char **out)
{
    size_t start = r->at++;
    if (r->at >= r->length)
        return fail_at(r, start, "the text ends inside a string");
    char c = r->data[r->at++];
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char *simple = c ? strchr(from, c) : NULL;
    if (simple) {
        *(*out)++ = to[simple - from];
        return true;
    }
    if (c != 'u')
        return fail_at(r, start, "a backslash must be followed by one of \" \\ / b f n r t u");
    int u = read_hex4(r);
    if (u < 0)
        return fail_at(r, start, "\\u must be followed by four hexadecimal digits");
    uint32_t code = (uint32_t)u;
    if (code >= 0xDC00 && code <= 0xDFFF)
        return fail_at(r, start, "\\u%04x is the second half of a surrogate pair without its first", code);
    if (code >= 0xD800 && code <= 0xDBFF) {
        int low = -1;
        if (r->length - r->at >= 6 && r->data[r->at] == '\\' && r->data[r->at + 1] == 'u') {
            r->at += 2;
            low = read_hex4(r);
        }
        if (low < 0xDC00 || low > 0xDFFF)
            return fail_at(r, start, "\\u%04x is the first half of a surrogate pair without its second", code);
        code = 0x10000 + ((code - 0xD800) << 10) + ((uint32_t)low - 0xDC00);
    }
    *out += utf8_write(code, *out);
    return true;
}

/* The string whose opening quote is at r->at. An escape is never shorter than what it stands for,
 * and the two quotes leave room for the NUL. */
static bool read_string(struct reader *r, const char **text, uint32_t *count)
{
    size_t start = r->at++;
    char *begin = r->json->text + r->text_used, *out = begin;
    for (;;) {
        if (r->at >= r->length)
            return fail_at(r, start, "this string is not closed");
        unsigned char c = (unsigned char)r->data[r->at];
        if (c == '"')
            break;
        if (c == '\\') {
            if (!read_escape(r, &out))
                return false;
            continue;
        }
        if (c < 0x20)
            return fail_at(r, r->at, "control character 0x%02X inside a string (write it as an escape)", c);
        uint32_t code;
        int n = utf8_decode((const unsigned char *)r->data + r->at, (const unsigned char *)r->data + r->length, &code);
        if (code == UTF8_INVALID)
            return fail_at(r, r->at, "byte 0x%02X is not UTF-8", c);
        memcpy(out, r->data + r->at, (size_t)n);
        out += n;
        r->at += (size_t)n;
    }
    r->at++;
    *out = '\0';
    *text = begin;
    *count = (uint32_t)(out - begin);
    r->text_used += *count + 1u;
    return true;
}

static bool is_digit(const struct reader *r)
{
    return r->at < r->length && r->data[r->at] >= '0' && r->data[r->at] <= '9';
}

static bool read_number(struct reader *r, struct json_value *v)
{
    size_t start = r->at;
    if (r->data[r->at] == '-')
        r->at++;
    if (!is_digit(r))
        return fail_unexpected(r, "a digit");
    if (r->data[r->at] == '0') {
        r->at++;
        if (is_digit(r))
            return fail_at(r, start, "a number must not begin with 0");
    } else {
        while (is_digit(r))
            r->at++;
    }
    if (r->at < r->length && r->data[r->at] == '.') {
        r->at++;
        if (!is_digit(r))
            return fail_unexpected(r, "a digit");
        while (is_digit(r))
            r->at++;
    }
    if (r->at < r->length && (r->data[r->at] == 'e' || r->data[r->at] == 'E')) {
        r->at++;
        if (r->at < r->length && (r->data[r->at] == '+' || r->data[r->at] == '-'))
            r->at++;
        if (!is_digit(r))
            return fail_unexpected(r, "a digit");
        while (is_digit(r))
            r->at++;
    }
    v->kind = JSON_NUMBER;
    v->count = (uint32_t)(r->at - start);
    char *out = r->json->text + r->text_used;
    memcpy(out, r->data + start, v->count);
    out[v->count] = '\0';
    v->text = out;
    r->text_used += v->count + 1u;
    return true;
}

static bool read_word(struct reader *r, struct json_value *v, const char *word, enum json_kind kind, uint32_t count)
{
    size_t n = strlen(word);
    if (r->length - r->at < n || memcmp(r->data + r->at, word, n) != 0)
        return fail_at(r, r->at, "unknown word (did you mean \"%s\"?)", word);
    r->at += n;
    v->kind = kind;
    v->count = count;
    return true;
}

static int compare_keys(const void *a, const void *b)
{
    const struct json_value *x = *(const struct json_value *const *)a, *y = *(const struct json_value *const *)b;
    if (x->key_count != y->key_count)
        return x->key_count < y->key_count ? -1 : 1;
    return memcmp(x->key, y->key, x->key_count);
}

static bool fail_duplicate(struct reader *r, const struct json_value *v)
{
    return fail_at(r, v->offset, "the key \"%.64s\" stands twice in the same object", v->key);
}

/* Small objects are compared pair by pair; for the others sorting keeps the time within n log n. */
static bool check_keys(struct reader *r, const struct json_value *object)
{
    if (object->count <= FEW_KEYS) {
        for (const struct json_value *a = object->first; a; a = a->next)
            for (const struct json_value *b = a->next; b; b = b->next)
                if (compare_keys(&a, &b) == 0)
                    return fail_duplicate(r, b);
        return true;
    }
    const struct json_value **list = malloc(object->count * sizeof *list);
    if (!list)
        return fail_at(r, object->offset, "out of memory");
    size_t n = 0;
    for (const struct json_value *a = object->first; a; a = a->next)
        list[n++] = a;
    qsort(list, n, sizeof *list, compare_keys);
    bool ok = true;
    for (size_t i = 1; ok && i < n; i++)
        if (compare_keys(&list[i - 1], &list[i]) == 0)
            ok = fail_duplicate(r, list[i]->offset > list[i - 1]->offset ? list[i] : list[i - 1]);
    free(list);
    return ok;
}

static struct json_value *read_value(struct reader *r);

/* Recursion is bounded by max_depth. */
static bool read_container(struct reader *r, struct json_value *v, bool object)
{
    if (++r->depth > r->max_depth)
        return fail_at(r, r->at, "nested deeper than %d levels", r->max_depth);
    v->kind = object ? JSON_OBJECT : JSON_ARRAY;
    char close = object ? '}' : ']';
    struct json_value **tail = &v->first;
    r->at++;
    skip_space(r);
    while (v->count > 0 || r->at >= r->length || r->data[r->at] != close) {
        const char *key = NULL;
        uint32_t key_count = 0;
        if (object) {
            if (r->at >= r->length || r->data[r->at] != '"')
                return fail_unexpected(r, v->count ? "a key in quotes" : "a key in quotes or '}'");
            if (!read_string(r, &key, &key_count))
                return false;
            skip_space(r);
            if (r->at >= r->length || r->data[r->at] != ':')
                return fail_unexpected(r, "':'");
            r->at++;
            skip_space(r);
        }
        struct json_value *child = read_value(r);
        if (!child)
            return false;
        child->key = key;
        child->key_count = key_count;
        *tail = child;
        tail = &child->next;
        v->count++;
        skip_space(r);
        if (r->at < r->length && r->data[r->at] == close)
            break;
        if (r->at >= r->length || r->data[r->at] != ',')
            return fail_unexpected(r, object ? "',' or '}'" : "',' or ']'");
        r->at++;
        skip_space(r);
    }
    r->at++;
    r->depth--;
    return !object || check_keys(r, v);
}

static struct json_value *read_value(struct reader *r)
{
    if (r->at >= r->length) {
        fail_unexpected(r, "a value");
        return NULL;
    }
    struct json_value *v = new_value(r);
    if (!v)
        return NULL;
    bool ok;
    switch (r->data[r->at]) {
    case '{': ok = read_container(r, v, true); break;
    case '[': ok = read_container(r, v, false); break;
    case '"':
        v->kind = JSON_STRING;
        ok = read_string(r, &v->text, &v->count);
        break;
    case 't': ok = read_word(r, v, "true", JSON_BOOL, 1); break;
    case 'f': ok = read_word(r, v, "false", JSON_BOOL, 0); break;
    case 'n': ok = read_word(r, v, "null", JSON_NULL, 0); break;
    case '-':
    case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9': ok = read_number(r, v); break;
    default: ok = fail_unexpected(r, "a value");
    }
    return ok ? v : NULL;
}

struct json *json_parse(const char *data, size_t length, const struct json_limits *limits, struct json_error *err)
{
    struct json *j = calloc(1, sizeof *j);
    struct reader r = {.json = j, .data = data, .length = length, .err = err,
                       .max_depth = limits && limits->max_depth ? limits->max_depth : DEFAULT_DEPTH,
                       .max_values = limits && limits->max_values ? limits->max_values : DEFAULT_VALUES};
    if (length >= UINT32_MAX) {
        fail_at(&r, 0, "the text is 4 GiB or longer");
        free(j);
        return NULL;
    }
    if (j)
        j->text = malloc(length + 1);
    if (!j || !j->text) {
        fail_at(&r, 0, "out of memory");
        free(j);
        return NULL;
    }
    skip_space(&r);
    if (r.at == length)
        fail_at(&r, r.at, "the text is empty");
    else
        j->root = read_value(&r);
    if (j->root) {
        skip_space(&r);
        if (r.at != length) {
            fail_unexpected(&r, "the end of the text");
            j->root = NULL;
        }
    }
    if (!j->root) {
        json_free(j);
        return NULL;
    }
    return j;
}

void json_free(struct json *j)
{
    if (!j)
        return;
    while (j->chunks) {
        struct chunk *next = j->chunks->next;
        free(j->chunks);
        j->chunks = next;
    }
    free(j->text);
    free(j);
}

const struct json_value *json_root(const struct json *j)
{
    return j->root;
}

bool json_key_is(const struct json_value *member, const char *key)
{
    return member->key && strlen(key) == member->key_count && memcmp(member->key, key, member->key_count) == 0;
}

const struct json_value *json_get(const struct json_value *object, const char *key)
{
    if (!object || object->kind != JSON_OBJECT)
        return NULL;
    for (const struct json_value *v = object->first; v; v = v->next)
        if (json_key_is(v, key))
            return v;
    return NULL;
}

bool json_is(const struct json_value *v, const char *text)
{
    return v && v->kind == JSON_STRING && v->count == strlen(text) && memcmp(v->text, text, v->count) == 0;
}

bool json_get_double(const struct json_value *v, double *out)
{
    if (!v || v->kind != JSON_NUMBER)
        return false;
    double d = strtod(v->text, NULL); /* the program never leaves the "C" locale, whose decimal point is JSON's */
    if (!isfinite(d))
        return false;
    *out = d;
    return true;
}

bool json_get_int(const struct json_value *v, int64_t *out)
{
    if (!v || v->kind != JSON_NUMBER)
        return false;
    char *end;
    errno = 0;
    long long n = strtoll(v->text, &end, 10);
    if (*end == '\0') {
        if (errno)
            return false;
        *out = n;
        return true;
    }
    double d;
    if (!json_get_double(v, &d) || d != floor(d) || fabs(d) > 9007199254740992.0) /* 2^53: every integer below is exact */
        return false;
    *out = (int64_t)d;
    return true;
}

const char *json_kind_name(enum json_kind kind)
{
    static const char *const names[] = {"null", "a boolean", "a number", "a string", "an array", "an object"};
    return names[kind];
}
