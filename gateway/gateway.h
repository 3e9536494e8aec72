/* gateway: what the parts of the process share. One loop, one thread, one of these. */
#ifndef GATEWAY_GATEWAY_H
#define GATEWAY_GATEWAY_H

#include <stdbool.h>
#include <stdint.h>
#include <uv.h>

#include "base/histogram.h"
#include "base/text.h"
#include "gateway/auth.h"
#include "gateway/webhook_verify.h"

#define GATEWAY_READ_SIZE    65536 /* one read from a socket */
#define GATEWAY_STATUSES_MAX 48    /* distinct status codes that are counted */
#define GATEWAY_TICK_MS      250   /* resolution of the connections' time limits */

struct client;
struct connection;
struct exchange;

enum listener_kind { LISTENER_PUBLIC, LISTENER_ADMIN };

/* Each limit has a documented answer: docs/http-api.md. */
struct gateway_limits {
    uint64_t connections_max;  /* both listeners: further ones are closed at accept */
    uint64_t requests_max;     /* being read, run or answered: 503 QUEUE_FULL */
    uint64_t pipeline_max;     /* of one connection: further bytes wait in the kernel */
    uint64_t head_timeout_ms;  /* from the first byte of a request to the end of its head: 408 */
    uint64_t body_timeout_ms;  /* from there to the end of its body: 408 */
    uint64_t idle_timeout_ms;  /* between requests: closed */
    uint64_t write_timeout_ms; /* the caller takes no bytes: closed */
    uint64_t wait_ms;          /* for an outcome, unless Prefer: wait says otherwise: 504 */
    uint64_t wait_max_ms;      /* what Prefer: wait and ?wait may ask for */
};

struct listener {
    struct gateway *gateway;
    enum listener_kind kind;
    uv_tcp_t tcp;
    bool open;
    uint64_t accepted, refused; /* counters */
};

struct route_stats {
    struct histogram duration_ns;
    uint64_t codes[GATEWAY_STATUSES_MAX];
};

/* Connections that wait for the same kind of thing, longest first. The limit is the same for all of a
 * list, so the order of entering is the order of expiry and nothing is sorted. */
enum wait_kind { WAIT_IDLE, WAIT_HEAD, WAIT_BODY, WAIT_WRITE, WAIT_LINGER, WAIT_KINDS };
struct wait_list {
    struct connection *first, *last;
};

struct gateway {
    uv_loop_t *loop;
    struct client *client;
    struct gateway_limits limits;
    struct api_keys keys;
    struct user_tokens tokens;
    struct auth_cache *auth_cache;
    struct webhook_secrets payment_secrets;
    struct listener listeners[2]; /* by enum listener_kind */
    bool draining;                /* SIGTERM has come */

    uv_check_t flush_check;     /* after I/O: one write a connection for all its answers */
    uv_prepare_t flush_prepare; /* after timers */
    uv_timer_t tick;
    struct connection *connections, *dirty;
    struct wait_list waits[WAIT_KINDS];
    uint64_t connections_count, requests_count;
    struct exchange *spare; /* pool */
    uint64_t spare_count;
    struct exchange *sleepers; /* exchanges that wait for time to pass: see exchange_sleep */
    uv_timer_t sleep_timer;
    struct order_requests *order_requests;

    char date[40]; /* "Date: …\r\n", renewed by the tick */
    size_t date_size;
    char request_id_prefix[17];
    uint64_t request_id_next;
    uint64_t index_seen; /* the highest log index any answer carried */

    struct route_stats *stats; /* by route, one more for what met none */
    uint64_t idempotency_replays, orders[32] /* by enum result */, shed[3];
    uint64_t bytes_in, bytes_out, parse_refusals;
    uint64_t tick_due_ns, loop_lag_ns; /* how late the last tick was */

    char read_buffer[GATEWAY_READ_SIZE]; /* lent to one read at a time */
};

enum shed_reason { SHED_CONNECTIONS, SHED_REQUESTS, SHED_QUEUE };

#endif
