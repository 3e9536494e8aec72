/* See sim_replies.h. */
#include "tests/sim/sim_replies.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/command.h"
#include "tests/unit/engine/model.h"

#define SHARE 4 /* one seed in so many */

struct copy { /* of a batch: the model borrows names from it */
    struct copy *next;
    uint8_t data[];
};

struct sim_replies {
    struct model *model;
    struct copy *copies;
    uint64_t next; /* index */
    bool initialized;
    struct prng prng;
};

void sim_replies_create(struct sim *s)
{
    struct prng prng = prng_init(s->options.seed ^ 0x4E911E5);
    if (s->options.machine->engine == NULL || !prng_one_in(&prng, SHARE)) {
        return;
    }
    struct sim_replies *r = calloc(1, sizeof *r);
    CHECK(r != NULL);
    r->model = calloc(1, sizeof *r->model);
    CHECK(r->model != NULL);
    r->next = 1;
    r->prng = prng;
    s->replies = r;
}

void sim_replies_close(struct sim *s)
{
    struct sim_replies *r = s->replies;
    if (r == NULL) {
        return;
    }
    while (r->copies != NULL) {
        struct copy *next = r->copies->next;
        free(r->copies);
        r->copies = next;
    }
    free(r->model);
    free(r);
    s->replies = NULL;
}

/* The first command of all, which the model does not know: it begins initialized. */
static bool begins(struct sim_replies *r, const struct command *c)
{
    if (r->initialized || c->kind != COMMAND_INIT) {
        return false;
    }
    model_init(r->model, &c->init.limits, c->init.shards);
    r->initialized = true;
    return true;
}

static void compare(struct sim_node *n, struct sim_replies *r, uint64_t index, const uint8_t *data, size_t size,
                    uint64_t answers)
{
    struct sim *s = n->sim;
    struct batch_reader batch;
    const void *bytes;
    size_t command_size;
    uint64_t hash = 0;
    uint32_t position = 0;
    bool whole = r->initialized;
    CHECK(batch_open(&batch, data, size) == 0);
    if (r->initialized) {
        model_begin_batch(r->model, index, batch.leader_time_ms);
    }
    while (batch_next(&batch, &bytes, &command_size) == 1) {
        static struct command c;
        CHECK(command_decode(&c, bytes, command_size) == 0);
        if (begins(r, &c)) {
            model_begin_batch(r->model, index, batch.leader_time_ms);
        } else if (r->initialized) {
            struct reply reply;
            model_apply(r->model, position, &c, bytes, command_size, &reply);
            s->stats.replies_compared++;
            if (s->options.replies_altered && prng_one_in(&r->prng, 1000)) {
                reply.available++;
            }
            hash = sim_machine_mix_reply(hash, position, &reply);
        }
        position++;
    }
    if (whole && hash != answers) {
        sim_violation(s, "node %u answers the %u commands of %" PRIu64 " not as the model does", n->index + 1,
                      position, index);
    }
}

void sim_replies_applied(struct sim_node *n, const struct record_header *record, uint64_t answers)
{
    struct sim_replies *r = n->sim->replies;
    if (r == NULL || record->index != r->next || !model_has_room(r->model)) {
        return;
    }
    r->next++;
    if (record->type == RECORD_COMMAND) {
        struct copy *copy = malloc(sizeof *copy + record->size);
        CHECK(copy != NULL);
        memcpy(copy->data, record_data(record), record->size);
        copy->next = r->copies;
        r->copies = copy;
        compare(n, r, record->index, copy->data, record->size, answers);
    }
}
