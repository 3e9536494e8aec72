/* sim_network: one connection for each direction between two nodes, as the transport has them
 * (raft/transport.h): whole messages may be lost, none comes twice or out of order, nothing of an older
 * connection is delivered after a newer one of that direction began. Until then it is: what lay in the
 * receiver's buffers when the connection broke comes after its sender has noticed, has told his driver,
 * and may have died and come back; and with the other direction already new (SIM_FAULT_LATE).
 *
 * A message cannot come twice within a connection (TCP) nor over two of them (the transport sends nothing
 * again). That this is needed is shown by `--disable-guard edge`: with it, messages of older connections and
 * second copies reach the driver. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/sim/sim.h"

#define RECONNECT_MIN_US   50000
#define IDLE_TIMEOUT_US    2000000 /* TRANSPORT_IDLE_TIMEOUT_MS */
#define LATE_US            300000  /* how long buffers of a broken connection last, at most */

/* SIM_LINK_NOTICE, b: what a node sees of its connections with a peer. */
enum notice {
    NOTICE_UP,    /* one of them stands now: perhaps both do */
    NOTICE_DOWN,  /* one broke; of no interest when it was replaced meanwhile */
    NOTICE_AGAIN, /* the outgoing one had broken unnoticed, and is made anew */
};

static struct sim_link *link_of(struct sim *s, unsigned from, unsigned to)
{
    return &s->links[from][to];
}

bool sim_network_connected(const struct sim *s, unsigned a, unsigned b)
{
    return s->links[a][b].up && s->links[b][a].up;
}

/* at: one end of the connection from → to. */
static void notice(struct sim *s, unsigned at, unsigned from, unsigned to, enum notice what,
                   uint64_t delay_us)
{
    bool outgoing = at == from;
    if (s->nodes[at].up) {
        sim_push(s, delay_us, SIM_LINK_NOTICE, &s->nodes[at], s->nodes[outgoing ? to : from].id,
                 (uint64_t)s->links[from][to].epoch << 3 | (uint64_t)outgoing << 2 | what, NULL, 0);
    }
}

static void plan_connect(struct sim *s, unsigned from, unsigned to)
{
    sim_push(s, RECONNECT_MIN_US + sim_below(s, 200000), SIM_LINK_UP, NULL,
             (uint64_t)from << 8 | to, 0, NULL, 0);
}

void sim_network_start(struct sim *s)
{
    for (unsigned a = 0; a < s->swarm.nodes; a++) {
        for (unsigned b = 0; b < s->swarm.nodes; b++) {
            if (a != b) {
                sim_push(s, 1000 + sim_below(s, 50000), SIM_LINK_UP, NULL, (uint64_t)a << 8 | b, 0,
                         NULL, 0);
            }
        }
    }
}

/* A handshake needs both sides awake and both ways open. */
static bool can_connect(const struct sim *s, unsigned from, unsigned to)
{
    const struct sim_node *a = &s->nodes[from], *b = &s->nodes[to];
    return a->up && b->up && a->paused_until_us <= s->now_us && b->paused_until_us <= s->now_us &&
           !s->cut[from][to] && !s->cut[to][from];
}

/* There is one attempt planned for each connection that is down, and none for one that stands. */
void sim_network_event(struct sim *s, struct sim_event *e)
{
    unsigned from = (unsigned)(e->a >> 8);
    unsigned to = (unsigned)(e->a & 0xFF);
    struct sim_link *link = link_of(s, from, to);
    CHECK(!link->up);
    if (!can_connect(s, from, to)) {
        plan_connect(s, from, to);
        return;
    }
    link->epoch++;
    link->up = true;
    link->late_until_us = 0;
    link->arrival_us = s->now_us;
    notice(s, from, from, to, NOTICE_AGAIN, 0);
    notice(s, from, from, to, NOTICE_UP, 1 + sim_below(s, 1000));
    notice(s, to, from, to, NOTICE_UP, 1 + sim_below(s, 1000));
}

int sim_network_notice(struct sim_node *n, const struct sim_event *e)
{
    struct sim *s = n->sim;
    unsigned peer = (unsigned)e->a - 1;
    bool *told = &s->told[n->index][peer];
    bool connected = sim_network_connected(s, n->index, peer);
    const struct sim_link *link =
        (e->b & 4) != 0 ? &s->links[n->index][peer] : &s->links[peer][n->index];
    bool news = false;
    switch ((enum notice)(e->b & 3)) {
    case NOTICE_UP:
        news = connected && !*told;
        break;
    case NOTICE_DOWN:
        news = *told && !link->up && e->b >> 3 == link->epoch;
        break;
    case NOTICE_AGAIN:
        news = *told;
        break;
    }
    if (!news) {
        return -1;
    }
    *told = !*told;
    return *told;
}

static void link_down(struct sim *s, unsigned from, unsigned to, uint64_t delay_us)
{
    struct sim_link *link = link_of(s, from, to);
    if (!link->up) {
        return;
    }
    link->up = false;
    if (sim_fault_on(s, SIM_FAULT_LATE) && !s->healing && sim_one_in(s, 2)) {
        link->late_until_us = s->now_us + sim_below(s, LATE_US);
        link->hold_us = sim_one_in(s, 2) ? sim_below(s, LATE_US) : 0;
        link->hold_us += s->now_us;
    }
    notice(s, from, from, to, NOTICE_DOWN, delay_us + sim_below(s, 2000));
    notice(s, to, from, to, NOTICE_DOWN, delay_us + sim_below(s, 2000));
    plan_connect(s, from, to);
}

void sim_network_break(struct sim *s, unsigned a, unsigned b)
{
    uint64_t which = sim_below(s, 3);
    if (which != 1) {
        link_down(s, a, b, 0);
    }
    if (which != 0) {
        link_down(s, b, a, 0);
    }
}

void sim_network_node_down(struct sim_node *n, bool silent)
{
    struct sim *s = n->sim;
    for (unsigned peer = 0; peer < s->swarm.nodes; peer++) {
        s->told[n->index][peer] = false;
        if (peer != n->index) {
            link_down(s, n->index, peer, silent ? IDLE_TIMEOUT_US : 0);
            link_down(s, peer, n->index, silent ? IDLE_TIMEOUT_US : 0);
        }
    }
}

bool sim_network_admits(struct sim_node *n, struct sim_event *e)
{
    struct sim *s = n->sim;
    unsigned from = (unsigned)e->a - 1;
    struct sim_link *link = link_of(s, from, n->index);
    if (s->cut[from][n->index]) {
        return false;
    }
    if (link->up && link->epoch == e->b) {
        return true;
    }
    if (s->options.edge_open) {
        s->stats.fired[SIM_FAULT_LATE]++;
        return true;
    }
    if (link->up || link->epoch != e->b || s->now_us > link->late_until_us) {
        return false;
    }
    if (link->hold_us > s->now_us) { /* it is read later, with all that lies behind it */
        sim_push(s, link->hold_us - s->now_us, SIM_MESSAGE, n, e->a, e->b, e->data, e->size);
        e->data = NULL;
        return false;
    }
    s->stats.fired[SIM_FAULT_LATE]++;
    return true;
}

void sim_network_send(struct sim_node *from, uint64_t to_id, const struct message_out *m)
{
    sim_network_send_from(from, to_id, m, &from->sim->prng);
}

void sim_network_send_from(struct sim_node *from, uint64_t to_id, const struct message_out *m,
                           struct prng *prng)
{
    struct sim *s = from->sim;
    if (to_id == 0 || to_id > s->swarm.nodes || to_id == from->id) {
        return; /* not a peer that was set: a member that the simulator never created */
    }
    unsigned to = (unsigned)to_id - 1;
    struct sim_link *link = link_of(s, from->index, to);
    s->stats.messages++;
    if (!link->up || s->cut[from->index][to]) {
        return;
    }
    if (sim_fault_on(s, SIM_FAULT_LOSS) && !s->healing && prng_one_in(prng, 60)) {
        s->stats.fired[SIM_FAULT_LOSS]++;
        return;
    }
    size_t size = message_size(m);
    CHECK(size > 0);
    CHECK(size <= MESSAGE_SIZE_MAX);
    void *frame = aligned_alloc(8, size);
    CHECK(frame != NULL);
    message_encode(m, frame);
    uint64_t delay = s->swarm.latency_us + prng_below(prng, s->swarm.jitter_us + 1);
    if (prng_one_in(prng, 200)) {
        delay += prng_below(prng, 50000); /* a retransmission below */
    }
    uint64_t at = s->now_us + delay;
    if (at <= link->arrival_us) {
        at = link->arrival_us + 1;
    }
    link->arrival_us = at;
    if (s->options.edge_open && prng_one_in(prng, 50)) {
        void *copy = aligned_alloc(8, size);
        CHECK(copy != NULL);
        memcpy(copy, frame, size);
        sim_push(s, at - s->now_us + prng_below(prng, 300000), SIM_MESSAGE, &s->nodes[to], from->id,
                 link->epoch, copy, size);
    }
    /* b: the connection's epoch, by which the receiver's edge judges (sim_network_admits). */
    sim_push(s, at - s->now_us, SIM_MESSAGE, &s->nodes[to], from->id, link->epoch, frame, size);
}
