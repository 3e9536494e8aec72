/* reads: what all reading handlers share: requests to a node, pages of lists. */
#ifndef GATEWAY_READS_H
#define GATEWAY_READS_H

#include "gateway/exchange.h"

#define PAGE_LIMIT_MAX     500
#define PAGE_LIMIT_DEFAULT 100

/* Fills the List from ?limit and ?cursor. Returns false after answering with a problem. */
bool reads_page(struct exchange *x, Holdfast__List *list);

/* Begins {"items": [ … and ends it with next_cursor and a Link to the next page. */
struct json_writer reads_page_begin(struct exchange *x);
void reads_page_end(struct exchange *x, struct json_writer *w, const Holdfast__Response *response);

/* The replicated time of the answer, for countdowns: Holdfast-Time. */
void reads_put_time(struct exchange *x, const Holdfast__Response *response);

#endif
