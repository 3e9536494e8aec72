/* Unit tests of server/options, server/identity and positions: what a node believes before it
 * starts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "server/checkpoint_driver.h"
#include "server/identity.h"
#include "server/options.h"

static char dir[64], key_file[96];

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/holdfast-node-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    snprintf(key_file, sizeof key_file, "%s/key", dir);
    FILE *f = fopen(key_file, "w");
    CHECK(f != NULL);
    fprintf(f, "%064d\n", 7);
    fclose(f);
    CHECK(chmod(key_file, 0600) == 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

static enum options_result parse(struct node_options *o, const char *const *more, size_t count)
{
    const char *argv[32] = {"holdfastd", "--cluster-key-file", key_file, "--data-dir", dir};
    int argc = 5;
    for (size_t i = 0; i < count; i++) {
        argv[argc++] = more[i];
    }
    return node_options_parse(o, argc, (char **)(uintptr_t)argv);
}

#define ID   "--id=2"
#define UUID "--cluster-id=6F1C1111-2222-4333-8444-55556666777f"
#define M1   "--member=1=127.0.0.1:7001/127.0.0.1:7101"
#define M2   "--member=2=127.0.0.1:7002/[::1]:7102"

static void test_options(void **state)
{
    (void)state;
    struct node_options o;
    const char *good[] = {
        ID, UUID, M1, M2, "--shards=16", "--orders-max=5", "--listen-node=127.0.0.9:9"};
    assert_int_equal(parse(&o, good, ARRAY_COUNT(good)), OPTIONS_OK);
    assert_int_equal(o.id, 2);
    assert_int_equal(o.members_count, 2);
    assert_string_equal(node_options_member(&o, 2)->node_address, "[::1]:7102");
    assert_null(node_options_member(&o, 3));
    assert_int_equal(o.raft_port, 7002);
    assert_string_equal(o.node_host, "127.0.0.9");
    assert_int_equal(o.shards, 16);
    assert_int_equal(o.limits.orders_max, 5);
    assert_int_equal(o.limits.users_max, 4000000);
    assert_true(o.log_sync);
    char text[CLUSTER_ID_TEXT_SIZE];
    cluster_id_format(o.cluster_id, text);
    assert_string_equal(text, "6f1c1111-2222-4333-8444-55556666777f");
}

static void test_options_refused(void **state)
{
    (void)state;
    static const char *const bad[][4] = {
        {UUID, M1, M2, "--log-level=info"},    /* no id */
        {"--id=0", UUID, M1, M2},              /* no id either */
        {"--id=3", UUID, M1, M2},              /* not a member, and nowhere to listen */
        {ID, "--cluster-id=6f1c1111", M1, M2}, /* no UUID */
        {ID, "--cluster-id=00000000-0000-0000-0000-000000000000", M1, M2},
        {ID, UUID, M2, M2}, /* twice */
        {ID, UUID, M2, "--member=1"},
        {ID, UUID, M2, "--member=1=127.0.0.1:1"},
        {ID, UUID, M2, "--member=1=host:1/host:2"}, /* names are not looked up */
        {ID, UUID, M2, "--member=0=127.0.0.1:1/127.0.0.1:2"},
        {ID, UUID, M2, "--member=1=127.0.0.1:0/127.0.0.1:2"},
        {ID, UUID, M2, "--log-level=loud"},
        {ID, UUID, M2, "operand"},
        {ID, UUID, M2, "--postgres-url-file=/nowhere/at/all"},
    };
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        struct node_options o;
        assert_int_equal(parse(&o, bad[i], 4), OPTIONS_INVALID);
    }
}

#define REFUSED 99

/* In a process of its own, for the lock lives as long as the process. Returns the state or REFUSED. */
static int claim_apart(const char *where, uint64_t id, const uint8_t *cluster, bool new_cluster)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        enum identity_state state;
        _exit(identity_claim(where, id, cluster, new_cluster, &state) == 0 ? (int)state : REFUSED);
    }
    CHECK(waitpid(pid, &status, 0) == pid);
    return WEXITSTATUS(status);
}

static void test_identity(void **state)
{
    (void)state;
    char data[96], path[128];
    uint8_t cluster[LINK_CLUSTER_ID_SIZE] = {1}, other[LINK_CLUSTER_ID_SIZE] = {2};
    snprintf(data, sizeof data, "%s/data", dir);
    snprintf(path, sizeof path, "%s/identity", data);
    assert_int_equal(claim_apart(data, 1, cluster, true), IDENTITY_NEW);
    assert_int_equal(claim_apart(data, 1, cluster, false), IDENTITY_NEW); /* no log is there yet */
    assert_int_equal(claim_apart(data, 2, cluster, true), REFUSED);
    assert_int_equal(claim_apart(data, 1, other, true), REFUSED);
    assert_int_equal(identity_settle(data, 1, cluster), 0);
    assert_int_equal(claim_apart(data, 1, cluster, true), IDENTITY_MEMBER); /* the flag is ignored */
    enum identity_state found;
    assert_int_equal(identity_claim(data, 1, cluster, false, &found), 0);
    assert_int_equal(found, IDENTITY_MEMBER);
    assert_int_equal(claim_apart(data, 1, cluster, false), REFUSED); /* locked by this process */
    FILE *f = fopen(path, "w");
    fputs("holdfast-node 2\nid 1\n", f);
    fclose(f);
    snprintf(path, sizeof path, "%s/none/data", dir);
    assert_int_equal(claim_apart(path, 1, cluster, false), REFUSED); /* only the last part is made */
}

/* An empty directory without the flag, and one of which a part was lost. */
static void test_identity_of_a_lost_node(void **state)
{
    (void)state;
    char data[96], path[128];
    uint8_t cluster[LINK_CLUSTER_ID_SIZE] = {1};
    snprintf(data, sizeof data, "%s/lost", dir);
    assert_int_equal(claim_apart(data, 1, cluster, false), IDENTITY_REFILLING);
    assert_int_equal(claim_apart(data, 1, cluster, true), IDENTITY_REFILLING); /* not forgotten */
    assert_int_equal(identity_settle(data, 1, cluster), 0);
    assert_int_equal(claim_apart(data, 1, cluster, false), IDENTITY_MEMBER);
    snprintf(path, sizeof path, "%s/identity", data);
    FILE *f = fopen(path, "a");
    fputs("state unheard-of\n", f);
    fclose(f);
    assert_int_equal(claim_apart(data, 1, cluster, false), REFUSED);
    assert_int_equal(unlink(path), 0);
    snprintf(path, sizeof path, "%s/log", data);
    assert_int_equal(mkdir(path, 0700), 0);
    assert_int_equal(claim_apart(data, 1, cluster, false), REFUSED);
    assert_int_equal(claim_apart(data, 1, cluster, true), REFUSED);
}

/* Every cut and every flipped bit is refused; without a checksum, as format 1 was, it is still read. */
static void test_damaged_identity(void **state)
{
    (void)state;
    char data[96], path[128], text[256], changed[256];
    uint8_t cluster[LINK_CLUSTER_ID_SIZE] = {1};
    struct identity i;
    snprintf(data, sizeof data, "%s/damaged", dir);
    assert_int_equal(claim_apart(data, 7, cluster, false), IDENTITY_REFILLING);
    snprintf(path, sizeof path, "%s/identity", data);
    FILE *f = fopen(path, "r");
    size_t size = fread(text, 1, sizeof text, f);
    fclose(f);
    log_init("expected", LOG_LEVEL_ERROR);
    for (size_t k = 0; k < 9 * size; k++) {
        size_t now = k < size ? k : size;
        memcpy(changed, text, size);
        if (k >= size) {
            changed[(k - size) / 8] = (char)(text[(k - size) / 8] ^ 1 << (k - size) % 8);
        }
        f = fopen(path, "w");
        fwrite(changed, 1, now, f);
        fclose(f);
        assert_int_equal(identity_read(data, &i), -1);
    }
    log_init("test", LOG_LEVEL_INFO);
    f = fopen(path, "w");
    fputs("holdfast-node 1\nid 7\ncluster 01000000-0000-0000-0000-000000000000\nstate refilling\n", f);
    fclose(f);
    assert_int_equal(identity_read(data, &i), 0);
    assert_int_equal(i.format, 1);
    assert_int_equal(claim_apart(data, 7, cluster, true), IDENTITY_REFILLING);
    f = fopen(path, "r");
    assert_int_equal(fread(changed, 1, sizeof changed, f), size);
    fclose(f);
    assert_memory_equal(changed, text, size);
}

static void test_position(void **state)
{
    (void)state;
    struct replica_position p = {.index = 9, .term = 3, .configuration_index = 4}, back;
    uint8_t bytes[CHECKPOINT_POSITION_SIZE_MAX];
    p.configuration_size = 77;
    memset(p.configuration, 0xAB, 77);
    size_t size = position_encode(&p, bytes);
    assert_int_equal(position_decode(&back, bytes, size), 0);
    assert_memory_equal(&back, &p, sizeof p);
    for (size_t cut = 0; cut < size; cut++) {
        assert_int_equal(position_decode(&back, bytes, cut), -1);
    }
    p.configuration_size = REPLICA_CONFIGURATION_SIZE_MAX;
    size = position_encode(&p, bytes);
    assert_int_equal(position_decode(&back, bytes, size), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_options_refused),
        cmocka_unit_test(test_identity),
        cmocka_unit_test(test_identity_of_a_lost_node),
        cmocka_unit_test(test_damaged_identity),
        cmocka_unit_test(test_position),
    };
    return cmocka_run_group_tests_name("node_parts", tests, setup, teardown);
}
