/* persister_lane: one connection to PostgreSQL that never blocks. Runs one request at a time: a
 * simple query (of several statements, COPY FROM STDIN among them) or one statement with
 * parameters.
 *
 * What it owns: the libpq connection, what is being sent and received. What it refuses: to know
 * what the statements are for, to retry.
 *
 *     CLOSED --open--> CONNECTING --> IDLE <--query/result--> BUSY
 *                          |            |                      |
 *                          +------------+------> FAILED <------+     (connection lost or stuck)
 *
 * A statement that PostgreSQL refuses leaves the lane IDLE with lane->sqlstate set; a lost
 * connection leaves it FAILED. Both leave a line in lane->error, without secrets. The caller polls
 * lane_fd for lane_poll_events, then ticks. */
#ifndef STORAGE_PERSISTER_LANE_H
#define STORAGE_PERSISTER_LANE_H

#include <libpq-fe.h>
#include <stdbool.h>
#include <stdint.h>

#include "storage/persister_rows.h"

#define LANE_CONNECT_TIMEOUT_MS 5000
/* Without a byte in or out for this long a lane is given up. Above the server's statement_timeout,
 * which answers for a server that is alive. */
#define LANE_STALL_TIMEOUT_MS 40000
#define LANE_APPLICATION_NAME "holdfast persister"

enum lane_state { LANE_CLOSED, LANE_CONNECTING, LANE_IDLE, LANE_BUSY, LANE_FAILED };

struct lane {
    enum lane_state state;
    PGconn *conn;
    short poll_events;    /* what to poll for now */
    uint64_t deadline_ms; /* monotonic; of CONNECTING and BUSY */
    PGresult *result;     /* the last rows of the last query, NULL for none */
    char tag[24];         /* of the last statement that succeeded: "COMMIT" */
    char sqlstate[6];     /* of the refusal, "" when the query succeeded */
    char error[256];
    const struct text *copies[COPY_COUNT]; /* what each COPY of the query gets, in order */
    size_t copies_count, copy, copy_offset;
    bool copying, refused;
};

/* Starts connecting (LANE_CONNECTING, or LANE_FAILED at once). Name resolution by libpq may take a
 * while: it is the caller's own thread. */
void lane_open(struct lane *lane, const char *url, uint64_t now_ms);
/* Ends the connection without waiting for anything. Any state. */
void lane_close(struct lane *lane);

/* Each begins a request on an IDLE lane; copies are lent until it is IDLE again. */
void lane_query(struct lane *lane, const char *sql, const struct text *const *copies,
                size_t copies_count, uint64_t now_ms);
void lane_query_parameters(struct lane *lane, const char *sql, const struct persister_parameters *p,
                           uint64_t now_ms);

/* Goes as far as possible without waiting. ready: poll reported the socket. Returns the state. */
enum lane_state lane_tick(struct lane *lane, bool ready, uint64_t now_ms);

/* The socket to poll, or -1. */
int lane_fd(const struct lane *lane);
/* One value of the last result, "" when there is none. Lent until the next query. */
const char *lane_value(const struct lane *lane, int row, int column);
int lane_rows(const struct lane *lane);

#endif
