/* Owns: reading of bodies through jansson (the strictest of the parsers measured: it refuses bad UTF-8,
 * NUL, lone surrogates, trailing bytes, comments, numbers out of 64 bits).
 *
 * Happy path: json_read_body → json_read_* for each field → json_read_end → fault.set is false.
 *
 * Failure modes: all of them are the caller's, and all end in a fault, which becomes 400
 * INVALID_REQUEST with `field`. */
#include "gateway/json_read.h"

#include <stdio.h>

#include "base/check.h"
#include "base/clock.h"
#include "proto/limits.h"
#include "proto/order_id.h"

void json_fault_set(struct json_fault *fault, const char *path, const char *name,
                    const char *detail)
{
    if (fault->set) {
        return;
    }
    fault->set = true;
    /* Names of unknown fields are the caller's: shortened, and ~ and / escaped as RFC 6901 says. */
    size_t at = (size_t)snprintf(fault->field, sizeof fault->field, "%s%s", path,
                                 name[0] != '\0' ? "/" : "");
    for (const char *p = name; *p != '\0' && at + 3 < sizeof fault->field; p++) {
        if (*p == '~' || *p == '/') {
            fault->field[at++] = '~';
            fault->field[at++] = *p == '~' ? '0' : '1';
        } else {
            fault->field[at++] = *p;
        }
    }
    fault->field[at] = '\0';
    snprintf(fault->detail, sizeof fault->detail, "%s", detail);
}

static void field_fault(struct json_fields *f, const char *name, const char *detail)
{
    json_fault_set(f->fault, f->path, name, detail);
}

void json_read_body(struct str body, json_t **root, struct json_fields *fields,
                    struct json_fault *fault)
{
    json_error_t error;
    *fault = (struct json_fault){.set = false};
    *fields = (struct json_fields){.fault = fault};
    *root = json_loadb(body.ptr, body.len, JSON_REJECT_DUPLICATES, &error);
    if (*root == NULL) {
        /* jansson cites the input in `text`; only its own words are wanted here. */
        char detail[160];
        const char *what = error.text;
        switch (json_error_code(&error)) {
        case json_error_invalid_utf8:
            what = "bad UTF-8";
            break;
        case json_error_duplicate_key:
            what = "a field is there twice";
            break;
        case json_error_premature_end_of_input:
            what = "it ends too early";
            break;
        case json_error_end_of_input_expected:
            what = "something follows the value";
            break;
        case json_error_numeric_overflow:
            what = "a number is out of range";
            break;
        case json_error_unknown:
        case json_error_out_of_memory:
        case json_error_stack_overflow:
        case json_error_cannot_open_file:
        case json_error_invalid_argument:
        case json_error_invalid_format:
        case json_error_wrong_type:
        case json_error_null_character:
        case json_error_null_value:
        case json_error_null_byte_in_key:
        case json_error_invalid_syntax:
        case json_error_item_not_found:
        case json_error_index_out_of_range:
            what = "syntax error";
            break;
        }
        snprintf(detail, sizeof detail,
                 "The body is not one JSON object: %.60s (line %d, column %d).", what, error.line,
                 error.column);
        json_fault_set(fault, "", "", detail);
        return;
    }
    if (!json_is_object(*root)) {
        json_fault_set(fault, "", "", "The body is not a JSON object.");
        return;
    }
    fields->object = *root;
}

/* The field's value, NULL when absent (a fault if needed) or when something is wrong already. */
static json_t *ask(struct json_fields *f, const char *name, bool needed)
{
    if (f->fault->set) {
        return NULL;
    }
    CHECK(f->asked_count < JSON_FIELDS_MAX);
    f->asked[f->asked_count++] = name;
    json_t *value = json_object_get(f->object, name);
    if (value == NULL && needed) {
        field_fault(f, name, "This field is missing.");
    }
    return value;
}

static struct str as_str(const json_t *value)
{
    return (struct str){json_string_value(value), (uint32_t)json_string_length(value)};
}

static json_t *ask_string(struct json_fields *f, const char *name, bool needed)
{
    json_t *value = ask(f, name, needed);
    if (value != NULL && !json_is_string(value)) {
        field_fault(f, name, "This field must be a string.");
        return NULL;
    }
    return value;
}

bool json_read_id(struct json_fields *f, const char *name, bool needed, struct str *out)
{
    json_t *value = ask_string(f, name, needed);
    if (value == NULL) {
        return false;
    }
    struct str s = as_str(value);
    if (!str_is_identifier(s, ID_SIZE_MAX)) {
        field_fault(f, name, "An id has 1 to 64 characters of A-Z a-z 0-9 . _ : @ | + ~ -.");
        return false;
    }
    *out = s;
    return true;
}

bool json_read_text(struct json_fields *f, const char *name, bool needed, uint32_t len_max,
                    struct str *out)
{
    json_t *value = ask_string(f, name, needed);
    if (value == NULL) {
        return false;
    }
    struct str s = as_str(value);
    if (s.len > len_max) {
        char detail[80];
        snprintf(detail, sizeof detail, "This text may have at most %u bytes of UTF-8.", len_max);
        field_fault(f, name, detail);
        return false;
    }
    *out = s;
    return true;
}

bool json_read_int(struct json_fields *f, const char *name, bool needed, int64_t min, int64_t max,
                   int64_t *out)
{
    json_t *value = ask(f, name, needed);
    if (value == NULL) {
        return false;
    }
    if (!json_is_integer(value)) {
        field_fault(f, name, "This field must be an integer.");
        return false;
    }
    int64_t n = json_integer_value(value);
    if (n < min || n > max) {
        char detail[120];
        snprintf(detail, sizeof detail, "This number must be between %lld and %lld.",
                 (long long)min, (long long)max);
        field_fault(f, name, detail);
        return false;
    }
    *out = n;
    return true;
}

bool json_read_bool(struct json_fields *f, const char *name, bool needed, bool *out)
{
    json_t *value = ask(f, name, needed);
    if (value == NULL) {
        return false;
    }
    if (!json_is_boolean(value)) {
        field_fault(f, name, "This field must be true or false.");
        return false;
    }
    *out = json_is_true(value);
    return true;
}

bool json_read_time(struct json_fields *f, const char *name, bool needed, int64_t *out_ms)
{
    json_t *value = ask_string(f, name, needed);
    if (value == NULL) {
        return false;
    }
    int64_t ms;
    if (clock_parse_rfc3339(as_str(value), &ms) != 0 || ms > TIME_MS_MAX) {
        field_fault(f, name,
                    "This field must be an RFC 3339 time such as 2026-11-22T20:00:00.000Z.");
        return false;
    }
    *out_ms = ms;
    return true;
}

bool json_read_currency(struct json_fields *f, const char *name, char out[static 4])
{
    json_t *value = ask_string(f, name, true);
    if (value == NULL) {
        return false;
    }
    struct str s = as_str(value);
    bool good = s.len == CURRENCY_SIZE;
    for (uint32_t i = 0; good && i < s.len; i++) {
        good = s.ptr[i] >= 'A' && s.ptr[i] <= 'Z';
    }
    if (!good) {
        field_fault(f, name, "A currency is three capital letters (ISO 4217), such as EUR.");
        return false;
    }
    memcpy(out, s.ptr, CURRENCY_SIZE);
    out[CURRENCY_SIZE] = '\0';
    return true;
}

bool json_read_order_id(struct json_fields *f, const char *name, uint64_t *out)
{
    json_t *value = ask_string(f, name, true);
    if (value == NULL) {
        return false;
    }
    if (order_id_parse(as_str(value), out) != 0) {
        field_fault(f, name, "This is not an order id (13 digits of Crockford's base 32).");
        return false;
    }
    return true;
}

bool json_read_word(struct json_fields *f, const char *name, bool needed, const char *const *words,
                    size_t count, size_t *out)
{
    json_t *value = ask_string(f, name, needed);
    if (value == NULL) {
        return false;
    }
    for (size_t i = 0; i < count; i++) {
        if (str_equal(as_str(value), str_from(words[i]))) {
            *out = i;
            return true;
        }
    }
    char detail[160];
    int at = snprintf(detail, sizeof detail, "This field must be one of:");
    for (size_t i = 0; i < count && at > 0 && (size_t)at < sizeof detail; i++) {
        at += snprintf(detail + at, sizeof detail - (size_t)at, " %s", words[i]);
    }
    field_fault(f, name, detail);
    return false;
}

json_t *json_read_objects(struct json_fields *f, const char *name, size_t count_min,
                          size_t count_max)
{
    json_t *value = ask(f, name, true);
    if (value == NULL) {
        return NULL;
    }
    if (!json_is_array(value)) {
        field_fault(f, name, "This field must be an array.");
        return NULL;
    }
    size_t count = json_array_size(value);
    if (count < count_min || count > count_max) {
        char detail[80];
        snprintf(detail, sizeof detail, "This array must have %zu to %zu elements.", count_min,
                 count_max);
        field_fault(f, name, detail);
        return NULL;
    }
    return value;
}

struct json_fields json_read_element(struct json_fields *parent, const char *name, json_t *array,
                                     size_t i)
{
    struct json_fields f = {.fault = parent->fault};
    snprintf(f.path, sizeof f.path, "%.20s/%.20s/%zu", parent->path, name, i);
    f.object = json_array_get(array, i);
    if (!json_is_object(f.object)) {
        json_fault_set(f.fault, f.path, "", "This element must be an object.");
    }
    return f;
}

void json_read_end(struct json_fields *f)
{
    if (f->fault->set || json_object_size(f->object) == 0) {
        return;
    }
    const char *key;
    json_t *value;
    json_object_foreach(f->object, key, value)
    {
        bool known = false;
        for (size_t i = 0; i < f->asked_count && !known; i++) {
            known = strcmp(f->asked[i], key) == 0;
        }
        if (!known) {
            field_fault(f, key, "There is no such field here.");
            return;
        }
    }
}
