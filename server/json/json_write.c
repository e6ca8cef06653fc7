#include "server/json/json.h"
#include "tokenizer/utf8.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void json_writer_free(struct json_writer *w)
{
    free(w->data);
    *w = (struct json_writer){0};
}

void json_raw(struct json_writer *w, const char *bytes, size_t length)
{
    if (w->failed)
        return;
    if (w->capacity - w->length <= length) { /* always one byte left for the NUL */
        size_t want = w->capacity ? w->capacity : 256;
        while (want - w->length <= length) {
            if (want > SIZE_MAX / 2) {
                w->failed = true;
                return;
            }
            want *= 2;
        }
        char *data = realloc(w->data, want);
        if (!data) {
            w->failed = true;
            return;
        }
        w->data = data;
        w->capacity = want;
    }
    memcpy(w->data + w->length, bytes, length);
    w->length += length;
    w->data[w->length] = '\0';
}

static void put(struct json_writer *w, const char *text)
{
    json_raw(w, text, strlen(text));
}

/* What must stand before a value or key. */
static void separate(struct json_writer *w)
{
    if (w->comma)
        put(w, w->spaced ? ", " : ",");
}

static void put_value(struct json_writer *w, const char *text)
{
    separate(w);
    put(w, text);
    w->comma = true;
}

static void begin(struct json_writer *w, const char *bracket)
{
    separate(w);
    put(w, bracket);
    w->comma = false;
}

static void end(struct json_writer *w, const char *bracket)
{
    put(w, bracket);
    w->comma = true;
}

void json_begin_object(struct json_writer *w)
{
    begin(w, "{");
}

void json_end_object(struct json_writer *w)
{
    end(w, "}");
}

void json_begin_array(struct json_writer *w)
{
    begin(w, "[");
}

void json_end_array(struct json_writer *w)
{
    end(w, "]");
}

static void put_quoted(struct json_writer *w, const char *text, size_t length)
{
    put(w, "\"");
    size_t plain = 0; /* bytes before i that need no escape and are not written yet */
    size_t i = 0;
    while (i < length) {
        unsigned char c = (unsigned char)text[i];
        uint32_t decoded;
        size_t n = (size_t)utf8_decode((const unsigned char *)text + i, (const unsigned char *)text + length, &decoded);
        if (decoded != UTF8_INVALID && c >= 0x20 && c != '"' && c != '\\') {
            i += n;
            plain += n;
            continue;
        }
        json_raw(w, text + i - plain, plain);
        plain = 0;
        char code[8];
        switch (c) {
        case '"': put(w, "\\\""); break;
        case '\\': put(w, "\\\\"); break;
        case '\b': put(w, "\\b"); break;
        case '\f': put(w, "\\f"); break;
        case '\n': put(w, "\\n"); break;
        case '\r': put(w, "\\r"); break;
        case '\t': put(w, "\\t"); break;
        default:
            if (c < 0x20) {
                snprintf(code, sizeof code, "\\u%04x", c);
                put(w, code);
            } else {
                put(w, "\xEF\xBF\xBD");
            }
        }
        i += n;
    }
    json_raw(w, text + i - plain, plain);
    put(w, "\"");
}

void json_key(struct json_writer *w, const char *key)
{
    separate(w);
    put_quoted(w, key, strlen(key));
    put(w, w->spaced ? ": " : ":");
    w->comma = false;
}

void json_string(struct json_writer *w, const char *text, size_t length)
{
    separate(w);
    put_quoted(w, text, length);
    w->comma = true;
}

void json_text(struct json_writer *w, const char *text)
{
    if (text)
        json_string(w, text, strlen(text));
    else
        json_null(w);
}

void json_int(struct json_writer *w, int64_t n)
{
    char text[24];
    snprintf(text, sizeof text, "%lld", (long long)n);
    put_value(w, text);
}

void json_double(struct json_writer *w, double d)
{
    if (!isfinite(d)) {
        json_null(w);
        return;
    }
    char text[32];
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, d);
        if (strtod(text, NULL) == d)
            break;
    }
    put_value(w, text);
}

void json_bool(struct json_writer *w, bool b)
{
    put_value(w, b ? "true" : "false");
}

void json_null(struct json_writer *w)
{
    put_value(w, "null");
}

/* Recursion is bounded by the depth the reader allowed. */
void json_value(struct json_writer *w, const struct json_value *v)
{
    switch (v->kind) {
    case JSON_NULL: json_null(w); break;
    case JSON_BOOL: json_bool(w, v->count); break;
    case JSON_NUMBER: put_value(w, v->text); break;
    case JSON_STRING: json_string(w, v->text, v->count); break;
    case JSON_ARRAY:
        json_begin_array(w);
        for (const struct json_value *c = v->first; c; c = c->next)
            json_value(w, c);
        json_end_array(w);
        break;
    case JSON_OBJECT:
        json_begin_object(w);
        for (const struct json_value *c = v->first; c; c = c->next) {
            separate(w);
            put_quoted(w, c->key, c->key_count);
            put(w, w->spaced ? ": " : ":");
            w->comma = false;
            json_value(w, c);
        }
        json_end_object(w);
        break;
    }
}
