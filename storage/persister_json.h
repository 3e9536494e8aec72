/* persister_json: the outbox payload of an event, as docs/sql-schema.md describes it: what a
 * CloudEvent carries as its data. */
#ifndef STORAGE_PERSISTER_JSON_H
#define STORAGE_PERSISTER_JSON_H

#include "base/text.h"
#include "storage/persister_event.h"

/* "order.placed" and so on: the outbox column `type`. */
struct str persister_event_type(const struct persister_event *e);

/* Appends the payload: one JSON object, UTF-8, without spaces. */
void persister_write_payload(struct text *t, const struct persister_event *e);

#endif
