/* Normalization Form C.
 *
 * Nearly all text is in NFC already, so the text is scanned with the quick check and copied; only the stretches around a
 * character that fails it are decomposed, put into canonical order and composed. A stretch begins and ends at a "boundary":
 * a starter that quick check answers with Yes, which can neither move nor combine with what stands before it. */
#include "tokenizer/unicode.h"

#include <stdlib.h>
#include <string.h>

enum {
    HANGUL_S = 0xAC00,
    HANGUL_L = 0x1100,
    HANGUL_V = 0x1161,
    HANGUL_T = 0x11A7, /* one before the first trailing consonant: "none" */
    N_L = 19,
    N_V = 21,
    N_T = 28,
    N_S = N_L * N_V * N_T
};

/* A character with its combining class above bit 24. */
static uint32_t with_class(uint32_t code)
{
    return code | (uint32_t)unicode_lookup(code).combining_class << 24;
}

static uint32_t code_of(uint32_t c)
{
    return c & 0x1FFFFF;
}

static unsigned class_of(uint32_t c)
{
    return c >> 24;
}

struct characters {
    uint32_t *data; /* with_class */
    size_t count, capacity;
};

struct bytes {
    char *data;
    size_t length, capacity;
};

struct nfc {
    struct characters run;    /* the stretch at hand */
    struct characters sorted; /* room for sorting a long run of marks */
    struct bytes out;
};

static bool characters_reserve(struct characters *c, size_t capacity)
{
    if (capacity <= c->capacity) {
        return true;
    }
    size_t grown = c->capacity * 2 > capacity ? c->capacity * 2 : capacity;
    uint32_t *data = realloc(c->data, grown * sizeof *data);
    if (!data) {
        return false;
    }
    c->data = data;
    c->capacity = grown;
    return true;
}

static bool bytes_reserve(struct bytes *b, size_t more)
{
    if (more <= b->capacity - b->length) {
        return true;
    }
    size_t grown = b->length + more > b->capacity * 2 ? b->length + more : b->capacity * 2;
    char *data = realloc(b->data, grown);
    if (!data) {
        return false;
    }
    b->data = data;
    b->capacity = grown;
    return true;
}

static bool bytes_append(struct bytes *b, const void *data, size_t length)
{
    if (!bytes_reserve(b, length)) {
        return false;
    }
    if (length > 0) {
        memcpy(b->data + b->length, data, length);
        b->length += length;
    }
    return true;
}

static const struct unicode_decomposition *find_decomposition(uint32_t code)
{
    int low = 0, high = unicode_n_decompositions;
    while (low < high) {
        int mid = (low + high) / 2;
        if (unicode_decompositions[mid].code < code) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return &unicode_decompositions[low]; /* the caller has seen UNICODE_DECOMPOSES */
}

static bool decompose(struct characters *run, uint32_t code, struct unicode_record record)
{
    if (!characters_reserve(run, run->count + 4)) {
        return false;
    }
    uint32_t s = code - HANGUL_S;
    if (code >= HANGUL_S && s < N_S) {
        run->data[run->count++] = HANGUL_L + s / (N_V * N_T);
        run->data[run->count++] = HANGUL_V + s % (N_V * N_T) / N_T;
        if (s % N_T != 0) {
            run->data[run->count++] = HANGUL_T + s % N_T;
        }
    } else if (record.flags & UNICODE_DECOMPOSES) {
        const struct unicode_decomposition *d = find_decomposition(code);
        for (int i = 0; i < d->length; i++) {
            run->data[run->count++] = with_class(unicode_decomposition_pool[d->offset + i]);
        }
    } else {
        run->data[run->count++] = code | (uint32_t)record.combining_class << 24;
    }
    return true;
}

/* Stable sort by combining class: insertion for the few marks that text has, counting for the many that an attacker sends. */
static bool sort_marks(struct nfc *n, uint32_t *marks, size_t count)
{
    if (count <= 16) {
        for (size_t i = 1; i < count; i++) {
            uint32_t c = marks[i];
            size_t k = i;
            for (; k > 0 && class_of(marks[k - 1]) > class_of(c); k--) {
                marks[k] = marks[k - 1];
            }
            marks[k] = c;
        }
        return true;
    }
    if (!characters_reserve(&n->sorted, count)) {
        return false;
    }
    size_t start[257] = {0};
    for (size_t i = 0; i < count; i++) {
        start[class_of(marks[i]) + 1]++;
    }
    for (int i = 1; i < 257; i++) {
        start[i] += start[i - 1];
    }
    for (size_t i = 0; i < count; i++) {
        n->sorted.data[start[class_of(marks[i])]++] = marks[i];
    }
    memcpy(marks, n->sorted.data, count * sizeof *marks);
    return true;
}

static bool order(struct nfc *n)
{
    struct characters *run = &n->run;
    for (size_t i = 0; i < run->count;) {
        if (class_of(run->data[i]) == 0) {
            i++;
            continue;
        }
        size_t end = i + 1;
        while (end < run->count && class_of(run->data[end]) != 0) {
            end++;
        }
        if (!sort_marks(n, run->data + i, end - i)) {
            return false;
        }
        i = end;
    }
    return true;
}

/* The primary composite of two characters, or 0. */
static uint32_t compose_pair(uint32_t first, uint32_t second)
{
    if (first - HANGUL_L < N_L && second - HANGUL_V < N_V) {
        return HANGUL_S + ((first - HANGUL_L) * N_V + (second - HANGUL_V)) * N_T;
    }
    if (first - HANGUL_S < N_S && (first - HANGUL_S) % N_T == 0 && second - HANGUL_T - 1 < N_T - 1) {
        return first + (second - HANGUL_T);
    }
    if (!(unicode_lookup(second).flags & UNICODE_QC_MAYBE)) {
        return 0; /* every second half of a pair is a Maybe: gen-unicode.py asserts it */
    }
    int low = 0, high = unicode_n_pairs;
    while (low < high) {
        int mid = (low + high) / 2;
        const struct unicode_pair *p = &unicode_pairs[mid];
        if (p->first < first || (p->first == first && p->second < second)) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    const struct unicode_pair *p = &unicode_pairs[low];
    return low < unicode_n_pairs && p->first == first && p->second == second ? p->composed : 0;
}

static void compose(struct characters *run)
{
    size_t kept = 0, starter = SIZE_MAX;
    unsigned last_class = 0; /* of the character kept last */
    for (size_t i = 0; i < run->count; i++) {
        uint32_t c = run->data[i];
        unsigned class = class_of(c);
        /* Blocked, unless next to the starter, by a kept mark of the same or a higher class, or by another starter. */
        if (starter != SIZE_MAX && (kept == starter + 1 || last_class < class)) {
            uint32_t composed = compose_pair(run->data[starter], code_of(c));
            if (composed != 0) {
                run->data[starter] = composed; /* primary composites are starters */
                continue;
            }
        }
        if (class == 0) {
            starter = kept;
        }
        last_class = class;
        run->data[kept++] = c;
    }
    run->count = kept;
}

/* Normalises the stretch p..end and appends it. */
static bool normalise(struct nfc *n, const unsigned char *p, const unsigned char *end)
{
    n->run.count = 0;
    while (p < end) {
        uint32_t code;
        int length = utf8_decode(p, end, &code);
        if (code == UTF8_INVALID) {
            /* Only the first of a stretch can be ill-formed, since it is a boundary. */
            if (!bytes_append(&n->out, p, (size_t)length)) {
                return false;
            }
        } else if (!decompose(&n->run, code, unicode_lookup(code))) {
            return false;
        }
        p += length;
    }
    if (!order(n)) {
        return false;
    }
    compose(&n->run);
    if (!bytes_reserve(&n->out, n->run.count * 4)) {
        return false;
    }
    for (size_t i = 0; i < n->run.count; i++) {
        n->out.length += (size_t)utf8_write(code_of(n->run.data[i]), n->out.data + n->out.length);
    }
    return true;
}

static bool is_boundary(struct unicode_record r)
{
    return r.combining_class == 0 && !(r.flags & (UNICODE_QC_NO | UNICODE_QC_MAYBE));
}

static bool nfc_text(struct nfc *n, const unsigned char *text, const unsigned char *end, bool *changed)
{
    const unsigned char *p = text, *copied = text, *boundary = text;
    unsigned last_class = 0;
    while (p < end) {
        if (*p < 0x80) {
            boundary = p++;
            last_class = 0;
            continue;
        }
        uint32_t code;
        int length = utf8_decode(p, end, &code);
        struct unicode_record r = unicode_lookup(code);
        if (is_boundary(r)) {
            boundary = p;
            last_class = 0;
            p += length;
            continue;
        }
        if (!(r.flags & (UNICODE_QC_NO | UNICODE_QC_MAYBE)) && last_class <= r.combining_class) {
            last_class = r.combining_class;
            p += length;
            continue;
        }
        for (p += length; p < end; p += length) {
            length = utf8_decode(p, end, &code);
            if (is_boundary(unicode_lookup(code))) {
                break;
            }
        }
        *changed = true;
        if (!bytes_append(&n->out, copied, (size_t)(boundary - copied)) || !normalise(n, boundary, p)) {
            return false;
        }
        copied = boundary = p;
        last_class = 0;
    }
    return !*changed || bytes_append(&n->out, copied, (size_t)(end - copied));
}

bool unicode_nfc(const char *text, size_t length, struct unicode_text *out)
{
    struct nfc n = {0};
    bool changed = false;
    const unsigned char *bytes = (const unsigned char *)text;
    bool ok = length == 0 || nfc_text(&n, bytes, bytes + length, &changed);
    free(n.run.data);
    free(n.sorted.data);
    if (!ok) {
        free(n.out.data);
        return false;
    }
    *out = changed ? (struct unicode_text){n.out.data, n.out.length, n.out.data} : (struct unicode_text){text, length, NULL};
    return true;
}
