#include "server/options.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/failpoint.h"

/* What the table fills; checked and put into struct node_options afterwards. */
static struct {
    uint64_t id, shards;
    const char *data_dir, *cluster_id, *key_file, *listen_raft, *listen_node, *postgres_url,
        *postgres_url_file, *log_level;
    struct option_list members;
    uint64_t skus, sales, users, eligibilities, orders, idempotency, leases, events, expiries,
        retention;
    uint64_t election_timeout, segment_size, trailing_entries, checkpoint_entries, checkpoint_size,
        checkpoint_interval, catch_up_rate, catch_up_log_size;
    uint64_t log_write_deadline, low_space;
    bool no_sync, new_cluster;
} raw;

#define U32 1, UINT32_MAX

static const struct option table[] = {
    {"id", 0, OPTION_U64, &raw.id, NULL, "N", "id of this node, fixed for the life of its data", 1,
     UINT32_MAX},
    {"data-dir", 0, OPTION_TEXT, &raw.data_dir, NULL, "DIR",
     "where log and checkpoint are; made if missing", 0, 0},
    {"cluster-id", 0, OPTION_TEXT, &raw.cluster_id, NULL, "UUID",
     "id of the cluster, the same on every node", 0, 0},
    {"cluster-key-file", 0, OPTION_TEXT, &raw.key_file, NULL, "FILE",
     "64 hex digits, mode 0600: the cluster's secret", 0, 0},
    {"member", 0, OPTION_LIST, &raw.members, NULL, "ID=RAFT/NODE",
     "a member of a new cluster, or itself and whom to know first: 1=10.0.0.1:7001/10.0.0.1:7101", 0,
     0},
    {"listen-raft", 0, OPTION_TEXT, &raw.listen_raft, NULL, "ADDR",
     "where to listen for peers (default: own --member)", 0, 0},
    {"listen-node", 0, OPTION_TEXT, &raw.listen_node, NULL, "ADDR",
     "where to listen for gateways (default: own --member)", 0, 0},
    {"postgres-url", 0, OPTION_TEXT, &raw.postgres_url, NULL, "URL",
     "database for orders and outbox; without password", 0, 0},
    {"postgres-url-file", 0, OPTION_TEXT, &raw.postgres_url_file, NULL, "FILE",
     "the same from a file, when it has a password", 0, 0},
    {"shards", 0, OPTION_U64, &raw.shards, "64", "N", "logical shards of orders, of a new cluster",
     1, SHARDS_MAX},
    {"skus-max", 0, OPTION_U64, &raw.skus, "100000", "N", "limits of a new cluster: SKUs", U32},
    {"sales-max", 0, OPTION_U64, &raw.sales, "10000", "N", "sales", U32},
    {"users-max", 0, OPTION_U64, &raw.users, "4000000", "N",
     "users with an eligibility, order, strike or denial", U32},
    {"eligibilities-max", 0, OPTION_U64, &raw.eligibilities, "8000000", "N", "eligibilities", U32},
    {"orders-max", 0, OPTION_U64, &raw.orders, "4000000", "N", "orders in memory", U32},
    {"idempotency-max", 0, OPTION_U64, &raw.idempotency, "8000000", "N", "remembered keys", U32},
    {"leases-max", 0, OPTION_U64, &raw.leases, "100000", "N", "leases", U32},
    {"events-max", 0, OPTION_U64, &raw.events, "1000000", "N",
     "events not yet in PostgreSQL: the backlog", U32},
    {"expiries-per-batch", 0, OPTION_U64, &raw.expiries, "1000", "N",
     "things that end in one batch at most", 1, 100000},
    {"idempotency-retention", 0, OPTION_DURATION, &raw.retention, "24h", "TIME",
     "how long a key is remembered", 1000, DURATION_MS_MAX},
    {"election-timeout", 0, OPTION_DURATION, &raw.election_timeout, "500ms", "TIME",
     "silence of the leader before an election", 50, 60000},
    {"segment-size", 0, OPTION_SIZE, &raw.segment_size, "64MiB", "SIZE", "of one file of the log",
     1 << 20, 1ull << 30},
    {"log-write-deadline", 0, OPTION_DURATION, &raw.log_write_deadline, "10s", "TIME",
     "a log's disk that is silent so long ends the node; a leader hands over before", 200, 3600000},
    {"low-space", 0, OPTION_SIZE, &raw.low_space, "1GiB", "SIZE",
     "free space of the disk below which new orders are refused; 0: never", 0, 1ull << 50},
    {"trailing-entries", 0, OPTION_U64, &raw.trailing_entries, "8192", "N",
     "kept in the log behind a checkpoint (at least 512)", 1, 100000000},
    {"checkpoint-entries", 0, OPTION_U64, &raw.checkpoint_entries, "50000", "N",
     "log entries between checkpoints at most", 16, 100000000},
    {"checkpoint-size", 0, OPTION_SIZE, &raw.checkpoint_size, "256MiB", "SIZE",
     "of batches between checkpoints at most", 1 << 20, 1ull << 40},
    {"checkpoint-interval", 0, OPTION_DURATION, &raw.checkpoint_interval, "60s", "TIME",
     "time between checkpoints at most", 100, 86400000},
    {"catch-up-rate", 0, OPTION_SIZE, &raw.catch_up_rate, "64MiB", "SIZE",
     "of checkpoints given to peers and tools in a second at most; 0: unlimited", 0, 1ull << 40},
    {"catch-up-log-size", 0, OPTION_SIZE, &raw.catch_up_log_size, "512MiB", "SIZE",
     "kept in the log, and in memory, for a peer that catches up at most", 1 << 20, 1ull << 40},
    {"new-cluster", 0, OPTION_FLAG, &raw.new_cluster, NULL, NULL,
     "the first start of a new cluster; ignored if there are data", 0, 0},
    {"unsafe-no-sync", 0, OPTION_FLAG, &raw.no_sync, NULL, NULL,
     "do not sync the log: for benchmarks, loses orders", 0, 0},
    {"log-level", 0, OPTION_TEXT, &raw.log_level, "info", "LEVEL", "error, warn, info or debug", 0,
     0},
    FAILPOINT_OPTIONS
};

static const struct options options = {
    .program = "holdfastd",
    .summary = "a node of a holdfast cluster",
    .examples =
        "  holdfastd --id 1 --data-dir /var/lib/holdfast --cluster-id 6f1c… \\\n"
        "    --cluster-key-file /etc/holdfast/cluster.key \\\n"
        "    --member 1=10.0.0.1:7001/10.0.0.1:7101 --member 2=10.0.0.2:7001/10.0.0.2:7101 \\\n"
        "    --member 3=10.0.0.3:7001/10.0.0.3:7101\n"
        "  with --new-cluster the first time, and never again: a node that comes back with an empty\n"
        "  directory refills from its peers before it votes\n",
    .table = table,
    .count = ARRAY_COUNT(table),
};

int cluster_id_parse(const char *text, uint8_t id[static LINK_CLUSTER_ID_SIZE])
{
    static const uint8_t zero[LINK_CLUSTER_ID_SIZE];
    size_t digits = 0;
    if (strlen(text) != CLUSTER_ID_TEXT_SIZE - 1) {
        return -1;
    }
    for (size_t i = 0; text[i] != '\0'; i++) {
        bool dash = i == 8 || i == 13 || i == 18 || i == 23;
        if (dash != (text[i] == '-') || (!dash && !isxdigit((unsigned char)text[i]))) {
            return -1;
        }
        if (!dash) {
            int c = tolower((unsigned char)text[i]);
            uint8_t value = (uint8_t)(c <= '9' ? c - '0' : c - 'a' + 10);
            id[digits / 2] = (uint8_t)(digits % 2 == 0 ? value << 4 : id[digits / 2] | value);
            digits++;
        }
    }
    return memcmp(id, zero, sizeof zero) == 0 ? -1 : 0; /* all zero means "any" to a link */
}

void cluster_id_format(const uint8_t id[static LINK_CLUSTER_ID_SIZE],
                       char out[static CLUSTER_ID_TEXT_SIZE])
{
    for (size_t i = 0; i < LINK_CLUSTER_ID_SIZE; i++) {
        if (i == 4 || i == 6 || i == 8 || i == 10) {
            *out++ = '-';
        }
        snprintf(out, 3, "%02x", id[i]);
        out += 2;
    }
}

static enum options_result invalid(const char *what, const char *value)
{
    fprintf(stderr, "holdfastd: %s%s%s%s\ntry: holdfastd --help\n", what, value != NULL ? " '" : "",
            value != NULL ? value : "", value != NULL ? "'" : "");
    return OPTIONS_INVALID;
}

bool node_member_parse(const char *text, struct node_member *m)
{
    char *end, joined[REPLICA_ADDRESS_SIZE];
    const char *slash = strchr(text, '/');
    m->id = strtoull(text, &end, 10);
    if (m->id == 0 || m->id > UINT32_MAX || *end != '=' || slash == NULL || slash < end) {
        return false;
    }
    struct str raft = {end + 1, (uint32_t)(slash - end - 1)};
    return str_copy(m->raft_address, sizeof m->raft_address, raft) &&
           str_copy(m->node_address, sizeof m->node_address, str_from(slash + 1)) &&
           replica_address_join(m->raft_address, m->node_address, joined);
}

const struct node_member *node_options_member(const struct node_options *o, uint64_t id)
{
    for (size_t i = 0; i < o->members_count; i++) {
        if (o->members[i].id == id) {
            return &o->members[i];
        }
    }
    return NULL;
}

static enum options_result read_members(struct node_options *o)
{
    if (raw.members.count > REPLICA_MEMBERS_MAX) {
        return invalid("too many members; at most 9", NULL);
    }
    for (size_t i = 0; i < raw.members.count; i++) {
        struct node_member m;
        if (!node_member_parse(raw.members.items[i], &m)) {
            return invalid("not a member, write ID=RAFT_HOST:PORT/NODE_HOST:PORT:",
                           raw.members.items[i]);
        }
        if (node_options_member(o, m.id) != NULL) {
            return invalid("member given twice:", raw.members.items[i]);
        }
        o->members[o->members_count++] = m;
    }
    return OPTIONS_OK;
}

static enum options_result read_listeners(struct node_options *o)
{
    const struct node_member *self = node_options_member(o, o->id);
    const char *raft = raw.listen_raft, *node = raw.listen_node;
    if (self == NULL && (raft == NULL || node == NULL)) {
        return invalid("no --member for this node's own id; give it, or --listen-raft and "
                       "--listen-node for a node that will be added later",
                       NULL);
    }
    raft = raft != NULL ? raft : self->raft_address;
    node = node != NULL ? node : self->node_address;
    if (address_parse(raft, o->raft_host, &o->raft_port) < 0) {
        return invalid("not an address:", raft);
    }
    if (address_parse(node, o->node_host, &o->node_port) < 0) {
        return invalid("not an address:", node);
    }
    return OPTIONS_OK;
}

static enum options_result read_postgres(struct node_options *o)
{
    static char url[4096];
    o->postgres_url = raw.postgres_url;
    if (raw.postgres_url_file == NULL) {
        return OPTIONS_OK;
    }
    if (raw.postgres_url != NULL) {
        return invalid("--postgres-url and --postgres-url-file exclude each other", NULL);
    }
    FILE *f = fopen(raw.postgres_url_file, "re");
    if (f == NULL || fgets(url, sizeof url, f) == NULL) {
        if (f != NULL) {
            fclose(f);
        }
        return invalid("cannot read", raw.postgres_url_file);
    }
    fclose(f);
    url[strcspn(url, "\r\n")] = '\0';
    o->postgres_url = url;
    return OPTIONS_OK;
}

enum options_result node_options_parse(struct node_options *o, int argc, char **argv)
{
    int operands;
    *o = (struct node_options){0};
    enum options_result result = options_parse(&options, argc, argv, &operands);
    if (result != OPTIONS_OK) {
        return result;
    }
    int ended = FAILPOINT_START();
    if (ended >= 0) {
        return ended == 0 ? OPTIONS_HELP : OPTIONS_INVALID;
    }
    if (operands < argc) {
        return invalid("unexpected argument", argv[operands]);
    }
    if (raw.id == 0 || raw.data_dir == NULL || raw.cluster_id == NULL || raw.key_file == NULL) {
        return invalid("--id, --data-dir, --cluster-id and --cluster-key-file are needed", NULL);
    }
    o->id = raw.id;
    o->data_dir = raw.data_dir;
    if (cluster_id_parse(raw.cluster_id, o->cluster_id) < 0) {
        return invalid("not a UUID:", raw.cluster_id);
    }
    if (log_parse_level(raw.log_level, &o->log_level) < 0) {
        return invalid("not a log level:", raw.log_level);
    }
    if (link_read_key(raw.key_file, o->key) < 0) {
        return OPTIONS_INVALID; /* it said why */
    }
    if (read_members(o) != OPTIONS_OK || read_listeners(o) != OPTIONS_OK ||
        read_postgres(o) != OPTIONS_OK) {
        return OPTIONS_INVALID;
    }
    o->shards = (uint32_t)raw.shards;
    o->limits = (struct command_limits){.skus_max = (uint32_t)raw.skus,
                                        .sales_max = (uint32_t)raw.sales,
                                        .users_max = (uint32_t)raw.users,
                                        .eligibilities_max = (uint32_t)raw.eligibilities,
                                        .orders_max = (uint32_t)raw.orders,
                                        .idempotency_max = (uint32_t)raw.idempotency,
                                        .leases_max = (uint32_t)raw.leases,
                                        .events_max = (uint32_t)raw.events,
                                        .expiries_per_batch_max = (uint32_t)raw.expiries,
                                        .idempotency_retention_ms = raw.retention};
    o->election_timeout_ms = raw.election_timeout;
    o->segment_size = raw.segment_size;
    o->log_write_deadline_ms = raw.log_write_deadline;
    o->low_space = raw.low_space;
    o->trailing_entries = raw.trailing_entries;
    o->checkpoint_entries = raw.checkpoint_entries;
    o->checkpoint_size = raw.checkpoint_size;
    o->checkpoint_interval_ms = raw.checkpoint_interval;
    o->catch_up_rate = raw.catch_up_rate;
    o->catch_up_log_size = raw.catch_up_log_size;
    o->log_sync = !raw.no_sync;
    o->new_cluster = raw.new_cluster;
    return OPTIONS_OK;
}
