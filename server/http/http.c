#include "server/http/http.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

const struct http_limits http_default_limits = {.max_line = 8192, .max_head = 16384, .max_headers = 64, .max_body = 1 << 20};

enum {
    MAX_EXTRA = 16384,    /* bytes of chunk extensions and trailers in one request */
    MAX_SIZE_DIGITS = 16, /* of a chunk, leading zeros included */
    MAX_EMPTY_LINES = 4   /* before a request line */
};

/* Where in the body the parser is. The head is collected line by line (STEP_LINE, STEP_LINE_LF). */
enum {
    STEP_LINE,
    STEP_LINE_LF,
    STEP_BODY,
    STEP_CHUNK_SIZE,
    STEP_CHUNK_EXTENSION,
    STEP_CHUNK_SIZE_LF,
    STEP_CHUNK_DATA,
    STEP_CHUNK_DATA_CR,
    STEP_CHUNK_DATA_LF,
    STEP_TRAILER,      /* at the start of a trailer line */
    STEP_TRAILER_NAME, /* within it, before the colon */
    STEP_TRAILER_VALUE,
    STEP_TRAILER_LF,
    STEP_END_LF
};

static bool fail(struct http_parser *p, int status, const char *reason)
{
    p->state = HTTP_FAILED;
    p->status = status;
    p->reason = reason;
    p->keep_alive = false;
    return false;
}

static bool is_token_char(unsigned char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c != 0 && strchr("!#$%&'*+-.^_`|~", c));
}

/* Of header values, chunk extensions and trailers: printable, tab, or beyond ASCII. */
static bool is_text_char(unsigned char c)
{
    return c == '\t' || (c >= 0x20 && c != 0x7F);
}

void http_init(struct http_parser *p, const struct http_limits *limits)
{
    *p = (struct http_parser){.limits = *limits, .method = "", .path = "", .query = "", .body = ""};
}

void http_free(struct http_parser *p)
{
    free(p->head);
    free(p->headers);
    free(p->body_data);
    http_init(p, &p->limits);
}

void http_next(struct http_parser *p)
{
    /* The head's buffers are small and kept; a body may have been large. */
    free(p->body_data);
    struct http_parser fresh = {.limits = p->limits, .method = "", .path = "", .query = "", .body = "",
                                .head = p->head, .head_capacity = p->head_capacity,
                                .headers = p->headers, .headers_capacity = p->headers_capacity};
    *p = fresh;
}

const char *http_get(const struct http_parser *p, const char *name)
{
    for (size_t i = 0; i < p->n_headers; i++)
        if (strcasecmp(p->head + p->headers[i].name, name) == 0)
            return p->head + p->headers[i].value;
    return NULL;
}

static size_t count_headers(const struct http_parser *p, const char *name)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_headers; i++)
        n += strcasecmp(p->head + p->headers[i].name, name) == 0;
    return n;
}

/* METHOD SP target SP HTTP/1.x. The texts stay in the head, cut apart by NULs;
 * pointers are set when the head has stopped moving. */
static bool parse_request_line(struct http_parser *p, char *line)
{
    char *s = line;
    while (is_token_char((unsigned char)*s))
        s++;
    if (s == line || *s != ' ')
        return fail(p, 400, "The request line does not begin with a method and one space.");
    *s++ = '\0';
    char *target = s;
    while (*s > 0x20 && *s < 0x7F)
        s++;
    if (s == target || *s != ' ')
        return fail(p, 400, "The request target is empty or has characters that must be percent-encoded.");
    *s++ = '\0';
    if (strncmp(s, "HTTP/", 5) != 0 || s[5] < '0' || s[5] > '9' || s[6] != '.' || s[7] < '0' || s[7] > '9' || s[8] != '\0')
        return fail(p, 400, "The request line does not end with an HTTP version.");
    if (s[5] != '1')
        return fail(p, 505, "This server speaks HTTP/1.1 only.");
    p->minor = s[7] - '0';
    p->have_request_line = true;
    return true;
}

static bool parse_header_line(struct http_parser *p, char *line)
{
    if (*line == ' ' || *line == '\t')
        return fail(p, 400, "A header is folded over several lines.");
    char *s = line;
    while (is_token_char((unsigned char)*s))
        s++;
    if (s == line || *s != ':')
        return fail(p, 400, "A header's name is empty, has a forbidden character, or is not followed by a colon.");
    *s++ = '\0';
    s += strspn(s, " \t");
    size_t n = strlen(s);
    while (n > 0 && (s[n - 1] == ' ' || s[n - 1] == '\t'))
        n--;
    s[n] = '\0';
    for (size_t i = 0; i < n; i++)
        if (!is_text_char((unsigned char)s[i]))
            return fail(p, 400, "A header's value has a control character.");
    if (p->n_headers == p->limits.max_headers)
        return fail(p, 431, "There are too many headers.");
    if (p->n_headers == p->headers_capacity) {
        size_t want = p->headers_capacity ? p->headers_capacity * 2 : 16;
        struct http_header *more = realloc(p->headers, want * sizeof *more);
        if (!more)
            return fail(p, 503, "The server is out of memory.");
        p->headers = more;
        p->headers_capacity = want;
    }
    p->headers[p->n_headers++] = (struct http_header){(uint32_t)(line - p->head), (uint32_t)(s - p->head)};
    return true;
}

/* True if a comma-separated list (Connection) holds the word. */
static bool list_has(const char *list, const char *word)
{
    size_t n = strlen(word);
    while (*list) {
        list += strspn(list, " \t,");
        size_t len = strcspn(list, ",");
        size_t end = len;
        while (end > 0 && (list[end - 1] == ' ' || list[end - 1] == '\t'))
            end--;
        if (end == n && strncasecmp(list, word, n) == 0)
            return true;
        list += len;
    }
    return false;
}

static bool connection_has(const struct http_parser *p, const char *word)
{
    for (size_t i = 0; i < p->n_headers; i++)
        if (strcasecmp(p->head + p->headers[i].name, "Connection") == 0 && list_has(p->head + p->headers[i].value, word))
            return true;
    return false;
}

/* Splits the target into path and query, and takes the authority of an absolute target. */
static bool parse_target(struct http_parser *p, char *target)
{
    bool connect = strcmp(p->method, "CONNECT") == 0, options = strcmp(p->method, "OPTIONS") == 0;
    if (connect)
        return fail(p, 501, "This server is no proxy.");
    if (strncasecmp(target, "http://", 7) == 0) {
        char *authority = target + 7;
        size_t n = strcspn(authority, "/?");
        if (n == 0 || memchr(authority, '@', n))
            return fail(p, 400, "The request target has no host, or a user name in it.");
        /* Move the authority one byte to the left to make room for its NUL. */
        memmove(authority - 1, authority, n);
        authority[n - 1] = '\0';
        p->host = authority - 1;
        target = authority + n;
    } else if (*target != '/' && !(options && strcmp(target, "*") == 0)) {
        return fail(p, 400, "The request target is no path.");
    }
    char *query = strchr(target, '?');
    p->query = "";
    if (query) {
        *query = '\0';
        p->query = query + 1;
    }
    p->path = *target ? target : "/";
    return true;
}

static bool parse_length(struct http_parser *p)
{
    const char *length = http_get(p, "Content-Length"), *coding = http_get(p, "Transfer-Encoding");
    if (coding) {
        if (length)
            return fail(p, 400, "Content-Length and Transfer-Encoding exclude each other.");
        if (count_headers(p, "Transfer-Encoding") > 1 || p->minor == 0)
            return fail(p, 400, "Transfer-Encoding is given twice, or in HTTP/1.0.");
        if (strcasecmp(coding, "chunked") != 0)
            return fail(p, 501, "The only transfer coding this server knows is \"chunked\".");
        p->chunked = true;
        return true;
    }
    if (!length)
        return true;
    if (count_headers(p, "Content-Length") > 1)
        return fail(p, 400, "Content-Length is given twice.");
    size_t digits = strspn(length, "0123456789");
    if (digits == 0 || length[digits] != '\0')
        return fail(p, 400, "Content-Length is not a number.");
    length += strspn(length, "0");
    if (strlen(length) > 15)
        return fail(p, 413, "The body is larger than this server takes.");
    p->left = (size_t)strtoull(*length ? length : "0", NULL, 10);
    if (p->left > p->limits.max_body)
        return fail(p, 413, "The body is larger than this server takes.");
    return true;
}

/* The empty line has been read: the head's buffer does not move any more. */
static bool finish_head(struct http_parser *p)
{
    p->method = p->head;
    if (!parse_target(p, p->head + strlen(p->head) + 1))
        return false;
    size_t hosts = count_headers(p, "Host");
    if (hosts > 1 || (hosts == 0 && p->minor > 0))
        return fail(p, 400, "There must be exactly one Host header.");
    if (!p->host && hosts)
        p->host = http_get(p, "Host");
    if (!parse_length(p))
        return false;
    const char *expect = http_get(p, "Expect");
    if (expect && p->minor > 0) {
        if (strcasecmp(expect, "100-continue") != 0)
            return fail(p, 417, "The only expectation this server meets is \"100-continue\".");
        p->expects_continue = p->chunked || p->left > 0;
    }
    p->keep_alive = connection_has(p, "close") ? false : p->minor > 0 || connection_has(p, "keep-alive");
    p->extra = 0;
    p->step = p->chunked ? STEP_CHUNK_SIZE : STEP_BODY;
    p->state = p->chunked || p->left > 0 ? HTTP_BODY : HTTP_COMPLETE;
    return true;
}

/* One line of the head, [p->line, head_length) without its CR LF. */
static bool finish_line(struct http_parser *p)
{
    size_t n = p->head_length - p->line;
    if (n == 0 && !p->have_request_line) {
        if (++p->extra > MAX_EMPTY_LINES)
            return fail(p, 400, "There are empty lines where a request should begin.");
        p->state = HTTP_IDLE; /* an empty line before a request is to be ignored (RFC 9112, 2.2) */
        return true;
    }
    if (n == 0)
        return finish_head(p);
    p->head[p->head_length] = '\0';
    if (strlen(p->head + p->line) != n)
        return fail(p, 400, "There is a NUL byte in the head.");
    bool ok = p->have_request_line ? parse_header_line(p, p->head + p->line) : parse_request_line(p, p->head + p->line);
    p->line = ++p->head_length; /* the NUL stays */
    return ok;
}

static bool put_head(struct http_parser *p, char c)
{
    if (!p->have_request_line && p->head_length == p->limits.max_line)
        return fail(p, 414, "The request line is too long.");
    if (p->head_length + 1 >= p->limits.max_head)
        return fail(p, 431, "The headers are too long.");
    if (p->head_length + 1 >= p->head_capacity) { /* one byte is left for the NUL that ends the line */
        size_t want = p->head_capacity ? p->head_capacity * 2 : 1024;
        char *more = realloc(p->head, want);
        if (!more)
            return fail(p, 503, "The server is out of memory.");
        p->head = more;
        p->head_capacity = want;
    }
    p->head[p->head_length++] = c;
    return true;
}

static bool head_byte(struct http_parser *p, char c)
{
    if (p->step == STEP_LINE_LF) {
        if (c != '\n')
            return fail(p, 400, "A carriage return is not followed by a line feed.");
        p->step = STEP_LINE;
        return finish_line(p);
    }
    if (c == '\r') {
        p->step = STEP_LINE_LF;
        p->state = HTTP_HEAD;
        return true;
    }
    if (c == '\n')
        return fail(p, 400, "A line ends without a carriage return.");
    if (p->state == HTTP_IDLE)
        p->state = HTTP_HEAD;
    return put_head(p, c);
}

/* Appends to the body, whose size has been checked against the limit. */
static bool put_body(struct http_parser *p, const char *data, size_t length)
{
    size_t need = p->body_length + length + 1;
    if (need > p->body_capacity) {
        /* Grows with what has arrived, not with what was announced. */
        size_t want = p->body_capacity ? p->body_capacity * 2 : 4096;
        while (want < need)
            want *= 2;
        char *more = realloc(p->body_data, want);
        if (!more)
            return fail(p, 503, "The server is out of memory.");
        p->body_data = more;
        p->body_capacity = want;
    }
    memcpy(p->body_data + p->body_length, data, length);
    p->body_length += length;
    p->body_data[p->body_length] = '\0';
    p->body = p->body_data;
    return true;
}

static bool chunk_size_byte(struct http_parser *p, char c)
{
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (digit >= 0) {
        if (++p->n_digits > MAX_SIZE_DIGITS)
            return fail(p, 400, "A chunk's size has too many digits.");
        p->left = p->left * 16 + (size_t)digit;
        if (p->left > p->limits.max_body - p->body_length)
            return fail(p, 413, "The body is larger than this server takes.");
        return true;
    }
    if (p->n_digits == 0)
        return fail(p, 400, "A chunk does not begin with its size.");
    if (c == '\r')
        p->step = STEP_CHUNK_SIZE_LF;
    else if (c == ';' || c == ' ' || c == '\t')
        p->step = STEP_CHUNK_EXTENSION;
    else
        return fail(p, 400, "A chunk's size is not a hexadecimal number.");
    return true;
}

static bool framing_byte(struct http_parser *p, char c)
{
    bool extra = p->step == STEP_CHUNK_EXTENSION || p->step >= STEP_TRAILER;
    if (extra && ++p->extra > MAX_EXTRA)
        return fail(p, 431, "Chunk extensions and trailers are too long.");
    switch (p->step) {
    case STEP_CHUNK_SIZE:
        return chunk_size_byte(p, c);
    case STEP_CHUNK_EXTENSION: /* ignored, as RFC 9112 7.1.1 asks for those that are not understood */
        if (c == '\r')
            p->step = STEP_CHUNK_SIZE_LF;
        else if (!is_text_char((unsigned char)c))
            return fail(p, 400, "A chunk extension has a control character.");
        return true;
    case STEP_CHUNK_SIZE_LF:
        if (c != '\n')
            return fail(p, 400, "A chunk's size does not end in CR LF.");
        p->step = p->left ? STEP_CHUNK_DATA : STEP_TRAILER;
        return true;
    case STEP_CHUNK_DATA_CR:
        if (c != '\r')
            return fail(p, 400, "A chunk is longer than its size.");
        p->step = STEP_CHUNK_DATA_LF;
        return true;
    case STEP_CHUNK_DATA_LF:
        if (c != '\n')
            return fail(p, 400, "A chunk does not end in CR LF.");
        p->step = STEP_CHUNK_SIZE;
        p->n_digits = 0;
        return true;
    case STEP_TRAILER:
        if (c == '\r') {
            p->step = STEP_END_LF;
            return true;
        }
        p->step = STEP_TRAILER_NAME;
        return is_token_char((unsigned char)c) || fail(p, 400, "A trailer's name has a forbidden character.");
    case STEP_TRAILER_NAME:
        if (c == ':')
            p->step = STEP_TRAILER_VALUE;
        else if (!is_token_char((unsigned char)c))
            return fail(p, 400, "A trailer's name has a forbidden character.");
        return true;
    case STEP_TRAILER_VALUE: /* read and dropped */
        if (c == '\r')
            p->step = STEP_TRAILER_LF;
        else if (!is_text_char((unsigned char)c))
            return fail(p, 400, "A trailer's value has a control character.");
        return true;
    case STEP_TRAILER_LF:
        p->step = STEP_TRAILER;
        return c == '\n' || fail(p, 400, "A trailer does not end in CR LF.");
    default: /* STEP_END_LF */
        if (c != '\n')
            return fail(p, 400, "The chunked body does not end in CR LF.");
        p->state = HTTP_COMPLETE;
        return true;
    }
}

size_t http_feed(struct http_parser *p, const char *data, size_t length)
{
    size_t i = 0;
    while (i < length && p->state != HTTP_COMPLETE && p->state != HTTP_FAILED) {
        if (p->state != HTTP_BODY) {
            head_byte(p, data[i++]);
        } else if (p->step == STEP_BODY || p->step == STEP_CHUNK_DATA) {
            size_t n = length - i < p->left ? length - i : p->left;
            if (!put_body(p, data + i, n))
                break;
            i += n;
            p->left -= n;
            if (p->left == 0 && p->chunked)
                p->step = STEP_CHUNK_DATA_CR;
            else if (p->left == 0)
                p->state = HTTP_COMPLETE;
        } else {
            framing_byte(p, data[i++]);
        }
    }
    return i;
}

const char *http_phrase(int status)
{
    switch (status) {
    case 200: return "OK";
    case 204: return "No Content";
    case 304: return "Not Modified";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 403: return "Forbidden";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 408: return "Request Timeout";
    case 413: return "Content Too Large";
    case 414: return "URI Too Long";
    case 415: return "Unsupported Media Type";
    case 417: return "Expectation Failed";
    case 431: return "Request Header Fields Too Large";
    case 500: return "Internal Server Error";
    case 501: return "Not Implemented";
    case 503: return "Service Unavailable";
    case 505: return "HTTP Version Not Supported";
    default: return "Unknown";
    }
}
