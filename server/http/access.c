#include "server/http/access.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static bool is_one_of(const char *name, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcasecmp(name, names[i]) == 0)
            return true;
    return false;
}

bool access_host(const char *host, const char *const *names, int n_names, bool loopback_only)
{
    if (!host)
        return true;
    char name[256];
    size_t length;
    bool ipv6 = host[0] == '[';
    if (ipv6) {
        host++;
        length = strcspn(host, "]");
        if (host[length] != ']')
            return false;
    } else {
        length = strcspn(host, ":");
    }
    const char *port = host + length + (ipv6 ? 1 : 0);
    if (*port == ':')
        port += 1 + strspn(port + 1, "0123456789");
    if (*port != '\0' || length == 0 || length >= sizeof name)
        return false;
    memcpy(name, host, length);
    name[length] = '\0';
    struct in_addr v4;
    struct in6_addr v6;
    if (ipv6)
        return inet_pton(AF_INET6, name, &v6) == 1 &&
               (!loopback_only || IN6_IS_ADDR_LOOPBACK(&v6) || is_one_of(name, names, n_names));
    if (inet_pton(AF_INET, name, &v4) == 1)
        return !loopback_only || ntohl(v4.s_addr) >> 24 == 127 || is_one_of(name, names, n_names);
    return strcasecmp(name, "localhost") == 0 || is_one_of(name, names, n_names);
}

bool access_key(const char *header, const char *key)
{
    if (!header || strncasecmp(header, "Bearer ", 7) != 0)
        return false;
    header += 7;
    return access_bare_key(header + strspn(header, " "), key);
}

bool access_bare_key(const char *given, const char *key)
{
    if (!given)
        return false;
    size_t n = strlen(key), m = strlen(given);
    unsigned char differ = n != m;
    for (size_t i = 0; i < m; i++) /* as long as what was sent, whatever the key is */
        differ |= (unsigned char)(given[i] ^ key[n ? i % n : 0]);
    return differ == 0;
}

bool access_cors(const struct http_parser *r, const char *allowed, struct exchange *x)
{
    const char *origin = http_get(r, "Origin"), *asked = http_get(r, "Access-Control-Request-Headers");
    bool any = allowed && strcmp(allowed, "*") == 0;
    if (!allowed)
        return false;
    bool match = origin && (any || strcmp(origin, allowed) == 0);
    char headers[EXCHANGE_HEADERS];
    /* For caches, also where it does not match. */
    size_t n = (size_t)snprintf(headers, sizeof headers, "%s", any ? "" : "Vary: Origin\r\n");
    if (match)
        n += (size_t)snprintf(headers + n, sizeof headers - n, "Access-Control-Allow-Origin: %s\r\n", allowed);
    if (match && strcmp(r->method, "OPTIONS") == 0) {
        /* Clients send headers of their own (x-stainless-... and the like), which change nothing here: all that
         * are asked for, if they look like names. */
        static const char token[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_, ";
        if (!asked || strlen(asked) > 1024 || strspn(asked, token) != strlen(asked))
            asked = "Authorization, Content-Type";
        snprintf(headers + n, sizeof headers - n,
                 "Access-Control-Allow-Methods: GET, HEAD, POST, OPTIONS\r\nAccess-Control-Allow-Headers: %s\r\n"
                 "Access-Control-Max-Age: 600\r\n", asked);
    }
    exchange_set_headers(x, headers);
    return match;
}
