/* json_order: the body of POST /v1/orders. */
#ifndef GATEWAY_JSON_ORDER_H
#define GATEWAY_JSON_ORDER_H

#include "gateway/json_read.h"
#include "proto/command.h"

struct order_body {
    struct str sale, user; /* user empty: not given */
    uint8_t lines_count;
    struct command_line lines[ORDER_LINES_MAX];
};

/* Reads {"sale_id", "lines": [{"sku", "quantity"}], "user_id"?} without a tree. Texts borrow from body.
 * Returns true only for bodies that json_order_read accepts with the very same values; false says
 * nothing about a body but that json_order_read must look at it (escapes, odd numbers, anything
 * wrong). */
bool json_order_read_plain(struct str body, struct order_body *out);

/* The whole of it, through jansson. *root as json_read_body; texts borrow from it. */
bool json_order_read(struct str body, json_t **root, struct order_body *out,
                     struct json_fault *fault);

#endif
