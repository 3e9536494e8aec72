#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "proto/order_id.h"
#include "tools/bench/sale.h"

static double ms(uint64_t ns)
{
    return (double)ns / 1e6;
}

static void row(const struct sale *s, const char *what, uint64_t n, const char *remark)
{
    fprintf(s->out, "  %-34s %8" PRIu64 "%s%s\n", what, n, remark[0] != '\0' ? "   " : "", remark);
}

static void rows_of(const struct sale *s, const struct tally *t)
{
    for (size_t i = 0; i < t->count; i++) {
        if (strcmp(t->rows[i].name, "OK") != 0) {
            char what[64];
            snprintf(what, sizeof what, "  refused %s", t->rows[i].name);
            row(s, what, t->rows[i].count, "");
        }
    }
}

static uint64_t tally_sum(const struct tally *t)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < t->count; i++) {
        sum += t->rows[i].count;
    }
    return sum;
}

static void table_print(const struct sale *s, const struct catalog_figures *f)
{
    const struct sale_options *o = &s->options;
    char remark[128];
    fprintf(s->out, "\n%s: %" PRIu64 " units, %" PRIu64 " buyers\n", s->run, o->units, o->buyers);
    row(s, "rights to buy asked for", tally_sum(&s->registered), "");
    row(s, "  granted", tally_get(&s->registered, "OK"), "");
    rows_of(s, &s->registered);
    snprintf(remark, sizeof remark, "each under its own key; %" PRIu64 " retries under the same",
             s->retries);
    row(s, "orders asked for", tally_sum(&s->ordered), remark);
    row(s, "  granted", tally_get(&s->ordered, "OK"), "");
    rows_of(s, &s->ordered);
    snprintf(remark, sizeof remark, "%" PRIu64 " of the first %" PRIu64 ", %" PRIu64 " sold again",
             s->paid_first, o->units, s->resold);
    row(s, "paid", s->paid, remark);
    row(s, "expired", (uint64_t)f->expired, "");
    row(s, "resold", s->resold, "");
    if (s->late != NULL) {
        snprintf(remark, sizeof remark, "%s, then %s", s->late_status, s->refund_status);
        row(s, "late payments settled", 1, remark);
    }
    fprintf(s->out, "  %-34s %8.1f   p99 %.1f ms, from the click to the final answer\n",
            "order latency p50, ms", ms(histogram_quantile(&s->latency_order, 0.5)),
            ms(histogram_quantile(&s->latency_order, 0.99)));
    if (s->kill_ns != 0) {
        snprintf(remark, sizeof remark, "leader killed with -9 after %" PRIu64 " orders",
                 (o->units + 1) / 2);
        fprintf(s->out, "  %-34s %8.1f   %s\n", "fail-over, ms", ms(s->failover_ns), remark);
    }
}

/* ---- checks ---- */

static int check(const struct sale *s, const char *what, int64_t found, int64_t expected)
{
    bool good = found == expected;
    fprintf(s->out, "  %-66s %s", what, good ? "ok" : "WRONG");
    if (!good) {
        fprintf(s->out, ": %" PRId64 ", expected %" PRId64, found, expected);
    }
    fprintf(s->out, "\n");
    return good ? 0 : 1;
}

static struct catalog_order *order_find(struct catalog_order *orders, size_t count, uint64_t id)
{
    size_t low = 0;
    size_t high = count;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (orders[mid].id < id) {
            low = mid + 1;
        } else {
            high = mid;
        }
    }
    return low < count && orders[low].id == id ? &orders[low] : NULL;
}

/* What the buyer knows of its order, as a status. */
static enum order_status status_expected(const struct sale *s, const struct buyer *b)
{
    if (b == s->late) {
        return strcmp(s->refund_status, "refunded") == 0 ? ORDER_REFUNDED : ORDER_REFUND_DUE;
    }
    return b->state == BUYER_PAID ? ORDER_PAID : ORDER_EXPIRED;
}

struct comparison {
    int64_t acknowledged, missing, other_user, other_status, twice;
};

/* Every acknowledged order against the list; listed orders that are found are marked (units 0), so
 * that one acknowledged twice, or to nobody, shows. */
static struct comparison orders_compare(const struct sale *s, struct catalog_order *listed,
                                        size_t listed_count)
{
    struct comparison c = {0};
    for (uint64_t i = 0; i < s->options.buyers; i++) {
        const struct buyer *b = &s->buyers[i];
        if (b->order_click == 0) {
            continue;
        }
        c.acknowledged++;
        struct catalog_order *o = order_find(listed, listed_count, b->order);
        if (o == NULL) {
            c.missing++;
            continue;
        }
        c.twice += o->units == 0;
        c.other_user += strcmp(o->user, b->user) != 0;
        c.other_status += o->status != status_expected(s, b);
        o->units = 0;
    }
    return c;
}

/* Asks for every granted order once more under the key that was granted: the same order must come
 * back, marked as replayed. Returns how many did not, or -1. */
static int64_t replay_all(struct sale *s)
{
    int64_t wrong = 0;
    for (uint64_t i = 0; i < s->options.buyers; i++) {
        const struct buyer *b = &s->buyers[i];
        if (b->order_click == 0) {
            continue;
        }
        char key[KEY_SIZE_MAX + 1];
        struct answer a;
        buyer_key(b, b->order_click, key);
        json_t *body = json_pack("{s:s,s:s,s:[{s:s,s:i}]}", "sale_id", s->catalog.sale, "user_id",
                                 b->user, "lines", "sku", s->catalog.sku, "quantity", 1);
        int rc = target_call(&s->target, TARGET_PUBLIC, "POST", "/v1/orders", key, body, &a);
        json_decref(body);
        if (rc != 0) {
            return -1;
        }
        uint64_t id = 0;
        bool same = a.status == 201 && a.replayed &&
                    order_id_parse(str_from(json_member_text(a.json, "order_id")), &id) == 0 &&
                    id == b->order;
        wrong += same ? 0 : 1;
        answer_close(&a);
    }
    return wrong;
}

static int checks_run(const struct sale *s, const struct catalog_figures *f,
                      const struct comparison *c, int64_t unknown_orders, int64_t money_of_paid,
                      int64_t replays_wrong)
{
    const struct sale_options *o = &s->options;
    int64_t units = (int64_t)o->units;
    int64_t rights = (int64_t)(o->eligibilities < o->buyers ? o->eligibilities : o->buyers);
    int64_t lapsed = units - (int64_t)o->payers;
    int64_t refused = (int64_t)tally_sum(&s->ordered) - (int64_t)tally_get(&s->ordered, "OK");
    int wrong = 0;
    fprintf(s->out, "\nchecks, by linearizable reads\n");
    wrong += check(s, "every buyer has a final answer to each request", (int64_t)s->lost, 0);
    wrong += check(s, "rights granted = min(asked, limit)",
                   (int64_t)tally_get(&s->registered, "OK"), rights);
    wrong += check(s, "all others were refused as exhausted",
                   (int64_t)tally_get(&s->registered, "ELIGIBILITY_EXHAUSTED"),
                   (int64_t)o->buyers - rights);
    wrong += check(s, "rights in the cluster = rights granted", f->eligibilities, rights);
    wrong += check(s, "orders granted = units + units that came back", (int64_t)s->granted,
                   units + lapsed);
    wrong += check(s, "no order without a right: refused NOT_ELIGIBLE",
                   (int64_t)tally_get(&s->ordered, "NOT_ELIGIBLE"), (int64_t)o->buyers - rights);
    wrong += check(s, "no order before the opening: refused SALE_NOT_OPEN",
                   (int64_t)tally_get(&s->ordered, "SALE_NOT_OPEN"), (int64_t)o->early);
    wrong += check(s, "all other refusals are SOLD_OUT",
                   refused - (int64_t)tally_get(&s->ordered, "NOT_ELIGIBLE") -
                       (int64_t)tally_get(&s->ordered, "SALE_NOT_OPEN"),
                   (int64_t)tally_get(&s->ordered, "SOLD_OUT"));
    wrong += check(s, "units sold = stock, none twice", f->sold, units);
    wrong += check(s, "units available or reserved", f->available + f->reserved, 0);
    wrong += check(s, "orders paid = units", f->paid, units);
    wrong += check(s, "orders of the first round that were paid", (int64_t)s->paid_first,
                   (int64_t)o->payers);
    wrong += check(s, "orders expired = orders not paid", f->expired, lapsed);
    wrong += check(s, "acknowledged orders that are missing", c->missing, 0);
    wrong += check(s, "acknowledged orders that are somebody else's", c->other_user, 0);
    wrong += check(s, "acknowledged orders with another status than was told", c->other_status, 0);
    wrong += check(s, "orders acknowledged twice", c->twice, 0);
    wrong += check(s, "orders that nobody was told of", unknown_orders, 0);
    wrong += check(s, "granted keys asked again that gave another answer", replays_wrong, 0);
    wrong += check(s, "money taken - money returned = amounts of paid orders",
                   s->money_taken - s->money_returned, money_of_paid);
    if (s->late != NULL) {
        wrong += check(s, "the late payment is for an order that is not paid, and is paid back",
                       strcmp(s->late_status, "refund_due") == 0 &&
                           strcmp(s->refund_status, "refunded") == 0,
                       1);
    }
    if (o->kill_leader) {
        wrong += check(s, "the leader was killed and another node took over",
                       s->kill_ns != 0 && s->failover_ns != 0 && s->new_leader != s->leader, 1);
    }
    return wrong;
}

static void json_print(const struct sale *s, const struct catalog_figures *f, int wrong)
{
    json_t *result = json_pack(
        "{s:s,s:s,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:I,s:f,s:f,s:f,s:I,s:i}", "benchmark", "sale",
        "sale", s->run, "eligibilities_asked", (json_int_t)tally_sum(&s->registered),
        "eligibilities_granted", (json_int_t)tally_get(&s->registered, "OK"), "orders_asked",
        (json_int_t)tally_sum(&s->ordered), "orders_granted",
        (json_int_t)tally_get(&s->ordered, "OK"), "paid", (json_int_t)s->paid, "expired",
        (json_int_t)f->expired, "resold", (json_int_t)s->resold, "retries", (json_int_t)s->retries,
        "order_p50_ms", ms(histogram_quantile(&s->latency_order, 0.5)), "order_p99_ms",
        ms(histogram_quantile(&s->latency_order, 0.99)), "failover_ms", ms(s->failover_ns),
        "killed_node", (json_int_t)(s->kill_ns != 0 ? s->leader : 0), "wrong", wrong);
    CHECK(result != NULL);
    json_dumpf(result, stdout, JSON_INDENT(2));
    printf("\n");
    json_decref(result);
}

int sale_report(struct sale *s)
{
    struct catalog_figures f;
    struct catalog_order *listed;
    size_t listed_count;
    int64_t replays_wrong = replay_all(s);
    if (replays_wrong < 0 || catalog_list(&s->target, &s->catalog, &listed, &listed_count) != 0) {
        return -1;
    }
    if (catalog_read(&s->target, &s->catalog, &f) != 0) {
        free(listed);
        return -1;
    }
    struct comparison c = orders_compare(s, listed, listed_count);
    int64_t unknown_orders = 0;
    int64_t money = 0;
    for (size_t i = 0; i < listed_count; i++) {
        unknown_orders += listed[i].units != 0;
        money += listed[i].status == ORDER_PAID ? listed[i].amount : 0;
    }
    free(listed);
    table_print(s, &f);
    int wrong = checks_run(s, &f, &c, unknown_orders, money, replays_wrong);
    if (s->target.json) {
        json_print(s, &f, wrong);
    }
    return wrong;
}
