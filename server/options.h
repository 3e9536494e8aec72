/* options: how holdfastd is configured: flags over environment over file over default
 * (base/options.h). */
#ifndef SERVER_OPTIONS_H
#define SERVER_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "base/log.h"
#include "base/options.h"
#include "proto/address.h"
#include "proto/command.h"
#include "proto/link.h"
#include "raft/replica.h"

/* One member of the cluster: --member ID=RAFT_HOST:PORT/NODE_HOST:PORT */
struct node_member {
    uint64_t id;
    char raft_address[REPLICA_ENDPOINT_SIZE];
    char node_address[REPLICA_ENDPOINT_SIZE];
};

struct node_options {
    uint64_t id;
    const char *data_dir;
    uint8_t cluster_id[LINK_CLUSTER_ID_SIZE];
    uint8_t key[LINK_KEY_SIZE];
    struct node_member members[REPLICA_MEMBERS_MAX];
    size_t members_count;
    char raft_host[ADDRESS_HOST_SIZE], node_host[ADDRESS_HOST_SIZE]; /* where to listen */
    uint16_t raft_port, node_port;
    const char *postgres_url; /* NULL: no persister */
    uint32_t shards;
    struct command_limits limits; /* of a new cluster: COMMAND_INIT */
    uint64_t election_timeout_ms, segment_size, trailing_entries;
    uint64_t checkpoint_entries, checkpoint_size, checkpoint_interval_ms;
    uint64_t catch_up_rate;     /* bytes a second of checkpoints given to others; 0: unlimited */
    uint64_t catch_up_log_size; /* kept in the log for peers that catch up, at most */
    uint64_t log_write_deadline_ms, low_space; /* low_space: bytes, 0: no guard */
    bool log_sync;
    bool new_cluster; /* an empty data directory begins a new cluster */
    enum log_level log_level;
};

/* Parses and checks everything, reads the key file. OPTIONS_INVALID: said why on stderr. */
enum options_result node_options_parse(struct node_options *o, int argc, char **argv);

/* "1=127.0.0.1:7001/127.0.0.1:7101"; false: it is no such text. */
bool node_member_parse(const char *text, struct node_member *m);
/* The member with this id; NULL: none. */
const struct node_member *node_options_member(const struct node_options *o, uint64_t id);

/* Cluster ids as text: 8-4-4-4-12 hex digits. */
#define CLUSTER_ID_TEXT_SIZE 37
int cluster_id_parse(const char *text, uint8_t id[static LINK_CLUSTER_ID_SIZE]);
void cluster_id_format(const uint8_t id[static LINK_CLUSTER_ID_SIZE],
                       char out[static CLUSTER_ID_TEXT_SIZE]);

#endif
