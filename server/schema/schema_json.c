/* The JSON that needs no schema: space, characters, and values of any kind. */
#include "server/schema/schema_internal.h"

enum { MOST_INDENT = 40, DIGITS = 15 };

grammar_node schema_space(struct schema_compiler *c, grammar_node next)
{
    return grammar_call(c->b, c->space, next);
}

grammar_node schema_colon(struct schema_compiler *c, grammar_node next)
{
    grammar_node both[2] = {next, grammar_byte(c->b, ' ', ' ', next)};
    return grammar_byte(c->b, ':', ':', grammar_choice(c->b, both, 2));
}

static void define_space(struct schema_compiler *c)
{
    c->space = grammar_rule_new(c->b);
    grammar_node indent = grammar_byte(c->b, ' ', ' ', GRAMMAR_RETURN);
    for (int i = 1; i < MOST_INDENT; i++)
        indent = grammar_byte(c->b, ' ', ' ', grammar_choice(c->b, (grammar_node[]){GRAMMAR_RETURN, indent}, 2));
    grammar_node line = grammar_byte(c->b, '\n', '\n', grammar_choice(c->b, (grammar_node[]){GRAMMAR_RETURN, indent}, 2));
    grammar_node ways[3] = {GRAMMAR_RETURN, grammar_byte(c->b, ' ', ' ', GRAMMAR_RETURN), line};
    grammar_rule_define(c->b, c->space, grammar_choice(c->b, ways, 3));
}

/* ---- characters ---- */

grammar_node schema_utf8_edges_node(struct schema_compiler *c, const struct grammar_edge *edges, size_t n)
{
    if (n == 1)
        return grammar_byte(c->b, edges->low, edges->high, edges->next);
    grammar_node node = grammar_reserve(c->b);
    grammar_define_edges(c->b, node, edges, n);
    return node;
}

/* The sequences of n bytes from low[] to high[] in order, where all bytes but the first go from 0x80 to 0xBF. */
static void sequence_edges(struct schema_compiler *c, const uint8_t *low, const uint8_t *high, int n, grammar_node next,
    struct grammar_edge *edges, size_t *count)
{
    static const uint8_t first[3] = {0x80, 0x80, 0x80}, last[3] = {0xBF, 0xBF, 0xBF};
    struct grammar_edge below[8];
    size_t k = 0;
    if (n == 1) {
        edges[(*count)++] = (struct grammar_edge){*low, *high, next};
        return;
    }
    if (*low == *high) {
        sequence_edges(c, low + 1, high + 1, n - 1, next, below, &k);
        edges[(*count)++] = (struct grammar_edge){*low, *low, schema_utf8_edges_node(c, below, k)};
        return;
    }
    unsigned from = *low, to = *high;
    bool cut_low = false, cut_high = false;
    for (int i = 1; i < n; i++) {
        cut_low |= low[i] != 0x80;
        cut_high |= high[i] != 0xBF;
    }
    if (cut_low) {
        sequence_edges(c, low + 1, last, n - 1, next, below, &k);
        edges[(*count)++] = (struct grammar_edge){(uint8_t)from, (uint8_t)from, schema_utf8_edges_node(c, below, k)};
        from++;
        k = 0;
    }
    if (cut_high) {
        sequence_edges(c, first, high + 1, n - 1, next, below, &k);
        edges[(*count)++] = (struct grammar_edge){(uint8_t)to, (uint8_t)to, schema_utf8_edges_node(c, below, k)};
        to--;
        k = 0;
    }
    if (from <= to) {
        sequence_edges(c, first, last, n - 1, next, below, &k);
        edges[(*count)++] = (struct grammar_edge){(uint8_t)from, (uint8_t)to, schema_utf8_edges_node(c, below, k)};
    }
}

static int utf8_bytes(uint32_t code, uint8_t *out)
{
    if (code < 0x80) {
        out[0] = (uint8_t)code;
        return 1;
    }
    int n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (int i = n - 1; i > 0; i--, code >>= 6)
        out[i] = (uint8_t)(0x80 | (code & 0x3F));
    out[0] = (uint8_t)((n == 2 ? 0xC0 : n == 3 ? 0xE0 : 0xF0) | code);
    return n;
}

/* Characters low..high as UTF-8 (Unicode 15, table 3-7): cut where the number of bytes changes, and round the surrogates. */
void schema_utf8(struct schema_compiler *c, uint32_t low, uint32_t high, grammar_node next, struct grammar_edge *edges, size_t *n)
{
    static const uint32_t parts[][2] = {{0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, 0x10FFFF}};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        uint32_t from = low > parts[i][0] ? low : parts[i][0], to = high < parts[i][1] ? high : parts[i][1];
        uint8_t first[4], last[4];
        if (from > to)
            continue;
        int length = utf8_bytes(from, first);
        utf8_bytes(to, last);
        sequence_edges(c, first, last, length, next, edges, n);
    }
}

/* \u00 and two digits, for the control characters low..high. */
static grammar_node control_escape(struct schema_compiler *c, uint32_t low, uint32_t high, grammar_node next)
{
    struct grammar_edge tens[2];
    size_t n_tens = 0;
    for (uint32_t ten = 0; ten < 2; ten++) {
        struct grammar_edge ones[2];
        size_t n = 0;
        uint32_t from = low > 16 * ten ? low - 16 * ten : 0, to = high < 16 * ten + 15 ? high - 16 * ten : 15;
        if (high < 16 * ten || from > 15)
            continue;
        if (from < 10)
            ones[n++] = (struct grammar_edge){(uint8_t)('0' + from), (uint8_t)('0' + (to < 9 ? to : 9)), next};
        if (to > 9)
            ones[n++] = (struct grammar_edge){(uint8_t)('a' + (from > 10 ? from - 10 : 0)), (uint8_t)('a' + to - 10), next};
        uint8_t digit = (uint8_t)('0' + ten);
        tens[n_tens++] = (struct grammar_edge){digit, digit, schema_utf8_edges_node(c, ones, n)};
    }
    return grammar_literal(c->b, "00", 2, schema_utf8_edges_node(c, tens, n_tens));
}

/* The characters low..high of a string in their usual spelling. */
void schema_character_edges(
    struct schema_compiler *c, uint32_t low, uint32_t high, grammar_node next, struct grammar_edge *edges, size_t *n)
{
    static const struct {
        uint8_t character, letter;
    } simple[] = {{'"', '"'}, {'\\', '\\'}, {8, 'b'}, {9, 't'}, {10, 'n'}, {12, 'f'}, {13, 'r'}};
    static const uint32_t plain[][2] = {{0x20, 0x21}, {0x23, 0x5B}, {0x5D, 0x10FFFF}};
    struct grammar_edge escapes[8];
    size_t n_escapes = 0;
    for (size_t i = 0; i < sizeof simple / sizeof *simple; i++)
        if (simple[i].character >= low && simple[i].character <= high)
            escapes[n_escapes++] = (struct grammar_edge){simple[i].letter, simple[i].letter, next};
    if (low < 0x20)
        escapes[n_escapes++] = (struct grammar_edge){'u', 'u', control_escape(c, low, high < 0x1F ? high : 0x1F, next)};
    if (n_escapes > 0)
        edges[(*n)++] = (struct grammar_edge){'\\', '\\', schema_utf8_edges_node(c, escapes, n_escapes)};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++) {
        uint32_t from = low > plain[i][0] ? low : plain[i][0], to = high < plain[i][1] ? high : plain[i][1];
        if (from <= to)
            schema_utf8(c, from, to, next, edges, n);
    }
}

static grammar_node hex_digit(struct schema_compiler *c, const char *allowed, grammar_node next)
{
    struct grammar_edge edges[24];
    size_t n = 0;
    for (; *allowed; allowed++)
        edges[n++] = (struct grammar_edge){(uint8_t)*allowed, (uint8_t)*allowed, next};
    return schema_utf8_edges_node(c, edges, n);
}

grammar_node schema_string_character(struct schema_compiler *c, grammar_node next)
{
    static const char any[] = "0123456789abcdefABCDEF", simple[] = "\"\\/bfnrt";
    struct grammar_edge edges[64], escapes[16];
    size_t n = 0, k = 0;
    schema_utf8(c, 0x20, 0x21, next, edges, &n);
    schema_utf8(c, 0x23, 0x5B, next, edges, &n);
    schema_utf8(c, 0x5D, 0x10FFFF, next, edges, &n);
    for (const char *s = simple; *s; s++)
        escapes[k++] = (struct grammar_edge){(uint8_t)*s, (uint8_t)*s, next};
    /* \uXXXX: a character, or the two halves of one. */
    grammar_node one = hex_digit(c, any, next), two = hex_digit(c, any, one), three = hex_digit(c, any, two);
    grammar_node low_half = grammar_literal(c->b, "\\u", 2, hex_digit(c, "dD", hex_digit(c, "cdefCDEF", two)));
    grammar_node after_d[2] = {
        hex_digit(c, "01234567", two), hex_digit(c, "89abAB", hex_digit(c, any, hex_digit(c, any, low_half)))};
    grammar_node ways[2] = {hex_digit(c, "0123456789abcefABCEF", three), hex_digit(c, "dD", grammar_choice(c->b, after_d, 2))};
    escapes[k++] = (struct grammar_edge){'u', 'u', grammar_choice(c->b, ways, 2)};
    edges[n++] = (struct grammar_edge){'\\', '\\', schema_utf8_edges_node(c, escapes, k)};
    return schema_utf8_edges_node(c, edges, n);
}

/* ---- values of any kind ---- */

static grammar_node up_to_digits(struct schema_compiler *c, int n, grammar_node next)
{
    grammar_node node = next;
    for (int i = 0; i < n; i++)
        node = grammar_choice(c->b, (grammar_node[]){next, grammar_byte(c->b, '0', '9', node)}, 2);
    return node;
}

static void define_numbers(struct schema_compiler *c)
{
    struct grammar_builder *b = c->b;
    grammar_node whole[2] = {grammar_byte(b, '0', '0', GRAMMAR_RETURN), 0};
    grammar_node from_one = grammar_byte(b, '1', '9', up_to_digits(c, DIGITS - 1, GRAMMAR_RETURN));
    whole[1] = from_one;
    c->integer = grammar_rule_new(b); /* -0 is left out: few mean it */
    grammar_rule_define(
        b, c->integer, grammar_choice(b, (grammar_node[]){whole[0], from_one, grammar_byte(b, '-', '-', from_one)}, 3));
    grammar_node exponent = grammar_byte(b, '0', '9', up_to_digits(c, 1, GRAMMAR_RETURN));
    exponent = grammar_choice(
        b, (grammar_node[]){exponent, grammar_byte(b, '+', '+', exponent), grammar_byte(b, '-', '-', exponent)}, 3);
    grammar_node tail = grammar_choice(
        b, (grammar_node[]){GRAMMAR_RETURN, grammar_byte(b, 'e', 'e', exponent), grammar_byte(b, 'E', 'E', exponent)}, 3);
    grammar_node fraction = grammar_byte(b, '.', '.', grammar_byte(b, '0', '9', up_to_digits(c, DIGITS - 1, tail)));
    tail = grammar_choice(b, (grammar_node[]){tail, fraction}, 2);
    grammar_node number = grammar_choice(
        b, (grammar_node[]){grammar_byte(b, '0', '0', tail), grammar_byte(b, '1', '9', up_to_digits(c, DIGITS - 1, tail))}, 2);
    c->number = grammar_rule_new(b);
    grammar_rule_define(b, c->number, grammar_choice(b, (grammar_node[]){number, grammar_byte(b, '-', '-', number)}, 2));
}

static void define_string(struct schema_compiler *c)
{
    c->string = grammar_rule_new(c->b);
    grammar_node inside = grammar_reserve(c->b), quote = grammar_byte(c->b, '"', '"', GRAMMAR_RETURN);
    grammar_define_choice(c->b, inside, (grammar_node[]){quote, schema_string_character(c, inside)}, 2);
    grammar_rule_define(c->b, c->string, grammar_byte(c->b, '"', '"', inside));
}

/* Items between brackets: any number of one, with commas. item: a function that makes
 * the node of one item, given what follows. */
static grammar_node listed(
    struct schema_compiler *c, char open, char close, grammar_node (*item)(struct schema_compiler *, grammar_node))
{
    grammar_node end = grammar_byte(c->b, (uint8_t)close, (uint8_t)close, GRAMMAR_RETURN), ended = schema_space(c, end),
                 behind = grammar_reserve(c->b);
    grammar_node more = grammar_byte(c->b, ',', ',', schema_space(c, item(c, behind)));
    grammar_define_choice(c->b, behind, (grammar_node[]){ended, more}, 2);
    return grammar_byte(
        c->b, (uint8_t)open, (uint8_t)open, schema_space(c, grammar_choice(c->b, (grammar_node[]){end, item(c, behind)}, 2)));
}

static grammar_node any_item(struct schema_compiler *c, grammar_node next)
{
    return grammar_call(c->b, c->any, next);
}

static grammar_node any_member(struct schema_compiler *c, grammar_node next)
{
    return grammar_call(c->b, c->string, schema_colon(c, grammar_call(c->b, c->any, next)));
}

void schema_common(struct schema_compiler *c)
{
    if (c->have_common)
        return;
    struct grammar_builder *b = c->b;
    c->have_common = true;
    define_space(c);
    define_string(c);
    define_numbers(c);
    c->any = grammar_rule_new(b);
    c->object = grammar_rule_new(b);
    c->array = grammar_rule_new(b);
    grammar_rule_define(b, c->object, listed(c, '{', '}', any_member));
    grammar_rule_define(b, c->array, listed(c, '[', ']', any_item));
    const grammar_node kinds[] = {
        grammar_call(b, c->string, GRAMMAR_RETURN),
        grammar_call(b, c->number, GRAMMAR_RETURN),
        grammar_call(b, c->object, GRAMMAR_RETURN),
        grammar_call(b, c->array, GRAMMAR_RETURN),
        grammar_literal(b, "true", 4, GRAMMAR_RETURN),
        grammar_literal(b, "false", 5, GRAMMAR_RETURN),
        grammar_literal(b, "null", 4, GRAMMAR_RETURN),
    };
    grammar_rule_define(b, c->any, grammar_choice(b, kinds, sizeof kinds / sizeof *kinds));
}
