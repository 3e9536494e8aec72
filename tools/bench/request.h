/* request: writing HTTP requests and judging answers: what every subcommand of holdfast-bench
 * shares. */
#ifndef TOOLS_BENCH_REQUEST_H
#define TOOLS_BENCH_REQUEST_H

#include "base/text.h"
#include "tools/bench/http_client.h"

struct request {
    const char *method, *path; /* path: with its query, already encoded */
    const char *host;
    const char *bearer;  /* API key or user token; NULL: none */
    const char *key;     /* Idempotency-Key without quotes; NULL: none */
    const char *headers; /* more header lines, each ended by CR LF; NULL: none */
    const char *body;    /* JSON; NULL: none */
};

/* Appends the whole request. */
void request_write(struct text *to, const struct request *r);

/* What an answer means to somebody who wants to know whether the command happened. */
enum verdict {
    VERDICT_DONE,      /* 2xx: it happened */
    VERDICT_REFUSED,   /* it did not and, under this key, never will */
    VERDICT_TRY_AGAIN, /* it did not happen: 429, 503, or never sent. The same key may be used again
                        */
    VERDICT_UNKNOWN,   /* it may have happened: ask again with the same key */
};
enum verdict request_judge(enum http_failure failure, const struct http_reply *reply);

/* How long to wait before asking again: what the server asked for, else growing with the attempts
 * so far (0, 1, …) from 10 ms to 500 ms. In ms. */
uint64_t request_backoff_ms(const struct http_reply *reply, unsigned attempts);

/* The text value of a member anywhere in a JSON body, by scanning: for the hot path only, where the
 * values looked for (codes, order ids) hold no escapes. name: with quotes and colon, "\"code\":".
 * Empty when absent. */
struct str request_scan_text(struct str body, struct str name);

/* The id of the order that an answer to POST /v1/orders gives, 0 when there is none. */
uint64_t request_order_id(const struct http_reply *reply);

/* Short name of an answer for tables: problem code, "OK", or the failure's name. Lent until return
 * of the done callback, or static. */
struct str request_outcome(enum http_failure failure, const struct http_reply *reply);

/* A tally of outcomes by name. The table is bounded; names beyond count as OTHER. */
#define TALLY_NAMES_MAX     48
#define TALLY_NAME_SIZE_MAX 40

struct tally {
    struct {
        char name[TALLY_NAME_SIZE_MAX];
        uint64_t count;
    } rows[TALLY_NAMES_MAX];
    size_t count;
};
void tally_add(struct tally *t, struct str name, uint64_t n);
uint64_t tally_get(const struct tally *t, const char *name);

#endif
