/* See persister_node.h. */
#include "persister_node.h"

struct pg_fixture server;
uv_loop_t loop;
uint64_t seed = 20261122;

const uint8_t cluster[16] = {0x9a, 1, 2, 3, 0xff, 5, 0x67, 0x89, 8, 9, 10, 11, 12, 13, 14, 15};

void node_offer(struct node *n)
{
    static struct event_view views[32];
    while (n->next != 0 && n->next <= n->available) {
        size_t count = 0;
        for (; count < 32 && n->next + count <= n->available; count++) {
            event_source_read(n->source, n->next + count, &views[count]);
        }
        size_t taken = persister_offer(n->persister, views, count);
        assert_true(taken <= count);
        n->next += taken;
        n->offered += taken;
        if (taken < count) {
            break;
        }
    }
}

static void want(void *ctx, uint64_t sequence)
{
    struct node *n = ctx;
    assert_true(sequence >
                n->acked); /* never again what was acknowledged: the engine has dropped it */
    assert_true(sequence <= n->source->count + 1);
    n->wants++;
    n->next = sequence;
    node_offer(n);
}

static void acked(void *ctx, const struct command_ack *acks, size_t count)
{
    struct node *n = ctx;
    assert_int_equal(count, SHARDS);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(acks[i].shard, i);
        assert_int_equal(acks[i].sequence, acks[0].sequence);
    }
    assert_true(acks[0].sequence <= n->available);
    assert_true(acks[0].sequence >= n->acked);
    n->acked = acks[0].sequence;
}

static void gone(void *ctx)
{
    ((struct node *)ctx)->gone = true;
}

static void heartbeat(uv_timer_t *timer)
{
    (void)timer; /* keeps uv_run coming back */
}

void node_create(struct node *n, const struct event_source *source, const char *url)
{
    *n = (struct node){.source = source, .available = source->count};
    struct persister_config config = {.loop = &loop,
                                      .url = url,
                                      .shards = SHARDS,
                                      .connect_backoff_min_ms = 5,
                                      .connect_backoff_max_ms = 100};
    memcpy(config.cluster_id, cluster, sizeof cluster);
    struct persister_callbacks callbacks = {want, acked};
    assert_int_equal(persister_create(&config, &callbacks, n, &n->persister), 0);
}

void node_lead(struct node *n, uint64_t term)
{
    n->next = 0;
    persister_lead(n->persister, term, n->acked + 1);
}

void run_until(bool (*condition)(void *), void (*disturb)(void *), void *ctx)
{
    uint64_t deadline = clock_monotonic_ms() + DEADLINE_MS;
    uv_timer_t timer;
    uv_timer_init(&loop, &timer);
    uv_timer_start(&timer, heartbeat, 1, 1);
    while (!condition(ctx)) {
        uv_run(&loop, UV_RUN_ONCE);
        if (disturb != NULL) {
            disturb(ctx);
        }
        if (clock_monotonic_ms() > deadline) {
            fail_msg("hangs; PERSISTER_SEED=%" PRIu64, seed);
        }
    }
    uv_close((uv_handle_t *)&timer, NULL);
    uv_run(&loop, UV_RUN_NOWAIT);
}

static bool is_gone(void *ctx)
{
    return ((struct node *)ctx)->gone;
}

void node_destroy(struct node *n)
{
    persister_destroy(n->persister, gone, n);
    run_until(is_gone, NULL, n);
}

bool all_acked(void *ctx)
{
    const struct node *n = ctx;
    return n->acked == n->source->count;
}

struct persister_status node_status(const struct node *n)
{
    struct persister_status s;
    persister_get_status(n->persister, &s);
    return s;
}

bool has_error(void *ctx)
{
    return node_status(ctx).error[0] != '\0';
}

bool is_connected(void *ctx)
{
    return node_status(ctx).connected;
}

bool is_fenced(void *ctx)
{
    return node_status(ctx).fenced;
}

static bool goal_acked(void *ctx)
{
    const struct node *n = ctx;
    return n->acked >= n->goal;
}

void run_until_acked(struct node *n, uint64_t sequence)
{
    n->goal = sequence;
    run_until(goal_acked, NULL, n);
}

int fresh_database(char *url, size_t size)
{
    static int databases;
    char name[32], error[256];
    snprintf(name, sizeof name, "db%d", ++databases);
    pg_fixture_create_database(&server, name, url, size);
    assert_int_equal(migrate_up(url, 10000, NULL, NULL, error, sizeof error), MIGRATE_OK);
    return databases;
}

static int start(void **unused)
{
    (void)unused;
    const char *given = getenv("PERSISTER_SEED");
    seed = given != NULL ? strtoull(given, NULL, 10) : seed;
    printf("PERSISTER_SEED=%" PRIu64 "\n", seed);
    pg_fixture_start(&server, "");
    return uv_loop_init(&loop);
}

static int stop(void **unused)
{
    (void)unused;
    pg_fixture_stop(&server);
    return uv_loop_close(&loop);
}

int persister_run_tests(int argc, char **argv, const struct CMUnitTest *tests, size_t count)
{
    if (argc > 1) {
        cmocka_set_test_filter(argv[1]);
    }
    return _cmocka_run_group_tests("persister", tests, count, start, stop);
}
