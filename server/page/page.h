/* GET /: the chat page, server/page/index.html, which the build turns into an array of bytes (scripts/embed-page.py).
 *
 * One file that loads nothing else: its Content-Security-Policy lets it run the one script and the one style sheet
 * that are in it (by their SHA-256, computed at build time) and talk to the server it came from, nothing more.
 * Browsers keep it but ask each time whether it has changed (ETag). */
#ifndef QUERN_PAGE_H
#define QUERN_PAGE_H

#include "server/http/net.h"

void page_send(struct exchange *x, const struct http_parser *r);

/* Generated. */
extern const char page_html[];
extern const size_t page_html_length; /* bytes */
extern const char page_etag[];        /* a strong one, with its quotes */
extern const char page_csp[];

#endif
