/* See persister_lane.h. */
#include "storage/persister_lane.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/str.h"

#define COPY_CHUNK_SIZE 65536

static void ignore_notice(void *ctx, const PGresult *result)
{
    (void)ctx;
    (void)result;
}

/* Keeps the first line of a message. The first error of a request is the cause, later ones follow
 * from it. */
static void set_error(struct lane *lane, const char *message)
{
    if (lane->error[0] == '\0') {
        str_copy(lane->error, sizeof lane->error, str_from(message));
        lane->error[strcspn(lane->error, "\n")] = '\0';
    }
}

static void fail(struct lane *lane, const char *message)
{
    set_error(lane, message);
    lane->state = LANE_FAILED;
    lane->poll_events = 0;
}

static void fail_connection(struct lane *lane)
{
    const char *message = PQerrorMessage(lane->conn);
    fail(lane, message[0] != '\0' ? message : "connection lost");
}

void lane_open(struct lane *lane, const char *url, uint64_t now_ms)
{
    CHECK(lane->state == LANE_CLOSED);
    *lane =
        (struct lane){.state = LANE_CONNECTING, .deadline_ms = now_ms + LANE_CONNECT_TIMEOUT_MS};
    /* Later keywords win and dbname is expanded where it stands: the URL overrides what is before
     * it. */
    const char *const keys[] = {
        "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
        "dbname",          "application_name",    "client_encoding",  NULL};
    const char *const values[] = {"5", "3", "3", "15000", url, LANE_APPLICATION_NAME, "UTF8", NULL};
    lane->conn = PQconnectStartParams(keys, values, 1);
    if (lane->conn == NULL) {
        fail(lane, "out of memory");
    } else if (PQstatus(lane->conn) == CONNECTION_BAD) {
        fail_connection(lane);
    } else {
        PQsetNoticeReceiver(lane->conn, ignore_notice, NULL);
        lane->poll_events = POLLOUT;
    }
}

void lane_close(struct lane *lane)
{
    if (lane->conn != NULL) {
        PQclear(lane->result);
        PQfinish(lane->conn); /* non-blocking: its farewell is sent if the socket takes it */
    }
    *lane = (struct lane){.state = LANE_CLOSED};
}

static void begin_request(struct lane *lane, uint64_t now_ms)
{
    CHECK(lane->state == LANE_IDLE);
    PQclear(lane->result);
    lane->result = NULL;
    lane->tag[0] = lane->sqlstate[0] = lane->error[0] = '\0';
    lane->copies_count = lane->copy = 0;
    lane->copying = lane->refused = false;
    lane->state = LANE_BUSY;
    lane->poll_events = POLLIN | POLLOUT;
    lane->deadline_ms = now_ms + LANE_STALL_TIMEOUT_MS;
}

void lane_query(struct lane *lane, const char *sql, const struct text *const *copies,
                size_t copies_count, uint64_t now_ms)
{
    CHECK(copies_count <= COPY_COUNT);
    begin_request(lane, now_ms);
    for (size_t i = 0; i < copies_count; i++) {
        lane->copies[i] = copies[i];
    }
    lane->copies_count = copies_count;
    if (PQsendQuery(lane->conn, sql) != 1) {
        fail_connection(lane);
    }
}

void lane_query_parameters(struct lane *lane, const char *sql, const struct persister_parameters *p,
                           uint64_t now_ms)
{
    const char *values[PERSISTER_PARAMETERS_MAX];
    int lengths[PERSISTER_PARAMETERS_MAX];
    Oid types[PERSISTER_PARAMETERS_MAX];
    for (int i = 0; i < p->parameters; i++) {
        values[i] = p->values[i].data;
        lengths[i] = (int)p->values[i].len;
        types[i] = p->types[i];
    }
    begin_request(lane, now_ms);
    if (PQsendQueryParams(lane->conn, sql, p->parameters, types, values, lengths, p->formats, 0) !=
        1) {
        fail_connection(lane);
    }
}

/* Returns true when connected or failed, false when there is more to wait for. */
static bool connect_step(struct lane *lane)
{
    switch (PQconnectPoll(lane->conn)) {
    case PGRES_POLLING_READING:
        lane->poll_events = POLLIN;
        return false;
    case PGRES_POLLING_WRITING:
        lane->poll_events = POLLOUT;
        return false;
    case PGRES_POLLING_OK:
        if (PQsetnonblocking(lane->conn, 1) != 0) {
            fail_connection(lane);
        } else {
            lane->state = LANE_IDLE;
            lane->poll_events = POLLIN; /* the server may say good-bye */
        }
        return true;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
    default:
        fail_connection(lane);
        return true;
    }
}

/* Sends what the socket takes of the present COPY. Returns true when all of it is with libpq. */
static bool copy_step(struct lane *lane, uint64_t now_ms)
{
    const struct text *data = lane->copies[lane->copy];
    while (lane->copy_offset < data->len) {
        size_t left = data->len - lane->copy_offset;
        size_t n = left < COPY_CHUNK_SIZE ? left : COPY_CHUNK_SIZE;
        if (FAILPOINT_ERROR("persister/rows", "rows are to be sent, some may have been") < 0) {
            fail(lane, "a failpoint among the rows");
            return false;
        }
        int put = PQputCopyData(lane->conn, data->data + lane->copy_offset, (int)n);
        if (put < 0) {
            fail_connection(lane);
            return false;
        }
        if (put == 1) {
            lane->copy_offset += n;
            lane->deadline_ms = now_ms + LANE_STALL_TIMEOUT_MS;
        }
        int flushed = PQflush(lane->conn);
        if (flushed < 0) {
            fail_connection(lane);
            return false;
        }
        if (flushed == 1 || put == 0) {
            return false; /* the socket is full: libpq holds at most a chunk */
        }
    }
    if (FAILPOINT_ERROR("persister/before-commit", "all rows of a table are sent; COMMIT follows") < 0) {
        fail(lane, "a failpoint before COMMIT");
        return false;
    }
    int end = PQputCopyEnd(lane->conn, NULL);
    if (end < 0) {
        fail_connection(lane);
    }
    return end == 1;
}

static void keep_result(struct lane *lane, PGresult *r)
{
    ExecStatusType status = PQresultStatus(r);
    if (status == PGRES_TUPLES_OK) {
        PQclear(lane->result);
        lane->result = r;
        return;
    }
    if (status == PGRES_COMMAND_OK) {
        str_copy(lane->tag, sizeof lane->tag, str_from(PQcmdStatus(r)));
    } else if (status == PGRES_COPY_IN) {
        if (lane->copy < lane->copies_count) {
            lane->copying = true;
            lane->copy_offset = 0;
        } else {
            fail(lane, "PostgreSQL expects more COPY data than there is");
        }
    } else if (status != PGRES_EMPTY_QUERY) {
        const char *sqlstate = PQresultErrorField(r, PG_DIAG_SQLSTATE);
        const char *message = PQresultErrorField(r, PG_DIAG_MESSAGE_PRIMARY);
        if (!lane->refused) {
            str_copy(lane->sqlstate, sizeof lane->sqlstate,
                     str_from(sqlstate != NULL ? sqlstate : "XX000"));
            set_error(lane, message != NULL ? message : PQresultErrorMessage(r));
        }
        lane->refused = true;
    }
    PQclear(r);
}

static void busy_step(struct lane *lane, uint64_t now_ms)
{
    int flushed = PQflush(lane->conn);
    if (flushed < 0 || PQconsumeInput(lane->conn) != 1) {
        fail_connection(lane);
        return;
    }
    while (lane->state == LANE_BUSY) {
        if (lane->copying) {
            /* An error may be on its way: PostgreSQL ignores the rest of the data then, and says it
             * after. */
            if (!copy_step(lane, now_ms)) {
                break;
            }
            lane->copying = false;
            lane->copy++;
            flushed = PQflush(lane->conn);
        }
        if (PQisBusy(lane->conn)) {
            break;
        }
        PGresult *r = PQgetResult(lane->conn);
        lane->deadline_ms = now_ms + LANE_STALL_TIMEOUT_MS;
        if (r != NULL) {
            keep_result(lane, r);
        } else if (PQstatus(lane->conn) != CONNECTION_OK) {
            fail_connection(lane);
        } else {
            lane->state = LANE_IDLE;
            lane->poll_events = POLLIN;
            return;
        }
    }
    if (lane->state == LANE_BUSY) {
        lane->poll_events = (short)(POLLIN | (flushed == 1 || lane->copying ? POLLOUT : 0));
    }
}

enum lane_state lane_tick(struct lane *lane, bool ready, uint64_t now_ms)
{
    switch (lane->state) {
    case LANE_CONNECTING:
        /* Only when the socket is ready: before, libpq would take "no error yet" for "connected".
         */
        if (!(ready && connect_step(lane)) && now_ms >= lane->deadline_ms) {
            fail(lane, "PostgreSQL does not answer: connecting took too long");
        }
        break;
    case LANE_BUSY:
        busy_step(lane, now_ms);
        if (lane->state == LANE_BUSY && now_ms >= lane->deadline_ms) {
            fail(lane, "PostgreSQL does not answer any more");
        }
        break;
    case LANE_IDLE: /* nothing is expected: only the end */
        if (ready && PQconsumeInput(lane->conn) != 1) {
            fail_connection(lane);
        }
        break;
    case LANE_CLOSED:
    case LANE_FAILED:
        break;
    }
    return lane->state;
}

int lane_fd(const struct lane *lane)
{
    bool open =
        lane->state == LANE_CONNECTING || lane->state == LANE_IDLE || lane->state == LANE_BUSY;
    return open ? PQsocket(lane->conn) : -1;
}

const char *lane_value(const struct lane *lane, int row, int column)
{
    return row < PQntuples(lane->result) ? PQgetvalue(lane->result, row, column) : "";
}

int lane_rows(const struct lane *lane)
{
    return PQntuples(lane->result);
}
