/* The rows of the table: see table.h. In the order in which help and docs list them. */
#include "tools/ctl/table.h"

#include <string.h>

#include "base/check.h"
#include "proto/limits.h"
#include "tools/ctl/ctl.h"

#define PARAMETERS(name) .options = name, .options_count = ARRAY_COUNT(name)
#define OPERANDS(name)   .operands = name, .operands_count = ARRAY_COUNT(name)
#define U32_MAX_TEXT     4294967295

/* ---- options that come with every command, a role, or being severe ---- */

const struct ctl_parameter ctl_global_options[] = {
    {"output", CTL_CHOICE, "FORMAT", "how to print: table for people, json or plain for programs",
     .letter = 'o', .choices = "table|json|plain", .initial = "table", .environment = "HOLDFAST_OUTPUT"},
    {"no-color", CTL_FLAG, NULL, "no color (also NO_COLOR, or when the output is no terminal)"},
    {"endpoints", CTL_TEXT, "HOST:PORT,...", "node addresses; one that answers is enough",
     .initial = "127.0.0.1:7101", .environment = "HOLDFAST_ENDPOINTS"},
    {"cluster-key-file", CTL_FILE, "FILE", "the cluster's key: 64 hex digits, mode 0600",
     .environment = "HOLDFAST_CLUSTER_KEY_FILE"},
    {"timeout", CTL_DURATION, "TIME", "how long to wait for an answer", .initial = "10s", .min = 1,
     .max = 3600000, .environment = "HOLDFAST_TIMEOUT"},
};
const size_t ctl_global_options_count = ARRAY_COUNT(ctl_global_options);

const struct ctl_parameter ctl_reader_options[] = {
    {"consistency", CTL_CHOICE, "WHICH",
     "strong: linearizable, from the leader; local: what any node has",
     .choices = "strong|local", .initial = "strong"},
};
const size_t ctl_reader_options_count = ARRAY_COUNT(ctl_reader_options);

const struct ctl_parameter ctl_writer_options[] = {
    {"idempotency-key", CTL_KEY, "KEY", "the same key does it only once; else a random one is made"},
};
const size_t ctl_writer_options_count = ARRAY_COUNT(ctl_writer_options);

const struct ctl_parameter ctl_severe_options[] = {
    {"confirm", CTL_TEXT, "NAME", "confirms by naming what it is done to"},
    {"yes", CTL_FLAG, NULL, "confirms"},
};
const size_t ctl_severe_options_count = ARRAY_COUNT(ctl_severe_options);

/* ---- operands and options that several commands share ---- */

static const struct ctl_parameter sku_operand[] = {
    {"SKU", CTL_ID, NULL, "the SKU", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter sale_operand[] = {
    {"SALE", CTL_ID, NULL, "the sale", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter order_operand[] = {
    {"ORDER", CTL_ORDER, NULL, "the order's id", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter sale_user_operands[] = {
    {"SALE", CTL_ID, NULL, "the sale", .flags = CTL_REQUIRED},
    {"USER", CTL_ID, NULL, "the user", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter user_operand[] = {
    {"USER", CTL_ID, NULL, "the user", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter lease_operand[] = {
    {"LEASE", CTL_ID, NULL, "the lease's name", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter directory_operand[] = {
    {"DIR", CTL_DIRECTORY, NULL, "the node's data directory (--data-dir)", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter log_inspect_options[] = {
    {"entries", CTL_FLAG, NULL, "list every record of the log too"},
};
static const struct ctl_parameter node_operand[] = {
    {"ID", CTL_U64, NULL, "the node's id", .min = 1, .max = INT64_MAX, .flags = CTL_REQUIRED},
};

#define LIST_OPTIONS                                                                               \
    {"limit", CTL_U64, "N", "print at most so many", .initial = "100", .min = 1, .max = 10000000}, \
    {"all", CTL_FLAG, NULL, "print all of them"}
#define EXPECTED_VERSION                                                                           \
    {"expected-version", CTL_U64, "N", "refuse unless this is the version; 0: it must not exist"}

static const struct ctl_parameter list_options[] = {LIST_OPTIONS};
static const struct ctl_parameter version_options[] = {EXPECTED_VERSION};

/* ---- options of single commands ---- */

static const struct ctl_parameter sku_put_options[] = {
    {"title", CTL_TEXT, "TEXT", "what people read", .initial = ""},
    EXPECTED_VERSION,
};
static const struct ctl_parameter sku_adjust_operands[] = {
    {"SKU", CTL_ID, NULL, "the SKU", .flags = CTL_REQUIRED},
    {"DELTA", CTL_I64, NULL, "units to add, or to take when negative", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter reason_options[] = {
    {"reason", CTL_TEXT, "TEXT", "why, for the record", .initial = ""},
};
static const struct ctl_parameter sale_put_options[] = {
    {"file", CTL_FILE, "FILE", "read the definition from a JSON file, - for standard input"},
    {"title", CTL_TEXT, "TEXT", "what people read"},
    {"currency", CTL_TEXT, "CODE", "ISO 4217, such as EUR"},
    {"offer", CTL_TEXT, "SKU=PRICE[,max=N][,oversell=N]",
     "a SKU and its price in minor units; max: units of one order; may be repeated",
     .flags = CTL_REPEATED},
    {"opens", CTL_TIME, "TIME", "when orders are taken: RFC 3339, now or +10s"},
    {"closes", CTL_TIME, "TIME", "when the sale ends"},
    {"eligibility-opens", CTL_TIME, "TIME", "when eligibilities are granted"},
    {"eligibility-closes", CTL_TIME, "TIME", "until when"},
    {"eligibility-required", CTL_FLAG, NULL, "only users with an eligibility may order"},
    {"eligibility-limit", CTL_U64, "N", "eligibilities at most; 0: no limit", .max = STOCK_MAX},
    {"eligibility-ratio-permille", CTL_U64, "N",
     "eligibilities at most, in thousandths of the units on offer; 0: no limit", .max = U32_MAX_TEXT},
    {"orders-per-user", CTL_U64, "N", "live or paid orders of one user (1)", .min = 1,
     .max = U32_MAX_TEXT},
    {"units-per-user", CTL_U64, "N", "units over all of a user's orders; 0: no limit",
     .max = U32_MAX_TEXT},
    {"payment-timeout", CTL_DURATION, "TIME", "how long an unpaid order holds its units (15m)",
     .min = 1, .max = DURATION_MS_MAX},
    {"late-payment", CTL_CHOICE, "POLICY", "of a payment after that (accept_if_available)",
     .choices = "refund|accept_if_available"},
    {"strikes", CTL_U64, "N", "unpaid orders until a user is denied; 0: never", .max = U32_MAX_TEXT},
    {"denial", CTL_DURATION, "TIME", "how long such a denial lasts; 0s: for good",
     .max = DURATION_MS_MAX},
    EXPECTED_VERSION,
};
static const struct ctl_parameter eligibility_list_options[] = {
    {"sale", CTL_ID, "SALE", "only of this sale"},
    LIST_OPTIONS,
};
static const struct ctl_parameter order_list_options[] = {
    {"sale", CTL_ID, "SALE", "only of this sale"},
    {"user", CTL_ID, "USER", "only of this user"},
    {"status", CTL_CHOICE, "STATUS", "only in this status",
     .choices = "pending_payment|paid|cancelled|expired|refund_due|refunded"},
    LIST_OPTIONS,
};
static const struct ctl_parameter order_place_options[] = {
    {"user", CTL_ID, "USER", "who buys", .flags = CTL_REQUIRED},
    {"line", CTL_TEXT, "SKU[=UNITS]", "what, and how many (1); may be repeated",
     .flags = CTL_REQUIRED | CTL_REPEATED},
};
static const struct ctl_parameter order_pay_options[] = {
    {"amount", CTL_U64, "N", "what was paid, in minor units; else what the order costs",
     .max = INT64_MAX},
    {"currency", CTL_TEXT, "CODE", "with --amount: ISO 4217, such as EUR"},
};
static const struct ctl_parameter order_cancel_options[] = {
    {"user", CTL_ID, "USER", "refuse unless it is this user's order"},
};
static const struct ctl_parameter order_refund_options[] = {
    {"restock", CTL_FLAG, NULL, "the units go back on sale"},
    {"reason", CTL_TEXT, "TEXT", "why, for the record", .initial = ""},
};
static const struct ctl_parameter lease_acquire_options[] = {
    {"owner", CTL_ID, "NAME", "who holds it", .flags = CTL_REQUIRED},
    {"ttl", CTL_DURATION, "TIME", "how long", .initial = "30s", .min = 1, .max = DURATION_MS_MAX},
};
#define LEASE_TOKEN                                                                                \
    {"token", CTL_U64, "N", "the fencing token that acquire printed", .min = 1, .max = INT64_MAX,  \
     .flags = CTL_REQUIRED}
static const struct ctl_parameter lease_renew_options[] = {
    {"owner", CTL_ID, "NAME", "who holds it", .flags = CTL_REQUIRED},
    LEASE_TOKEN,
    {"ttl", CTL_DURATION, "TIME", "how long from now", .initial = "30s", .min = 1,
     .max = DURATION_MS_MAX},
};
static const struct ctl_parameter lease_release_options[] = {
    {"owner", CTL_ID, "NAME", "who holds it", .flags = CTL_REQUIRED},
    LEASE_TOKEN,
};
static const struct ctl_parameter denylist_add_options[] = {
    {"reason", CTL_TEXT, "TEXT", "why, for the record", .initial = ""},
    {"until", CTL_TIME, "TIME", "RFC 3339 or +30d; else for good"},
};
static const struct ctl_parameter move_leader_operands[] = {
    {"ID", CTL_U64, NULL, "the node that shall lead; else the most up to date", .min = 1,
     .max = INT64_MAX},
};
#define MEMBER_ID(name, help)                                                                      \
    {name, CTL_U64, NULL, help, .min = 1, .max = UINT32_MAX, .flags = CTL_REQUIRED}
#define MEMBER_ADDRESSES                                                                           \
    {"RAFT", CTL_TEXT, NULL, "where it listens for its peers: 10.0.0.4:7001",                      \
     .flags = CTL_REQUIRED},                                                                       \
    {"NODE", CTL_TEXT, NULL, "where it listens for gateways and tools: 10.0.0.4:7101",             \
     .flags = CTL_REQUIRED}
#define MEMBER_WAIT                                                                                \
    {"wait", CTL_DURATION, "TIME", "how long the node may take to catch up", .initial = "10m",     \
     .min = 1, .max = DURATION_MS_MAX}
static const struct ctl_parameter member_operand[] = {MEMBER_ID("ID", "the node's id")};
static const struct ctl_parameter member_add_operands[] = {
    MEMBER_ID("ID", "the new node's id: one that was never used"),
    MEMBER_ADDRESSES,
};
static const struct ctl_parameter member_add_options[] = {
    {"as", CTL_CHOICE, "ROLE", "a standby is kept up to date, a spare is only known",
     .initial = "standby", .choices = "standby|spare"},
};
static const struct ctl_parameter member_wait_options[] = {MEMBER_WAIT};
static const struct ctl_parameter member_demote_options[] = {
    {"to", CTL_CHOICE, "ROLE", "what it will be", .initial = "standby", .choices = "standby|spare"},
};
static const struct ctl_parameter member_replace_operands[] = {
    MEMBER_ID("OLD", "the node that goes, dead or alive"),
    MEMBER_ID("NEW", "the id of the node that comes: one that was never used"),
    MEMBER_ADDRESSES,
};
#define POSTGRES_URL                                                                               \
    {"postgres-url", CTL_TEXT, "URL", "libpq URL without a password (use PGPASSFILE)",             \
     .environment = "HOLDFAST_POSTGRES_URL"}
static const struct ctl_parameter migrate_options[] = {POSTGRES_URL};
static const struct ctl_parameter persist_adopt_options[] = {
    POSTGRES_URL,
    {"cluster-id", CTL_TEXT, "UUID", "the restored cluster's id, as given to snapshot restore",
     .flags = CTL_REQUIRED},
    {"dry-run", CTL_FLAG, NULL, "say what would be set aside, and change nothing"},
};
static const struct ctl_parameter audit_options[] = {
    POSTGRES_URL,
    {"no-postgres", CTL_FLAG, NULL, "compare the nodes only"},
    {"wait", CTL_DURATION, "TIME", "how long the persister may take to catch up", .initial = "30s",
     .min = 1, .max = 3600000},
};
#define DEMO_DIR                                                                                   \
    {"dir", CTL_DIRECTORY, "DIR", "where its data, logs and secrets are", .initial = ".demo"}
static const struct ctl_parameter demo_up_options[] = {
    DEMO_DIR,
    {"nodes", CTL_U64, "N", "how many nodes", .initial = "3", .min = 1, .max = 9},
    {"postgres-url", CTL_TEXT, "URL", "use this database instead of a private one"},
    {"no-postgres", CTL_FLAG, NULL, "no PostgreSQL: the nodes keep a bounded backlog"},
    {"bin", CTL_DIRECTORY, "DIR", "where holdfastd and holdfast-gateway are, if not found"},
    {"wait", CTL_DURATION, "TIME", "how long the cluster may take to be ready", .initial = "60s",
     .min = 1, .max = 3600000},
};
static const struct ctl_parameter demo_down_options[] = {
    DEMO_DIR,
    {"wipe", CTL_FLAG, NULL, "remove its data, too"},
};
static const struct ctl_parameter demo_status_options[] = {DEMO_DIR};
static const struct ctl_parameter snapshot_save_operands[] = {
    {"FILE", CTL_FILE, NULL, "the snapshot to write", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter snapshot_operands[] = {
    {"FILE", CTL_FILE, NULL, "the snapshot", .flags = CTL_REQUIRED},
};
static const struct ctl_parameter snapshot_save_options[] = {
    {"node", CTL_U64, "ID", "the node that gives it; else a follower that is well", .min = 1,
     .max = INT64_MAX},
    {"newest", CTL_FLAG, NULL, "the newest checkpoint there is, instead of one of this moment"},
    {"force", CTL_FLAG, NULL, "replace a FILE that is there"},
};
static const struct ctl_parameter snapshot_restore_options[] = {
    {"data-dir", CTL_DIRECTORY, "DIR", "the data directory to make: missing or empty",
     .flags = CTL_REQUIRED},
    {"id", CTL_U64, "N", "the id of the node that it is for", .min = 1, .max = U32_MAX_TEXT,
     .flags = CTL_REQUIRED},
    {"member", CTL_TEXT, "ID=RAFT/NODE",
     "a member of the new cluster, as holdfastd gets it; repeat for each",
     .flags = CTL_REQUIRED | CTL_REPEATED},
    {"cluster-id", CTL_TEXT, "UUID", "the new cluster's id, the same for all its members",
     .flags = CTL_REQUIRED},
};
static const struct ctl_parameter completion_operands[] = {
    {"SHELL", CTL_CHOICE, NULL, "which shell", .choices = "bash|zsh|fish", .flags = CTL_REQUIRED},
};

/* ---- groups and commands ---- */

const struct ctl_group ctl_groups[] = {
    {"demo", "a whole cluster on this machine"},
    {"sku", "what is counted"},
    {"sale", "what is offered, when, to whom"},
    {"eligibility", "the right to order in a sale"},
    {"order", "purchases"},
    {"lease", "named locks with fencing tokens"},
    {"denylist", "users who may not buy"},
    {"member", "the nodes of the cluster"},
    {"endpoint", "what each node says of itself"},
    {"node", "one node"},
    {"log", "a node's write-ahead log"},
    {"snapshot", "backups, and clusters made from them"},
    {"migrate", "PostgreSQL's schema"},
    {"persist", "the way into PostgreSQL"},
};
const size_t ctl_groups_count = ARRAY_COUNT(ctl_groups);

const struct ctl_command ctl_commands[] = {
    {"demo up", "start a local cluster",
     "Starts nodes, a gateway and a private PostgreSQL (Debian's binaries, on a Unix socket) with\n"
     "their data under --dir, on free loopback ports, and waits until the cluster takes orders. What\n"
     "is running already stays as it is: running it again starts what is missing. Nothing outside of\n"
     "the directory is touched. It prints how to reach the cluster; DIR/env sets the same for a shell.",
     "holdfastctl demo up\n"
     "holdfastctl demo up --dir /tmp/try --nodes 1 --no-postgres\n",
     PARAMETERS(demo_up_options), .role = CTL_LOCAL, .run = demo_up},
    {"demo down", "stop the local cluster",
     "Stops exactly the processes that demo up started (by process id and start time): asks, waits,\n"
     "then kills. Data stay for the next demo up unless --wipe is given.",
     "holdfastctl demo down\n"
     "holdfastctl demo down --wipe --yes\n",
     PARAMETERS(demo_down_options), .role = CTL_LOCAL, .severe = true, .run = demo_down},
    {"demo status", "show the local cluster's processes",
     "Lists what demo up started, whether it is alive, and where its log is. Exit status 1 when\n"
     "something of it is not running.",
     "holdfastctl demo status\n"
     "holdfastctl demo status -o json\n",
     PARAMETERS(demo_status_options), .role = CTL_LOCAL, .run = demo_status},

    {"sku put", "create a SKU or change its title",
     "Creates the SKU with no units, or changes the title of one that exists. Units come and go with\n"
     "sku adjust.",
     "holdfastctl sku put phone-x --title 'Phone X, 256 GB'\n",
     OPERANDS(sku_operand), PARAMETERS(sku_put_options), .role = CTL_WRITER, .run = sku_put_run},
    {"sku get", "show a SKU", "Prints its quantities: available + reserved + sold = received.",
     "holdfastctl sku get phone-x\n"
     "holdfastctl sku get phone-x -o json\n",
     OPERANDS(sku_operand), .role = CTL_READER, .run = sku_get},
    {"sku list", "list SKUs", "Prints all SKUs and their quantities.", "holdfastctl sku list\n",
     PARAMETERS(list_options), .role = CTL_READER, .run = sku_list},
    {"sku adjust", "add or take units",
     "Adds units to what is available, or takes some away. Units that are reserved or sold cannot be\n"
     "taken.",
     "holdfastctl sku adjust phone-x +100 --reason 'first delivery'\n"
     "holdfastctl sku adjust phone-x -3 --reason damaged\n",
     OPERANDS(sku_adjust_operands), PARAMETERS(reason_options), .role = CTL_WRITER, .run = sku_adjust},

    {"sale put", "create a sale or replace its definition",
     "Takes the definition from flags, from a JSON file with the fields of PUT /v1/sales/{id}, or from\n"
     "both: flags win, and --offer replaces the file's offers. It needs at least one offer, a currency\n"
     "and the times to open and close. Times may be relative to the cluster's clock: now, +10s, -5m.",
     "holdfastctl sale put launch --currency EUR --offer phone-x=79900,max=2 --opens now --closes +1h\n"
     "holdfastctl sale put launch --file launch.json --expected-version 3\n",
     OPERANDS(sale_operand), PARAMETERS(sale_put_options), .role = CTL_WRITER, .run = sale_put_run},
    {"sale get", "show a sale", "Prints its definition, its phase and its figures.",
     "holdfastctl sale get launch\n",
     OPERANDS(sale_operand), .role = CTL_READER, .run = sale_get},
    {"sale list", "list sales", "Prints all sales with their phase and figures.",
     "holdfastctl sale list\n",
     PARAMETERS(list_options), .role = CTL_READER, .run = sale_list},
    {"sale pause", "take no orders for now",
     "New orders are refused with SALE_PAUSED until sale resume; payments and expiry go on.",
     "holdfastctl sale pause launch\n",
     OPERANDS(sale_operand), PARAMETERS(version_options), .role = CTL_WRITER, .run = sale_pause},
    {"sale resume", "take orders again", "Ends a pause.", "holdfastctl sale resume launch\n",
     OPERANDS(sale_operand), PARAMETERS(version_options), .role = CTL_WRITER, .run = sale_resume},
    {"sale close", "end a sale for good",
     "No order is taken any more and nothing opens it again. Orders that wait for payment may still\n"
     "be paid.",
     "holdfastctl sale close launch --confirm launch\n",
     OPERANDS(sale_operand), PARAMETERS(version_options), .role = CTL_WRITER, .severe = true,
     .run = sale_close},

    {"eligibility grant", "give a user the right to order",
     "At most one for each sale and user: granting again changes nothing and says so.",
     "holdfastctl eligibility grant launch alice\n",
     OPERANDS(sale_user_operands), .role = CTL_WRITER, .run = eligibility_grant_run},
    {"eligibility get", "show a user's eligibility",
     "Prints whether the user may order, and how many orders and units the user has.",
     "holdfastctl eligibility get launch alice\n",
     OPERANDS(sale_user_operands), .role = CTL_READER, .run = eligibility_get},
    {"eligibility list", "list eligibilities", "Prints eligibilities, of one sale or of all.",
     "holdfastctl eligibility list --sale launch --limit 20\n",
     PARAMETERS(eligibility_list_options), .role = CTL_READER, .run = eligibility_list},
    {"eligibility revoke", "take the right to order away", "Orders already placed stay.",
     "holdfastctl eligibility revoke launch alice\n",
     OPERANDS(sale_user_operands), .role = CTL_WRITER, .run = eligibility_revoke_run},

    {"order get", "show an order", "Prints one order as the cluster holds it in memory.",
     "holdfastctl order get 00000G0008041\n",
     OPERANDS(order_operand), .role = CTL_READER, .run = order_get},
    {"order list", "list orders",
     "Prints orders that are in memory: live ones, and finished ones that are still retained.",
     "holdfastctl order list --sale launch --status pending_payment\n",
     PARAMETERS(order_list_options), .role = CTL_READER, .run = order_list},
    {"order place", "place an order for a user",
     "All lines or none. The order holds its units until its payment deadline.",
     "holdfastctl order place launch --user alice --line phone-x\n"
     "holdfastctl order place launch --user alice --line phone-x=2 --idempotency-key cart-4711\n",
     OPERANDS(sale_operand), PARAMETERS(order_place_options), .role = CTL_WRITER, .run = order_place_run},
    {"order pay", "report a payment",
     "Applies a payment as the payment platform would report it; --idempotency-key is the payment\n"
     "event's id. Without --amount the order's own amount and currency are paid. A payment after the\n"
     "deadline is settled as the sale's late payment policy says.",
     "holdfastctl order pay 00000G0008041 --idempotency-key evt-1\n"
     "holdfastctl order pay 00000G0008041 --amount 79900 --currency EUR\n",
     OPERANDS(order_operand), PARAMETERS(order_pay_options), .role = CTL_WRITER, .run = order_pay_run},
    {"order cancel", "cancel an unpaid order", "Its units go back on sale.",
     "holdfastctl order cancel 00000G0008041\n",
     OPERANDS(order_operand), PARAMETERS(order_cancel_options), .role = CTL_WRITER, .run = order_cancel_run},
    {"order refund", "refund a paid order",
     "Marks the order refunded, with its units back on sale or not. The money is the payment\n"
     "platform's to move.",
     "holdfastctl order refund 00000G0008041 --restock --reason returned\n",
     OPERANDS(order_operand), PARAMETERS(order_refund_options), .role = CTL_WRITER, .run = order_refund_run},

    {"lease acquire", "take a named lock",
     "Prints a fencing token that grows with each holder: whoever writes elsewhere under this lock\n"
     "passes it on, and a stale one is refused there.",
     "holdfastctl lease acquire nightly-report --owner worker-1 --ttl 5m\n",
     OPERANDS(lease_operand), PARAMETERS(lease_acquire_options), .role = CTL_WRITER,
     .run = lease_acquire_run},
    {"lease renew", "keep a named lock longer", "Only its holder can, with the token of acquire.",
     "holdfastctl lease renew nightly-report --owner worker-1 --token 7 --ttl 5m\n",
     OPERANDS(lease_operand), PARAMETERS(lease_renew_options), .role = CTL_WRITER, .run = lease_renew_run},
    {"lease release", "give a named lock back", "Only its holder can, with the token of acquire.",
     "holdfastctl lease release nightly-report --owner worker-1 --token 7\n",
     OPERANDS(lease_operand), PARAMETERS(lease_release_options), .role = CTL_WRITER,
     .run = lease_release_run},
    {"lease list", "list leases", "Prints the leases that are held.", "holdfastctl lease list\n",
     PARAMETERS(list_options), .role = CTL_READER, .run = lease_list},

    {"denylist add", "deny a user",
     "The user's orders are refused from now on, for good or until a time. Orders already placed stay.",
     "holdfastctl denylist add mallory --reason 'many accounts' --until +30d --confirm mallory\n",
     OPERANDS(user_operand), PARAMETERS(denylist_add_options), .role = CTL_WRITER, .severe = true,
     .run = denylist_add},
    {"denylist remove", "let a user buy again", "Ends a denial.",
     "holdfastctl denylist remove mallory --confirm mallory\n",
     OPERANDS(user_operand), .role = CTL_WRITER, .severe = true, .run = denylist_remove},
    {"denylist list", "list denied users", "Prints users with a denial or strikes.",
     "holdfastctl denylist list\n",
     PARAMETERS(list_options), .role = CTL_READER, .run = denylist_list},

    {"member list", "list the cluster's nodes",
     "Prints the members as the leader knows them: role, connection, how far each one is.",
     "holdfastctl member list\n", .role = CTL_OPERATOR, .run = member_list},
    {"member move-leader", "let another node lead",
     "Hands leadership over without a gap in which an acknowledged order could be lost; orders wait\n"
     "for some milliseconds.",
     "holdfastctl member move-leader --yes\n"
     "holdfastctl member move-leader 2 --confirm 2\n",
     OPERANDS(move_leader_operands), .role = CTL_OPERATOR, .severe = true, .run = member_move_leader},

    {"member add", "make a node known to the cluster",
     "The node begins as a standby, which is sent everything but does not vote, or as a spare, which is\n"
     "sent nothing. It must be started without --new-cluster on an empty directory, before or after.\n"
     "Ids are not used again: a new machine gets a new one. Repeating the command does no harm.",
     "holdfastctl member add 4 10.0.0.4:7001 10.0.0.4:7101\n",
     OPERANDS(member_add_operands), PARAMETERS(member_add_options), .role = CTL_OPERATOR,
     .run = members_add},
    {"member promote", "make a member a voter",
     "Waits until the node has nearly all that the leader has, then lets it vote and count for the\n"
     "majority. Interrupted or out of time, it is finished by repeating it.",
     "holdfastctl member promote 4\n", OPERANDS(member_operand), PARAMETERS(member_wait_options),
     .role = CTL_OPERATOR, .run = members_promote},
    {"member demote", "take a member's vote away",
     "The node stays as a standby, or as a spare. Refused when too few of the remaining voters are\n"
     "connected and caught up. A leader hands over first.",
     "holdfastctl member demote 4 --yes\n"
     "holdfastctl member demote 4 --to spare --confirm 4\n",
     OPERANDS(member_operand), PARAMETERS(member_demote_options), .role = CTL_OPERATOR,
     .severe = true, .run = members_demote},
    {"member remove", "take a node out of the cluster",
     "The node notices and stops; its data directory is refused afterwards. Refused when too few of the\n"
     "remaining voters are connected and caught up. A leader hands over first.",
     "holdfastctl member remove 4 --confirm 4\n", OPERANDS(member_operand), .role = CTL_OPERATOR,
     .severe = true, .run = members_remove},
    {"member replace", "let a new node take the place of another",
     "Adds the new node as a standby, waits until it has caught up, promotes it if the old one votes,\n"
     "then removes the old one, which may be dead. Interrupted or out of time, it is finished by\n"
     "repeating it. The new node must be started without --new-cluster on an empty directory.",
     "holdfastctl member replace 2 4 10.0.0.4:7001 10.0.0.4:7101 --confirm 2\n",
     OPERANDS(member_replace_operands), PARAMETERS(member_wait_options), .role = CTL_OPERATOR,
     .severe = true, .run = members_replace},

    {"endpoint status", "show every node's state",
     "Asks each node. Exit status 1 when one does not answer.",
     "holdfastctl endpoint status\n", .role = CTL_OPERATOR, .run = endpoint_status},
    {"endpoint health", "tell which nodes are healthy",
     "A node is healthy when it answers, is ready and knows a leader. Exit status 1 when one is not.",
     "holdfastctl endpoint health\n", .role = CTL_OPERATOR, .run = endpoint_health},
    {"endpoint hash", "compare the state of all nodes",
     "Marks one log index and asks every node for the digest of its state there. Exit status 1 when\n"
     "they differ or one cannot tell.",
     "holdfastctl endpoint hash\n", .role = CTL_OPERATOR, .run = endpoint_hash},

    {"node drain", "keep a node from leading",
     "The node hands leadership over if it has it, and takes none until node undrain.",
     "holdfastctl node drain 2 --confirm 2\n",
     OPERANDS(node_operand), .role = CTL_OPERATOR, .severe = true, .run = node_drain_run},
    {"node undrain", "let a node lead again", "Ends a drain.", "holdfastctl node undrain 2\n",
     OPERANDS(node_operand), .role = CTL_OPERATOR, .run = node_undrain},
    {"node metrics", "print a node's metrics",
     "In the text format of Prometheus, for its textfile collector or a small exporter; --output does\n"
     "not change it.",
     "holdfastctl node metrics 2\n", OPERANDS(node_operand), .role = CTL_OPERATOR, .run = node_metrics},
    {"node verify", "check a data directory without starting the node",
     "Reads identity, checkpoint and log of a node that does not run, and changes nothing: checksums,\n"
     "structure, the digest of the whole state, and whether the parts belong together. Exit status 0: a\n"
     "start would accept it; 1: it is damaged, and the lines say which file, which offset and what to do;\n"
     "4: a node is running there.",
     "holdfastctl node verify /var/lib/holdfast/node-1\n"
     "holdfastctl node verify /var/lib/holdfast/node-1 -o json\n",
     OPERANDS(directory_operand), .role = CTL_LOCAL, .run = node_verify},
    {"node rebuild", "put a data directory aside, to refill from the peers",
     "Moves everything to DIR.damaged-TIME (into DIR/damaged-TIME when DIR is a mount point) and leaves a\n"
     "directory in which the node starts by filling itself from the others; it does not vote before it has\n"
     "all it may have promised. Deletes nothing. Needs a majority of the other voters to be well: with a\n"
     "majority damaged, or a single node, restore a backup instead. Exit status 4: a node is running there.",
     "holdfastctl node rebuild /var/lib/holdfast/node-1 --yes\n",
     OPERANDS(directory_operand), .role = CTL_LOCAL, .severe = true, .run = node_rebuild},
    {"log inspect", "show what a write-ahead log holds, damaged or not",
     "For people in trouble: segments with their first and last entries, term and vote, an incomplete end,\n"
     "gaps, and damage with its offset. Changes nothing and goes on behind damage. DIR is a data directory\n"
     "or the log directory in it. Exit status 0: a start would accept this log; 1: it is damaged; 4: a node\n"
     "is running there.",
     "holdfastctl log inspect /var/lib/holdfast/node-1\n"
     "holdfastctl log inspect /var/lib/holdfast/node-1 --entries -o json\n",
     OPERANDS(directory_operand), PARAMETERS(log_inspect_options), .role = CTL_LOCAL, .run = log_inspect},

    {"snapshot save", "back up the whole state into a file",
     "Takes the state as it is at one log index from one node, while orders go on, and writes FILE\n"
     "with checksums, mode 0600. FILE is there when it is whole and on disk, or not at all; one that is\n"
     "there already is refused without --force. Any node that has caught up will do: without --node a\n"
     "follower is asked, so that the leader is left alone.",
     "holdfastctl snapshot save /backup/shop-2026-11-22.snapshot\n"
     "holdfastctl snapshot save shop.snapshot --node 2 --newest\n",
     OPERANDS(snapshot_save_operands), PARAMETERS(snapshot_save_options), .role = CTL_OPERATOR,
     .run = snapshot_save},
    {"snapshot inspect", "show what a snapshot says of itself",
     "Reads the header only: cluster, log index, time, digest. It does not look for damage further on:\n"
     "snapshot verify does.",
     "holdfastctl snapshot inspect shop.snapshot\n"
     "holdfastctl snapshot inspect shop.snapshot -o json\n",
     OPERANDS(snapshot_operands), .role = CTL_LOCAL, .run = snapshot_inspect},
    {"snapshot verify", "prove that a snapshot can be restored",
     "Reads all of it, checks every checksum, loads the state into memory, compares its digest and\n"
     "checks the invariants. Needs as much memory as a node. Exit status 1 when anything is wrong, with\n"
     "the offset.",
     "holdfastctl snapshot verify /backup/shop-2026-11-22.snapshot\n",
     OPERANDS(snapshot_operands), .role = CTL_LOCAL, .run = snapshot_verify},
    {"snapshot restore", "make a data directory from a snapshot",
     "Makes the data directory of one member of a new cluster; run it for every member with the same\n"
     "FILE, members and cluster id, then start holdfastd on each directory with the same --id, --member\n"
     "and --cluster-id, without --new-cluster. The cluster id must be a new one: the restored cluster\n"
     "and the old one never talk to each other, and PostgreSQL's rows of the old one are refused. Log\n"
     "indexes go on 2^32 later, so that no order id is given twice. Nothing is restored over what is\n"
     "there.",
     "holdfastctl snapshot restore shop.snapshot --data-dir /var/lib/holdfast --id 1 "
     "--cluster-id 3c7a8a4e-62c8-4c3f-9f3b-0f6f1f0f7a11 "
     "--member 1=10.0.0.1:7001/10.0.0.1:7101 --member 2=10.0.0.2:7001/10.0.0.2:7101 "
     "--member 3=10.0.0.3:7001/10.0.0.3:7101\n",
     OPERANDS(snapshot_operands), PARAMETERS(snapshot_restore_options), .role = CTL_LOCAL,
     .run = snapshot_restore},

    {"migrate up", "bring PostgreSQL's schema up to date",
     "Applies the migrations that are missing, in order, each in a transaction, under a lock. Never\n"
     "goes back.",
     "holdfastctl migrate up --postgres-url postgresql://holdfast@db1/shop\n",
     PARAMETERS(migrate_options), .role = CTL_OPERATOR, .run = migrations_up},
    {"migrate status", "show which migrations are applied",
     "Changes nothing. Exit status 1 when some are missing.",
     "holdfastctl migrate status --postgres-url postgresql://holdfast@db1/shop\n",
     PARAMETERS(migrate_options), .role = CTL_OPERATOR, .run = migrations_status},
    {"persist status", "show how far PostgreSQL is",
     "Asks the leader, whose persister writes. Exit status 1 when it has no connection.",
     "holdfastctl persist status\n", .role = CTL_OPERATOR, .run = persist_status},
    {"persist adopt", "give PostgreSQL to a restored cluster",
     "Puts the database of the cluster that the snapshot FILE is of back to the snapshot's log index, in\n"
     "one transaction, and makes it the restored cluster's: rows that are younger go into the table\n"
     "holdfast.set_aside, orders that changed since go back to what they were. Until then a restored\n"
     "cluster's nodes refuse this database. The old cluster can write nothing here afterwards: run it\n"
     "when that cluster is gone for good. --dry-run shows how much it is about.",
     "holdfastctl persist adopt shop.snapshot --cluster-id 3c7a8a4e-62c8-4c3f-9f3b-0f6f1f0f7a11 "
     "--postgres-url postgresql://holdfast@db1/shop --dry-run\n"
     "holdfastctl persist adopt shop.snapshot --cluster-id 3c7a8a4e-62c8-4c3f-9f3b-0f6f1f0f7a11 "
     "--postgres-url postgresql://holdfast@db1/shop --yes\n",
     OPERANDS(snapshot_operands), PARAMETERS(persist_adopt_options), .role = CTL_LOCAL, .severe = true,
     .run = persist_adopt},

    {"audit", "prove that every unit is accounted for",
     "Checks on every node: the invariants by a full scan, digests equal at one log index,\n"
     "available + reserved + sold = received for each SKU. With a PostgreSQL URL also, once the\n"
     "persister has caught up: every order row by row, sums per SKU and per status, eligibilities,\n"
     "payments, watermarks, and each event in the outbox exactly once. Exit status 0 only when all\n"
     "of it is right; while orders keep coming the sums cannot be compared, and it says so.",
     "holdfastctl audit --postgres-url postgresql://holdfast@db1/shop\n"
     "holdfastctl audit --no-postgres -o json\n",
     PARAMETERS(audit_options), .role = CTL_OPERATOR, .run = audit_run},
    {"status", "show whether the cluster is well",
     "One look: leader, nodes that are ready, orders, how far PostgreSQL is. Exit status 1 when no\n"
     "order could be taken.",
     "holdfastctl status\n", .role = CTL_OPERATOR, .run = cluster_status},
    {"completion", "print a completion script", "For bash, zsh or fish, made from the same table.",
     "holdfastctl completion bash > /etc/bash_completion.d/holdfastctl\n",
     OPERANDS(completion_operands), .role = CTL_LOCAL, .run = completion_print},
    {"version", "print the version", "Prints the version of holdfastctl itself.",
     "holdfastctl version\n", .role = CTL_LOCAL, .run = version_print},
};
const size_t ctl_commands_count = ARRAY_COUNT(ctl_commands);

/* ---- walking the table ---- */

static void each_of(const struct ctl_parameter *parameters, size_t count,
                    void (*each)(void *ctx, const struct ctl_parameter *p), void *ctx)
{
    for (size_t i = 0; i < count; i++) {
        each(ctx, &parameters[i]);
    }
}

void ctl_each_option(const struct ctl_command *command,
                     void (*each)(void *ctx, const struct ctl_parameter *p), void *ctx)
{
    each_of(command->options, command->options_count, each, ctx);
    if (command->severe) {
        each_of(ctl_severe_options, ctl_severe_options_count, each, ctx);
    }
    if (command->role == CTL_WRITER) {
        each_of(ctl_writer_options, ctl_writer_options_count, each, ctx);
    }
    if (command->role == CTL_READER) {
        each_of(ctl_reader_options, ctl_reader_options_count, each, ctx);
    }
    each_of(ctl_global_options, ctl_global_options_count, each, ctx);
}

const char *ctl_role_name(enum ctl_role role)
{
    switch (role) {
    case CTL_LOCAL:
        return "local";
    case CTL_READER:
        return "reader";
    case CTL_WRITER:
        return "writer";
    case CTL_OPERATOR:
        return "operator";
    }
    CHECK_UNREACHABLE();
}

const struct ctl_command *ctl_find_command(const char *path)
{
    for (size_t i = 0; i < ctl_commands_count; i++) {
        if (strcmp(ctl_commands[i].path, path) == 0) {
            return &ctl_commands[i];
        }
    }
    return NULL;
}
