/* See sim_trace.h. */
#include "tests/sim/sim_trace.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "raft/message.h"
#include "tests/sim/sim_database.h"

static struct {
    FILE *file;
    char (*lines)[SIM_TRACE_LINE];
    size_t capacity;
    uint64_t count;
} trace;

void sim_trace_begin(FILE *file, size_t tail)
{
    trace.file = file;
    trace.capacity = tail;
    trace.count = 0;
    free(trace.lines);
    trace.lines = tail > 0 ? calloc(tail, sizeof *trace.lines) : NULL;
    CHECK(tail == 0 || trace.lines != NULL);
}

static bool wanted(void)
{
    return trace.file != NULL || trace.capacity > 0;
}

static void put_line(const char *line)
{
    if (trace.file != NULL) {
        fprintf(trace.file, "%s\n", line);
    }
    if (trace.capacity > 0) {
        /* A long line is cut, not its end: the next one begins a line of its own. */
        snprintf(trace.lines[trace.count++ % trace.capacity], SIM_TRACE_LINE, "%.*s\n", SIM_TRACE_LINE - 2,
                 line);
    }
}

void sim_trace_print_tail(int fd)
{
    uint64_t first = trace.count > trace.capacity ? trace.count - trace.capacity : 0;
    for (uint64_t i = first; i < trace.count; i++) {
        const char *line = trace.lines[i % trace.capacity];
        ssize_t ignored = write(fd, line, strlen(line));
        (void)ignored;
    }
}

/* "n3", "db", or "-" for the world. Of what the simulator says in prose the subject is at the beginning. */
static const char *subject(const char *text, char node[static 8])
{
    unsigned number;
    int read = 0;
    if (sscanf(text, "node %u: %n", &number, &read) == 1 && read > 0) {
        snprintf(node, 8, "n%u", number % 100);
        return text + read;
    }
    if (strncmp(text, "database: ", 10) == 0) {
        snprintf(node, 8, "db");
        return text + 10;
    }
    snprintf(node, 8, "-");
    return text;
}

void sim_trace(struct sim *s, const char *format, ...)
{
    char text[512], line[600], node[8];
    if (!s->options.verbose && !wanted()) {
        return;
    }
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *what = subject(text, node);
    snprintf(line, sizeof line, "%10.6f %-2s note %s", (double)s->now_us / 1e6, node, what);
    put_line(line);
    if (s->options.verbose) {
        puts(line);
    }
}

static void describe_message(const struct sim_event *e, char *out, size_t size)
{
    struct message m;
    if (message_decode(e->data, e->size, &m) != 0) {
        snprintf(out, size, "message from=n%" PRIu64 " malformed", e->a);
        return;
    }
    int at = snprintf(out, size, "message from=n%" PRIu64 " ", e->a);
    out += at;
    size -= (size_t)at;
    const struct raft_message *r = &m.raft;
    if ((int)m.kind >= 16) { /* not of the core: a clock, a greeting, a refusal */
        snprintf(out, size, "kind=%d term=%" PRIu64 " seq=%" PRIu64 " index=%" PRIu64, (int)m.kind, m.term, m.seq,
                 m.index);
        return;
    }
    switch (r->type) {
    case RAFT_REQUEST_VOTE:
        snprintf(out, size, "%s term=%llu last=%llu/%llu", r->request_vote.pre_vote ? "pre-vote" : "vote",
                 r->request_vote.term, r->request_vote.last_log_index, r->request_vote.last_log_term);
        break;
    case RAFT_REQUEST_VOTE_RESULT:
        snprintf(out, size, "vote-result term=%llu granted=%d", r->request_vote_result.term,
                 r->request_vote_result.vote_granted);
        break;
    case RAFT_APPEND_ENTRIES:
        snprintf(out, size, "append term=%llu after=%llu/%llu entries=%u commit=%llu", r->append_entries.term,
                 r->append_entries.prev_log_index, r->append_entries.prev_log_term, r->append_entries.n_entries,
                 r->append_entries.leader_commit);
        break;
    case RAFT_APPEND_ENTRIES_RESULT:
        snprintf(out, size, "append-result term=%llu stored=%llu rejected=%llu", r->append_entries_result.term,
                 r->append_entries_result.last_log_index, r->append_entries_result.rejected);
        break;
    case RAFT_INSTALL_SNAPSHOT:
        snprintf(out, size, "install term=%llu index=%llu", r->install_snapshot.term,
                 r->install_snapshot.last_index);
        break;
    case RAFT_TIMEOUT_NOW:
        snprintf(out, size, "timeout-now term=%llu", r->timeout_now.term);
        break;
    }
}

static void describe(const struct sim_event *e, char *out, size_t size)
{
    static const char *const names[] = {
        [SIM_DISK] = "disk",         [SIM_TICK] = "tick",         [SIM_CHECKPOINT] = "checkpoint",
        [SIM_INSTALL] = "install",   [SIM_RESTART] = "restart",   [SIM_CLIENT] = "client",
        [SIM_FAULT] = "fault",       [SIM_HEAL] = "heal",         [SIM_CLOCK] = "clock",
        [SIM_CLOCK_FAULT] = "clock-fault", [SIM_DATABASE_FAULT] = "fault",
        [SIM_DIE] = "die",           [SIM_WATCH] = "watch",
    };
    static const char *const persister[] = {
        [PERSISTER_STEP] = "step", [PERSISTER_DELIVERY] = "answer", [PERSISTER_NEWS] = "news", [PERSISTER_TICK] = "tick"};
    switch ((int)e->kind) {
    case SIM_MESSAGE:
        describe_message(e, out, size);
        break;
    case SIM_LINK_NOTICE:
        snprintf(out, size, "link peer=n%" PRIu64 " up=%d", e->a, e->b != 0);
        break;
    case SIM_LINK_UP:
        snprintf(out, size, "connect n%" PRIu64 " n%" PRIu64, (e->a >> 8) + 1, (e->a & 0xFF) + 1);
        break;
    case SIM_PERSISTER:
        snprintf(out, size, "persister %s", e->a < 4 ? persister[e->a] : "?");
        break;
    case SIM_DATABASE:
        snprintf(out, size, "session id=%" PRIu64 " step=%" PRIu64, e->a, e->b & 0xFF);
        break;
    case SIM_FAULT:
        snprintf(out, size, "fault number=%" PRIu64, e->a);
        break;
    default:
        if ((size_t)e->kind < sizeof names / sizeof names[0] && names[e->kind] != NULL) {
            snprintf(out, size, "%s", names[e->kind]);
        } else {
            snprintf(out, size, "event-%d", (int)e->kind);
        }
    }
}

void sim_trace_event(const struct sim *s, const struct sim_event *e)
{
    char what[160], line[SIM_TRACE_LINE], node[8] = "-";
    if (!wanted()) {
        return;
    }
    describe(e, what, sizeof what);
    if (e->kind == SIM_DATABASE || e->kind == SIM_DATABASE_FAULT) {
        snprintf(node, sizeof node, "db");
    }
    int at = 0;
    if (e->node < SIM_NODES_MAX) {
        const struct sim_node *n = &s->nodes[e->node];
        snprintf(node, sizeof node, "n%u", e->node + 1);
        at = snprintf(line, sizeof line, "%10.6f %-2s %s", (double)s->now_us / 1e6, node, what);
        if (n->up && n->driver != NULL && (size_t)at < sizeof line) {
            struct driver_state state = driver_get_state(n->driver);
            snprintf(line + at, sizeof line - (size_t)at, " | term=%" PRIu64 " %s applied=%" PRIu64, state.term,
                     state.role == REPLICA_LEADER ? (state.ready ? "leads" : "elected") : "follows", n->applied);
        }
    } else {
        snprintf(line, sizeof line, "%10.6f %-2s %s", (double)s->now_us / 1e6, node, what);
    }
    put_line(line);
}

void sim_trace_violation(const struct sim *s, const char *text)
{
    char line[SIM_TRACE_LINE];
    if (wanted()) {
        snprintf(line, sizeof line, "%10.6f -  violation %s", (double)s->now_us / 1e6, text);
        put_line(line);
        if (trace.file != NULL) {
            fflush(trace.file);
        }
    }
}
