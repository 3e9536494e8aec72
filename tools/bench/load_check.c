/* load_check: was every order that we asked for granted or refused rightly, and is every
 * acknowledged one there, once? Reads are linearizable, and the load has stopped, so the figures
 * must be exact. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "tools/bench/load.h"

static int u64_compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a;
    uint64_t y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static int verdict_print(FILE *out, bool good, const char *what, uint64_t found, uint64_t expected)
{
    fprintf(out, "  %-58s %12" PRIu64 "  %s", what, found, good ? "ok" : "WRONG");
    if (!good) {
        fprintf(out, ": expected %" PRIu64, expected);
    }
    fputc('\n', out);
    return good ? 0 : 1;
}

/* Both sorted. *missing: acknowledged and not listed; *strange: listed and not acknowledged;
 * *twice: one id acknowledged for two requests. */
static void orders_compare(const uint64_t *acknowledged, size_t acknowledged_count,
                           const struct catalog_order *listed, size_t listed_count,
                           uint64_t *missing, uint64_t *strange, uint64_t *twice)
{
    size_t i = 0;
    size_t j = 0;
    *missing = *strange = *twice = 0;
    while (i < acknowledged_count || j < listed_count) {
        if (i > 0 && i < acknowledged_count && acknowledged[i] == acknowledged[i - 1]) {
            (*twice)++;
            i++;
        } else if (j == listed_count ||
                   (i < acknowledged_count && acknowledged[i] < listed[j].id)) {
            (*missing)++;
            i++;
        } else if (i == acknowledged_count || listed[j].id < acknowledged[i]) {
            (*strange)++;
            j++;
        } else {
            i++;
            j++;
        }
    }
}

int load_check(struct load *l, struct target *t, FILE *out)
{
    const struct catalog *c = l->options.catalog;
    struct catalog_order *listed;
    size_t listed_count;
    struct catalog_figures f;
    if (catalog_list(t, c, &listed, &listed_count) != 0) {
        return -1;
    }
    if (catalog_read(t, c, &f) != 0) {
        free(listed);
        return -1;
    }
    if (l->orders_count > 0) {
        qsort(l->orders, l->orders_count, sizeof *l->orders, u64_compare);
    }
    uint64_t missing, strange, twice;
    orders_compare(l->orders, l->orders_count, listed, listed_count, &missing, &strange, &twice);
    uint64_t units = 0;
    for (size_t i = 0; i < listed_count; i++) {
        units += listed[i].units;
    }
    free(listed);

    uint64_t quantity = l->options.quantity;
    uint64_t stock = c->stock * c->skus_count;
    /* Asked for units and was told of the stock: everybody but those refused for other reasons. */
    uint64_t asked = l->granted + tally_get(&l->tally, "SOLD_OUT");
    uint64_t fair = c->skus_count > 1 && l->granted < stock / quantity
                        ? l->granted /* several SKUs: one may be sold out while others are not */
                    : asked < stock / quantity ? asked
                                               : stock / quantity;
    int wrong = 0;
    wrong += verdict_print(out, l->unknown_count == 0, "requests whose outcome stayed unknown",
                           l->unknown_count, 0);
    wrong +=
        verdict_print(out, l->granted == fair, "granted = min(asked, stock)", l->granted, fair);
    wrong +=
        verdict_print(out, missing == 0, "acknowledged orders that are not listed", missing, 0);
    wrong += verdict_print(out, twice == 0, "order ids acknowledged to two requests", twice, 0);
    wrong += verdict_print(out, strange <= l->unknown_count,
                           "listed orders that nobody was told of", strange, l->unknown_count);
    wrong += verdict_print(out, (uint64_t)(f.reserved + f.sold) == units,
                           "units reserved or sold = units of listed orders",
                           (uint64_t)(f.reserved + f.sold), units);
    wrong += verdict_print(out, (uint64_t)(f.available + f.reserved + f.sold) == stock,
                           "available + reserved + sold = received",
                           (uint64_t)(f.available + f.reserved + f.sold), stock);
    return wrong;
}
