/* Scalars and names: what the directory and the getters both need. */
#include "gguf/directory.h"

#include <stdio.h>

static const struct {
    const char *name;
    size_t bytes;
} kinds[] = {
    [GGUF_KIND_UINT8] = {"UINT8", 1},   [GGUF_KIND_INT8] = {"INT8", 1},     [GGUF_KIND_UINT16] = {"UINT16", 2},
    [GGUF_KIND_INT16] = {"INT16", 2},   [GGUF_KIND_UINT32] = {"UINT32", 4}, [GGUF_KIND_INT32] = {"INT32", 4},
    [GGUF_KIND_FLOAT32] = {"FLOAT32", 4}, [GGUF_KIND_BOOL] = {"BOOL", 1},   [GGUF_KIND_STRING] = {"STRING", 0},
    [GGUF_KIND_ARRAY] = {"ARRAY", 0},   [GGUF_KIND_UINT64] = {"UINT64", 8}, [GGUF_KIND_INT64] = {"INT64", 8},
    [GGUF_KIND_FLOAT64] = {"FLOAT64", 8},
};

const char *gguf_kind_name(enum gguf_kind kind)
{
    return (unsigned)kind < sizeof kinds / sizeof *kinds ? kinds[kind].name : "unknown";
}

size_t gguf_kind_bytes(enum gguf_kind kind)
{
    return (unsigned)kind < sizeof kinds / sizeof *kinds ? kinds[kind].bytes : 0;
}

struct gguf_quoted gguf_quote(struct gguf_string name)
{
    enum { SHOWN = 48 }; /* bytes: enough to recognise it, few enough to leave room for the sentence */
    struct gguf_quoted quoted;
    char *out = quoted.text;
    size_t shown = name.length < SHOWN ? name.length : SHOWN;

    *out++ = '"';
    for (size_t i = 0; i < shown; i++) {
        unsigned char c = (unsigned char)name.data[i];
        if (c >= 0x20 && c < 0x7f && c != '"' && c != '\\')
            *out++ = (char)c;
        else
            out += sprintf(out, "\\x%02x", c);
    }
    *out++ = '"';
    *out = '\0';
    if (shown < name.length)
        snprintf(out, (size_t)(quoted.text + sizeof quoted.text - out), "... (%zu bytes)", name.length);
    return quoted;
}
