/* Who may ask: the Host header, the API key, and the web pages of other origins. */
#ifndef QUERN_ACCESS_H
#define QUERN_ACCESS_H

#include "server/http/net.h"

#include <stdbool.h>

/* A web page can make a browser send requests to a name of its own that points to this machine (DNS rebinding);
 * such a request carries that name as its Host. Allowed are localhost, addresses written as numbers if they are
 * loopback addresses (or any, when the server listens on more than loopback), and the names given: [n_names].
 * host: as in the header, with or without a port; NULL (HTTP/1.0) is allowed. */
bool access_host(const char *host, const char *const *names, int n_names, bool loopback_only);

/* True if the Authorization header is "Bearer " and the key. Takes the same time wherever they differ. header may be NULL. */
bool access_key(const char *header, const char *key);
/* The same for a header that holds nothing but the key (x-api-key). */
bool access_bare_key(const char *given, const char *key);

/* Cross-origin requests (Fetch standard, "CORS protocol"): if r comes from a page of the allowed origin ("*": of any;
 * NULL: of none), gives the response the headers that let the page read it, and returns true. */
bool access_cors(const struct http_parser *r, const char *allowed, struct exchange *x);

#endif
