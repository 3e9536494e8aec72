#include "proto/address.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int address_parse(const char *text, char host[static ADDRESS_HOST_SIZE], uint16_t *port)
{
    const char *colon = strrchr(text, ':');
    if (colon == NULL || colon[1] < '0' || colon[1] > '9') {
        return -1;
    }
    char *end;
    unsigned long number = strtoul(colon + 1, &end, 10);
    if (*end != '\0' || number > UINT16_MAX || strlen(colon + 1) > 5) {
        return -1;
    }
    size_t len = (size_t)(colon - text);
    bool bracketed = len >= 2 && text[0] == '[' && text[len - 1] == ']';
    if (bracketed) {
        text++;
        len -= 2;
    }
    if (len >= ADDRESS_HOST_SIZE) {
        return -1;
    }
    memcpy(host, text, len);
    host[len] = '\0';
    if (strcmp(host, "localhost") == 0) {
        memcpy(host, "127.0.0.1", sizeof "127.0.0.1");
    }
    unsigned char raw[16];
    if (inet_pton(bracketed ? AF_INET6 : AF_INET, host, raw) != 1) {
        return -1;
    }
    *port = (uint16_t)number;
    return 0;
}
