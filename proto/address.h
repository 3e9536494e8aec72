/* Addresses as text: "127.0.0.1:7001", "[::1]:7001", "localhost:7001". Numeric only (no look-ups,
 * which would block or fail long after a typing error); "localhost" means 127.0.0.1. */
#ifndef PROTO_ADDRESS_H
#define PROTO_ADDRESS_H

#include <stdint.h>

#define ADDRESS_HOST_SIZE 48 /* of a numeric host with its NUL */

/* Returns 0, or -1 when the text is no such address. Port 0 is one ("choose one"). */
int address_parse(const char *text, char host[static ADDRESS_HOST_SIZE], uint16_t *port);

#endif
