/* sale: a whole flash sale as a story that checks itself.
 *
 * Buyers register for the right to buy (fewer rights than buyers), wait for the opening by the
 * server's clock, rush, are granted a unit or told why not, pay or do not; those who were told
 * "sold out" look at the page and come back with a new key when units return; the leader is killed
 * with -9 in the middle of the rush. In the end every figure must add up exactly.
 *
 *     BEGIN → REGISTERING → WAITING → ORDERING → RESERVED → PAYING → PAID
 *                  │                     │  ▲        └────→ LAPSED   (never pays: the order
 * expires) └→ (not eligible,     ▼  │ comes anyway)  WATCHING → GONE      (all is sold)
 *
 * buyer.c moves one buyer; sale_stage.c plays what is not a buyer (page, kill, late payment);
 * sale_check.c has the account; sale.c the options. */
#ifndef TOOLS_BENCH_SALE_H
#define TOOLS_BENCH_SALE_H

#include <stdio.h>

#include "base/histogram.h"
#include "base/prng.h"
#include "tools/bench/catalog.h"
#include "tools/bench/cluster.h"

enum buyer_state {
    BUYER_BEGIN,
    BUYER_REGISTERING,
    BUYER_WAITING, /* for the opening, or for the moment to come back */
    BUYER_ORDERING,
    BUYER_RESERVED, /* has an order; will pay */
    BUYER_PAYING,
    BUYER_PAID,
    BUYER_LAPSED,   /* has an order and will never pay it */
    BUYER_WATCHING, /* was told "sold out" */
    BUYER_GONE,
    BUYER_LOST, /* no answer for too long: the run has failed */
};

struct sale;

struct buyer {
    struct http_exchange x;
    struct sale *sale;
    enum buyer_state state;
    bool eligible, early; /* early: clicks once before the opening */
    bool in_flight;
    bool unknown;      /* some attempt of the current request ended with outcome unknown */
    unsigned clicks;   /* orders asked for, each under its own key */
    unsigned attempts; /* of the current request */
    uint64_t wake_ns;  /* when the next thing happens; 0: never by itself */
    uint64_t due_ns;   /* when the current request was meant to be sent */
    uint64_t sent_ns;  /* when it was first sent */
    struct text request;
    char user[ID_SIZE_MAX + 1];
    /* the order it was granted; at most one in the whole sale */
    uint64_t order;
    uint64_t granted_nth; /* 0-based among all grants */
    int64_t amount;
    unsigned order_click; /* the click that was granted: names the key */
};

struct sale_options {
    uint64_t buyers, units, eligibilities, payers, early;
    uint64_t lead_ms, register_ms, rush_ms, payment_timeout_ms, limit_ms, connections, seed;
    bool kill_leader, quiet;
    const char *name, *ctl, *restart_command;
};

struct sale {
    struct sale_options options;
    FILE *out; /* table and checks: standard output, or error when that gets JSON */
    struct target target;
    struct cluster cluster;
    struct catalog catalog;
    char run[RUN_NAME_SIZE];
    struct http_client *client;
    struct buyer *buyers;
    struct prng prng;
    uv_timer_t tick;
    bool tick_closed;
    uint64_t began_ns, open_ns; /* open_ns: the opening on our monotonic clock */
    /* the page that everybody looks at */
    struct http_exchange page;
    struct text page_request;
    bool page_in_flight;
    uint64_t page_next_ns;
    unsigned rounds; /* how often the page called the watchers back */
    /* the kill */
    uint64_t leader, kill_ns, failover_ns, new_leader;
    bool killed, restarted, told_open, told_sold_out, told_expired;
    /* the account, as we were told */
    struct tally registered, ordered; /* by outcome, settled requests only */
    uint64_t retries, granted, paid, paid_first, resold, lost;
    int64_t money_taken, money_returned;
    struct histogram latency_register, latency_order; /* ns, from the intended send time */
    /* the late payment */
    struct buyer *late;
    char late_status[24], refund_status[24];
};

/* ---- buyer.c ---- */

void buyer_init(struct buyer *b, struct sale *s, unsigned number);
/* Does what is due at now. */
void buyer_wake(struct buyer *b, uint64_t now);
/* Units are back: come again within spread_ns. */
void buyer_call_back(struct buyer *b, uint64_t now, uint64_t spread_ns);
/* Key of a buyer's click. */
void buyer_key(const struct buyer *b, unsigned click, char key[static KEY_SIZE_MAX + 1]);
/* Path, headers and body of a payment event for an order. */
void payment_request(struct sale *s, const char *event, uint64_t order, int64_t amount,
                     struct text *request, const char *host);

/* ---- sale_stage.c ---- */

/* Creates SKU, stock and sale, reads the server's clock and the leader. */
int sale_prepare(struct sale *s);
/* Plays until every unit is paid for and every buyer has an answer. 0, or -1 after saying why. */
int sale_play(struct sale *s);
/* A payment that comes after its order expired, and what becomes of the money. */
int sale_pay_late(struct sale *s);
/* Brings the killed node back and finds who leads. */
int sale_recover(struct sale *s);
/* An order was just granted, the nth; told by a buyer. */
void sale_granted(struct sale *s);
/* A line of the story on stderr. */
void sale_tell(struct sale *s, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* ---- sale_check.c ---- */

/* Prints the table and every check. Returns how many are wrong, -1 when the cluster cannot be
 * asked. */
int sale_report(struct sale *s);

#endif
