/* Runs scenario tables: one step a line, a command and what it must answer, or an expectation.
 *
 *     scenario FILE...        README.md has the language
 *
 * After every step the whole state is checked (engine_check), a checkpoint is merged into what earlier
 * ones left, and an engine loaded from that must have the same digest. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

#include "base/check.h"
#include "engine/engine.h"
#include "proto/order_id.h"
#include "tests/unit/engine/block_store.h"

#define WORDS_MAX 96
#define NAMES_MAX 64

struct scenario {
    const char *file;
    int line;
    struct engine *engine;
    struct block_store store;
    uint64_t index;
    int64_t time_ms;
    uint64_t keys; /* made up so far */
    uint64_t events_seen;
    struct reply reply;
    struct {
        char name[32];
        uint64_t order;
    } names[NAMES_MAX];
    int names_count;
    char *words[WORDS_MAX];
    int words_count;
    int steps;
};

static _Noreturn void fail(const struct scenario *s, const char *what, const char *detail)
{
    fprintf(stderr, "%s:%d: %s%s%s\n", s->file, s->line, what, detail[0] != '\0' ? ": " : "",
            detail);
    exit(1);
}

/* ---- words ---- */

static const char *word(const struct scenario *s, int i)
{
    if (i >= s->words_count) {
        fail(s, "a word is missing", "");
    }
    return s->words[i];
}

/* The value of name=… among the words; NULL if it is not there. */
static const char *option(const struct scenario *s, const char *name)
{
    size_t len = strlen(name);
    for (int i = 1; i < s->words_count; i++) {
        if (strncmp(s->words[i], name, len) == 0 && s->words[i][len] == '=') {
            return s->words[i] + len + 1;
        }
    }
    return NULL;
}

static uint64_t order_named(const struct scenario *s, const char *name)
{
    for (int i = 0; i < s->names_count; i++) {
        if (strcmp(s->names[i].name, name) == 0) {
            return s->names[i].order;
        }
    }
    fail(s, "no order has this name", name);
}

static int64_t number(const struct scenario *s, const char *text)
{
    if (text[0] == '$') {
        return (int64_t)order_named(s, text + 1);
    }
    char *end;
    int64_t value = strtoll(text, &end, 10);
    if (end == text || *end != '\0') {
        fail(s, "not a number", text);
    }
    return value;
}

static int64_t option_number(const struct scenario *s, const char *name, int64_t initial)
{
    const char *text = option(s, name);
    return text != NULL ? number(s, text) : initial;
}

static uint64_t version_option(const struct scenario *s)
{
    const char *text = option(s, "if");
    return text != NULL ? (uint64_t)number(s, text) : COMMAND_VERSION_ANY;
}

/* Splits "a:b:c" in place. */
static int split(char *text, char **parts, int max)
{
    int count = 0;
    for (char *at = text; at != NULL && count < max; count++) {
        parts[count] = at;
        at = strchr(at, ':');
        if (at != NULL) {
            *at++ = '\0';
        }
    }
    return count;
}

/* ---- running a command ---- */

static void take_reply(void *ctx, uint32_t position, const struct reply *reply)
{
    struct scenario *s = ctx;
    (void)position;
    s->reply = *reply;
}

static void verify(struct scenario *s)
{
    char text[256];
    if (engine_check(s->engine, text, sizeof text) != 0) {
        fail(s, "an invariant is broken", text);
    }
    block_store_checkpoint(&s->store, s->engine);
    uint64_t digest = engine_digest(s->engine);
    struct engine *loaded = block_store_load(&s->store, s->index, digest, (s->index & 1) != 0);
    if (engine_digest(loaded) != digest || engine_check(loaded, text, sizeof text) != 0 ||
        engine_next_due_ms(loaded) != engine_next_due_ms(s->engine)) {
        fail(s, "the loaded engine differs", text);
    }
    if ((s->index % 3) == 0) { /* go on with the loaded one: nothing may show */
        engine_destroy(s->engine);
        s->engine = loaded;
    } else {
        engine_destroy(loaded);
    }
}

static void apply(struct scenario *s, const struct command *c)
{
    uint8_t command[COMMAND_SIZE_MAX], batch[COMMAND_SIZE_MAX + 64];
    struct batch_builder b;
    batch_begin(&b, batch, sizeof batch);
    if (c != NULL) {
        size_t size = command_encode(c, command, sizeof command);
        if (size == 0) {
            fail(s, "not a well-formed command", "");
        }
        CHECK(batch_add(&b, command, size));
    }
    s->reply = (struct reply){0};
    size_t size = batch_end(&b, s->time_ms);
    engine_apply(s->engine, ++s->index, batch, size, take_reply, s);
    verify(s);
}

/* ---- commands ---- */

static struct str text_option(const struct scenario *s, const char *name)
{
    return str_from(option(s, name));
}

static void read_limits(struct scenario *s, struct command *c)
{
    c->kind = COMMAND_INIT;
    c->init.shards = (uint32_t)option_number(s, "shards", 4);
    memset(c->init.hash_seed, 7, sizeof c->init.hash_seed);
    c->init.limits = (struct command_limits){
        .skus_max = (uint32_t)option_number(s, "skus", 8),
        .sales_max = (uint32_t)option_number(s, "sales", 8),
        .users_max = (uint32_t)option_number(s, "users", 32),
        .eligibilities_max = (uint32_t)option_number(s, "eligibilities", 32),
        .orders_max = (uint32_t)option_number(s, "orders", 32),
        .idempotency_max = (uint32_t)option_number(s, "idempotency", 128),
        .leases_max = (uint32_t)option_number(s, "leases", 4),
        .events_max = (uint32_t)option_number(s, "events", 256),
        .expiries_per_batch_max = (uint32_t)option_number(s, "expiries", 16),
        .idempotency_retention_ms = (uint64_t)option_number(s, "retention", 100000),
    };
}

static void read_offer(const struct scenario *s, char *text, struct command_offer *o)
{
    char *parts[4];
    int count = split(text, parts, 4);
    *o = (struct command_offer){.sku = str_from(parts[0]), .unit_price = 100,
                                .units_per_order_max = 10};
    if (count > 1) {
        o->unit_price = number(s, parts[1]);
    }
    if (count > 2) {
        o->units_per_order_max = (uint32_t)number(s, parts[2]);
    }
    if (count > 3) {
        o->oversell_allowance = (uint32_t)number(s, parts[3]);
    }
}

static void read_sale(struct scenario *s, struct command *c)
{
    struct command_sale *d = &c->sale_put;
    const char *policy = option(s, "late");
    *d = (struct command_sale){
        .id = str_from(word(s, 1)),
        .title = text_option(s, "title"),
        .expected_version = version_option(s),
        .opens_ms = option_number(s, "opens", 1000),
        .closes_ms = option_number(s, "closes", 100000),
        .payment_timeout_ms = (uint64_t)option_number(s, "timeout", 500),
        .late_payment = policy != NULL && strcmp(policy, "accept") == 0
                            ? LATE_PAYMENT_ACCEPT_IF_AVAILABLE
                            : LATE_PAYMENT_REFUND,
        .eligibility_required = option_number(s, "eligible", 0) != 0,
        .orders_per_user_max = (uint32_t)option_number(s, "orders", 1),
        .units_per_user_max = (uint32_t)option_number(s, "units", 0),
        .eligibility_limit = (uint64_t)option_number(s, "rights", 0),
        .eligibility_ratio_permille = (uint32_t)option_number(s, "ratio", 0),
        .strikes_max = (uint32_t)option_number(s, "strikes", 0),
        .denial_ms = (uint64_t)option_number(s, "denial", 0),
    };
    c->kind = COMMAND_SALE_PUT;
    const char *currency = option(s, "currency");
    str_copy(d->currency, sizeof d->currency, str_from(currency != NULL ? currency : "EUR"));
    const char *window = option(s, "window");
    if (window != NULL) {
        char copy[64], *parts[2];
        str_copy(copy, sizeof copy, str_from(window));
        if (split(copy, parts, 2) != 2) {
            fail(s, "window=OPENS:CLOSES", "");
        }
        d->eligibility_opens_ms = number(s, parts[0]);
        d->eligibility_closes_ms = number(s, parts[1]);
    }
    for (int i = 2; i < s->words_count; i++) {
        if (strncmp(s->words[i], "offer=", 6) == 0) {
            read_offer(s, s->words[i] + 6, &d->offers[d->offers_count++]);
        }
    }
}

static void read_order(struct scenario *s, struct command *c)
{
    c->kind = COMMAND_ORDER_PLACE;
    c->order_place.sale = str_from(word(s, 1));
    c->order_place.user = str_from(word(s, 2));
    for (int i = 3; i < s->words_count; i++) {
        char *parts[2];
        if (strchr(s->words[i], '=') != NULL || split(s->words[i], parts, 2) != 2) {
            continue;
        }
        struct command_line *l = &c->order_place.lines[c->order_place.lines_count++];
        l->sku = str_from(parts[0]);
        l->quantity = (uint32_t)number(s, parts[1]);
    }
}

static void read_lease(struct scenario *s, struct command *c)
{
    const char *verb = word(s, 1);
    bool acquire = strcmp(verb, "acquire") == 0, release = strcmp(verb, "release") == 0;
    c->kind = acquire ? COMMAND_LEASE_ACQUIRE : release ? COMMAND_LEASE_RELEASE : COMMAND_LEASE_RENEW;
    c->lease.name = str_from(word(s, 2));
    c->lease.owner = str_from(word(s, 3));
    c->lease.token = acquire ? 0 : (uint64_t)option_number(s, "token", 1);
    c->lease.ttl_ms = release ? 0 : (uint64_t)option_number(s, "ttl", 100);
}

static void read_ack(struct scenario *s, struct command *c)
{
    c->kind = COMMAND_PERSIST_ACK;
    if (strcmp(word(s, 1), "all") == 0) {
        for (uint32_t i = 0; i < engine_shards(s->engine); i++) {
            c->persist_ack.acks[c->persist_ack.count++] =
                (struct command_ack){i, engine_events_next(s->engine) - 1};
        }
        return;
    }
    for (int i = 1; i < s->words_count; i++) {
        char *parts[2];
        if (split(s->words[i], parts, 2) == 2) {
            c->persist_ack.acks[c->persist_ack.count++] =
                (struct command_ack){(uint32_t)number(s, parts[0]), (uint64_t)number(s, parts[1])};
        }
    }
}

/* Fills the command of a verb; returns false when it is none. */
static bool read_command(struct scenario *s, struct command *c)
{
    const char *verb = s->words[0];
    memset(c, 0, sizeof *c);
    if (strcmp(verb, "init") == 0) {
        read_limits(s, c);
    } else if (strcmp(verb, "sku") == 0) {
        c->kind = COMMAND_SKU_PUT;
        c->sku_put.sku = str_from(word(s, 1));
        c->sku_put.title = text_option(s, "title");
        c->sku_put.expected_version = version_option(s);
    } else if (strcmp(verb, "stock") == 0) {
        c->kind = COMMAND_STOCK_ADJUST;
        c->stock_adjust.sku = str_from(word(s, 1));
        c->stock_adjust.delta = number(s, word(s, 2));
    } else if (strcmp(verb, "sale") == 0) {
        read_sale(s, c);
    } else if (strcmp(verb, "pause") == 0 || strcmp(verb, "resume") == 0 ||
               strcmp(verb, "close") == 0) {
        c->kind = verb[0] == 'p'   ? COMMAND_SALE_PAUSE
                  : verb[0] == 'r' ? COMMAND_SALE_RESUME
                                   : COMMAND_SALE_CLOSE;
        c->sale_control.sale = str_from(word(s, 1));
        c->sale_control.expected_version = version_option(s);
    } else if (strcmp(verb, "grant") == 0 || strcmp(verb, "revoke") == 0) {
        c->kind = verb[0] == 'g' ? COMMAND_ELIGIBILITY_GRANT : COMMAND_ELIGIBILITY_REVOKE;
        c->eligibility.sale = str_from(word(s, 1));
        c->eligibility.user = str_from(word(s, 2));
    } else if (strcmp(verb, "order") == 0) {
        read_order(s, c);
    } else if (strcmp(verb, "cancel") == 0) {
        c->kind = COMMAND_ORDER_CANCEL;
        c->order_cancel.order = (uint64_t)number(s, word(s, 1));
        c->order_cancel.user = text_option(s, "user");
    } else if (strcmp(verb, "pay") == 0) {
        c->kind = COMMAND_PAYMENT_APPLY;
        c->payment.order = (uint64_t)number(s, word(s, 1));
        c->payment.amount = number(s, word(s, 2));
        const char *currency = option(s, "currency");
        str_copy(c->payment.currency, sizeof c->payment.currency,
                 str_from(currency != NULL ? currency : "EUR"));
    } else if (strcmp(verb, "refund") == 0) {
        c->kind = COMMAND_ORDER_REFUND;
        c->order_refund.order = (uint64_t)number(s, word(s, 1));
        c->order_refund.restock = option_number(s, "restock", 0) != 0;
        c->order_refund.reason = text_option(s, "reason");
    } else if (strcmp(verb, "lease") == 0) {
        read_lease(s, c);
    } else if (strcmp(verb, "deny") == 0) {
        c->kind = COMMAND_DENY_PUT;
        c->deny.user = str_from(word(s, 1));
        c->deny.reason = text_option(s, "reason");
        c->deny.until_ms = option_number(s, "until", 0);
    } else if (strcmp(verb, "undeny") == 0) {
        c->kind = COMMAND_DENY_REMOVE;
        c->deny.user = str_from(word(s, 1));
    } else if (strcmp(verb, "ack") == 0) {
        read_ack(s, c);
    } else if (strcmp(verb, "mark") == 0) {
        c->kind = COMMAND_DIGEST_MARK;
    } else {
        return false;
    }
    return true;
}

/* key=…, scope=…; a command that needs a key gets a new one when none is given. key=none: none. */
static void read_key(struct scenario *s, struct command *c, char key[static 32],
                     char scope[static 80])
{
    const char *given = option(s, "key");
    bool needs = c->kind == COMMAND_STOCK_ADJUST || c->kind == COMMAND_ORDER_PLACE ||
                 c->kind == COMMAND_PAYMENT_APPLY;
    if (given != NULL && strcmp(given, "none") == 0) {
        return;
    }
    if (given == NULL && !needs) {
        return;
    }
    if (given != NULL) {
        str_copy(key, 32, str_from(given));
    } else {
        snprintf(key, 32, "auto-%" PRIu64, ++s->keys);
    }
    if (option(s, "scope") != NULL) {
        str_copy(scope, 80, str_from(option(s, "scope")));
    } else if (c->kind == COMMAND_ORDER_PLACE) {
        snprintf(scope, 80, "u:%.*s", (int)c->order_place.user.len, c->order_place.user.ptr);
    } else {
        str_copy(scope, 80, str_from(c->kind == COMMAND_PAYMENT_APPLY ? "pay" : "k:admin"));
    }
    c->key = str_from(key);
    c->scope = str_from(scope);
}

/* ---- what must be ---- */

/* A value as the table writes it. */
static void number_text(char *out, size_t size, int64_t value)
{
    snprintf(out, size, "%" PRId64, value);
}

static const char *const subjects[] = {"none", "sku", "sale", "order", "lease", "user",
                                       "eligibility"};

static bool reply_field(const struct scenario *s, const char *name, char out[static 64])
{
    const struct reply *r = &s->reply;
    const struct {
        const char *name;
        int64_t value;
    } numbers[] = {
        {"line", r->line},           {"amount", r->amount},
        {"created", r->created_ms},  {"pay_by", r->pay_by_ms},
        {"version", (int64_t)r->version},     {"token", (int64_t)r->token},
        {"expires", r->expires_ms},  {"opens", r->opens_ms},
        {"available", r->available}, {"reserved", r->reserved},
        {"sold", r->sold},           {"replayed", (r->flags & REPLY_REPLAYED) != 0},
        {"existed", (r->flags & REPLY_EXISTED) != 0},
        {"order", (int64_t)r->order},
        {"fresh", r->origin_index == r->index},
    };
    for (size_t i = 0; i < ARRAY_COUNT(numbers); i++) {
        if (strcmp(numbers[i].name, name) == 0) {
            number_text(out, 64, numbers[i].value);
            return true;
        }
    }
    if (strcmp(name, "status") == 0) {
        str_copy(out, 64, str_from(order_status_name((enum order_status)r->order_status)));
    } else if (strcmp(name, "phase") == 0) {
        str_copy(out, 64, str_from(sale_phase_name((enum sale_phase)r->sale_phase)));
    } else if (strcmp(name, "currency") == 0) {
        str_copy(out, 64, str_from(r->currency));
    } else if (strcmp(name, "detail") == 0 && r->result == RESULT_NOT_FOUND) {
        str_copy(out, 64, str_from(subjects[r->detail]));
    } else if (strcmp(name, "detail") == 0 && r->result == RESULT_CAPACITY) {
        str_copy(out, 64, str_from(engine_limit_name((enum engine_limit)r->detail)));
    } else if (strcmp(name, "detail") == 0) {
        number_text(out, 64, r->detail);
    } else {
        return false;
    }
    return true;
}

typedef bool (*field_reader)(const struct scenario *s, const char *name, char out[static 64]);

/* Compares each name=value from word `from` on with what the reader says. */
static void compare(struct scenario *s, char **words, int count, field_reader read)
{
    for (int i = 0; i < count; i++) {
        char *equals = strchr(words[i], '=');
        char is[64] = "", wanted[64], message[256];
        if (equals == NULL) {
            fail(s, "not name=value", words[i]);
        }
        *equals = '\0';
        if (!read(s, words[i], is)) {
            fail(s, "no such field", words[i]);
        }
        str_copy(wanted, sizeof wanted, str_from(equals + 1));
        if (wanted[0] == '$') {
            number_text(wanted, sizeof wanted, number(s, equals + 1));
        }
        if (strcmp(is, wanted) != 0) {
            snprintf(message, sizeof message, "%s is %s, not %s", words[i], is, wanted);
            fail(s, "wrong", message);
        }
    }
}

static const char *expected_subject; /* what the reader below is asked about */
static const char *expected_second;

static bool sku_field(const struct scenario *s, const char *name, char out[static 64])
{
    struct sku_view v;
    if (!engine_get_sku(s->engine, str_from(expected_subject), &v)) {
        fail(s, "no such SKU", expected_subject);
    }
    int64_t value = strcmp(name, "available") == 0  ? v.available
                    : strcmp(name, "reserved") == 0 ? v.reserved
                    : strcmp(name, "sold") == 0     ? v.sold
                    : strcmp(name, "received") == 0 ? v.received
                    : strcmp(name, "version") == 0  ? (int64_t)v.version
                    : strcmp(name, "allowance") == 0 ? v.oversell_allowance
                                                    : INT64_MIN;
    number_text(out, 64, value);
    return value != INT64_MIN;
}

static bool sale_field(const struct scenario *s, const char *name, char out[static 64])
{
    static struct sale_view v;
    if (!engine_get_sale(s->engine, str_from(expected_subject), &v)) {
        fail(s, "no such sale", expected_subject);
    }
    if (strcmp(name, "phase") == 0) {
        return str_copy(out, 64, str_from(sale_phase_name(v.phase)));
    }
    int64_t value = strcmp(name, "version") == 0     ? (int64_t)v.version
                    : strcmp(name, "sold_out") == 0  ? v.sold_out
                    : strcmp(name, "granted") == 0   ? (int64_t)v.eligibilities_granted
                    : strcmp(name, "placed") == 0    ? (int64_t)v.orders_placed
                    : strcmp(name, "paid") == 0      ? (int64_t)v.orders_paid
                    : strcmp(name, "expired") == 0   ? (int64_t)v.orders_expired
                    : strcmp(name, "cancelled") == 0 ? (int64_t)v.orders_cancelled
                    : strcmp(name, "offers") == 0    ? v.offers_count
                    : strcmp(name, "closes") == 0    ? v.closes_ms
                                                     : INT64_MIN;
    number_text(out, 64, value);
    return value != INT64_MIN;
}

static bool order_field(const struct scenario *s, const char *name, char out[static 64])
{
    static struct order_view v;
    if (!engine_get_order(s->engine, (uint64_t)number(s, expected_subject), &v)) {
        fail(s, "no such order", expected_subject);
    }
    if (strcmp(name, "status") == 0) {
        return str_copy(out, 64, str_from(order_status_name(v.status)));
    }
    if (strcmp(name, "user") == 0 || strcmp(name, "sale") == 0) {
        return str_copy(out, 64, name[0] == 'u' ? v.user : v.sale);
    }
    if (strcmp(name, "lines") == 0) { /* A:2:100,B:1:50 */
        int at = 0;
        for (uint32_t i = 0; i < v.lines_count; i++) {
            at += snprintf(out + at, 64 - (size_t)at, "%s%.*s:%u:%" PRId64, i > 0 ? "," : "",
                           (int)v.lines[i].sku.len, v.lines[i].sku.ptr, v.lines[i].quantity,
                           v.lines[i].unit_price);
        }
        return true;
    }
    int64_t value = strcmp(name, "amount") == 0    ? v.amount
                    : strcmp(name, "version") == 0 ? (int64_t)v.version
                    : strcmp(name, "pay_by") == 0  ? v.pay_by_ms
                    : strcmp(name, "created") == 0 ? v.created_ms
                    : strcmp(name, "changed") == 0 ? v.changed_ms
                                                   : INT64_MIN;
    number_text(out, 64, value);
    return value != INT64_MIN;
}

static bool eligibility_field(const struct scenario *s, const char *name, char out[static 64])
{
    struct eligibility_view v;
    if (!engine_get_eligibility(s->engine, str_from(expected_subject), str_from(expected_second),
                                &v)) {
        fail(s, "nothing known of this user in the sale", expected_second);
    }
    int64_t value = strcmp(name, "granted") == 0  ? v.granted
                    : strcmp(name, "orders") == 0 ? v.orders
                    : strcmp(name, "units") == 0  ? v.units
                    : strcmp(name, "since") == 0  ? v.granted_ms
                                                  : INT64_MIN;
    number_text(out, 64, value);
    return value != INT64_MIN;
}

static bool denial_field(const struct scenario *s, const char *name, char out[static 64])
{
    struct denial_view v;
    if (!engine_get_denial(s->engine, str_from(expected_subject), &v)) {
        fail(s, "nothing held against this user", expected_subject);
    }
    if (strcmp(name, "reason") == 0) {
        return str_copy(out, 64, v.reason);
    }
    int64_t value = strcmp(name, "strikes") == 0  ? v.strikes
                    : strcmp(name, "denied") == 0 ? v.denied
                    : strcmp(name, "until") == 0  ? v.until_ms
                                                  : INT64_MIN;
    number_text(out, 64, value);
    return value != INT64_MIN;
}

static bool lease_field(const struct scenario *s, const char *name, char out[static 64])
{
    struct lease_view v;
    if (!engine_get_lease(s->engine, str_from(expected_subject), &v)) {
        fail(s, "no such lease", expected_subject);
    }
    if (strcmp(name, "owner") == 0) {
        return str_copy(out, 64, v.owner);
    }
    int64_t value = strcmp(name, "token") == 0     ? (int64_t)v.token
                    : strcmp(name, "expires") == 0 ? v.expires_ms
                                                   : INT64_MIN;
    number_text(out, 64, value);
    return value != INT64_MIN;
}

static bool stats_field(const struct scenario *s, const char *name, char out[static 64])
{
    struct engine_stats v;
    engine_get_stats(s->engine, &v);
    int64_t value = strcmp(name, "orders") == 0          ? (int64_t)v.orders
                    : strcmp(name, "pending") == 0       ? (int64_t)v.orders_pending
                    : strcmp(name, "users") == 0         ? (int64_t)v.users
                    : strcmp(name, "eligibilities") == 0 ? (int64_t)v.eligibilities
                    : strcmp(name, "keys") == 0          ? (int64_t)v.idempotency_keys
                    : strcmp(name, "leases") == 0        ? (int64_t)v.leases
                    : strcmp(name, "denials") == 0       ? (int64_t)v.denials
                    : strcmp(name, "events") == 0        ? (int64_t)v.events
                    : strcmp(name, "first") == 0 ? (int64_t)engine_events_first(s->engine)
                                                         : INT64_MIN;
    number_text(out, 64, value);
    return value != INT64_MIN;
}

/* Events since they were last expected: "kind:user" words, "kind:user:payment:reason:restocked". */
static void expect_events(struct scenario *s)
{
    int at = 2;
    uint64_t sequence = s->events_seen + 1;
    for (; sequence < engine_events_next(s->engine); sequence++, at++) {
        static struct event_view v;
        char full[256], brief[128];
        if (engine_read_events(s->engine, sequence, &v, 1) != 1 || v.sequence != sequence) {
            fail(s, "an event was trimmed before it was expected", "");
        }
        snprintf(brief, sizeof brief, "%s:%.*s", event_kind_name(v.kind), (int)v.user.len,
                 v.user.ptr);
        snprintf(full, sizeof full, "%s:%.*s:%.*s:%d", brief, (int)v.payment.len, v.payment.ptr,
                 (int)v.reason.len, v.reason.ptr, v.restocked);
        if (at >= s->words_count) {
            fail(s, "an event too many", full);
        }
        if (strcmp(s->words[at], brief) != 0 && strcmp(s->words[at], full) != 0) {
            fail(s, s->words[at], full);
        }
    }
    if (at < s->words_count) {
        fail(s, "an event is missing", s->words[at]);
    }
    s->events_seen = sequence - 1;
}

static void expect_absent(struct scenario *s)
{
    const char *what = word(s, 2);
    struct str id = str_from(word(s, 3));
    static struct order_view order;
    struct lease_view lease;
    struct denial_view denial;
    struct eligibility_view eligibility;
    bool there = strcmp(what, "order") == 0 ? engine_get_order(s->engine, (uint64_t)number(s, word(s, 3)), &order)
                 : strcmp(what, "lease") == 0  ? engine_get_lease(s->engine, id, &lease)
                 : strcmp(what, "denial") == 0 ? engine_get_denial(s->engine, id, &denial)
                 : strcmp(what, "eligibility") == 0
                     ? engine_get_eligibility(s->engine, id, str_from(word(s, 4)), &eligibility)
                     : true;
    if (there) {
        fail(s, "it is there", word(s, 3));
    }
}

static void expect_due(struct scenario *s)
{
    int64_t wanted = strcmp(word(s, 2), "never") == 0 ? INT64_MAX : number(s, word(s, 2));
    if (engine_next_due_ms(s->engine) != wanted) {
        char is[32];
        number_text(is, sizeof is, engine_next_due_ms(s->engine));
        fail(s, "due at another time", is);
    }
}

static void expect_step(struct scenario *s)
{
    static const struct {
        const char *what;
        int subjects;
        field_reader read;
    } readers[] = {
        {"sku", 1, sku_field},       {"sale", 1, sale_field},
        {"order", 1, order_field},   {"eligibility", 2, eligibility_field},
        {"denial", 1, denial_field}, {"lease", 1, lease_field},
        {"stats", 0, stats_field},
    };
    const char *what = word(s, 1);
    if (strcmp(what, "events") == 0) {
        expect_events(s);
        return;
    }
    if (strcmp(what, "no") == 0) {
        expect_absent(s);
        return;
    }
    if (strcmp(what, "due") == 0) {
        expect_due(s);
        return;
    }
    for (size_t i = 0; i < ARRAY_COUNT(readers); i++) {
        if (strcmp(readers[i].what, what) == 0) {
            expected_subject = readers[i].subjects > 0 ? word(s, 2) : "";
            expected_second = readers[i].subjects > 1 ? word(s, 3) : "";
            int from = 2 + readers[i].subjects;
            compare(s, s->words + from, s->words_count - from, readers[i].read);
            return;
        }
    }
    fail(s, "expect what", what);
}

/* ---- steps ---- */

static void command_step(struct scenario *s)
{
    int arrow = 0;
    while (arrow < s->words_count && strcmp(s->words[arrow], "->") != 0) {
        arrow++;
    }
    int count = s->words_count;
    s->words_count = arrow; /* what follows is not the command's */
    static struct command c;
    char key[32], scope[80];
    if (!read_command(s, &c)) {
        fail(s, "no such step", s->words[0]);
    }
    read_key(s, &c, key, scope);
    const char *name = option(s, "as");
    apply(s, &c);
    if (name != NULL) {
        CHECK(s->names_count < NAMES_MAX);
        str_copy(s->names[s->names_count].name, 32, str_from(name));
        s->names[s->names_count++].order = s->reply.order;
    }
    s->words_count = count;
    const char *wanted = arrow + 1 < count ? s->words[arrow + 1] : "OK";
    if (strcmp(wanted, result_code((enum result)s->reply.result)) != 0) {
        fail(s, "answered", result_code((enum result)s->reply.result));
    }
    if (arrow + 2 < count) {
        compare(s, s->words + arrow + 2, count - arrow - 2, reply_field);
    }
}

static void restart(struct scenario *s)
{
    engine_destroy(s->engine);
    block_store_clear(&s->store);
    s->engine = engine_create();
    s->index = 0;
    s->time_ms = 0;
    s->events_seen = 0;
    s->names_count = 0;
}

static void step(struct scenario *s)
{
    const char *verb = s->words[0];
    if (verb[0] == '@') { /* time passes, and an empty batch shows it */
        s->time_ms = number(s, verb + 1);
        apply(s, NULL);
    } else if (strcmp(verb, "clock") == 0) { /* time passes; the next batch shows it */
        s->time_ms = number(s, word(s, 1));
    } else if (strcmp(verb, "expect") == 0) {
        expect_step(s);
    } else {
        if (strcmp(verb, "init") == 0 && option(s, "again") == NULL) {
            restart(s);
        }
        command_step(s);
    }
    s->steps++;
}

static void run_file(const char *path)
{
    FILE *f = fopen(path, "r");
    if (f == NULL) {
        perror(path);
        exit(1);
    }
    struct scenario s = {.file = path, .engine = engine_create()};
    char line[1024];
    while (fgets(line, sizeof line, f) != NULL) {
        s.line++;
        char *comment = strchr(line, '#');
        if (comment != NULL) {
            *comment = '\0';
        }
        s.words_count = 0;
        for (char *w = strtok(line, " \t\r\n"); w != NULL; w = strtok(NULL, " \t\r\n")) {
            CHECK(s.words_count < WORDS_MAX);
            s.words[s.words_count++] = w;
        }
        if (s.words_count > 0) {
            step(&s);
        }
    }
    fclose(f);
    if (s.steps == 0) {
        fail(&s, "no step in it", "");
    }
    printf("%s: %d steps\n", path, s.steps);
    engine_destroy(s.engine);
    block_store_clear(&s.store);
}

int main(int argc, char **argv)
{
    CHECK(argc > 1);
    for (int i = 1; i < argc; i++) {
        run_file(argv[i]);
    }
    return 0;
}
