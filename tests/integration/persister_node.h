/* What the tests of the persister share: a server, a loop, and a persister as a node would have it.
 */
#ifndef TESTS_INTEGRATION_PERSISTER_NODE_H
#define TESTS_INTEGRATION_PERSISTER_NODE_H

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/prng.h"
#include "persister_oracle.h"
#include "pg_fixture.h"
#include "storage/migrate.h"
#include "storage/persister.h"

#define SHARDS      16
#define DEADLINE_MS 120000 /* a test that takes this long hangs */

extern struct pg_fixture server;
extern uv_loop_t loop;
extern uint64_t seed;
extern const uint8_t cluster[16];

/* Offers what the source has up to `available`, and checks what it is told. */
struct node {
    struct persister *persister;
    const struct event_source *source;
    uint64_t next, acked, available, goal;
    uint64_t wants, offered;
    bool gone;
};

void node_create(struct node *n, const struct event_source *source, const char *url);
void node_lead(struct node *n, uint64_t term);
/* Offers what is wanted and available. */
void node_offer(struct node *n);
void node_destroy(struct node *n);
struct persister_status node_status(const struct node *n);

/* Runs the loop until the condition holds; calls disturb (may be NULL) at every turn. Both get ctx,
 * which begins with a node. Fails the test at the deadline. */
void run_until(bool (*condition)(void *), void (*disturb)(void *), void *ctx);
void run_until_acked(struct node *n, uint64_t sequence);
bool all_acked(void *ctx);
bool has_error(void *ctx);
bool is_connected(void *ctx);
bool is_fenced(void *ctx);

/* A new, migrated database; returns the number in its name: "db7". */
int fresh_database(char *url, size_t size);

/* Runs a program's tests with server and loop: all, or the one that argv names. */
int persister_run_tests(int argc, char **argv, const struct CMUnitTest *tests, size_t count);

#endif
