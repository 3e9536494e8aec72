/* sim_persister: the real persister (storage/persister*.c) and the real server/persist_driver.c on a simulated
 * node. Its thread becomes events (storage/persister_thread.h is implemented here), its connections lead to
 * sim_database.c (so is storage/persister_lane.h). What server/node.c does with them is done here as there. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "server/persist_driver.h"
#include "storage/persister_thread.h"
#include "tests/sim/sim_database.h"

#define TICK_US 100000 /* a node looks around so often */

struct persister_thread {
    struct sim_persister *of;
    void (*news)(void *ctx);
    void *ctx;
    void (*closed)(void *ctx);
    struct worker *worker;
    bool ended;
    uint64_t step_at_us; /* 0: none is planned */
    bool news_planned;
};

struct sim_persister {
    struct sim_node *node;
    struct persist_driver *driver;
    struct persister_thread *thread;
    bool leads;
    uint64_t term;
    bool closing, silently, done;
};

/* Whose worker is being stepped: lanes are opened by it. */
static struct sim_persister *stepping;

/* ---- the thread ---- */

static void plan_step(struct persister_thread *t, uint64_t delay_us)
{
    struct sim_node *n = t->of->node;
    uint64_t at_us = n->sim->now_us + delay_us;
    if (t->of->closing || t->worker == NULL || t->ended) {
        return;
    }
    if (t->step_at_us == 0 || at_us < t->step_at_us) {
        t->step_at_us = at_us;
        sim_push(n->sim, delay_us, SIM_PERSISTER, n, PERSISTER_STEP, 0, NULL, 0);
    }
}

static void step(struct persister_thread *t)
{
    struct sim_node *n = t->of->node;
    uint64_t until_ms, now_ms = sim_node_now_ms(n);
    if (t->worker == NULL || t->ended) {
        return;
    }
    t->step_at_us = 0;
    stepping = t->of;
    t->ended = !worker_step(t->worker, 0, now_ms, &until_ms);
    stepping = NULL;
    if (!t->ended && until_ms != UINT64_MAX) {
        uint64_t wait_ms = until_ms > now_ms ? until_ms - now_ms : 0;
        wait_ms = wait_ms < 60000 ? wait_ms : 60000;
        plan_step(t, wait_ms * 1000 * 1000000 / n->clock_rate_ppm + 1);
    }
}

struct persister_thread *persister_thread_create(uv_loop_t *loop, void (*news)(void *ctx), void *ctx)
{
    struct persister_thread *t = calloc(1, sizeof *t);
    CHECK(t != NULL);
    t->of = (struct sim_persister *)(void *)loop; /* that is what sim_persister_start gave as the loop */
    t->of->thread = t;
    t->news = news;
    t->ctx = ctx;
    return t;
}

int persister_thread_start(struct persister_thread *t, struct worker *w)
{
    t->worker = w;
    plan_step(t, 100);
    return 0;
}

void persister_thread_wake(struct persister_thread *t)
{
    plan_step(t, 5 + sim_database_below(t->of->node->sim->database, 200));
}

void persister_thread_wake_loop(struct persister_thread *t)
{
    struct sim_node *n = t->of->node;
    if (!t->news_planned && !t->of->closing) {
        t->news_planned = true;
        sim_push(n->sim, 5 + sim_database_below(n->sim->database, 400), SIM_PERSISTER, n, PERSISTER_NEWS, 0,
                 NULL, 0);
    }
}

void persister_thread_close(struct persister_thread *t, void (*closed)(void *ctx))
{
    t->of->thread = NULL;
    void *ctx = t->ctx;
    free(t);
    closed(ctx);
}

/* ---- lanes ---- */

static struct sim_session *session_of(const struct lane *lane)
{
    return (struct sim_session *)(void *)lane->conn;
}

void lane_open(struct lane *lane, const char *url, uint64_t now_ms)
{
    (void)url;
    CHECK(lane->state == LANE_CLOSED && stepping != NULL);
    struct sim_node *n = stepping->node;
    *lane = (struct lane){.state = LANE_CONNECTING, .deadline_ms = now_ms + LANE_CONNECT_TIMEOUT_MS};
    lane->conn = (PGconn *)(void *)sim_session_open(n->sim->database, n, stepping->term);
}

void lane_close(struct lane *lane)
{
    if (lane->conn != NULL) {
        struct sim_session *x = session_of(lane);
        sim_session_leave(x, stepping != NULL && stepping->silently);
    }
    *lane = (struct lane){.state = LANE_CLOSED};
}

static struct sim_request *begin_request(struct lane *lane, const char *sql, uint64_t now_ms)
{
    CHECK(lane->state == LANE_IDLE);
    struct sim_session *x = session_of(lane);
    lane->tag[0] = lane->sqlstate[0] = lane->error[0] = '\0';
    lane->state = LANE_BUSY;
    lane->deadline_ms = now_ms + LANE_STALL_TIMEOUT_MS;
    CHECK(x->request.sql == NULL || x->server_gone);
    sim_request_close(&x->request);
    x->request = (struct sim_request){.sql = strdup(sql)};
    CHECK(x->request.sql != NULL);
    return &x->request;
}

void lane_query(struct lane *lane, const char *sql, const struct text *const *copies, size_t copies_count,
                uint64_t now_ms)
{
    struct sim_request *r = begin_request(lane, sql, now_ms);
    for (size_t i = 0; i < copies_count; i++) {
        text_append(&r->copies[i], copies[i]->data, copies[i]->len);
    }
    r->copies_count = copies_count;
    sim_session_request(session_of(lane));
}

void lane_query_parameters(struct lane *lane, const char *sql, const struct persister_parameters *p,
                           uint64_t now_ms)
{
    struct sim_request *r = begin_request(lane, sql, now_ms);
    for (int i = 0; i < p->parameters; i++) {
        text_append(&r->parameters[i], p->values[i].data, p->values[i].len);
    }
    r->single = true;
    sim_session_request(session_of(lane));
}

static void lane_fail(struct lane *lane, const char *error)
{
    snprintf(lane->error, sizeof lane->error, "%s", error);
    lane->state = LANE_FAILED;
}

enum lane_state lane_tick(struct lane *lane, bool ready, uint64_t now_ms)
{
    (void)ready;
    if (lane->state != LANE_CONNECTING && lane->state != LANE_IDLE && lane->state != LANE_BUSY) {
        return lane->state;
    }
    struct sim_session *x = session_of(lane);
    enum sim_delivery delivered = x->delivered;
    x->delivered = DELIVERED_NOTHING;
    if (delivered == DELIVERED_LOSS) {
        lane_fail(lane, "connection lost");
    } else if (delivered == DELIVERED_CONNECTION && lane->state == LANE_CONNECTING) {
        lane->state = LANE_IDLE;
    } else if (delivered == DELIVERED_ANSWER && lane->state == LANE_BUSY) {
        lane->state = LANE_IDLE;
        memcpy(lane->tag, x->answer.tag, sizeof lane->tag);
        memcpy(lane->sqlstate, x->answer.sqlstate, sizeof lane->sqlstate);
        snprintf(lane->error, sizeof lane->error, "%s", x->answer.error);
    } else if (lane->state != LANE_IDLE && now_ms >= lane->deadline_ms) {
        lane_fail(lane, lane->state == LANE_BUSY ? "PostgreSQL does not answer any more"
                                                 : "PostgreSQL does not answer: connecting took too long");
    }
    return lane->state;
}

int lane_fd(const struct lane *lane)
{
    (void)lane;
    return -1; /* nothing polls */
}

int lane_rows(const struct lane *lane)
{
    return session_of(lane)->answer.rows;
}

const char *lane_value(const struct lane *lane, int row, int column)
{
    const struct sim_answer *a = &session_of(lane)->answer;
    if (row >= a->rows || column >= a->columns) {
        return "";
    }
    const char *at = a->cells.data;
    for (int i = 0; i < row * a->columns + column; i++) {
        at += strlen(at) + 1;
    }
    return at;
}

/* ---- the node ---- */

static bool propose_cb(void *ctx, const struct command *command)
{
    struct sim_persister *p = ctx;
    struct sim_node *n = p->node;
    uint8_t encoded[COMMAND_SIZE_MAX], batch[BATCH_SIZE_MAX];
    struct driver_state state = driver_get_state(n->driver);
    if (state.role != REPLICA_LEADER || !state.ready || !sim_clock_can_stamp(n)) {
        return false;
    }
    size_t size = command_encode(command, encoded, sizeof encoded);
    CHECK(size > 0);
    struct batch_builder b;
    batch_begin(&b, batch, sizeof batch);
    CHECK(batch_add(&b, encoded, size));
    n->sim->stats.database_acks++;
    return sim_clients_submit(n, batch, batch_end(&b, sim_clock_stamp(n)));
}

static struct engine *engine_of(struct sim_node *n)
{
    return n->sim->options.machine->engine(n->machine);
}

void sim_persister_start(struct sim_node *n)
{
    if (n->sim->database == NULL) {
        return;
    }
    uint8_t cluster[16];
    memset(cluster, SIM_ENGINE_CLUSTER, sizeof cluster);
    struct sim_persister *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->node = n;
    CHECK(persist_driver_create((uv_loop_t *)(void *)p, "host=simulated", cluster, propose_cb, p, &p->driver) == 0);
    n->persister = p;
    sim_push(n->sim, TICK_US, SIM_PERSISTER, n, PERSISTER_TICK, 0, NULL, 0);
}

static void done_cb(void *ctx)
{
    struct sim_persister *p = ctx;
    p->done = true;
}

void sim_persister_close(struct sim_node *n)
{
    struct sim_persister *p = n->persister;
    if (p == NULL) {
        return;
    }
    n->persister = NULL;
    p->closing = true;
    p->silently = sim_database_one_in(n->sim->database, 3);
    persist_driver_destroy(p->driver, done_cb, p);
    while (!p->done) {
        step(p->thread);
        CHECK(p->thread->ended);
        p->thread->news(p->thread->ctx);
    }
    free(p);
}

void sim_persister_state(struct sim_node *n, const struct driver_state *state)
{
    struct sim_persister *p = n->persister;
    if (p == NULL) {
        return;
    }
    bool leads = state->role == REPLICA_LEADER && state->ready;
    bool same = p->leads && leads && p->term == state->term;
    if (p->leads && !same) {
        persist_driver_follow(p->driver);
    }
    if (leads && !same) {
        persist_driver_lead(p->driver, state->term);
        sim_database_leads(n->sim);
    }
    p->leads = leads;
    p->term = state->term;
}

void sim_persister_after(struct sim_node *n)
{
    struct sim_persister *p = n->persister;
    if (p != NULL && n->up && n->driver != NULL && engine_initialized(engine_of(n))) {
        persist_driver_step(p->driver, engine_of(n), sim_node_now_ms(n));
    }
}

void sim_persister_event(struct sim_node *n, const struct sim_event *e)
{
    struct sim_persister *p = n->persister;
    struct persister_thread *t = p->thread;
    switch (e->a) {
    case PERSISTER_STEP:
        if (t->step_at_us != 0 && t->step_at_us <= n->sim->now_us) {
            step(t);
        }
        break;
    case PERSISTER_DELIVERY:
        sim_session_deliver(n->sim->database, e->b);
        step(t);
        break;
    case PERSISTER_NEWS:
        t->news_planned = false;
        t->news(t->ctx);
        break;
    case PERSISTER_TICK:
        sim_push(n->sim, TICK_US, SIM_PERSISTER, n, PERSISTER_TICK, 0, NULL, 0);
        if (engine_initialized(engine_of(n))) {
            CHECK(persist_driver_start(p->driver, engine_shards(engine_of(n))) == 0);
        }
        break;
    }
}

void sim_persister_error(const struct sim_node *n, char out[static 256])
{
    struct persister_status status;
    out[0] = '\0';
    if (n->persister != NULL && persist_driver_get_status(n->persister->driver, &status)) {
        memcpy(out, status.error, sizeof status.error);
    }
}
