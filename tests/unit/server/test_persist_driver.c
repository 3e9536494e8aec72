/* persist_driver against a persister that is played by the test. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/check.h"
#include "server/persist_driver.h"

/* ---- the persister ---- */

static struct {
    struct persister_callbacks callbacks;
    void *ctx;
    uint64_t term;
} played;

int persister_create(const struct persister_config *config, const struct persister_callbacks *callbacks,
                     void *ctx, struct persister **p)
{
    (void)config;
    played.callbacks = *callbacks;
    played.ctx = ctx;
    *p = (struct persister *)(void *)&played;
    return 0;
}

void persister_lead(struct persister *p, uint64_t term, uint64_t first_sequence)
{
    (void)p;
    (void)first_sequence;
    played.term = term;
}

void persister_follow(struct persister *p)
{
    (void)p;
    played.term = 0;
}

size_t persister_offer(struct persister *p, const struct event_view *events, size_t count)
{
    (void)p;
    (void)events;
    return count;
}

void persister_get_status(const struct persister *p, struct persister_status *out)
{
    (void)p;
    memset(out, 0, sizeof *out);
}

void persister_write_metrics(const struct persister *p, struct text *t)
{
    (void)p;
    (void)t;
}

void persister_destroy(struct persister *p, void (*done)(void *ctx), void *ctx)
{
    (void)p;
    done(ctx);
}

/* ---- */

static struct engine *initialized_engine(void)
{
    uint8_t encoded[512], batch[1024];
    struct command c = {.kind = COMMAND_INIT};
    c.init.shards = 2;
    c.init.limits = (struct command_limits){1, 1, 8, 8, 8, 8, 1, 64, 8, 0};
    struct batch_builder b;
    batch_begin(&b, batch, sizeof batch);
    assert_true(batch_add(&b, encoded, command_encode(&c, encoded, sizeof encoded)));
    struct engine *e = engine_create();
    engine_apply(e, 1, batch, batch_end(&b, 1000), NULL, NULL);
    return e;
}

static unsigned proposals;
static uint64_t proposed;

static bool propose_cb(void *ctx, const struct command *command)
{
    (void)ctx;
    proposals++;
    proposed = command->persist_ack.acks[0].sequence;
    return true;
}

static void done_cb(void *ctx)
{
    *(bool *)ctx = true;
}

/* A node leads, hears that events up to 100 are in the database, and loses the lead before that is committed.
 * The next leader's database is a standby that has less. When the first leads again, what it once heard is
 * no news: acknowledged by it, events would leave all engines that no database has. */
static void test_what_an_earlier_lead_heard_is_not_acknowledged(void **unused)
{
    (void)unused;
    static const uint8_t cluster[16] = {1};
    static const struct command_ack heard[] = {{0, 100}, {1, 100}}, now[] = {{0, 60}, {1, 60}};
    struct persist_driver *d;
    struct engine *e = initialized_engine();
    assert_int_equal(persist_driver_create(NULL, "host=x", cluster, propose_cb, NULL, &d), 0);
    assert_int_equal(persist_driver_start(d, 2), 0);

    persist_driver_lead(d, 1);
    persist_driver_step(d, e, 10000);
    assert_int_equal(played.term, 1);
    played.callbacks.acked(played.ctx, heard, 2);
    persist_driver_step(d, e, 10010);
    assert_int_equal(proposals, 1);
    assert_int_equal(proposed, 100);
    persist_driver_follow(d); /* its outcome is unknown; it was lost */

    persist_driver_lead(d, 3);
    persist_driver_step(d, e, 20000);
    persist_driver_step(d, e, 22000);
    assert_int_equal(played.term, 3);
    assert_int_equal(proposals, 1);
    played.callbacks.acked(played.ctx, now, 2); /* what this lead's database has */
    persist_driver_step(d, e, 22010);
    assert_int_equal(proposals, 2);
    assert_int_equal(proposed, 60);

    bool done = false;
    persist_driver_destroy(d, done_cb, &done);
    assert_true(done);
    engine_destroy(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_an_earlier_lead_heard_is_not_acknowledged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
