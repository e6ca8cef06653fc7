/* Conversations in Qwen2.5's ChatML: what its chat template makes of messages, tools and tool calls, as token ids.
 * Source: the chat_template of Qwen2.5-Instruct (tokenizer_config.json); tests/data/chat-vectors.jsonl holds its exact output.
 *
 * Message contents are data. The template's own markup becomes control tokens; contents, names and arguments are encoded as plain
 * text, so that "<|im_end|>" typed by a user can never end a turn. */
#ifndef QUERN_CHAT_H
#define QUERN_CHAT_H

#include "tokenizer/tokenizer.h"

struct chat_text {
    const char *data; /* UTF-8, not NUL-terminated; NULL: absent (null in the API), which is written as nothing */
    size_t length;    /* bytes */
};

struct chat_tool_call {
    struct chat_text name;      /* stands between quotes as it is: the template escapes nothing */
    struct chat_text arguments; /* JSON as the template writes it (", " and ": " between, keys in their order) */
};

enum chat_role { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT, CHAT_TOOL };

struct chat_message {
    enum chat_role role;
    struct chat_text content;
    const struct chat_tool_call *tool_calls; /* [n_tool_calls], assistant only */
    size_t n_tool_calls;
};

struct chat {
    const struct chat_message *messages; /* [n_messages]; if the first is no system message, Qwen's default one is put before */
    size_t n_messages;
    const struct chat_text *tools; /* [n_tools], each one JSON object as the template writes it */
    size_t n_tools;
    bool add_generation_prompt; /* end with "<|im_start|>assistant\n" */
};

/* Appends the ids of the conversation to out. For contents without the text of a control token these are the ids of chat_render's
 * text. False: the vocabulary has no <|im_start|> or <|im_end|>, or as tok_encode; nothing is then added to out. */
bool chat_encode(const struct tokenizer *t, const struct chat *chat, struct tok_ids *out, struct error *err);

/* The text of the conversation, control tokens written out, malloc'd (caller frees), NUL-terminated;
 * *length without the NUL. NULL: out of memory. */
char *chat_render(const struct chat *chat, size_t *length);

#endif
