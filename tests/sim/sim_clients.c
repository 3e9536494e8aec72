/* sim_clients: writers and readers. They ask whoever believes that he leads, a deposed leader too:
 * that is where stale reads and false acknowledgements come from. */
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tests/sim/sim_shrink.h"

struct sim_request {
    struct replica_submit submit;
    struct replica_read read;
    struct sim *sim;
    struct sim_node *node;
    struct sim_request *next, **previous; /* in the list of pending ones */
    uint32_t crc32c;                      /* of the record that must be committed */
    uint64_t floor; /* of a read: what was acknowledged to anybody before it was asked */
};

static struct sim_request *request_create(struct sim *s, struct sim_node *n)
{
    struct sim_request *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    r->sim = s;
    r->node = n;
    r->next = s->pending;
    r->previous = &s->pending;
    if (r->next != NULL) {
        r->next->previous = &r->next;
    }
    s->pending = r;
    return r;
}

static void request_destroy(struct sim_request *r)
{
    *r->previous = r->next;
    if (r->next != NULL) {
        r->next->previous = r->previous;
    }
    free(r);
}

static void submit_cb(struct replica_submit *req, enum replica_status status, uint64_t index)
{
    struct sim_request *r = container_of(req, struct sim_request, submit);
    struct sim *s = r->sim;
    sim_hash(s, index ^ (uint64_t)status << 48);
    switch (status) {
    case REPLICA_OK:
        if (index != req->index || r->node->applied < index) {
            sim_violation(s, "node %u acknowledges %llu before it is applied", r->node->index + 1,
                          (unsigned long long)index);
        }
        s->stats.acknowledged++;
        sim_check_acknowledged(s, index, req->term, r->crc32c);
        break;
    case REPLICA_OUTCOME_UNKNOWN:
        s->stats.unknown++;
        break;
    case REPLICA_NOT_LEADER:
    case REPLICA_BUSY:
    case REPLICA_TOO_LARGE:
    case REPLICA_REFUSED:
        sim_violation(s, "an accepted submit was answered with \"nothing happened\" (%d)",
                      (int)status);
    }
    request_destroy(r);
}

static void read_cb(struct replica_read *req, enum replica_status status)
{
    struct sim_request *r = container_of(req, struct sim_request, read);
    struct sim *s = r->sim;
    sim_hash(s, req->index ^ (uint64_t)status << 48);
    if (status == REPLICA_OK) {
        s->stats.reads++;
        if (r->node->applied < r->floor) {
            sim_violation(s, "stale read: node %u has applied %llu, but %llu was acknowledged before "
                             "the read was asked",
                          r->node->index + 1, (unsigned long long)r->node->applied,
                          (unsigned long long)r->floor);
        }
    }
    request_destroy(r);
}

bool sim_clients_submit(struct sim_node *n, const void *data, size_t size)
{
    struct sim *s = n->sim;
    void *record = malloc(sizeof(struct record_header) + size + 8);
    CHECK(record != NULL);
    struct sim_request *r = request_create(s, n);
    s->stats.submits++;
    bool taken =
        driver_submit(n->driver, sim_node_now_ms(n), &r->submit, data, size, submit_cb) == REPLICA_OK;
    if (taken) {
        record_encode(record, RECORD_COMMAND, r->submit.index, r->submit.term, data, (uint32_t)size);
        r->crc32c = ((const struct record_header *)record)->crc32c;
    } else {
        request_destroy(r);
    }
    free(record);
    return taken;
}

static void client_submit(struct sim *s, struct sim_node *n)
{
    uint8_t data[16384];
    bool enough = !s->healing && s->options.commands_max != 0 && s->client_sequence >= s->options.commands_max;
    if (enough || !sim_clock_can_stamp(n)) {
        return;
    }
    if (s->options.progress != NULL && !s->healing) {
        s->options.progress->commands = s->client_sequence + 1;
    }
    size_t size = s->options.machine->command(&s->prng, n->machine, ++s->client_sequence,
                                              sim_clock_stamp(n), data, s->swarm.command_size_max);
    (void)sim_clients_submit(n, data, size);
}

static void client_read(struct sim *s, struct sim_node *n)
{
    struct sim_request *r = request_create(s, n);
    r->floor = s->history.acknowledged_max;
    if (driver_read(n->driver, sim_node_now_ms(n), &r->read, read_cb) != REPLICA_OK) {
        request_destroy(r);
    }
}

void sim_clients_event(struct sim *s)
{
    /* A leader may have waited that long for the time: something must be committed after the healing. */
    if (s->healing && s->now_us > s->healed_at_us + SIM_CLIENTS_STOP_US &&
        s->history.last > s->healed_at_index) {
        return;
    }
    sim_push(s, sim_around(s, s->swarm.client_interval_us), SIM_CLIENT, NULL, 0, 0, NULL, 0);
    struct sim_node *n = sim_one_in(s, 4) ? &s->nodes[sim_below(s, s->swarm.nodes)] : sim_leader(s);
    if (n == NULL || !n->up || n->paused_until_us > s->now_us) {
        return;
    }
    if (s->swarm.membership && !s->healing && sim_one_in(s, 40)) {
        /* Between commands, so that a change is not alone in its AppendEntries. */
        client_submit(s, n);
        sim_faults_membership(s, (unsigned)sim_below(s, s->swarm.nodes));
        if (!n->up) {
            return;
        }
    }
    uint64_t burst = sim_one_in(s, 20) ? 1 + sim_below(s, 40) : 1 + sim_below(s, 3);
    for (uint64_t i = 0; i < burst && n->up; i++) {
        if (s->swarm.reads && sim_one_in(s, 4)) {
            client_read(s, n);
        } else {
            client_submit(s, n);
        }
    }
    sim_node_after(n);
}

void sim_clients_close(struct sim *s)
{
    if (s->pending != NULL) {
        sim_violation(s, "a request never got an answer");
    }
}
