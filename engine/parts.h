/* What the files of the engine offer each other. Command handlers return the result and fill the
 * fields of the reply that go with it; index, time and witness are filled around them. Each runs all
 * its checks before its first change. */
#ifndef ENGINE_PARTS_H
#define ENGINE_PARTS_H

#include "engine/state.h"

/* ---- commands, one handler each ---- */

enum result sku_put(struct engine *e, const struct command *c, struct reply *r);
enum result stock_adjust(struct engine *e, const struct command *c, struct reply *r);
enum result sale_put(struct engine *e, const struct command *c, struct reply *r);
enum result sale_control(struct engine *e, const struct command *c, struct reply *r);
enum result eligibility_grant(struct engine *e, const struct intent *in, struct reply *r);
enum result eligibility_revoke(struct engine *e, const struct intent *in, struct reply *r);
enum result order_place(struct engine *e, const struct intent *in, struct reply *r);
enum result order_cancel(struct engine *e, const struct command *c, struct reply *r);
enum result order_pay(struct engine *e, const struct command *c, struct reply *r);
enum result order_refund(struct engine *e, const struct command *c, struct reply *r);
enum result lease_acquire(struct engine *e, const struct command *c, struct reply *r);
enum result lease_renew(struct engine *e, const struct command *c, struct reply *r);
enum result lease_release(struct engine *e, const struct command *c, struct reply *r);
enum result denial_put(struct engine *e, const struct command *c, struct reply *r);
enum result denial_remove(struct engine *e, const struct command *c, struct reply *r);
enum result persist_ack(struct engine *e, const struct command *c, struct reply *r);

/* Sets the detail of the two refusals that name something, and returns them. */
enum result refuse_not_found(struct reply *r, enum reply_subject subject);
enum result refuse_capacity(struct reply *r, enum engine_limit limit);

/* ---- stock.c ---- */

struct str sku_id(const struct sku *s);
uint32_t sku_find(const struct engine *e, struct str id, uint64_t hash); /* 0: none */
/* Moves between the three quantities of a SKU; the caller has checked that they are there. */
void stock_reserve(struct engine *e, uint32_t sku, int64_t units);   /* available → reserved */
void stock_release(struct engine *e, uint32_t sku, int64_t units);   /* reserved → available */
void stock_commit(struct engine *e, uint32_t sku, int64_t units);    /* reserved → sold */
void stock_sell(struct engine *e, uint32_t sku, int64_t units);      /* available → sold */
void stock_restock(struct engine *e, uint32_t sku, int64_t units);   /* sold → available */
void stock_write_off(struct engine *e, uint32_t sku, int64_t units); /* sold → gone */

/* ---- sale.c ---- */

struct str sale_id(const struct sale *s);
uint32_t sale_find(const struct engine *e, struct str id);
enum sale_phase sale_phase_at(const struct sale *s, int64_t time_ms);
/* RESULT_OK, or the refusal of what a closed or paused sale does not do. */
enum result sale_check_running(const struct engine *e, const struct sale *s, struct reply *r);
/* The offer of a SKU in a sale; NULL: not on offer. */
const struct offer *sale_offer(const struct engine *e, uint32_t sale, uint32_t sku);
/* When a record of the sale may be forgotten that ended at end_ms. */
int64_t sale_retention_end(const struct engine *e, uint32_t sale, int64_t end_ms);
/* Retires one member of an ended sale, or parks the sale until nothing needs its members. */
void sale_retire_step(struct engine *e, uint32_t sale);
/* Something that the sale was parked for is gone. */
void sale_unpark(struct engine *e, uint32_t sale);

/* ---- user.c: users and members ---- */

struct str user_id(const struct engine *e, const struct user *u);
uint32_t user_find(const struct engine *e, struct str id, uint64_t hash);
uint32_t user_add(struct engine *e, struct str id, uint64_t hash);
/* Forgets a user of whom nothing is known any more. */
void user_release(struct engine *e, uint32_t user);
uint32_t member_find(const struct engine *e, uint32_t sale, uint32_t user);
uint32_t member_add(struct engine *e, uint32_t sale, uint32_t user);
/* The member must have no orders; the caller takes it out of the sale's chain. */
void member_remove(struct engine *e, uint32_t member);

/* ---- order.c ---- */

struct order_line {
    uint32_t sku;
    uint32_t quantity;
    int64_t unit_price;
};

/* Keyed, and so that orders of one batch stand near each other in their map: eight that follow each
 * other go into neighbouring entries. */
uint64_t order_hash(const struct engine *e, uint64_t id);
uint32_t order_find(const struct engine *e, uint64_t id);
/* Fills lines in order of first mention; returns how many. */
uint32_t order_lines(const struct engine *e, const struct order *o,
                     struct order_line lines[static ORDER_LINES_MAX]);
void order_store_lines(struct engine *e, struct order *o, const struct order_line *lines,
                       uint32_t count);
uint32_t order_units(const struct engine *e, const struct order *o);
/* The order stops counting against its user's limits. */
void order_uncount(struct engine *e, const struct order *o);
/* The SKU of the first line. */
uint32_t order_first_sku(const struct engine *e, const struct order *o);
/* The answer that placing this order gave. */
void order_placed_reply(const struct order *o, struct reply *r);
/* Ends a reservation whose deadline is over. */
void order_expire(struct engine *e, uint32_t slot);
/* The order's retention is over: forgets it, or waits on when its sale goes on longer. */
void order_retire(struct engine *e, uint32_t slot);

/* ---- denial.c ---- */

bool user_denied(const struct engine *e, const struct user *u);
void denial_strike(struct engine *e, uint32_t user, const struct sale *s);
void denial_end(struct engine *e, uint32_t user);

/* ---- lease.c ---- */

uint32_t lease_find(const struct engine *e, struct str name); /* it may have expired */
void lease_end(struct engine *e, uint32_t lease);

/* ---- event_queue.c ---- */

/* Room of the ring beyond what the ends of pending orders have been promised. */
int64_t event_room(const struct engine *e);
/* Room for events that only follow a wish, not money: keeps a margin for those of payments. */
bool event_room_for(const struct engine *e, int64_t events);
struct event *event_add(struct engine *e, enum event_kind kind, uint32_t shard);
/* One about an order as it is now. */
struct event *event_add_order(struct engine *e, enum event_kind kind, uint32_t slot);
/* Drops up to events_max acknowledged events from the front of the ring. */
void event_trim(struct engine *e, uint32_t events_max);
bool event_trimmable(const struct engine *e);

#define EVENTS_TRIM_MAX 4096 /* in one batch, and once more in each acknowledgement */

/* ---- load.c ---- */

void load_forget_early(struct engine *e);

/* ---- deadline.c ---- */

void deadlines_run(struct engine *e);

/* ---- idempotency.c ---- */

/* Answers a command whose key is known. Returns false when it is new. */
bool idempotency_answer(struct engine *e, const struct intent *in, struct reply *r);
/* Remembers the answer under the command's key. */
void idempotency_store(struct engine *e, const struct intent *in, const struct reply *r);
/* Forgets an answer, or waits on when the sale it names goes on longer. */
void idempotency_retire(struct engine *e, uint32_t answer);
struct hash128 idempotency_key_hash(const struct engine *e, struct str scope, struct str key);
void idempotency_key_remove(struct engine *e, uint64_t key_low, uint32_t value);

#endif
