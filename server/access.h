/* Who may ask: the Host header and the API key. */
#ifndef QUERN_ACCESS_H
#define QUERN_ACCESS_H

#include <stdbool.h>

/* A web page can make a browser send requests to a name of its own that points to this machine (DNS rebinding); such a request carries that name as its Host.
 * Allowed are localhost, addresses written as numbers if they are loopback addresses (or any, when the server listens on more than loopback), and the
 * name the server was told to listen on. host: as in the header, with or without a port; NULL (HTTP/1.0) is allowed. */
bool access_host(const char *host, const char *own_host, bool loopback_only);

/* True if the Authorization header is "Bearer " and the key. Takes the same time wherever they differ. header may be NULL. */
bool access_key(const char *header, const char *key);

#endif
