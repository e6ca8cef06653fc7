/* One walk over the conversation serves both outputs: rendering collects the text; encoding collects the text between
 * two control tokens and turns it into ids when the next control token comes, so that pieces cross from markup into
 * contents as they do in the rendered text. */
#include "tokenizer/chat.h"

#include "tokenizer/vocabulary.h"

#include <stdlib.h>
#include <string.h>

struct writer {
    const struct tokenizer *t; /* NULL: render */
    struct tok_ids *out;
    struct error *err;
    char *text; /* [length] rendered so far, or since the last control token */
    size_t length, capacity;
    bool failed;
};

static void fail_memory(struct writer *w)
{
    w->failed = true;
    error_set(w->err, "Out of memory while writing the conversation");
}

static void append(struct writer *w, const char *data, size_t length)
{
    if (w->failed || length == 0) {
        return;
    }
    if (length >= w->capacity - w->length) { /* always room for one more byte, the NUL of chat_render */
        size_t capacity = w->capacity * 2 > w->length + length + 1 ? w->capacity * 2 : w->length + length + 256;
        char *text = realloc(w->text, capacity);
        if (!text) {
            fail_memory(w);
            return;
        }
        w->text = text;
        w->capacity = capacity;
    }
    memcpy(w->text + w->length, data, length);
    w->length += length;
}

/* Contents: data, whatever they say. */
static void content(struct writer *w, struct chat_text text)
{
    if (text.data) {
        append(w, text.data, text.length);
    }
}

static void flush(struct writer *w)
{
    if (!w->failed && w->length > 0 && !tok_encode(w->t, w->text, w->length, false, w->out, w->err)) {
        w->failed = true;
    }
    w->length = 0;
}

/* The template's own words; here, and only here, control tokens come of text. */
static void markup(struct writer *w, const char *text)
{
    const char *p = text, *end = text + strlen(text), *special;
    size_t length;
    int32_t id;
    while (w->t && !w->failed && (special = special_find(w->t, p, end, &length, &id)) != NULL) {
        append(w, p, (size_t)(special - p));
        flush(w);
        if (!w->failed && !tok_ids_push(w->out, id)) {
            fail_memory(w);
        }
        p = special + length;
    }
    append(w, p, (size_t)(end - p));
}

static void system_turn(struct writer *w, const struct chat *chat)
{
    markup(w, "<|im_start|>system\n");
    if (chat->n_messages > 0 && chat->messages[0].role == CHAT_SYSTEM) {
        content(w, chat->messages[0].content);
    } else {
        markup(w, "You are Qwen, created by Alibaba Cloud. You are a helpful assistant.");
    }
    if (chat->n_tools > 0) {
        markup(w, "\n\n# Tools\n\nYou may call one or more functions to assist with the user query.\n\n"
                  "You are provided with function signatures within <tools></tools> XML tags:\n<tools>");
        for (size_t i = 0; i < chat->n_tools; i++) {
            markup(w, "\n");
            content(w, chat->tools[i]);
        }
        markup(w, "\n</tools>\n\nFor each function call, return a json object with function name and arguments within "
                  "<tool_call></tool_call> XML tags:\n<tool_call>\n"
                  "{\"name\": <function-name>, \"arguments\": <args-json-object>}\n</tool_call>");
    }
    markup(w, "<|im_end|>\n");
}

static void assistant_turn(struct writer *w, const struct chat_message *message)
{
    markup(w, "<|im_start|>assistant");
    /* The template leaves the line of the contents out where there are calls and no contents. */
    if (message->n_tool_calls == 0 || message->content.length > 0) {
        markup(w, "\n");
        content(w, message->content);
    }
    for (size_t i = 0; i < message->n_tool_calls; i++) {
        markup(w, "\n<tool_call>\n{\"name\": \"");
        content(w, message->tool_calls[i].name);
        markup(w, "\", \"arguments\": ");
        content(w, message->tool_calls[i].arguments);
        markup(w, "}\n</tool_call>");
    }
    markup(w, "<|im_end|>\n");
}

static void conversation(struct writer *w, const struct chat *chat)
{
    system_turn(w, chat);
    for (size_t i = 0; i < chat->n_messages; i++) {
        const struct chat_message *message = &chat->messages[i];
        switch (message->role) {
        case CHAT_SYSTEM:
            if (i > 0) {
                markup(w, "<|im_start|>system\n");
                content(w, message->content);
                markup(w, "<|im_end|>\n");
            }
            break;
        case CHAT_USER:
            markup(w, "<|im_start|>user\n");
            content(w, message->content);
            markup(w, "<|im_end|>\n");
            break;
        case CHAT_ASSISTANT:
            assistant_turn(w, message);
            break;
        case CHAT_TOOL: /* results that follow one another share a turn of the user */
            if (i == 0 || chat->messages[i - 1].role != CHAT_TOOL) {
                markup(w, "<|im_start|>user");
            }
            markup(w, "\n<tool_response>\n");
            content(w, message->content);
            markup(w, "\n</tool_response>");
            if (i + 1 == chat->n_messages || chat->messages[i + 1].role != CHAT_TOOL) {
                markup(w, "<|im_end|>\n");
            }
            break;
        }
    }
    if (chat->add_generation_prompt) {
        markup(w, "<|im_start|>assistant\n");
    }
}

bool chat_encode(const struct tokenizer *t, const struct chat *chat, struct tok_ids *out, struct error *err)
{
    if (tok_special(t, "<|im_start|>") < 0 || tok_special(t, "<|im_end|>") < 0) {
        return error_set(
            err, "The vocabulary has no control tokens <|im_start|> and <|im_end|>, so it cannot hold a conversation");
    }
    struct writer w = {.t = t, .out = out, .err = err};
    size_t count = out->count;
    conversation(&w, chat);
    flush(&w);
    free(w.text);
    if (w.failed) {
        out->count = count;
    }
    return !w.failed;
}

char *chat_render(const struct chat *chat, size_t *length)
{
    struct writer w = {0};
    conversation(&w, chat); /* never empty: there is always a system turn */
    if (w.failed) {
        free(w.text);
        return NULL;
    }
    w.text[w.length] = '\0';
    *length = w.length;
    return w.text;
}
