/* engine_apply: one batch in, one reply per command out.
 *
 * Memory is the cost of an order, not arithmetic: user, membership, key and order each live in
 * another cache line. So a batch is worked through in windows: all commands of a window are decoded
 * and hashed, then what they will touch is fetched in rounds (map entries → user → membership →
 * order before), then they are applied one after the other. */
#include "engine/engine.h"

#include "engine/parts.h"
#include "proto/format.h"
#include "proto/order_id.h"

struct engine *engine_create(void)
{
    struct memory own = {NULL, 0};
    memory_take(&own, 1, sizeof(struct engine));
    memory_reserve(&own);
    size_t size = own.size;
    struct engine *e = memory_take(&own, 1, sizeof *e);
    (void)size;
    table_place(&e->tables, &e->root_memory, TABLE_ROOT, sizeof(struct root), 1, 1);
    memory_reserve(&e->root_memory);
    table_place(&e->tables, &e->root_memory, TABLE_ROOT, sizeof(struct root), 1, 1);
    e->root = (struct root *)(void *)e->tables.table[TABLE_ROOT].data;
    return e;
}

void engine_destroy(struct engine *e)
{
    if (e == NULL) {
        return;
    }
    load_forget_early(e);
    memory_release(&e->memory);
    memory_release(&e->root_memory);
    struct memory own = {NULL, 0};
    memory_take(&own, 1, sizeof *e);
    own.base = (uint8_t *)e;
    memory_release(&own);
}

void engine_populate(struct engine *e)
{
    if (e->memory.base != NULL) {
        memory_populate(e->memory.base, e->memory.size);
    }
}

struct engine_memory engine_index_memory(const struct engine *e)
{
    return e->index_memory;
}

/* The part of an array of `count` items of which the first `used` were in use. */
static struct engine_memory ahead_of(void *array, size_t count, size_t used, size_t item_size,
                                     size_t size)
{
    size_t left = used < count ? (count - used) * item_size : 0;
    return (struct engine_memory){(uint8_t *)array + used * item_size, left < size ? left : size};
}

void engine_memory_ahead(const struct engine *e, size_t size,
                         struct engine_memory out[ENGINE_AHEAD_COUNT])
{
    memset(out, 0, ENGINE_AHEAD_COUNT * sizeof *out);
    if (e->memory.base == NULL) {
        return;
    }
    for (unsigned id = 1; id < TABLE_COUNT; id++) {
        const struct table *t = &e->tables.table[id];
        size_t used = id == TABLE_EVENT ? e->root->event_next % e->root->events_max
                                        : (size_t)e->root->slabs[id].used_max + 1;
        out[id - 1] = ahead_of(t->data, t->records_max, used, t->record_size, size);
    }
    const struct due_heap *h = &e->pending;
    out[TABLE_COUNT - 1] = ahead_of(h->due, h->count_max, h->count, sizeof *h->due, size);
    out[TABLE_COUNT] = ahead_of(h->slot, h->count_max, h->count, sizeof *h->slot, size);
    out[TABLE_COUNT + 1] =
        ahead_of(h->place, (size_t)h->count_max + 1,
                 (size_t)e->root->slabs[TABLE_ORDER].used_max + 1, sizeof *h->place, size);
}
_Static_assert(TABLE_COUNT + 2 <= ENGINE_AHEAD_COUNT, "tables but the root, three arrays");

int engine_memory_warm(struct engine_memory part, bool huge)
{
    return memory_warm(part.at, part.size, huge);
}

enum result refuse_not_found(struct reply *r, enum reply_subject subject)
{
    r->detail = subject;
    return RESULT_NOT_FOUND;
}

enum result refuse_capacity(struct reply *r, enum engine_limit limit)
{
    r->detail = limit;
    return RESULT_CAPACITY;
}

static enum result init(struct engine *e, const struct command *c, struct reply *r)
{
    const struct command_limits *l = &c->init.limits;
    (void)r;
    if (e->root->initialized != 0 || l->sales_max > SALES_MAX) {
        return RESULT_INVALID;
    }

    /* Must succeed from here. */
    struct root *root = e->root;
    root->format = FORMAT_INITIAL; /* not this program's newest: all replicas must agree */
    root->initialized = 1;
    memcpy(root->cluster_id, c->init.cluster_id, sizeof root->cluster_id);
    memcpy(root->hash_seed, c->init.hash_seed, sizeof root->hash_seed);
    root->shards = c->init.shards;
    root->skus_max = l->skus_max;
    root->sales_max = l->sales_max;
    root->users_max = l->users_max;
    root->eligibilities_max = l->eligibilities_max;
    root->orders_max = l->orders_max;
    root->idempotency_max = l->idempotency_max;
    root->leases_max = l->leases_max;
    root->events_max = l->events_max;
    root->expiries_per_batch_max = l->expiries_per_batch_max;
    root->idempotency_retention_ms = l->idempotency_retention_ms;
    root->event_first = 1;
    root->event_next = 1;
    state_place(e);
    return RESULT_OK;
}

static enum result run(struct engine *e, const struct intent *in, struct reply *r)
{
    const struct command *c = &in->command;
    switch (c->kind) {
    case COMMAND_INIT:
        return init(e, c, r);
    case COMMAND_SKU_PUT:
        return sku_put(e, c, r);
    case COMMAND_STOCK_ADJUST:
        return stock_adjust(e, c, r);
    case COMMAND_SALE_PUT:
        return sale_put(e, c, r);
    case COMMAND_SALE_PAUSE:
    case COMMAND_SALE_RESUME:
    case COMMAND_SALE_CLOSE:
        return sale_control(e, c, r);
    case COMMAND_ELIGIBILITY_GRANT:
        return eligibility_grant(e, in, r);
    case COMMAND_ELIGIBILITY_REVOKE:
        return eligibility_revoke(e, in, r);
    case COMMAND_ORDER_PLACE:
        return order_place(e, in, r);
    case COMMAND_ORDER_CANCEL:
        return order_cancel(e, c, r);
    case COMMAND_PAYMENT_APPLY:
        return order_pay(e, c, r);
    case COMMAND_ORDER_REFUND:
        return order_refund(e, c, r);
    case COMMAND_LEASE_ACQUIRE:
        return lease_acquire(e, c, r);
    case COMMAND_LEASE_RENEW:
        return lease_renew(e, c, r);
    case COMMAND_LEASE_RELEASE:
        return lease_release(e, c, r);
    case COMMAND_DENY_PUT:
        return denial_put(e, c, r);
    case COMMAND_DENY_REMOVE:
        return denial_remove(e, c, r);
    case COMMAND_PERSIST_ACK:
        return persist_ack(e, c, r);
    case COMMAND_DIGEST_MARK:
        e->digest_wanted = true;
        return RESULT_OK;
    }
    CHECK_UNREACHABLE();
}

/* The hashes that a command needs, and the map entries they lead to. */
static void hash_intent(struct engine *e, struct intent *in)
{
    const struct command *c = &in->command;
    in->hashed = e->root->initialized != 0;
    if (!in->hashed) {
        return;
    }
    if (c->key.len > 0) {
        /* Scope and key stand side by side in the encoding, each behind its length. */
        const uint8_t *at = (const uint8_t *)c->scope.ptr - 1;
        in->key = hash_bytes128(&e->secret, at, 2 + (size_t)c->scope.len + c->key.len);
        in->fingerprint =
            hash_pair(&e->secret, hash_bytes(&e->secret, c->body, c->body_size), (uint64_t)c->kind);
        map_prefetch(&e->keys, in->key.low);
    }
    if (c->kind == COMMAND_ORDER_PLACE) {
        in->user_hash = hash_str(&e->secret, c->order_place.user);
        in->sku_hash = hash_str(&e->secret, c->order_place.lines[0].sku);
        map_prefetch(&e->users, in->user_hash);
        map_prefetch(&e->skus, in->sku_hash);
    } else if (c->kind == COMMAND_ELIGIBILITY_GRANT || c->kind == COMMAND_ELIGIBILITY_REVOKE) {
        in->user_hash = hash_str(&e->secret, c->eligibility.user);
        map_prefetch(&e->users, in->user_hash);
    } else if (c->kind == COMMAND_PAYMENT_APPLY) {
        map_prefetch(&e->orders, order_hash(e, c->payment.order));
    }
}

static bool is_about_user(enum command_kind kind)
{
    return kind == COMMAND_ORDER_PLACE || kind == COMMAND_ELIGIBILITY_GRANT ||
           kind == COMMAND_ELIGIBILITY_REVOKE;
}

static void fetch_user(struct engine *e, struct intent *in)
{
    const struct command *c = &in->command;
    in->sale = in->sku = in->user_hint = in->member_hint = 0;
    if (!in->hashed) {
        return;
    }
    if (c->kind == COMMAND_ORDER_PLACE) {
        in->sku = sku_find(e, c->order_place.lines[0].sku, in->sku_hash);
        table_prefetch(&e->tables.table[TABLE_SKU], in->sku);
    }
    if (is_about_user(c->kind)) {
        struct map_walk w = map_find(&e->users, in->user_hash);
        in->user_hint = map_next(&w);
        __builtin_prefetch(user_at(e, in->user_hint)); /* read, hardly ever written again */
        in->sale = sale_find(e, c->kind == COMMAND_ORDER_PLACE ? c->order_place.sale
                                                               : c->eligibility.sale);
    } else if (c->kind == COMMAND_PAYMENT_APPLY) {
        struct map_walk w = map_find(&e->orders, order_hash(e, c->payment.order));
        in->user_hint = map_next(&w);
        table_prefetch(&e->tables.table[TABLE_ORDER], in->user_hint);
    }
}

/* A user who is not known yet will get the slot that is free then: newcomers are counted, so that
 * the place of their first membership can be fetched, too. */
static void fetch_member_entry(struct engine *e, struct intent *in, uint32_t *newcomers)
{
    const struct command *c = &in->command;
    if (in->hashed && in->sale != 0 && is_about_user(c->kind)) {
        uint32_t user = in->user_hint;
        if (user == 0) {
            user = e->root->slabs[TABLE_USER].used_max + ++*newcomers;
        }
        in->member_hash = hash_pair(&e->secret, in->sale, user);
        map_prefetch(&e->members, in->member_hash);
    }
}

static void fetch_member(struct engine *e, struct intent *in)
{
    if (in->user_hint == 0) {
        return;
    }
    if (is_about_user(in->command.kind)) {
        if (in->sale == 0) {
            return;
        }
        struct map_walk w = map_find(&e->members, in->member_hash);
        in->member_hint = map_next(&w);
    } else {
        in->member_hint = order_at(e, in->user_hint)->member; /* of the order that is paid */
    }
    table_prefetch(&e->tables.table[TABLE_MEMBER], in->member_hint);
}

/* The user's order before, which gets a link to the new one. */
static void fetch_older_order(struct engine *e, const struct intent *in)
{
    if (in->member_hint != 0 && in->command.kind == COMMAND_ORDER_PLACE) {
        uint32_t older = member_at(e, in->member_hint)->newest_order;
        const struct table *t = &e->tables.table[TABLE_ORDER];
        __builtin_prefetch(&order_at(e, older)->newer, 1);
        __builtin_prefetch(&t->marks[older >> t->shift], 1);
    }
}

static bool is_try_again(enum result result)
{
    return result == RESULT_BACKLOG_FULL || result == RESULT_CAPACITY;
}

/* Runs a command whose key, if it has one, is new, and keeps the answer. */
static void run_and_keep(struct engine *e, struct intent *in, struct reply *r)
{
    bool keyed = in->command.key.len > 0;
    bool placing =
        in->command.kind == COMMAND_ORDER_PLACE; /* if it succeeds, the order is the key */
    if (keyed && !placing && e->root->initialized != 0 && slab_full(e, TABLE_ANSWER)) {
        r->result = (uint8_t)refuse_capacity(r, LIMIT_IDEMPOTENCY);
        return;
    }
    r->result = (uint8_t)run(e, in, r);
    if (e->about.sku != 0) {
        const struct sku *k = sku_at(e, e->about.sku);
        r->available = k->available;
        r->reserved = k->reserved;
        r->sold = k->sold;
    }
    if (!keyed || is_try_again(r->result) || (placing && r->result == RESULT_OK) ||
        e->root->initialized == 0) {
        return;
    }
    if (slab_full(e, TABLE_ANSWER)) { /* a refused order: nothing has changed */
        *r = e->blank;
        r->result = (uint8_t)refuse_capacity(r, LIMIT_IDEMPOTENCY);
        return;
    }
    if (!in->hashed) { /* the command that brought the hash seed */
        hash_intent(e, in);
    }
    idempotency_store(e, in, r);
}

static void apply_command(struct engine *e, struct intent *in, struct reply *r)
{
    *r = e->blank;
    e->about.sale = 0;
    e->about.sku = 0;
    if (!in->hashed) {
        hash_intent(e, in);
    }
    if (!in->hashed && in->command.kind != COMMAND_INIT) {
        r->result = (uint8_t)refuse_capacity(r, LIMIT_NONE);
    } else if (!in->hashed || in->command.key.len == 0 || !idempotency_answer(e, in, r)) {
        run_and_keep(e, in, r);
    }
    e->stats.commands[in->command.kind]++;
    e->stats.results[r->result]++;
}

/* Decodes up to WINDOW commands; returns how many. */
static uint32_t fill_window(struct engine *e, struct batch_reader *b)
{
    const void *data;
    size_t size;
    uint32_t count = 0;
    while (count < WINDOW) {
        int got = batch_next(b, &data, &size);
        CHECK(got >= 0);
        if (got == 0) {
            break;
        }
        CHECK(command_decode(&e->window[count].command, data, size) == 0);
        hash_intent(e, &e->window[count]);
        if (e->window[count].command.kind == COMMAND_ORDER_PLACE && e->window[count].hashed) {
            /* Where its id will stand; any shard will do, for it has no part in the hash. */
            uint64_t id = order_id_make(e->root->index, e->position + count, 0);
            map_prefetch(&e->orders, order_hash(e, id));
        }
        count++;
    }
    return count;
}

/* A mark that was under way is worked out when everything of it is folded. */
static void take_mark(struct engine *e)
{
    if (e->mark_pending != NULL && !e->tables.marking) {
        e->mark_pending->digest = e->tables.mark_digest;
        e->mark_pending = NULL;
    }
}

static void mark_digest(struct engine *e, uint64_t index)
{
    if (e->mark_pending != NULL) {
        (void)tables_digest(&e->tables);
        take_mark(e);
    }
    tables_mark(&e->tables);
    e->mark_pending = &e->marks[e->marks_next++ % DIGEST_MARKS];
    e->mark_pending->index = index;
    take_mark(e);
}

void engine_apply(struct engine *e, uint64_t index, const void *batch, size_t size,
                  engine_reply_cb reply, void *ctx)
{
    struct batch_reader b;
    CHECK(batch_open(&b, batch, size) == 0);
    CHECK(index > e->root->index);
    CHECK(b.leader_time_ms >= 0 && b.leader_time_ms <= TIME_MS_MAX);
    table_edit(&e->tables.table[TABLE_ROOT], 0); /* e->root may be written until the end */
    e->root->index = index;
    if (b.leader_time_ms > e->root->time_ms) {
        e->root->time_ms = b.leader_time_ms;
    }
    if (e->root->initialized != 0) {
        deadlines_run(e);
    }
    e->blank.index = index;
    e->blank.origin_index = index;
    e->blank.time_ms = e->root->time_ms;
    e->position = 0;
    for (uint32_t count; (count = fill_window(e, &b)) > 0;) {
        for (uint32_t i = 0; i < count; i++) {
            fetch_user(e, &e->window[i]);
        }
        for (uint32_t i = 0, newcomers = 0; i < count; i++) {
            fetch_member_entry(e, &e->window[i], &newcomers);
        }
        for (uint32_t i = 0; i < count; i++) {
            fetch_member(e, &e->window[i]);
        }
        for (uint32_t i = 0; i < count; i++) {
            fetch_older_order(e, &e->window[i]);
        }
        for (uint32_t i = 0; i < count; i++, e->position++) {
            struct reply r;
            apply_command(e, &e->window[i], &r);
            if (reply != NULL) {
                reply(ctx, e->position, &r);
            }
        }
    }
    if (e->digest_wanted) {
        e->digest_wanted = false;
        mark_digest(e, index);
    }
}

uint64_t engine_index(const struct engine *e)
{
    return e->root->index;
}

int64_t engine_time_ms(const struct engine *e)
{
    return e->root->time_ms;
}

bool engine_initialized(const struct engine *e)
{
    return e->root->initialized != 0;
}

uint64_t engine_format(const struct engine *e)
{
    return e->root->format;
}

uint32_t engine_shards(const struct engine *e)
{
    return e->root->shards;
}

const struct command_limits *engine_limits(const struct engine *e)
{
    return &e->limits;
}

uint64_t engine_digest(struct engine *e)
{
    uint64_t digest = tables_digest(&e->tables);
    take_mark(e);
    return digest;
}

size_t engine_settle(struct engine *e, size_t blocks_max)
{
    size_t returned = e->tables.returning ? tables_return(&e->tables, blocks_max) : 0;
    size_t left = tables_fold(&e->tables, blocks_max);
    take_mark(e);
    return left + returned;
}

enum engine_mark engine_get_mark(const struct engine *e, uint64_t index, uint64_t *digest)
{
    for (int i = 0; i < DIGEST_MARKS; i++) {
        if (index != 0 && e->marks[i].index == index) {
            *digest = e->marks[i].digest;
            return &e->marks[i] == e->mark_pending ? ENGINE_MARK_PENDING : ENGINE_MARK_KNOWN;
        }
    }
    return ENGINE_MARK_UNKNOWN;
}

bool engine_marked_digest(struct engine *e, uint64_t index, uint64_t *digest)
{
    if (engine_get_mark(e, index, digest) == ENGINE_MARK_PENDING) {
        (void)engine_digest(e);
    }
    return engine_get_mark(e, index, digest) == ENGINE_MARK_KNOWN;
}

void engine_get_stats(const struct engine *e, struct engine_stats *out)
{
    *out = e->stats;
    out->skus = slab_live(e, TABLE_SKU);
    out->sales = slab_live(e, TABLE_SALE);
    out->users = slab_live(e, TABLE_USER);
    out->eligibilities = slab_live(e, TABLE_MEMBER);
    out->orders = slab_live(e, TABLE_ORDER);
    out->orders_pending = e->root->orders_pending;
    out->idempotency_keys = slab_live(e, TABLE_ANSWER);
    out->leases = slab_live(e, TABLE_LEASE);
    out->denials = e->denied_users;
    out->events = e->root->event_next - e->root->event_first;
}

void engine_checkpoint_begin(struct engine *e, engine_block_cb put, void *ctx)
{
    tables_checkpoint_begin(&e->tables, put, ctx);
}

size_t engine_checkpoint_step(struct engine *e, size_t blocks_max)
{
    return tables_checkpoint_step(&e->tables, blocks_max);
}

uint64_t engine_checkpoint_digest(const struct engine *e)
{
    CHECK(e->tables.checkpointing);
    CHECK(e->tables.frozen_left == 0);
    return e->tables.frozen_digest;
}

void engine_checkpoint_end(struct engine *e, bool durable)
{
    tables_checkpoint_end(&e->tables, durable);
}

bool engine_checkpoint_ready(const struct engine *e)
{
    return !e->tables.returning;
}
