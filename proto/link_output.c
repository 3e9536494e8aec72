/* Output of a link: frames gather in one buffer and go to the kernel together.
 *
 * Happy path: link_commit appends to `out` and arms the prepare handle, which libuv runs right
 * before it waits for events; one send takes everything that the iteration produced. No timer, no
 * delay: when there is nothing more to do, what is there leaves.
 *
 * When the kernel takes only a part, the buffer moves to `writing` and libuv finishes it; new
 * frames gather in a fresh `out` and follow from link_write_cb. So there is at most one uv_write
 * under way and order needs no care.
 *
 * Failure modes: `out` plus `writing` never exceed output_size_max (the frame is refused whole); an
 * error of the socket closes the link. */
#include <stdlib.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "proto/link_internal.h"

#define FRAME_HEADER_SIZE   8u
#define OUTPUT_INITIAL_SIZE (16u << 10)
#define OUTPUT_KEEP_SIZE    (1u << 20)   /* a larger buffer is given back when it is empty */
#define OUTPUT_FLUSH_SIZE   (256u << 10) /* do not wait for the end of the iteration beyond this */

static size_t frame_span(size_t payload)
{
    return FRAME_HEADER_SIZE + ((payload + 7) & ~(size_t)7);
}

static void buffer_reserve(struct link_buffer *b, size_t size)
{
    if (b->capacity - b->size >= size) {
        return;
    }
    size_t capacity = b->capacity > 0 ? b->capacity : OUTPUT_INITIAL_SIZE;
    while (capacity - b->size < size) {
        capacity *= 2;
    }
    b->data = realloc(b->data, capacity);
    CHECK(b->data != NULL);
    b->capacity = capacity;
}

static void buffer_emptied(struct link_buffer *b)
{
    b->size = 0;
    if (b->capacity > OUTPUT_KEEP_SIZE) {
        free(b->data);
        *b = (struct link_buffer){NULL, 0, 0};
    }
}

static void link_write_cb(uv_write_t *req, int status)
{
    struct link *l = container_of(req, struct link, write);
    l->write_busy = false;
    buffer_emptied(&l->writing);
    if (l->state == LINK_CLOSING) {
        return;
    }
    if (status < 0) {
        link_fail(l, "write: %s", uv_strerror(status));
        return;
    }
    link_output_flush(l);
}

void link_output_flush(struct link *l)
{
    if (l->write_busy || l->out.size == 0) {
        uv_prepare_stop(&l->flush);
        return;
    }
    uv_buf_t buf = uv_buf_init((char *)l->out.data, (unsigned)l->out.size);
    int n = uv_try_write((uv_stream_t *)&l->tcp, &buf, 1);
    if (n < 0 && n != UV_EAGAIN) {
        link_fail(l, "write: %s", uv_strerror(n));
        return;
    }
    uv_prepare_stop(&l->flush);
    size_t sent = n > 0 ? (size_t)n : 0;
    if (sent == l->out.size) {
        buffer_emptied(&l->out);
        return;
    }
    struct link_buffer empty = l->writing;
    l->writing = l->out;
    l->out = empty;
    buf = uv_buf_init((char *)l->writing.data + sent, (unsigned)(l->writing.size - sent));
    int rv = uv_write(&l->write, (uv_stream_t *)&l->tcp, &buf, 1, link_write_cb);
    if (rv < 0) {
        link_fail(l, "write: %s", uv_strerror(rv));
        return;
    }
    l->write_busy = true;
}

void link_flush_cb(uv_prepare_t *prepare)
{
    link_output_flush(container_of(prepare, struct link, flush));
}

void link_output_raw(struct link *l, const void *data, size_t size)
{
    buffer_reserve(&l->out, size);
    memcpy(l->out.data + l->out.size, data, size);
    l->out.size += size;
    l->out_total += size;
    link_output_flush(l);
}

size_t link_output_queued(const struct link *l)
{
    return l->out.size + uv_stream_get_write_queue_size((const uv_stream_t *)&l->tcp);
}

void *link_reserve(struct link *l, size_t size)
{
    l->has_reserved = false;
    if (l->state != LINK_OPEN || size > LINK_FRAME_SIZE_MAX) {
        return NULL;
    }
    size_t span = frame_span(size);
    size_t queued = link_output_queued(l);
    if (span > l->options.output_size_max || queued > l->options.output_size_max - span) {
        return NULL;
    }
    buffer_reserve(&l->out, span);
    l->reserved = size;
    l->has_reserved = true;
    return l->out.data + l->out.size + FRAME_HEADER_SIZE;
}

void link_commit(struct link *l)
{
    CHECK(l->has_reserved);
    l->has_reserved = false;
    size_t span = frame_span(l->reserved);
    uint8_t *header = l->out.data + l->out.size;
    uint8_t *payload = header + FRAME_HEADER_SIZE;
    store_u32(header, (uint32_t)l->reserved);
    store_u32(header + 4, crc32c(0, payload, l->reserved));
    memset(payload + l->reserved, 0, span - FRAME_HEADER_SIZE - l->reserved);
    l->out.size += span;
    l->out_total += span;
    if (l->out.size >= OUTPUT_FLUSH_SIZE && !l->write_busy) {
        link_output_flush(l);
    } else if (!l->write_busy && !uv_is_active((uv_handle_t *)&l->flush)) {
        uv_prepare_start(&l->flush, link_flush_cb);
    }
}

int link_send(struct link *l, const void *a, size_t a_size, const void *b, size_t b_size)
{
    if (a_size > LINK_FRAME_SIZE_MAX || b_size > LINK_FRAME_SIZE_MAX) {
        return -1;
    }
    uint8_t *at = link_reserve(l, a_size + b_size);
    if (at == NULL) {
        return -1;
    }
    if (a_size > 0) {
        memcpy(at, a, a_size);
    }
    if (b_size > 0) {
        memcpy(at + a_size, b, b_size);
    }
    link_commit(l);
    return 0;
}
