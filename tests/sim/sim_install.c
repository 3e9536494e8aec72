/* sim_install: checkpoints of a simulated node, and installs of a peer's: what the server does with
 * LMDB and the side connections, in virtual time.
 *
 * A checkpoint is an image of the machine's state; the newest that is durable is CURRENT, older ones stay
 * for those who hold a ticket. An install is pulled in pieces, either side may die at each, and what came
 * is taken up again. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "tests/sim/sim_database.h"

#define CHECKPOINT_RETRY_US 1000000 /* after one that failed */

/* ---- images and checkpoints ---- */

struct sim_image *sim_image_retain(struct sim_image *image)
{
    image->references++;
    return image;
}

void sim_image_release(struct sim_image *image)
{
    if (image != NULL && --image->references == 0) {
        free(image->data);
        free(image);
    }
}

/* The frozen state of the checkpoint under way, whole. */
static struct sim_image *finish_image(struct sim_node *n)
{
    struct sim_image *image = calloc(1, sizeof *image);
    CHECK(image != NULL);
    image->references = 1;
    image->digest = n->running_digest;
    image->data = n->sim->options.machine->save(n->machine, &image->size);
    return image;
}

/* The checkpoint becomes CURRENT: the commit point. Older ones stay for those who hold a ticket. */
static void make_current(struct sim_node *n, const struct replica_position *position,
                         struct sim_image *image)
{
    CHECK(position->index > n->kept[0].position.index);
    sim_image_release(n->kept[SIM_CHECKPOINTS_KEPT - 1].image);
    memmove(&n->kept[1], &n->kept[0], (SIM_CHECKPOINTS_KEPT - 1) * sizeof n->kept[0]);
    n->kept[0] = (struct sim_checkpoint){*position, sim_image_retain(image)};
}

void sim_install_load(struct sim_node *n)
{
    const struct sim_machine *machine = n->sim->options.machine;
    if (n->machine != NULL) {
        machine->destroy(n->machine);
    }
    const struct sim_checkpoint *current = &n->kept[0];
    n->applied = current->position.index;
    if (current->position.index == 0) {
        n->machine = machine->create();
        return;
    }
    n->machine = machine->load(current->image->data, current->image->size);
    if (n->machine == NULL) {
        sim_violation(n->sim, "node %u: a checkpoint does not load", n->index + 1);
    }
    uint64_t digest = machine->digest(n->machine);
    if (digest != current->image->digest) {
        sim_violation(n->sim, "node %u: checkpoint, restored, has another digest at %llu",
                      n->index + 1, (unsigned long long)n->applied);
    }
    sim_check_digest(n, n->applied, digest);
}

/* ---- a checkpoint of this node ---- */

void sim_checkpoint_begin(struct sim_node *n)
{
    struct sim *s = n->sim;
    if (!s->swarm.checkpoints || n->checkpointing || driver_installing(n->driver) ||
        n->applied < n->checkpoint_last + s->swarm.checkpoint_entries || n->applied == 0 ||
        n->checkpoint_not_before_us > s->now_us) {
        return;
    }
    driver_checkpoint_begin(n->driver, &n->running);
    if (n->running.index != n->applied) {
        sim_violation(s, "node %u: position at %llu while %llu is applied", n->index + 1,
                      (unsigned long long)n->running.index,
                      (unsigned long long)n->applied);
    }
    n->checkpointing = true;
    n->running_digest = s->options.machine->digest(n->machine);
    s->options.machine->freeze(n->machine);
    n->checkpoint_last = n->applied;
    sim_push(s, 500 + sim_below(s, 60000), SIM_CHECKPOINT, n, 0, 0, NULL, 0);
}

void sim_checkpoint_event(struct sim_node *n)
{
    if (!n->checkpointing) {
        return; /* an install has replaced the state meanwhile */
    }
    if (!driver_checkpoint_may_end(n->driver, &n->running)) {
        sim_push(n->sim, 1000, SIM_CHECKPOINT, n, 0, 0, NULL, 0);
        return;
    }
    n->checkpointing = false;
    if (sim_disk_is_full(n->disk)) {
        sim_trace(n->sim, "node %u: no space for a checkpoint", n->index + 1);
        n->sim->stats.checkpoints_failed++;
        n->sim->stats.fired[SIM_FAULT_NO_SPACE]++;
        n->sim->options.machine->abandon(n->machine);
        n->checkpoint_last = n->kept[0].position.index;
        n->checkpoint_not_before_us = n->sim->now_us + CHECKPOINT_RETRY_US;
        driver_checkpoint_abandoned(n->driver);
        return;
    }
    n->sim->stats.checkpoints++;
    struct sim_image *image = finish_image(n);
    if (n->running.index > n->kept[0].position.index) {
        make_current(n, &n->running, image);
    }
    sim_image_release(image);
    driver_checkpoint_published(n->driver, sim_node_now_ms(n), &n->running);
}

/* One that was being written is there, whole, or it is not. */
void sim_checkpoint_crash(struct sim_node *n)
{
    if (n->checkpointing && n->running.index > n->kept[0].position.index &&
        !sim_disk_is_full(n->disk) && driver_checkpoint_may_end(n->driver, &n->running) &&
        sim_one_in(n->sim, 3)) {
        struct sim_image *image = finish_image(n);
        make_current(n, &n->running, image);
        sim_image_release(image);
    }
}

/* ---- installs ---- */

int sim_install_make_ticket(struct sim_node *n, struct replica_ticket *ticket)
{
    if (n->kept[0].position.index == 0) {
        return -1;
    }
    for (size_t i = 0; ticket->size > 0 && i < SIM_CHECKPOINTS_KEPT; i++) {
        const struct sim_checkpoint *kept = &n->kept[i];
        if (kept->position.index == ticket->position.index && kept->image != NULL &&
            kept->image->digest == load_u64(ticket->data)) {
            CHECK(load_u64(ticket->data + 8) == n->life);
            n->sim->stats.tickets_again++;
            return 0; /* it is still pinned */
        }
    }
    ticket->position = n->kept[0].position;
    ticket->size = 2 * sizeof(uint64_t);
    store_u64(ticket->data, n->kept[0].image->digest);
    store_u64(ticket->data + 8, n->life); /* what is pinned dies with the process */
    return 0;
}

void sim_install_drop(struct sim_node *n)
{
    free(n->part.data);
    n->part = (struct sim_part){.data = NULL};
}

static void next_step(struct sim_node *n)
{
    struct sim *s = n->sim;
    sim_push(s, 1000 + sim_below(s, s->healing ? 10000 : 80000), SIM_INSTALL, n, 0, 0, NULL, 0);
}

void sim_install_begin(struct sim_node *n, const struct replica_ticket *ticket, uint64_t from_id)
{
    n->sim->stats.installs++;
    n->ticket = *ticket;
    n->ticket_from = from_id;
    n->installing = true;
    sim_trace(n->sim, "node %u: install of %llu from node %llu begins", n->index + 1,
              (unsigned long long)ticket->position.index, (unsigned long long)from_id);
    const struct sim_part *part = &n->part;
    if (part->data != NULL && part->index == ticket->position.index &&
        part->term == ticket->position.term && part->digest == load_u64(ticket->data)) {
        n->sim->stats.resumed++;
        sim_trace(n->sim, "node %u: goes on at %zu of %zu", n->index + 1, part->size, part->total);
    } else {
        sim_install_drop(n);
    }
    next_step(n);
}

static const struct sim_checkpoint *offered(struct sim_node *n)
{
    struct sim *s = n->sim;
    unsigned from = (unsigned)n->ticket_from - 1;
    struct sim_node *source = &s->nodes[from];
    if (!source->up || s->cut[from][n->index] || s->cut[n->index][from] ||
        source->life != load_u64(n->ticket.data + 8)) {
        return NULL;
    }
    if (sim_disk_is_full(n->disk)) {
        s->stats.fired[SIM_FAULT_NO_SPACE]++;
        return NULL;
    }
    if (sim_fault_on(s, SIM_FAULT_INSTALL) && !s->healing && sim_one_in(s, 12)) {
        s->stats.fired[SIM_FAULT_INSTALL]++;
        return NULL;
    }
    for (size_t i = 0; i < SIM_CHECKPOINTS_KEPT; i++) {
        if (source->kept[i].position.index == n->ticket.position.index) {
            return &source->kept[i];
        }
    }
    return NULL;
}

/* Takes some more of it; false: more is to come. */
static bool take_piece(struct sim_node *n, const struct sim_image *image)
{
    struct sim *s = n->sim;
    struct sim_part *part = &n->part;
    if (part->data == NULL) {
        *part = (struct sim_part){.index = n->ticket.position.index,
                                  .term = n->ticket.position.term,
                                  .digest = load_u64(n->ticket.data),
                                  .data = malloc(image->size + 1),
                                  .total = image->size};
        CHECK(part->data != NULL);
    }
    if (part->total != image->size) {
        sim_violation(s, "node %u: the same checkpoint has %zu bytes and %zu", n->index + 1,
                      part->total, image->size);
    }
    size_t left = part->total - part->size;
    size_t piece = 1 + (size_t)sim_below(s, part->total / 3 + 1);
    piece = piece < left ? piece : left;
    memcpy(part->data + part->size, image->data + part->size, piece);
    part->size += piece;
    part->durable = sim_one_in(s, 2) ? part->size : part->durable;
    return part->size == part->total;
}

/* What came, in however many pieces and from however many lives of either side, is what was offered. */
static struct sim_image *part_image(struct sim_node *n, const struct sim_image *from)
{
    struct sim_image *image = calloc(1, sizeof *image);
    CHECK(image != NULL);
    if (memcmp(n->part.data, from->data, from->size) != 0) {
        sim_violation(n->sim, "node %u: what was installed is not what was offered", n->index + 1);
    }
    *image = (struct sim_image){
        .references = 1, .digest = n->part.digest, .size = n->part.total, .data = n->part.data};
    n->part = (struct sim_part){.data = NULL};
    return image;
}

/* One step of the pull. Either side may die at each. */
void sim_install_event(struct sim_node *n)
{
    struct sim *s = n->sim;
    bool deadly = sim_fault_on(s, SIM_FAULT_CRASH) && !s->healing;
    if (deadly && sim_one_in(s, 40)) {
        sim_trace(s, "node %u: dies while it installs", n->index + 1);
        sim_node_crash(n);
        return;
    }
    if (deadly && sim_one_in(s, 40)) {
        sim_node_crash(&s->nodes[n->ticket_from - 1]);
    }
    const struct sim_checkpoint *from = offered(n);
    if (n->checkpointing) {
        sim_violation(s, "node %u: an install while a checkpoint is being written", n->index + 1);
    }
    if (from == NULL) {
        s->stats.installs_failed++;
        n->installing = false;
        sim_trace(s, "node %u: install failed", n->index + 1);
        driver_install_done(n->driver, sim_node_now_ms(n), &n->ticket.position, false);
        return;
    }
    if (from->image->digest != load_u64(n->ticket.data)) {
        sim_violation(s, "node %u: the ticket's checkpoint has changed", n->index + 1);
    }
    if (!take_piece(n, from->image)) {
        next_step(n);
        return;
    }
    n->installing = false;
    struct replica_position position = n->ticket.position;
    struct sim_image *image = part_image(n, from->image);
    make_current(n, &position, image);
    sim_image_release(image);
    if (deadly && sim_one_in(s, 6)) {
        sim_trace(s, "node %u: dies right after CURRENT was switched", n->index + 1);
        sim_node_crash(n);
        return;
    }
    sim_install_load(n);
    sim_clock_loaded(n, false);
    n->checkpoint_last = n->applied;
    driver_install_done(n->driver, sim_node_now_ms(n), &position, true);
}
