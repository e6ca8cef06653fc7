#include "server/access.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>
#include <strings.h>

bool access_host(const char *host, const char *own_host, bool loopback_only)
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
        return inet_pton(AF_INET6, name, &v6) == 1 && (!loopback_only || IN6_IS_ADDR_LOOPBACK(&v6) || strcmp(name, own_host) == 0);
    if (inet_pton(AF_INET, name, &v4) == 1)
        return !loopback_only || ntohl(v4.s_addr) >> 24 == 127;
    return strcasecmp(name, "localhost") == 0 || strcasecmp(name, own_host) == 0;
}

bool access_key(const char *header, const char *key)
{
    if (!header || strncasecmp(header, "Bearer ", 7) != 0)
        return false;
    const char *given = header + 7;
    given += strspn(given, " ");
    size_t n = strlen(key), m = strlen(given);
    unsigned char differ = n != m;
    for (size_t i = 0; i < m; i++) /* as long as what was sent, whatever the key is */
        differ |= (unsigned char)(given[i] ^ key[n ? i % n : 0]);
    return differ == 0;
}
