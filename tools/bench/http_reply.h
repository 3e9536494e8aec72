/* http_reply: reads one HTTP/1.1 response, as holdfast's gateway (or nginx, the yardstick) sends
 * it.
 *
 * Strict and small on purpose: a status line, header lines ended by CR LF, a body framed by exactly
 * one Content-Length. Everything else (chunked bodies, bare line feeds, folded lines, repeated or
 * absurd lengths, interim answers) is malformed: a load generator that guesses would report
 * nonsense.
 *
 * Pure: no I/O, no allocation; the caller keeps the bytes. */
#ifndef TOOLS_BENCH_HTTP_REPLY_H
#define TOOLS_BENCH_HTTP_REPLY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/str.h"

#define HTTP_REPLY_HEAD_SIZE_MAX 16384      /* status line and headers */
#define HTTP_REPLY_BODY_SIZE_MAX (8u << 20) /* a page of 500 orders is far below */

struct http_reply {
    unsigned status;         /* 200..599 */
    struct str body;         /* borrows from the bytes given */
    bool close;              /* the server will close this connection */
    bool replayed;           /* Idempotency-Replayed: true */
    uint64_t log_index;      /* Holdfast-Log-Index; 0: not given */
    int64_t time_ms;         /* Holdfast-Time, the replicated time of a read; 0: not given */
    uint64_t retry_after_ms; /* Retry-After in seconds, as milliseconds; 0: not given */
    size_t head_size;        /* progress: bytes of status line and headers; 0 while not all there */
    size_t body_size;        /* valid once head_size is */
};

/* Looks at the bytes received so far, always from the response's first byte. Start with a zeroed
 * reply; it remembers a head that was already read. Returns the size of the whole response when it
 * is complete (what follows belongs to no request of ours), 0 when more is needed, -1 when
 * malformed. */
long http_reply_parse(struct http_reply *r, const char *data, size_t size);

#endif
