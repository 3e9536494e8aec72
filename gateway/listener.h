/* listener: a listening socket. Two in a process: public, and administration (loopback by default). */
#ifndef GATEWAY_LISTENER_H
#define GATEWAY_LISTENER_H

#include "gateway/gateway.h"

/* Listens at "host:port" (port 0 chooses one). Returns 0, or -1 after logging. */
int listener_open(struct gateway *g, enum listener_kind kind, const char *address);
/* The port it listens at. */
unsigned listener_port(const struct listener *l);
/* Takes no further connections. Idempotent. */
void listener_close(struct listener *l);

#endif
