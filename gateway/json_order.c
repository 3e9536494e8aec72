/* Owns: reading the one body that arrives a hundred times as often as all others together.
 *
 * Happy path: the plain reader walks the bytes once, takes fields in any order, strings without
 * escapes that are identifiers, quantities of plain digits. Everything else, above all everything that
 * is wrong, it leaves to jansson, which also finds the words for the fault. So the plain reader has no
 * error messages, and only one property to hold: what it accepts, jansson accepts as the same values.
 * tests/unit/gateway/test_json_order.c compares the two on mutated bodies. */
#include "gateway/json_order.h"

struct cursor {
    const char *at, *end;
};

static void skip_space(struct cursor *c)
{
    while (c->at < c->end &&
           (*c->at == ' ' || *c->at == '\n' || *c->at == '\r' || *c->at == '\t')) {
        c->at++;
    }
}

static bool take(struct cursor *c, char wanted)
{
    skip_space(c);
    if (c->at == c->end || *c->at != wanted) {
        return false;
    }
    c->at++;
    return true;
}

/* A string of printable ASCII without escapes. */
static bool take_string(struct cursor *c, struct str *out)
{
    if (!take(c, '"')) {
        return false;
    }
    const char *start = c->at;
    while (c->at < c->end && *c->at != '"') {
        if (*c->at < 0x20 || *c->at > 0x7E || *c->at == '\\') {
            return false;
        }
        c->at++;
    }
    if (c->at == c->end) {
        return false;
    }
    *out = (struct str){start, (uint32_t)(c->at - start)};
    c->at++;
    return true;
}

static bool take_id(struct cursor *c, struct str *out)
{
    return out->len == 0 && take_string(c, out) && str_is_identifier(*out, ID_SIZE_MAX);
}

/* 1..QUANTITY_MAX in plain digits, without a leading zero. */
static bool take_quantity(struct cursor *c, uint32_t *out)
{
    skip_space(c);
    uint32_t value = 0;
    if (*out != 0 || c->at == c->end || *c->at < '1' || *c->at > '9') {
        return false;
    }
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        value = value * 10 + (uint32_t)(*c->at++ - '0');
        if (value > QUANTITY_MAX) {
            return false;
        }
    }
    *out = value;
    /* A fraction or exponent would go on here; both end in what no caller expects next. */
    return true;
}

static bool take_line(struct cursor *c, struct command_line *line)
{
    if (!take(c, '{')) {
        return false;
    }
    do {
        struct str key;
        if (!take_string(c, &key) || !take(c, ':')) {
            return false;
        }
        if (str_equal(key, STR_LITERAL("sku"))) {
            if (!take_id(c, &line->sku)) {
                return false;
            }
        } else if (str_equal(key, STR_LITERAL("quantity"))) {
            if (!take_quantity(c, &line->quantity)) {
                return false;
            }
        } else {
            return false;
        }
    } while (take(c, ','));
    return take(c, '}') && line->sku.len > 0 && line->quantity > 0;
}

static bool take_lines(struct cursor *c, struct order_body *out)
{
    if (out->lines_count != 0 || !take(c, '[')) {
        return false;
    }
    do {
        if (out->lines_count == ORDER_LINES_MAX) {
            return false;
        }
        struct command_line *line = &out->lines[out->lines_count++];
        *line = (struct command_line){{NULL, 0}, 0};
        if (!take_line(c, line)) {
            return false;
        }
    } while (take(c, ','));
    return take(c, ']');
}

bool json_order_read_plain(struct str body, struct order_body *out)
{
    struct cursor c = {body.ptr, body.ptr + body.len};
    out->sale = out->user = (struct str){NULL, 0};
    out->lines_count = 0;
    if (!take(&c, '{')) {
        return false;
    }
    do {
        struct str key;
        bool good;
        if (!take_string(&c, &key) || !take(&c, ':')) {
            return false;
        }
        if (str_equal(key, STR_LITERAL("sale_id"))) {
            good = take_id(&c, &out->sale);
        } else if (str_equal(key, STR_LITERAL("user_id"))) {
            good = take_id(&c, &out->user);
        } else if (str_equal(key, STR_LITERAL("lines"))) {
            good = take_lines(&c, out);
        } else {
            good = false;
        }
        if (!good) {
            return false;
        }
    } while (take(&c, ','));
    if (!take(&c, '}')) {
        return false;
    }
    skip_space(&c);
    return c.at == c.end && out->sale.len > 0 && out->lines_count > 0;
}

bool json_order_read(struct str body, json_t **root, struct order_body *out,
                     struct json_fault *fault)
{
    struct json_fields f;
    out->sale = out->user = (struct str){NULL, 0};
    out->lines_count = 0;
    json_read_body(body, root, &f, fault);
    json_read_id(&f, "sale_id", true, &out->sale);
    json_read_id(&f, "user_id", false, &out->user);
    json_t *lines = json_read_objects(&f, "lines", 1, ORDER_LINES_MAX);
    json_read_end(&f);
    for (size_t i = 0; lines != NULL && !fault->set && i < json_array_size(lines); i++) {
        struct json_fields l = json_read_element(&f, "lines", lines, i);
        int64_t quantity = 0;
        json_read_id(&l, "sku", true, &out->lines[i].sku);
        json_read_int(&l, "quantity", true, 1, QUANTITY_MAX, &quantity);
        json_read_end(&l);
        out->lines[i].quantity = (uint32_t)quantity;
        out->lines_count = (uint8_t)(i + 1);
    }
    return !fault->set;
}
