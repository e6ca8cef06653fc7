#include "server/page/page.h"

#include <stdio.h>
#include <string.h>

/* True if a list of entity tags (If-None-Match, RFC 9110, 13.1.2) holds the page's, or is "*". Weak tags match too. */
static bool list_has_etag(const char *list)
{
    size_t n = strlen(page_etag);
    while (*list) {
        list += strspn(list, " \t,");
        if (strncmp(list, "W/", 2) == 0)
            list += 2;
        size_t length = strcspn(list, " \t,"); /* the page's own tag has none of these in it */
        if ((length == n && memcmp(list, page_etag, n) == 0) || (length == 1 && *list == '*'))
            return true;
        list += length;
    }
    return false;
}

void page_send(struct exchange *x, const struct http_parser *r)
{
    char headers[1024];
    snprintf(headers, sizeof headers,
             "Cache-Control: no-cache\r\nETag: %s\r\nContent-Security-Policy: %s\r\nReferrer-Policy: no-referrer\r\n"
             "Cross-Origin-Opener-Policy: same-origin\r\nCross-Origin-Resource-Policy: same-origin\r\nX-Frame-Options: DENY\r\n",
             page_etag, page_csp);
    const char *known = http_get(r, "If-None-Match");
    if (known && list_has_etag(known))
        exchange_reply(x, 304, headers, NULL, "", 0);
    else
        exchange_reply(x, 200, headers, "text/html; charset=utf-8", page_html, page_html_length);
}
