/* A proxy between a client and PostgreSQL's Unix socket that loses answers: for tests of what
 * happens when a COMMIT was done but its answer never came, or comes after the client has given up.
 */
#ifndef TESTS_INTEGRATION_PG_PROXY_H
#define TESTS_INTEGRATION_PG_PROXY_H

#include <stdint.h>

struct pg_proxy;

/* Listens on DIR/proxy.s.PGSQL.5432-like socket: connect with host=<pg_proxy_dir>. Every
 * cut_every-th COMMIT is cut: alternately the answer is dropped (the commit is done), or the
 * request is held back, the client disconnected, and the request delivered late_ms later (the
 * commit is done by a ghost). */
struct pg_proxy *pg_proxy_start(const char *server_dir, uint64_t cut_every, uint64_t late_ms);
const char *pg_proxy_dir(const struct pg_proxy *p);
/* How many commits were cut, in each way. */
void pg_proxy_counts(struct pg_proxy *p, uint64_t *dropped, uint64_t *delayed);
/* From now on nothing is cut. */
void pg_proxy_calm(struct pg_proxy *p);
void pg_proxy_stop(struct pg_proxy *p);

#endif
