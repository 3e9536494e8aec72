/* json_write: JSON text straight into an answer, without a tree. Commas are set by the writer; keys are
 * literals of this program and need no escaping, values are escaped. */
#ifndef GATEWAY_JSON_WRITE_H
#define GATEWAY_JSON_WRITE_H

#include "gateway/out.h"

struct json_writer {
    struct out *out;
    bool comma; /* the next key or element needs a comma in front */
};

static inline struct json_writer json_writer_init(struct out *o)
{
    return (struct json_writer){o, false};
}

void json_object_begin(struct json_writer *w); /* as an element or the whole */
void json_object_end(struct json_writer *w);
void json_array_begin(struct json_writer *w);
void json_array_end(struct json_writer *w);

/* "key": — then exactly one value. */
void json_key(struct json_writer *w, struct str key);

/* Values. Text must be UTF-8; what is not is replaced by U+FFFD a byte. */
void json_text(struct json_writer *w, struct str value);
void json_int(struct json_writer *w, int64_t value);
void json_uint(struct json_writer *w, uint64_t value);
void json_bool(struct json_writer *w, bool value);
void json_time(struct json_writer *w, int64_t wall_ms); /* RFC 3339 UTC with milliseconds */
void json_order_id(struct json_writer *w, uint64_t id); /* its text form */

/* A member each. */
#define json_put(w, key, type, value) (json_key(w, STR_LITERAL(key)), json_##type(w, value))

#endif
