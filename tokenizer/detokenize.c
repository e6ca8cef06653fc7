/* From the bytes of tokens to a stream of whole characters. */
#include "tokenizer/tokenizer.h"
#include "tokenizer/utf8.h"

#include <string.h>

static size_t put_replacement(char *out)
{
    memcpy(out, "\xEF\xBF\xBD", 3);
    return 3;
}

size_t tok_stream_feed(struct tok_stream *s, const char *bytes, size_t length, char *out)
{
    size_t n = 0;
    for (size_t i = 0; i < length; i++) {
        unsigned char b = (unsigned char)bytes[i];
        if (s->n_pending > 0) {
            if (utf8_continues(s->pending[0], s->n_pending, b)) {
                s->pending[s->n_pending++] = b;
                if (s->n_pending == utf8_sequence_length(s->pending[0])) {
                    memcpy(out + n, s->pending, (size_t)s->n_pending);
                    n += (size_t)s->n_pending;
                    s->n_pending = 0;
                }
                continue;
            }
            n += put_replacement(out + n); /* for what was pending; b begins anew */
            s->n_pending = 0;
        }
        if (b < 0x80) {
            out[n++] = (char)b;
        } else if (utf8_sequence_length(b) > 0) {
            s->pending[s->n_pending++] = b;
        } else {
            n += put_replacement(out + n);
        }
    }
    return n;
}

size_t tok_stream_end(struct tok_stream *s, char *out)
{
    size_t n = s->n_pending > 0 ? put_replacement(out) : 0;
    s->n_pending = 0;
    return n;
}
