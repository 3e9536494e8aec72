/* catalog: what a scenario needs around its orders: a SKU with stock, a sale, and afterwards what
 * the cluster says about them by linearizable reads. */
#ifndef TOOLS_BENCH_CATALOG_H
#define TOOLS_BENCH_CATALOG_H

#include "proto/command.h"
#include "tools/bench/target.h"

#define CATALOG_SKUS_MAX SALE_OFFERS_MAX
#define CATALOG_CURRENCY "EUR"

/* A sale to create, with skus_count SKUs named SKU-0, SKU-1, … (just `sku` when there is one). */
struct catalog {
    char sale[ID_SIZE_MAX + 1], sku[ID_SIZE_MAX - 4];
    unsigned skus_count;
    uint64_t stock; /* of each SKU */
    int64_t unit_price;
    int64_t eligibility_opens_ms,
        eligibility_closes_ms; /* wall; 0: none, and no eligibility needed */
    int64_t opens_ms, closes_ms;
    uint64_t payment_timeout_ms, eligibility_limit;
    uint32_t orders_per_user, units_per_order;
};

/* "bench-1a2b3c4d": the sale and SKU of a run get their names from it. */
#define RUN_NAME_SIZE 32
void catalog_run_name(const char *prefix, char name[static RUN_NAME_SIZE]);

void catalog_sku_name(const struct catalog *c, unsigned i, char name[static ID_SIZE_MAX + 1]);

/* Creates SKUs, stock and sale. Returns 0, or -1 after saying why. */
int catalog_create(struct target *t, const struct catalog *c);

/* Units of all SKUs of the sale together, and its counters, at one log index. */
struct catalog_figures {
    int64_t available, reserved, sold;
    int64_t placed, paid, expired, cancelled, eligibilities;
    char phase[24];
};
int catalog_read(struct target *t, const struct catalog *c, struct catalog_figures *out);

/* An order as the list tells it. */
struct catalog_order {
    uint64_t id;
    enum order_status status;
    int64_t amount;
    char user[ID_SIZE_MAX + 1];
    uint32_t units;
};
/* All orders of the sale, sorted by id; *orders is the caller's to free. Returns 0, or -1 after
 * saying why. */
int catalog_list(struct target *t, const struct catalog *c, struct catalog_order **orders,
                 size_t *count);

#endif
