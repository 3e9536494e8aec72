/* Replicas in one process, over loopback, with real logs in temporary directories: the whole of raft/
 * together. What can go wrong is simulated in tests/sim; this shows that the parts fit. */
#include <dirent.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "raft/replica.h"

#define NODES_MAX    4
#define HANG_MS      60000 /* not an assertion about time: only so that a hang ends */
#define BATCHES_MANY 1500  /* more than a log keeps behind a checkpoint */

struct node {
    struct replica *replica;
    uv_loop_t *loop;
    uint64_t id;
    uint16_t port;
    char directory[128];
    /* The machine: what a ticket carries, whole. */
    uint64_t count, sum;
    /* Its only checkpoint. */
    struct replica_position checkpoint;
    uint64_t checkpoint_count, checkpoint_sum;
    /* An install that is finished in the next iteration. */
    uv_timer_t install_timer;
    struct replica_ticket ticket;
    unsigned installs;
    bool fail_next_install;
    bool destroyed;
};

struct cluster {
    uv_loop_t loop;
    char directory[64];
    struct node nodes[NODES_MAX];
    struct link_identity identity;
    uint64_t acknowledged, unknown;
};

static struct cluster cluster;

/* ---- hooks ---- */

static void apply_cb(void *ctx, uint64_t index, uint64_t term, const void *data, size_t size)
{
    struct node *n = ctx;
    assert_true(index > 0 && term > 0);
    assert_int_equal(size, 8);
    assert_int_equal((uintptr_t)data % 8, 0);
    n->count++;
    n->sum = n->sum * 31 + load_u64(data);
}

static void role_changed_cb(void *ctx, enum replica_role role, bool ready, uint64_t term,
                            uint64_t leader_id)
{
    (void)ctx;
    (void)term;
    assert_true(!ready || role == REPLICA_LEADER);
    assert_true(role != REPLICA_LEADER || leader_id == ((struct node *)ctx)->id);
}

static int make_ticket_cb(void *ctx, struct replica_ticket *ticket)
{
    struct node *n = ctx;
    if (n->checkpoint.index == 0) {
        return -1;
    }
    ticket->position = n->checkpoint;
    ticket->size = 16;
    store_u64(ticket->data, n->checkpoint_count);
    store_u64(ticket->data + 8, n->checkpoint_sum);
    return 0;
}

static void install_timer_cb(uv_timer_t *timer)
{
    struct node *n = timer->data;
    if (n->fail_next_install) {
        n->fail_next_install = false;
        replica_install_done(n->replica, &n->ticket.position, false);
        return;
    }
    n->checkpoint = n->ticket.position;
    n->count = n->checkpoint_count = load_u64(n->ticket.data);
    n->sum = n->checkpoint_sum = load_u64(n->ticket.data + 8);
    n->installs++;
    replica_install_done(n->replica, &n->ticket.position, true);
}

static void install_cb(void *ctx, const struct replica_ticket *ticket, uint64_t from_id)
{
    struct node *n = ctx;
    assert_true(from_id != 0 && from_id != n->id);
    assert_true(replica_installing(n->replica));
    n->ticket = *ticket;
    uv_timer_start(&n->install_timer, install_timer_cb, 5, 0);
}

static const struct replica_hooks hooks = {
    .apply = apply_cb,
    .role_changed = role_changed_cb,
    .make_ticket = make_ticket_cb,
    .install = install_cb,
};

/* ---- nodes ---- */

static uint16_t free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in address = {.sin_family = AF_INET};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof address), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &size), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static void member_of(const struct node *n, struct replica_member *member)
{
    member->id = n->id;
    member->role = REPLICA_VOTER;
    snprintf(member->address, sizeof member->address, "127.0.0.1:%u", n->port);
}

static void node_start(struct node *n, size_t bootstrap_count)
{
    struct replica_config config = {
        .loop = &cluster.loop,
        .id = n->id,
        .directory = n->directory,
        .listen_host = "127.0.0.1",
        .listen_port = n->port,
        .identity = cluster.identity,
        .election_timeout_ms = 500,
        .segment_size = 1 << 20,
        .log_sync = true,
        .start = bootstrap_count > 0 ? REPLICA_NEW : REPLICA_REFILL,
        .bootstrap_count = bootstrap_count,
    };
    for (size_t i = 0; i < bootstrap_count; i++) {
        member_of(&cluster.nodes[i], &config.bootstrap[i]);
    }
    n->count = n->checkpoint_count;
    n->sum = n->checkpoint_sum;
    n->destroyed = false;
    int rv = replica_create(&config, &hooks, n, n->checkpoint.index > 0 ? &n->checkpoint : NULL,
                            &n->replica);
    assert_int_equal(rv, 0);
}

static void destroyed_cb(void *ctx)
{
    struct node *n = ctx;
    n->destroyed = true;
}

static void run_until(bool (*done)(void *arg), void *arg, const char *what)
{
    uint64_t end_ms = clock_monotonic_ms() + HANG_MS;
    while (!done(arg)) {
        if (clock_monotonic_ms() > end_ms) {
            fail_msg("hangs while waiting for: %s", what);
        }
        uv_run(&cluster.loop, UV_RUN_ONCE);
    }
}

static bool is_destroyed(void *arg)
{
    return ((struct node *)arg)->destroyed;
}

static void node_stop(struct node *n)
{
    uv_timer_stop(&n->install_timer);
    replica_destroy(n->replica, destroyed_cb, n);
    n->replica = NULL;
    run_until(is_destroyed, n, "a replica to close");
}

static void remove_directory(const char *path)
{
    DIR *dir = opendir(path);
    if (dir == NULL) {
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char name[512];
        snprintf(name, sizeof name, "%s/%s", path, entry->d_name);
        unlink(name);
    }
    closedir(dir);
    rmdir(path);
}

static int setup(void **state)
{
    (void)state;
    memset(&cluster, 0, sizeof cluster);
    log_init("test_replica", LOG_LEVEL_ERROR);
    uv_loop_init(&cluster.loop);
    snprintf(cluster.directory, sizeof cluster.directory, "/tmp/holdfast-replica-XXXXXX");
    assert_non_null(mkdtemp(cluster.directory));
    memset(cluster.identity.key, 7, sizeof cluster.identity.key);
    memset(cluster.identity.cluster_id, 9, sizeof cluster.identity.cluster_id);
    for (unsigned i = 0; i < NODES_MAX; i++) {
        struct node *n = &cluster.nodes[i];
        n->id = i + 1;
        n->port = free_port();
        n->loop = &cluster.loop;
        uv_timer_init(&cluster.loop, &n->install_timer);
        n->install_timer.data = n;
        snprintf(n->directory, sizeof n->directory, "%s/n%u", cluster.directory, i + 1);
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    for (unsigned i = 0; i < NODES_MAX; i++) {
        if (cluster.nodes[i].replica != NULL) {
            node_stop(&cluster.nodes[i]);
        }
        uv_close((uv_handle_t *)&cluster.nodes[i].install_timer, NULL);
        remove_directory(cluster.nodes[i].directory);
    }
    uv_run(&cluster.loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&cluster.loop), 0);
    rmdir(cluster.directory);
    return 0;
}

/* ---- clients ---- */

static struct node *leader(void)
{
    for (unsigned i = 0; i < NODES_MAX; i++) {
        struct node *n = &cluster.nodes[i];
        struct replica_info info;
        if (n->replica == NULL) {
            continue;
        }
        replica_get_info(n->replica, &info);
        if (info.role == REPLICA_LEADER && info.ready) {
            return n;
        }
    }
    return NULL;
}

static bool has_leader(void *arg)
{
    (void)arg;
    return leader() != NULL;
}

/* Asked again until the member has caught up and said so. */
static bool is_promoted(void *arg)
{
    const struct node *n = arg;
    enum replica_refusal why;
    return leader() != NULL &&
           replica_member_assign(leader()->replica, n->id, REPLICA_VOTER, &why) == REPLICA_OK;
}

struct request {
    struct replica_submit submit;
    struct replica_read read;
    enum replica_status status;
    bool answered;
};

static void submit_cb(struct replica_submit *req, enum replica_status status, uint64_t index)
{
    struct request *r = container_of(req, struct request, submit);
    assert_false(r->answered);
    assert_true(status == REPLICA_OK || status == REPLICA_OUTCOME_UNKNOWN);
    assert_int_equal(index, req->index);
    r->answered = true;
    r->status = status;
    cluster.acknowledged += status == REPLICA_OK;
    cluster.unknown += status != REPLICA_OK;
}

static void read_cb(struct replica_read *req, enum replica_status status)
{
    struct request *r = container_of(req, struct request, read);
    assert_false(r->answered);
    r->answered = true;
    r->status = status;
}

static bool is_answered(void *arg)
{
    return ((struct request *)arg)->answered;
}

/* Submits `count` batches and waits for every acknowledgement. */
static void submit_many(size_t count)
{
    static uint64_t value;
    struct request *requests = calloc(count, sizeof *requests);
    uint64_t end_ms = clock_monotonic_ms() + HANG_MS;
    for (size_t i = 0; i < count;) {
        assert_true(clock_monotonic_ms() < end_ms);
        struct node *n = leader();
        uint64_t data = ++value;
        if (n == NULL || replica_submit(n->replica, &requests[i].submit, &data, sizeof data,
                                        submit_cb) != REPLICA_OK) {
            uv_run(&cluster.loop, UV_RUN_ONCE);
            continue;
        }
        i++;
    }
    for (size_t i = 0; i < count; i++) {
        run_until(is_answered, &requests[i], "an acknowledgement");
        assert_int_equal(requests[i].status, REPLICA_OK);
    }
    free(requests);
}

/* Everybody has applied what the leader has, and it is the same. */
static bool is_equal(void *arg)
{
    size_t members = *(size_t *)arg;
    struct node *l = leader();
    if (l == NULL) {
        return false;
    }
    struct replica_info of_leader;
    replica_get_info(l->replica, &of_leader);
    for (size_t i = 0; i < members; i++) {
        struct replica_info info;
        if (cluster.nodes[i].replica == NULL) {
            continue;
        }
        replica_get_info(cluster.nodes[i].replica, &info);
        if (info.applied_index != of_leader.last_index) {
            return false;
        }
    }
    for (size_t i = 0; i < members; i++) {
        if (cluster.nodes[i].replica != NULL) {
            assert_int_equal(cluster.nodes[i].count, l->count);
            assert_int_equal(cluster.nodes[i].sum, l->sum);
        }
    }
    return true;
}

static void wait_equal(size_t members)
{
    run_until(is_equal, &members, "all replicas to be equal");
}

static void checkpoint(struct node *n)
{
    struct replica_position position;
    replica_position(n->replica, &position);
    n->checkpoint = position;
    n->checkpoint_count = n->count;
    n->checkpoint_sum = n->sum;
    replica_checkpoint_published(n->replica, &position);
}

static bool leads(void *arg)
{
    return leader() == arg;
}

/* ---- tests ---- */

static void test_elect_submit_kill_restart_transfer(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        node_start(&cluster.nodes[i], 3);
    }
    run_until(has_leader, NULL, "a first leader");
    submit_many(50);
    wait_equal(3);
    assert_int_equal(leader()->count, 50);

    struct request read = {0};
    assert_int_equal(replica_read(leader()->replica, &read.read, read_cb), REPLICA_OK);
    run_until(is_answered, &read, "a read");
    assert_int_equal(read.status, REPLICA_OK);
    for (unsigned i = 0; i < 3; i++) {
        if (&cluster.nodes[i] != leader()) {
            assert_int_equal(replica_read(cluster.nodes[i].replica, &read.read, read_cb),
                             REPLICA_NOT_LEADER);
        }
    }

    /* The leader dies with a batch under way: unknown, never failed. */
    struct node *killed = leader();
    struct request last = {0};
    uint64_t data = 424242;
    assert_int_equal(
        replica_submit(killed->replica, &last.submit, &data, sizeof data, submit_cb), REPLICA_OK);
    node_stop(killed);
    assert_true(last.answered);
    assert_int_equal(last.status, REPLICA_OUTCOME_UNKNOWN);
    run_until(has_leader, NULL, "another leader");
    submit_many(50);
    wait_equal(3);

    node_start(killed, 3);
    wait_equal(3);
    assert_true(killed->count == 100 || killed->count == 101);

    assert_int_equal(replica_transfer(leader()->replica, 99), REPLICA_REFUSED);
    for (int attempts = 0; leader() != killed; attempts++) {
        assert_true(attempts < 20);
        struct node *from = leader();
        if (from != NULL && replica_transfer(from->replica, killed->id) == REPLICA_OK) {
            uint64_t end_ms = clock_monotonic_ms() + 2000;
            while (!leads(killed) && clock_monotonic_ms() < end_ms) {
                uv_run(&cluster.loop, UV_RUN_ONCE);
            }
        } else {
            uv_run(&cluster.loop, UV_RUN_ONCE);
        }
    }
    submit_many(10);
    wait_equal(3);
}

static void test_restart_all_from_checkpoint_and_log(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        node_start(&cluster.nodes[i], 3);
    }
    run_until(has_leader, NULL, "a first leader");
    submit_many(100);
    wait_equal(3);
    for (unsigned i = 0; i < 3; i++) {
        checkpoint(&cluster.nodes[i]);
    }
    submit_many(20);
    wait_equal(3);
    uint64_t sum = cluster.nodes[0].sum;
    for (unsigned i = 0; i < 3; i++) {
        node_stop(&cluster.nodes[i]);
    }
    for (unsigned i = 0; i < 3; i++) {
        node_start(&cluster.nodes[i], 3);
    }
    run_until(has_leader, NULL, "a leader after the restart");
    wait_equal(3);
    assert_int_equal(cluster.nodes[0].count, 120);
    assert_int_equal(cluster.nodes[0].sum, sum);
}

static void test_install_and_new_member(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        node_start(&cluster.nodes[i], 3);
    }
    run_until(has_leader, NULL, "a first leader");
    submit_many(20);
    wait_equal(3);
    struct node *behind = leader() == &cluster.nodes[0] ? &cluster.nodes[1] : &cluster.nodes[0];
    node_stop(behind);
    submit_many(BATCHES_MANY);
    wait_equal(3);
    for (unsigned i = 0; i < 3; i++) {
        if (cluster.nodes[i].replica != NULL) {
            checkpoint(&cluster.nodes[i]);
        }
    }
    struct replica_info info;
    replica_get_info(leader()->replica, &info);
    assert_true(info.first_index > 25); /* what the one behind needs is gone */

    behind->fail_next_install = true;
    node_start(behind, 3);
    wait_equal(3);
    assert_int_equal(behind->installs, 1);
    assert_false(behind->fail_next_install);

    /* A restart finds the installed checkpoint and the log that goes on behind it. */
    submit_many(10);
    wait_equal(3);
    node_stop(behind);
    node_start(behind, 3);
    wait_equal(3);
    assert_int_equal(behind->installs, 1);

    /* A fourth node: knows nobody, is added, catches up by a checkpoint, becomes a voter. */
    struct node *added = &cluster.nodes[3];
    node_start(added, 0);
    struct replica_member member;
    member_of(added, &member);
    enum replica_refusal why;
    assert_int_equal(replica_member_add(leader()->replica, &member, &why), REPLICA_REFUSED);
    assert_int_equal(why, REPLICA_REFUSAL_INVALID); /* no voter yet */
    member.role = REPLICA_STANDBY;
    assert_int_equal(replica_member_add(leader()->replica, &member, &why), REPLICA_OK);
    assert_int_equal(replica_member_assign(leader()->replica, added->id, REPLICA_VOTER, &why),
                     REPLICA_REFUSED); /* one at a time, and not before it has caught up */
    wait_equal(4);
    assert_int_equal(added->installs, 1);
    run_until(is_promoted, added, "the fourth node to be promoted");
    submit_many(5);
    wait_equal(4);
    replica_get_info(added->replica, &info);
    assert_int_equal(info.peers_count, 4);
    assert_int_equal(info.peers[3].member.role, REPLICA_VOTER);
}

static void test_refuses_what_does_not_fit(void **state)
{
    (void)state;
    node_start(&cluster.nodes[0], 1);
    run_until(has_leader, NULL, "an only voter to lead");
    submit_many(30);

    static uint8_t large[REPLICA_ENTRY_SIZE_MAX + 1];
    struct request r = {0};
    assert_int_equal(replica_submit(leader()->replica, &r.submit, large, sizeof large, submit_cb),
                     REPLICA_TOO_LARGE);
    checkpoint(&cluster.nodes[0]);
    node_stop(&cluster.nodes[0]);

    /* The log is lost, the checkpoint is there: term and vote are unknown. */
    remove_directory(cluster.nodes[0].directory);
    struct replica_config config = {
        .loop = &cluster.loop,
        .id = 1,
        .directory = cluster.nodes[0].directory,
        .listen_host = "127.0.0.1",
        .listen_port = cluster.nodes[0].port,
        .identity = cluster.identity,
        .segment_size = 1 << 20,
        .log_sync = true,
    };
    struct replica *refused;
    assert_int_equal(replica_create(&config, &hooks, &cluster.nodes[0],
                                    &cluster.nodes[0].checkpoint, &refused),
                     -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_elect_submit_kill_restart_transfer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restart_all_from_checkpoint_and_log, setup, teardown),
        cmocka_unit_test_setup_teardown(test_install_and_new_member, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refuses_what_does_not_fit, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
