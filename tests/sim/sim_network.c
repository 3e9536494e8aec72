/* sim_network: connections that keep the order and lose what was under way when they break, as the
 * transport promises (raft/transport.h): whole messages may be lost, none comes twice or out of order,
 * nothing of an older connection is delivered after a newer one began. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/sim/sim.h"

#define RECONNECT_MIN_US   50000
#define IDLE_TIMEOUT_US    2000000 /* TRANSPORT_IDLE_TIMEOUT_MS */

static struct sim_link *link_of(struct sim *s, unsigned a, unsigned b)
{
    return a < b ? &s->links[a][b] : &s->links[b][a];
}

static void notice(struct sim *s, unsigned at, unsigned peer, bool up, uint64_t delay_us)
{
    if (s->nodes[at].up) {
        sim_push(s, delay_us, SIM_LINK_NOTICE, &s->nodes[at], s->nodes[peer].id, up, NULL, 0);
    }
}

static void plan_connect(struct sim *s, unsigned a, unsigned b)
{
    struct sim_link *link = link_of(s, a, b);
    sim_push(s, RECONNECT_MIN_US + sim_below(s, 200000), SIM_LINK_UP, NULL,
             (uint64_t)a << 8 | b, link->epoch, NULL, 0);
}

void sim_network_start(struct sim *s)
{
    for (unsigned a = 0; a < s->swarm.nodes; a++) {
        for (unsigned b = a + 1; b < s->swarm.nodes; b++) {
            sim_push(s, 1000 + sim_below(s, 50000), SIM_LINK_UP, NULL, (uint64_t)a << 8 | b, 0,
                     NULL, 0);
        }
    }
}

void sim_network_event(struct sim *s, struct sim_event *e)
{
    unsigned a = (unsigned)(e->a >> 8);
    unsigned b = (unsigned)(e->a & 0xFF);
    struct sim_link *link = link_of(s, a, b);
    if (link->up || link->epoch != e->b) {
        return;
    }
    bool possible = s->nodes[a].up && s->nodes[b].up && !s->cut[a][b] && !s->cut[b][a];
    link->epoch++;
    if (!possible) {
        plan_connect(s, a, b);
        return;
    }
    link->up = true;
    link->arrival_us[0] = link->arrival_us[1] = s->now_us;
    notice(s, a, b, true, sim_below(s, 1000));
    notice(s, b, a, true, sim_below(s, 1000));
}

static void link_down(struct sim *s, unsigned a, unsigned b, uint64_t delay_us)
{
    struct sim_link *link = link_of(s, a, b);
    if (!link->up) {
        return;
    }
    link->up = false;
    link->epoch++;
    notice(s, a, b, false, delay_us + sim_below(s, 2000));
    notice(s, b, a, false, delay_us + sim_below(s, 2000));
    plan_connect(s, a, b);
}

void sim_network_break(struct sim *s, unsigned a, unsigned b)
{
    link_down(s, a, b, 0);
}

void sim_network_node_down(struct sim_node *n, bool silent)
{
    struct sim *s = n->sim;
    for (unsigned peer = 0; peer < s->swarm.nodes; peer++) {
        if (peer != n->index) {
            link_down(s, n->index, peer, silent ? IDLE_TIMEOUT_US : 0);
        }
    }
}

void sim_network_node_up(struct sim_node *n)
{
    (void)n; /* every broken link has a planned attempt to connect */
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
    if (!link->up || s->cut[from->index][to] ||
        (s->swarm.losses && !s->healing && prng_one_in(prng, 60))) {
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
    uint64_t *arrival = &link->arrival_us[from->index < to ? 0 : 1];
    uint64_t at = s->now_us + delay;
    if (at <= *arrival) {
        at = *arrival + 1;
    }
    *arrival = at;
    /* b: sender and the connection's epoch, so that a broken one delivers nothing more. */
    sim_push(s, at - s->now_us, SIM_MESSAGE, &s->nodes[to], from->id, link->epoch, frame, size);
}
