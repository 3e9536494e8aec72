/* Three real nodes on real disks: elect, take orders, lose the leader, lose everybody, lose a disk.
 *
 * After each disturbance: every acknowledged order is there with its own answer, stock adds up, and
 * all nodes have one digest. To see a failure again: build/tests/integration/cluster_smoke
 * build/server/holdfastd (HOLDFAST_KEEP=1 keeps the directory, whose name is printed first). */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sodium.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"
#include "proto/client.h"

#define NODES       3
#define CLUSTER     "6f1c1111-2222-4333-8444-555566667777"
#define PATIENCE_MS 60000
#define STOCK       1000000
#define ORDERS_MAX  20000
#define CONCURRENT  64

struct process {
    pid_t pid; /* 0: not running */
    uint16_t raft_port, node_port;
};

struct order {
    struct client_submit submit;
    uint8_t bytes[256];
    uint64_t id; /* as acknowledged */
    enum client_outcome outcome;
    enum result result;
};

static const char *binary;
static bool new_cluster = true; /* the very first start */
static char dir[64];
static struct process nodes[NODES];
static struct client_sync *sync_client;
static struct order orders[ORDERS_MAX];
static uint32_t orders_count, orders_pending, orders_granted;
static uint64_t first_ack_ns;

#define REQUIRE(condition)                                                                         \
    ((condition)                                                                                   \
         ? (void)0                                                                                 \
         : (fprintf(stderr, "%s:%d: not so: %s\nsee %s\n", __FILE__, __LINE__, #condition, dir),   \
            stop_all(), exit(1)))

static void stop_all(void)
{
    for (size_t i = 0; i < NODES; i++) {
        if (nodes[i].pid > 0) {
            kill(nodes[i].pid, SIGKILL);
        }
    }
}

/* ---- processes ---- */

static uint16_t free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    CHECK(bind(fd, (struct sockaddr *)&a, size) == 0);
    CHECK(getsockname(fd, (struct sockaddr *)&a, &size) == 0);
    close(fd);
    return ntohs(a.sin_port);
}

static void spawn(size_t i)
{
    char text[NODES + 4][160];
    const char *argv[40];
    int argc = 0;
    snprintf(text[0], sizeof text[0], "%zu", i + 1);
    snprintf(text[1], sizeof text[1], "%s/node%zu", dir, i + 1);
    snprintf(text[2], sizeof text[2], "%s/key", dir);
    snprintf(text[3], sizeof text[3], "%s/log%zu", dir, i + 1);
    const char *fixed[] = {binary,   "--id",
                           text[0],  "--data-dir",
                           text[1],  "--cluster-key-file",
                           text[2],  "--cluster-id",
                           CLUSTER,  "--users-max",
                           "100000", "--orders-max",
                           "100000", "--eligibilities-max",
                           "100000", "--idempotency-max",
                           "100000", "--segment-size",
                           "4MiB",   "--trailing-entries",
                           "512",    "--checkpoint-entries",
                           "300",    "--checkpoint-interval",
                           "2s",     "--log-level",
                           "debug"};
    for (size_t k = 0; k < ARRAY_COUNT(fixed); k++) {
        argv[argc++] = fixed[k];
    }
    for (size_t k = 0; k < NODES; k++) {
        snprintf(text[4 + k], sizeof text[4 + k], "--member=%zu=127.0.0.1:%u/127.0.0.1:%u", k + 1,
                 nodes[k].raft_port, nodes[k].node_port);
        argv[argc++] = text[4 + k];
    }
    if (new_cluster) {
        argv[argc++] = "--new-cluster";
    }
    argv[argc] = NULL;
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        int fd = open(text[3], O_WRONLY | O_CREAT | O_APPEND, 0600);
        dup2(fd, STDERR_FILENO);
        execv(binary, (char *const *)(uintptr_t)argv);
        _exit(127);
    }
    nodes[i].pid = pid;
}

/* Returns the exit status, or 128 + signal. */
static int end(size_t i, int number)
{
    int status;
    CHECK(kill(nodes[i].pid, number) == 0);
    CHECK(waitpid(nodes[i].pid, &status, 0) == nodes[i].pid);
    nodes[i].pid = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* ---- asking ---- */

static Holdfast__Response *call(Holdfast__Request *m, uint64_t target)
{
    Holdfast__Response *r;
    REQUIRE(client_sync_call(sync_client, m, target, PATIENCE_MS, &r) == CLIENT_OK);
    return r;
}

static Holdfast__Response *status_of(uint64_t target)
{
    Holdfast__NodeStatus body = HOLDFAST__NODE_STATUS__INIT;
    Holdfast__Request m = HOLDFAST__REQUEST__INIT;
    m.body_case = HOLDFAST__REQUEST__BODY_NODE_STATUS;
    m.node_status = &body;
    Holdfast__Response *r = call(&m, target);
    REQUIRE(r->status == HOLDFAST__STATUS__STATUS_OK);
    return r;
}

static struct reply submit(const struct command *c)
{
    struct reply reply;
    enum client_outcome outcome = client_sync_submit(sync_client, c, PATIENCE_MS, &reply);
    if (outcome != CLIENT_OK) {
        fprintf(stderr, "outcome %s\n", client_outcome_name(outcome));
    }
    REQUIRE(outcome == CLIENT_OK);
    return reply;
}

static size_t leader(void)
{
    Holdfast__Response *r = status_of(CLIENT_TARGET_LEADER);
    uint64_t id = r->node_status->id;
    holdfast__response__free_unpacked(r, NULL);
    return (size_t)id - 1;
}

static void wait_applied(size_t node, uint64_t index)
{
    uint64_t end_ms = clock_monotonic_ms() + PATIENCE_MS;
    for (;;) {
        Holdfast__Response *r = status_of(node + 1);
        bool there = r->node_status->applied_index >= index && !r->node_status->installing;
        holdfast__response__free_unpacked(r, NULL);
        if (there) {
            return;
        }
        REQUIRE(clock_monotonic_ms() < end_ms);
        usleep(20000);
    }
}

static uint64_t marked_digest(size_t node, uint64_t index)
{
    Holdfast__MarkedDigest body = HOLDFAST__MARKED_DIGEST__INIT;
    Holdfast__Request m = HOLDFAST__REQUEST__INIT;
    body.index = index;
    m.body_case = HOLDFAST__REQUEST__BODY_MARKED_DIGEST;
    m.marked_digest = &body;
    m.consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_INDEX;
    m.min_index = index;
    Holdfast__Response *r = call(&m, node + 1);
    REQUIRE(r->status == HOLDFAST__STATUS__STATUS_OK);
    uint64_t digest = r->digest;
    holdfast__response__free_unpacked(r, NULL);
    return digest;
}

static void check_invariants(size_t node)
{
    Holdfast__CheckInvariants body = HOLDFAST__CHECK_INVARIANTS__INIT;
    Holdfast__Request m = HOLDFAST__REQUEST__INIT;
    m.body_case = HOLDFAST__REQUEST__BODY_CHECK_INVARIANTS;
    m.check_invariants = &body;
    Holdfast__Response *r = call(&m, node + 1);
    REQUIRE(r->status == HOLDFAST__STATUS__STATUS_OK);
    REQUIRE(r->check_invariants->violations == 0);
    holdfast__response__free_unpacked(r, NULL);
}

/* ---- a sale ---- */

static void put_sale(void)
{
    struct command c = {
        .kind = COMMAND_SKU_PUT, .scope = STR_LITERAL("k:test"), .key = STR_LITERAL("a")};
    c.sku_put.sku = c.sku_put.title = STR_LITERAL("A");
    REQUIRE(submit(&c).result == RESULT_OK);
    c = (struct command){
        .kind = COMMAND_STOCK_ADJUST, .scope = STR_LITERAL("k:test"), .key = STR_LITERAL("b")};
    c.stock_adjust.sku = STR_LITERAL("A");
    c.stock_adjust.reason = STR_LITERAL("first");
    c.stock_adjust.delta = STOCK;
    REQUIRE(submit(&c).result == RESULT_OK);
    c = (struct command){
        .kind = COMMAND_SALE_PUT, .scope = STR_LITERAL("k:test"), .key = STR_LITERAL("c")};
    struct command_sale *s = &c.sale_put;
    s->id = s->title = STR_LITERAL("S");
    memcpy(s->currency, "EUR", 3);
    s->opens_ms = 1;
    s->closes_ms = clock_wall_ms() + 86400000;
    s->payment_timeout_ms = 3600000;
    s->orders_per_user_max = 1;
    s->offers_count = 1;
    s->offers[0] = (struct command_offer){
        .sku = STR_LITERAL("A"), .unit_price = 100, .units_per_order_max = 5};
    struct reply reply = submit(&c);
    if (reply.result != RESULT_OK) {
        fprintf(stderr, "sale put: %s\n", result_code((enum result)reply.result));
    }
    REQUIRE(reply.result == RESULT_OK);
}

static void place_more(void);
static uint32_t orders_wanted;

static void place_cb(struct client_submit *req, enum client_outcome outcome,
                     const struct reply *reply)
{
    struct order *o = container_of(req, struct order, submit);
    o->outcome = outcome;
    if (outcome == CLIENT_OK) {
        first_ack_ns = first_ack_ns == 0 ? clock_monotonic_ns() : first_ack_ns;
        o->id = reply->order;
        o->result = (enum result)reply->result;
        orders_granted += o->result == RESULT_OK ? 1 : 0;
    }
    orders_pending--;
    place_more();
}

static void place_one(void)
{
    struct client *client = client_sync_client(sync_client);
    struct order *o = &orders[orders_count];
    char user[32], key[32];
    uv_loop_t *loop = client_sync_loop(sync_client);
    snprintf(user, sizeof user, "u%u", orders_count);
    snprintf(key, sizeof key, "order-%u", orders_count);
    struct command c = {
        .kind = COMMAND_ORDER_PLACE, .scope = str_from("u:test"), .key = str_from(key)};
    c.order_place.sale = STR_LITERAL("S");
    c.order_place.user = str_from(user);
    c.order_place.lines_count = 1;
    c.order_place.lines[0] = (struct command_line){STR_LITERAL("A"), 1};
    size_t size = command_encode(&c, o->bytes, sizeof o->bytes);
    REQUIRE(size > 0);
    REQUIRE(client_submit(client, &o->submit, o->bytes, size, uv_now(loop) + PATIENCE_MS,
                          place_cb) == CLIENT_OK);
    orders_count++;
    orders_pending++;
}

static void place_more(void)
{
    while (orders_pending < CONCURRENT && orders_count < orders_wanted) {
        place_one();
    }
}

/* Runs until this many orders of all were answered. */
static void place_until(uint32_t wanted, uint32_t answered)
{
    uv_loop_t *loop = client_sync_loop(sync_client);
    orders_wanted = wanted;
    REQUIRE(wanted <= ORDERS_MAX);
    uv_update_time(loop);
    place_more();
    while (orders_count - orders_pending < answered) {
        uv_run(loop, UV_RUN_ONCE);
    }
}

static void check_orders(void)
{
    for (uint32_t i = 0; i < orders_count; i++) {
        REQUIRE(orders[i].outcome == CLIENT_OK);
        REQUIRE(orders[i].result == RESULT_OK);
    }
    /* Each by itself, some by id on the leader: strong reads. */
    for (uint32_t i = 0; i < orders_count; i += 97) {
        Holdfast__GetOrder body = HOLDFAST__GET_ORDER__INIT;
        Holdfast__Request m = HOLDFAST__REQUEST__INIT;
        char user[32];
        body.id = orders[i].id;
        m.body_case = HOLDFAST__REQUEST__BODY_GET_ORDER;
        m.get_order = &body;
        m.consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG;
        Holdfast__Response *r = call(&m, CLIENT_TARGET_LEADER);
        REQUIRE(r->status == HOLDFAST__STATUS__STATUS_OK);
        snprintf(user, sizeof user, "u%u", i);
        REQUIRE(strcmp(r->orders->items[0]->user, user) == 0);
        holdfast__response__free_unpacked(r, NULL);
    }
    char id[] = "A";
    Holdfast__GetSku body = HOLDFAST__GET_SKU__INIT;
    Holdfast__Request m = HOLDFAST__REQUEST__INIT;
    body.id = id;
    m.body_case = HOLDFAST__REQUEST__BODY_GET_SKU;
    m.get_sku = &body;
    m.consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_STRONG;
    Holdfast__Response *r = call(&m, CLIENT_TARGET_LEADER);
    const Holdfast__Sku *sku = r->skus->items[0];
    REQUIRE(sku->reserved == orders_granted); /* one effect a key, however often it was sent */
    REQUIRE(sku->available == STOCK - (int64_t)orders_granted);
    REQUIRE(sku->received == STOCK);
    holdfast__response__free_unpacked(r, NULL);
}

static uint64_t check_digests(void)
{
    static unsigned marks;
    char key[32];
    snprintf(key, sizeof key, "mark-%u", marks++);
    struct command c = {
        .kind = COMMAND_DIGEST_MARK, .scope = STR_LITERAL("k:test"), .key = STR_LITERAL("")};
    struct reply reply = submit(&c);
    uint64_t digest = marked_digest(0, reply.index);
    for (size_t i = 0; i < NODES; i++) {
        wait_applied(i, reply.index);
        REQUIRE(marked_digest(i, reply.index) == digest);
        check_invariants(i);
    }
    return digest;
}

/* ---- the steps ---- */

static void lose_leader(void)
{
    place_until(3000, 1000);
    size_t lost = leader();
    first_ack_ns = 0;
    uint64_t begun_ns = clock_monotonic_ns();
    REQUIRE(end(lost, SIGKILL) == 128 + SIGKILL);
    place_until(3000, 3000);
    printf("leader killed: first acknowledgement seen after %.1f ms\n",
           (double)(first_ack_ns - begun_ns) / 1e6);
    check_orders();
    spawn(lost);
    check_digests();
}

static void lose_everybody(void)
{
    place_until(5000, 4000);
    for (size_t i = 0; i < NODES; i++) {
        REQUIRE(end(i, SIGKILL) == 128 + SIGKILL);
    }
    for (size_t i = 0; i < NODES; i++) {
        spawn(i);
    }
    place_until(5000, 5000);
    check_orders();
    check_digests();
}

static uint64_t metric(size_t node, const char *name)
{
    Holdfast__Metrics body = HOLDFAST__METRICS__INIT;
    Holdfast__Request m = HOLDFAST__REQUEST__INIT;
    char line[96];
    m.body_case = HOLDFAST__REQUEST__BODY_METRICS;
    m.metrics = &body;
    Holdfast__Response *r = call(&m, node + 1);
    snprintf(line, sizeof line, "\n%s ", name);
    const char *at = strstr(r->metrics, line);
    REQUIRE(at != NULL);
    uint64_t value = (uint64_t)strtod(at + strlen(line), NULL);
    holdfast__response__free_unpacked(r, NULL);
    return value;
}

static void wait_refilled(size_t node)
{
    uint64_t end_ms = clock_monotonic_ms() + PATIENCE_MS;
    while (metric(node, "holdfast_refilling") != 0) {
        REQUIRE(clock_monotonic_ms() < end_ms);
        usleep(20000);
    }
}

static void remove_data(size_t i)
{
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s/node%zu'", dir, i + 1);
    REQUIRE(system(command) == 0);
}

static void lose_disk(void)
{
    size_t lost = (leader() + 1) % NODES;
    REQUIRE(end(lost, SIGTERM) == 0);
    remove_data(lost);
    /* More entries than the log keeps behind a checkpoint. */
    for (uint32_t i = 0; i < 1600; i++) {
        struct command c = {.kind = COMMAND_DENY_PUT, .scope = STR_LITERAL("k:test")};
        char user[32];
        snprintf(user, sizeof user, "d%u", i % 100);
        c.deny.user = str_from(user);
        c.deny.reason = STR_LITERAL("test");
        REQUIRE(submit(&c).result == RESULT_OK);
    }
    uint64_t end_ms = clock_monotonic_ms() + PATIENCE_MS;
    for (uint64_t first = 1; first == 1;) {
        Holdfast__Response *r = status_of(CLIENT_TARGET_LEADER);
        first = r->node_status->first_index;
        holdfast__response__free_unpacked(r, NULL);
        REQUIRE(clock_monotonic_ms() < end_ms);
        usleep(20000);
    }
    spawn(lost);
    place_until(7000, 7000);
    check_orders();
    wait_refilled(lost); /* marks from before an install are not part of it */
    uint64_t digest = check_digests();
    REQUIRE(metric(lost, "holdfast_installs_total") == 1);
    /* What it installed is its own now: from its disk it comes back the same. */
    REQUIRE(end(lost, SIGKILL) == 128 + SIGKILL);
    spawn(lost);
    wait_applied(lost, 1);
    (void)digest;
    check_digests();
    REQUIRE(metric(lost, "holdfast_installs_total") == 0);
    REQUIRE(metric(lost, "holdfast_refilling") == 0);
    /* And it votes again: without it the two that are left elect nobody. */
    size_t killed = leader() == lost ? (lost + 1) % NODES : leader();
    REQUIRE(end(killed, SIGKILL) == 128 + SIGKILL);
    place_until(7500, 7500);
    spawn(killed);
    check_orders();
    check_digests();
}

/* A node whose log is gone must not vote with what its checkpoint says, nor as if it were new. */
static void lose_log(void)
{
    size_t lost = (leader() + 1) % NODES;
    char command[160];
    int status;
    REQUIRE(end(lost, SIGTERM) == 0);
    snprintf(command, sizeof command, "rm -rf '%s/node%zu/log'", dir, lost + 1);
    REQUIRE(system(command) == 0);
    for (int i = 0; i < 2; i++) { /* the refusal leaves nothing behind that would be believed */
        spawn(lost);
        REQUIRE(waitpid(nodes[lost].pid, &status, 0) == nodes[lost].pid);
        nodes[lost].pid = 0;
        REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    }
    remove_data(lost);
    spawn(lost);
    wait_refilled(lost);
    check_digests();
}

/* A leader that stops without a word: its connections stay. */
static void freeze_leader(void)
{
    size_t frozen = leader();
    REQUIRE(kill(nodes[frozen].pid, SIGSTOP) == 0);
    place_until(7500, 7500);
    REQUIRE(leader() != frozen);
    REQUIRE(kill(nodes[frozen].pid, SIGCONT) == 0);
    place_until(8000, 8000);
    check_orders();
    check_digests();
}

static void drain_leader(void)
{
    size_t old = leader();
    place_until(10000, 8500);
    first_ack_ns = 0;
    uint64_t begun_ns = clock_monotonic_ns();
    REQUIRE(end(old, SIGTERM) == 0);
    place_until(10000, 10000);
    printf("leader drained: an order was answered after %.1f ms\n",
           (double)(first_ack_ns - begun_ns) / 1e6);
    REQUIRE(leader() != old);
    check_orders();
    spawn(old);
    check_digests();
}

static void stop_and_start(void)
{
    uint64_t before = check_digests();
    for (size_t i = 0; i < NODES; i++) {
        REQUIRE(end(i, SIGTERM) == 0);
    }
    for (size_t i = 0; i < NODES; i++) {
        spawn(i);
    }
    (void)before; /* time has passed since: digests are compared among nodes */
    check_orders();
    check_digests();
}

/* A node with another id must not take over a data directory. */
static void refuse_foreign_data(void)
{
    char from[96], to[96];
    REQUIRE(end(0, SIGTERM) == 0);
    REQUIRE(end(1, SIGTERM) == 0);
    snprintf(from, sizeof from, "%s/node1", dir);
    snprintf(to, sizeof to, "%s/node2", dir);
    remove_data(1);
    REQUIRE(rename(from, to) == 0);
    spawn(1);
    int status;
    REQUIRE(waitpid(nodes[1].pid, &status, 0) == nodes[1].pid);
    nodes[1].pid = 0;
    REQUIRE(WIFEXITED(status) && WEXITSTATUS(status) == 1);
    REQUIRE(end(2, SIGKILL) == 128 + SIGKILL);
}

static void open_client(void)
{
    char endpoint[NODES][32];
    const char *endpoints[NODES];
    struct client_config config = {.endpoints = endpoints, .endpoints_count = NODES};
    char path[80], hex[2 * LINK_KEY_SIZE + 2];
    uint8_t key[LINK_KEY_SIZE];
    randombytes_buf(key, sizeof key);
    sodium_bin2hex(hex, sizeof hex, key, sizeof key);
    snprintf(path, sizeof path, "%s/key", dir);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    CHECK(write(fd, hex, 2 * LINK_KEY_SIZE) == 2 * LINK_KEY_SIZE);
    close(fd);
    memcpy(config.key, key, sizeof key);
    for (size_t i = 0; i < NODES; i++) {
        snprintf(endpoint[i], sizeof endpoint[i], "127.0.0.1:%u", nodes[i].node_port);
        endpoints[i] = endpoint[i];
    }
    CHECK(client_sync_open(&config, &sync_client) == 0);
}

int main(int argc, char **argv)
{
    CHECK(argc == 2);
    binary = argv[1];
    log_init("cluster_smoke", LOG_LEVEL_INFO);
    signal(SIGPIPE, SIG_IGN);
    setvbuf(stdout, NULL, _IOLBF, 0);
    CHECK(sodium_init() >= 0);
    snprintf(dir, sizeof dir, "/tmp/holdfast-smoke-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    printf("directory %s\n", dir);
    for (size_t i = 0; i < NODES; i++) {
        nodes[i].raft_port = free_port();
        nodes[i].node_port = free_port();
    }
    open_client();
    for (size_t i = 0; i < NODES; i++) {
        spawn(i);
    }
    new_cluster = false;
    static const struct {
        const char *name;
        void (*run)(void);
    } steps[] = {{"put a sale", put_sale},
                 {"lose the leader", lose_leader},
                 {"lose everybody", lose_everybody},
                 {"lose a disk", lose_disk},
                 {"lose a log", lose_log},
                 {"freeze the leader", freeze_leader},
                 {"drain the leader", drain_leader},
                 {"stop and start", stop_and_start},
                 {"refuse foreign data", refuse_foreign_data}};
    for (size_t i = 0; i < ARRAY_COUNT(steps); i++) {
        printf("%s\n", steps[i].name);
        steps[i].run();
    }
    client_sync_close(sync_client);
    printf("all well: %u orders\n", orders_granted);
    if (getenv("HOLDFAST_KEEP") == NULL) {
        char command[96];
        snprintf(command, sizeof command, "rm -rf '%s'", dir);
        CHECK(system(command) == 0);
    }
    return 0;
}
