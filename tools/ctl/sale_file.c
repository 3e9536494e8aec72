/* One table of fields, read in one pass over the object: what no row names is unknown. */
#include "tools/ctl/sale_file.h"

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/limits.h"

enum field_type {
    FIELD_PROSE,
    FIELD_SKU,
    FIELD_CURRENCY,
    FIELD_TIME,
    FIELD_U64,
    FIELD_U32,
    FIELD_I64,
    FIELD_BOOL,
    FIELD_POLICY
};

struct field {
    const char *name;
    enum field_type type;
    size_t offset; /* in command_sale or command_offer */
    int64_t min, max;
};

#define SALE(member)  offsetof(struct command_sale, member)
#define OFFER(member) offsetof(struct command_offer, member)

static const struct field sale_fields[] = {
    {"title", FIELD_PROSE, SALE(title), 0, TITLE_SIZE_MAX},
    {"currency", FIELD_CURRENCY, SALE(currency), 0, 0},
    {"eligibility_opens_at", FIELD_TIME, SALE(eligibility_opens_ms), 0, 0},
    {"eligibility_closes_at", FIELD_TIME, SALE(eligibility_closes_ms), 0, 0},
    {"opens_at", FIELD_TIME, SALE(opens_ms), 0, 0},
    {"closes_at", FIELD_TIME, SALE(closes_ms), 0, 0},
    {"payment_timeout_ms", FIELD_U64, SALE(payment_timeout_ms), 1, DURATION_MS_MAX},
    {"late_payment", FIELD_POLICY, SALE(late_payment), 0, 0},
    {"eligibility_required", FIELD_BOOL, SALE(eligibility_required), 0, 0},
    {"orders_per_user_max", FIELD_U32, SALE(orders_per_user_max), 1, UINT32_MAX},
    {"units_per_user_max", FIELD_U32, SALE(units_per_user_max), 0, UINT32_MAX},
    {"eligibility_limit", FIELD_U64, SALE(eligibility_limit), 0, STOCK_MAX},
    {"eligibility_ratio_permille", FIELD_U32, SALE(eligibility_ratio_permille), 0, UINT32_MAX},
    {"strikes_max", FIELD_U32, SALE(strikes_max), 0, UINT32_MAX},
    {"denial_ms", FIELD_U64, SALE(denial_ms), 0, DURATION_MS_MAX},
};

static const struct field offer_fields[] = {
    {"sku", FIELD_SKU, OFFER(sku), 0, 0},
    {"unit_price", FIELD_I64, OFFER(unit_price), 0, UNIT_PRICE_MAX},
    {"units_per_order_max", FIELD_U32, OFFER(units_per_order_max), 1, QUANTITY_MAX},
    {"oversell_allowance", FIELD_U32, OFFER(oversell_allowance), 0, UINT32_MAX},
};

static int read_text(const struct field *f, const json_t *value, void *to)
{
    if (!json_is_string(value)) {
        return -1;
    }
    struct str s = {json_string_value(value), (uint32_t)json_string_length(value)};
    if (f->type == FIELD_SKU) {
        *(struct str *)to = s;
        return str_is_identifier(s, ID_SIZE_MAX) ? 0 : -1;
    }
    if (f->type == FIELD_PROSE) {
        *(struct str *)to = s;
        return s.len <= (uint64_t)f->max ? 0 : -1;
    }
    if (f->type == FIELD_TIME) {
        return clock_parse_rfc3339(s, (int64_t *)to);
    }
    if (f->type == FIELD_POLICY) {
        bool accept = str_equal(s, STR_LITERAL("accept_if_available"));
        *(uint8_t *)to = accept ? LATE_PAYMENT_ACCEPT_IF_AVAILABLE : LATE_PAYMENT_REFUND;
        return accept || str_equal(s, STR_LITERAL("refund")) ? 0 : -1;
    }
    for (uint32_t i = 0; i < s.len; i++) {
        if (s.ptr[i] < 'A' || s.ptr[i] > 'Z') {
            return -1;
        }
    }
    return s.len == CURRENCY_SIZE && str_copy(to, CURRENCY_SIZE + 1, s) ? 0 : -1;
}

static int read_number(const struct field *f, const json_t *value, void *to)
{
    if (!json_is_integer(value) || json_integer_value(value) < f->min ||
        json_integer_value(value) > f->max) {
        return -1;
    }
    if (f->type == FIELD_U32) {
        *(uint32_t *)to = (uint32_t)json_integer_value(value);
    } else {
        *(int64_t *)to =
            json_integer_value(value); /* the same bytes for uint64_t: it is not negative */
    }
    return 0;
}

static const char *expectation(const struct field *f)
{
    switch (f->type) {
    case FIELD_PROSE:
        return "a text of at most 120 bytes";
    case FIELD_SKU:
        return "a SKU's identifier";
    case FIELD_CURRENCY:
        return "three capital letters";
    case FIELD_TIME:
        return "an RFC 3339 time";
    case FIELD_BOOL:
        return "true or false";
    case FIELD_POLICY:
        return "refund or accept_if_available";
    case FIELD_U64:
    case FIELD_U32:
    case FIELD_I64:
        return "a whole number";
    }
    CHECK_UNREACHABLE();
}

static int read_field(const struct field *fields, size_t count, const char *name,
                      const json_t *value, void *base, struct text *wrong)
{
    for (size_t i = 0; i < count; i++) {
        const struct field *f = &fields[i];
        if (strcmp(f->name, name) != 0) {
            continue;
        }
        void *to = (char *)base + f->offset;
        int rv;
        if (f->type == FIELD_BOOL) {
            rv = json_is_boolean(value) ? 0 : -1;
            *(bool *)to = json_is_true(value);
        } else if (f->type == FIELD_U64 || f->type == FIELD_U32 || f->type == FIELD_I64) {
            rv = read_number(f, value, to);
        } else {
            rv = read_text(f, value, to);
        }
        if (rv != 0) {
            text_appendf(wrong, "%s must be %s", name, expectation(f));
            if (f->max != 0 && f->type != FIELD_PROSE) {
                text_appendf(wrong, " from %" PRId64 " to %" PRId64, f->min, f->max);
            }
        }
        return rv;
    }
    text_appendf(wrong, "unknown field %s", name);
    return -1;
}

static int read_offers(const json_t *offers, struct command_sale *sale, struct text *wrong)
{
    if (!json_is_array(offers) || json_array_size(offers) < 1 ||
        json_array_size(offers) > SALE_OFFERS_MAX) {
        text_appendf(wrong, "offers must be an array of 1 to %d objects", SALE_OFFERS_MAX);
        return -1;
    }
    size_t i;
    json_t *object;
    sale->offers_count = 0;
    json_array_foreach(offers, i, object)
    {
        struct command_offer *offer = &sale->offers[sale->offers_count++];
        *offer = (struct command_offer){.unit_price = -1, .units_per_order_max = QUANTITY_MAX};
        if (!json_is_object(object)) {
            text_appendf(wrong, "offers[%zu] must be an object", i);
            return -1;
        }
        const char *name;
        json_t *value;
        json_object_foreach(object, name, value)
        {
            struct text why = TEXT_INIT;
            int rv = read_field(offer_fields, ARRAY_COUNT(offer_fields), name, value, offer, &why);
            if (rv != 0) {
                text_appendf(wrong, "offers[%zu]: %s", i, text_cstring(&why));
            }
            text_close(&why);
            if (rv != 0) {
                return -1;
            }
        }
        if (offer->sku.len == 0 || offer->unit_price < 0) {
            text_appendf(wrong, "offers[%zu] needs sku and unit_price", i);
            return -1;
        }
    }
    return 0;
}

int sale_file_read(json_t *root, struct command_sale *sale, bool *has_offers, struct text *wrong)
{
    const char *name;
    json_t *value;
    *has_offers = false;
    json_object_foreach(root, name, value)
    {
        int rv;
        if (strcmp(name, "offers") == 0) {
            *has_offers = true;
            rv = read_offers(value, sale, wrong);
        } else {
            rv = read_field(sale_fields, ARRAY_COUNT(sale_fields), name, value, sale, wrong);
        }
        if (rv != 0) {
            return rv;
        }
    }
    return 0;
}

json_t *sale_file_load(const char *path, struct text *wrong)
{
    json_error_t error;
    json_t *root = strcmp(path, "-") == 0 ? json_loadf(stdin, JSON_REJECT_DUPLICATES, &error)
                                          : json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL && error.line <= 0) {
        text_appendf(wrong, "%s", error.text);
    } else if (root == NULL) {
        text_appendf(wrong, "line %d, column %d: %s", error.line, error.column, error.text);
    } else if (!json_is_object(root)) {
        text_appendf(wrong, "it must hold one JSON object");
        json_decref(root);
        root = NULL;
    }
    return root;
}
