/* json_read: typed, strict reading of JSON bodies. Every field is asked for by name, type and range;
 * what was not asked for is an unknown field. The first thing wrong is kept as a fault with a pointer
 * to the field, and everything asked after it answers nothing, so that handlers read all their fields
 * and look at the fault once. */
#ifndef GATEWAY_JSON_READ_H
#define GATEWAY_JSON_READ_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/str.h"

#define JSON_FIELDS_MAX 24

struct json_fault {
    bool set;
    char field[96];   /* JSON pointer (RFC 6901): "/lines/0/quantity"; "" is the whole body */
    char detail[160]; /* a sentence for the caller */
};

/* One object being read. */
struct json_fields {
    json_t *object;
    struct json_fault *fault;
    char path[64]; /* pointer to the object itself */
    const char *asked[JSON_FIELDS_MAX];
    size_t asked_count;
};

/* Parses a body that must be one JSON object, without duplicate keys. The tree is the caller's:
 * json_decref(*root) after use, also after a fault; *root is NULL when it did not parse. */
void json_read_body(struct str body, json_t **root, struct json_fields *fields,
                    struct json_fault *fault);

/* Each returns true when the field is there and good. `needed` false: an absent field is no fault and
 * *out is left alone. Texts borrow from the tree. null is a wrong type. */
bool json_read_id(struct json_fields *f, const char *name, bool needed, struct str *out);
bool json_read_text(struct json_fields *f, const char *name, bool needed, uint32_t len_max,
                    struct str *out);
bool json_read_int(struct json_fields *f, const char *name, bool needed, int64_t min, int64_t max,
                   int64_t *out);
bool json_read_bool(struct json_fields *f, const char *name, bool needed, bool *out);
bool json_read_time(struct json_fields *f, const char *name, bool needed, int64_t *out_ms);
bool json_read_currency(struct json_fields *f, const char *name, char out[static 4]);
bool json_read_order_id(struct json_fields *f, const char *name, uint64_t *out);
/* One of `count` words; its position goes to *out. */
bool json_read_word(struct json_fields *f, const char *name, bool needed, const char *const *words,
                    size_t count, size_t *out);
/* An array of count_min..count_max objects; NULL otherwise. */
json_t *json_read_objects(struct json_fields *f, const char *name, size_t count_min,
                          size_t count_max);
/* Opens element i of such an array for reading. */
struct json_fields json_read_element(struct json_fields *parent, const char *name, json_t *array,
                                     size_t i);

/* Last: any field that was not asked for is a fault. */
void json_read_end(struct json_fields *f);

/* Says what is wrong with a field from outside, unless something is already. */
void json_fault_set(struct json_fault *fault, const char *path, const char *name,
                    const char *detail);

#endif
