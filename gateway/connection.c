/* Owns: the socket, the order of answers, the time limits of reading and writing.
 *
 *     state        event                        → state         function
 *     OPEN         bytes                          OPEN          connection_feed
 *     OPEN         answers ready                  OPEN          connection_flush
 *     OPEN         last answer written            LINGERING     connection_linger
 *     OPEN         idle too long, write stuck     CLOSING       connections_tick
 *     LINGERING    EOF or CONNECTION_LINGER_MS    CLOSING       connection_close
 *     CLOSING      handle closed                  (freed)       close_cb
 *
 * Happy path: read_cb → connection_feed → head done: route_check → message done: route_run → … the
 * answer → connection_answered marks it dirty → connections_flush, after all I/O of this turn of the
 * loop, writes all answers of the connection with one uv_try_write.
 *
 * Failure modes: what cannot be parsed is answered, then the connection ends, for nobody knows where
 * the next request would begin. It ends lingering: closing with unread bytes would make the kernel
 * reset the connection and take the answer with it. Too many requests of one connection, or an answer
 * that is not taken: reading stops. When the caller vanishes its exchanges go on without it. */
#include "gateway/connection.h"

#include <stdio.h>
#include <stdlib.h>

#include "gateway/response.h"
#include "gateway/route.h"

#define FLUSH_BUFFERS_MAX 64 /* in one write; two an answer */

/* ---- time limits ---- */

static void wait_leave(struct connection *c)
{
    if (c->waiting == WAIT_KINDS) {
        return;
    }
    struct wait_list *list = &c->gateway->waits[c->waiting];
    *(c->wait_prev != NULL ? &c->wait_prev->wait_next : &list->first) = c->wait_next;
    *(c->wait_next != NULL ? &c->wait_next->wait_prev : &list->last) = c->wait_prev;
    c->waiting = WAIT_KINDS;
}

static void wait_enter(struct connection *c, enum wait_kind kind)
{
    if (c->waiting == kind) {
        return;
    }
    wait_leave(c);
    if (kind == WAIT_KINDS) {
        return;
    }
    struct wait_list *list = &c->gateway->waits[kind];
    c->waiting = kind;
    c->waiting_since_ms = uv_now(c->gateway->loop);
    c->wait_next = NULL;
    c->wait_prev = list->last;
    *(list->last != NULL ? &list->last->wait_next : &list->first) = c;
    list->last = c;
}

/* Which limit applies now. */
static void wait_choose(struct connection *c)
{
    if (c->state == CONNECTION_CLOSING) {
        wait_enter(c, WAIT_KINDS);
    } else if (c->state == CONNECTION_LINGERING) {
        wait_enter(c, WAIT_LINGER);
    } else if (c->writing) {
        wait_enter(c, WAIT_WRITE);
    } else if (c->reading != NULL) {
        wait_enter(c, c->parser.phase == HTTP_PHASE_BODY ? WAIT_BODY : WAIT_HEAD);
    } else if (c->first == NULL) {
        wait_enter(c, WAIT_IDLE);
    } else {
        wait_enter(c, WAIT_KINDS); /* the wait for the outcome has its own limit */
    }
}

/* ---- closing ---- */

static void close_cb(uv_handle_t *handle)
{
    struct connection *c = handle->data;
    free(c->held);
    free(c);
}

/* An exchange leaves the connection: written, or never to be. */
static void let_go(struct exchange *x)
{
    x->connection = NULL;
    exchange_settle(x);
}

static void connection_close(struct connection *c)
{
    struct gateway *g = c->gateway;
    if (c->state == CONNECTION_CLOSING) {
        return;
    }
    c->state = CONNECTION_CLOSING;
    wait_leave(c);
    if (c->dirty) {
        struct connection **at = &g->dirty;
        while (*at != c) {
            at = &(*at)->next_dirty;
        }
        *at = c->next_dirty;
        c->dirty = false;
    }
    *(c->prev != NULL ? &c->prev->next : &g->connections) = c->next;
    if (c->next != NULL) {
        c->next->prev = c->prev;
    }
    g->connections_count--;
    if (c->reading != NULL) {
        c->reading->answered = true; /* nobody will run it */
        let_go(c->reading);
        c->reading = NULL;
    }
    /* While a write is under way its buffers are the kernel's: write_cb lets those go. */
    while (c->first != NULL && !c->writing) {
        struct exchange *x = c->first;
        c->first = x->next;
        let_go(x);
    }
    uv_close((uv_handle_t *)&c->tcp, close_cb);
}

static void shutdown_cb(uv_shutdown_t *request, int status)
{
    (void)request;
    (void)status;
}

/* Nothing more will be written: says so, and reads until the caller has understood. */
static void connection_linger(struct connection *c)
{
    if (c->ended || uv_shutdown(&c->shutdown, (uv_stream_t *)&c->tcp, shutdown_cb) != 0) {
        connection_close(c);
        return;
    }
    c->state = CONNECTION_LINGERING;
    free(c->held);
    c->held = NULL;
    c->held_size = 0;
    wait_choose(c);
}

/* ---- reading ---- */

static void alloc_cb(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    struct connection *c = handle->data;
    (void)suggested;
    *buffer = uv_buf_init(c->gateway->read_buffer, GATEWAY_READ_SIZE);
}

static void read_cb(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer);

static void pause_reading(struct connection *c)
{
    if (!c->paused) {
        c->paused = true;
        uv_read_stop((uv_stream_t *)&c->tcp);
    }
}

static void resume_reading(struct connection *c)
{
    if (c->paused && !c->ended) {
        c->paused = false;
        uv_read_start((uv_stream_t *)&c->tcp, alloc_cb, read_cb);
    }
}

static void enqueue(struct connection *c, struct exchange *x)
{
    x->next = NULL;
    if (c->first == NULL) {
        c->first = x;
    } else {
        c->tail->next = x;
    }
    c->tail = x;
    c->queued++;
}

/* The request being read is the last one: it gets this answer, then the connection ends. */
static void refuse_and_end(struct connection *c, enum problem p, const char *why)
{
    struct exchange *x = c->reading;
    c->reading = NULL;
    c->last = true;
    enqueue(c, x);
    x->close = true;
    c->gateway->parse_refusals++;
    problem_send(x, p, NULL, why);
}

/* No exchange is to be had, so nothing that composes an answer: this one is a constant. */
static void shed(struct connection *c)
{
    static const char body[] =
        "{\"type\":\"/problems/queue-full\",\"title\":\"Too many requests are waiting\","
        "\"status\":503,\"code\":\"QUEUE_FULL\",\"detail\":\"Nothing "
        "happened.\",\"retry_after_ms\":1000}";
    char answer[512];
    c->gateway->shed[SHED_REQUESTS]++;
    c->last = true;
    if (c->first != NULL || c->writing) {
        return; /* the answers before it are written, and the connection ends without one to this */
    }
    int n =
        snprintf(answer, sizeof answer,
                 "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/problem+json\r\n"
                 "Content-Length: %zu\r\nRetry-After: 1\r\nConnection: close\r\n\r\n%s",
                 sizeof body - 1, body);
    CHECK(n > 0 && (size_t)n < sizeof answer);
    uv_buf_t buffer = uv_buf_init(answer, (unsigned)n);
    (void)uv_try_write((uv_stream_t *)&c->tcp, &buffer, 1);
    connection_linger(c);
}

static void head_done(struct connection *c)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    struct exchange *x = c->reading;
    route_check(x, c->listener->kind);
    if (!x->request.expect_continue || c->parser.phase == HTTP_PHASE_COMPLETE) {
        return;
    }
    if (x->refusal != PROBLEM_NONE) {
        /* The body will never be read: RFC 9110 §10.1.1. */
        c->reading = NULL;
        c->last = true;
        enqueue(c, x);
        x->close = true;
        route_run(x);
    } else if (c->first == NULL && !c->writing &&
               x->request.content_length <= x->request.body_limit) {
        uv_buf_t buffer = uv_buf_init((char *)(uintptr_t)go_on, sizeof go_on - 1);
        (void)uv_try_write((uv_stream_t *)&c->tcp, &buffer, 1);
    }
}

/* Parses as many requests as there are. What is left because no more may run now is kept. */
static void connection_feed(struct connection *c, const char *data, size_t size)
{
    struct gateway *g = c->gateway;
    while (c->state == CONNECTION_OPEN && !c->last) {
        if (c->reading == NULL) {
            if (size == 0) {
                break;
            }
            if (c->queued >= g->limits.pipeline_max || c->writing) {
                pause_reading(c);
                c->held = malloc(size);
                CHECK(c->held != NULL);
                memcpy(c->held, data, size);
                c->held_size = size;
                break;
            }
            c->reading = exchange_take(g);
            if (c->reading == NULL) {
                shed(c);
                break;
            }
            c->reading->connection = c;
            http_parser_begin(&c->parser, &c->reading->request);
        }
        size_t taken;
        enum http_event event = http_parser_feed(&c->parser, data, size, &taken);
        data += taken;
        size -= taken;
        if (event == HTTP_MORE) {
            break;
        }
        if (event == HTTP_HEAD_DONE) {
            head_done(c);
        } else if (event == HTTP_REFUSED) {
            refuse_and_end(c, c->parser.problem, c->parser.why);
        } else {
            struct exchange *x = c->reading;
            c->reading = NULL;
            c->last = !x->request.keep_alive || g->draining;
            enqueue(c, x);
            route_run(x);
        }
    }
    /* A request that has not really begun (empty lines only) holds nothing. */
    if (c->reading != NULL && c->parser.phase == HTTP_PHASE_START) {
        c->reading->answered = true;
        let_go(c->reading);
        c->reading = NULL;
    }
    wait_choose(c);
}

static void read_ended(struct connection *c)
{
    c->ended = true;
    pause_reading(c);
    if (c->state == CONNECTION_LINGERING) {
        connection_close(c);
        return;
    }
    if (c->reading != NULL && !c->last) {
        refuse_and_end(c, PROBLEM_INVALID_REQUEST, "The request ended in the middle.");
    } else if (c->first == NULL && !c->writing && c->held == NULL) {
        connection_close(c);
    }
}

static void read_cb(uv_stream_t *stream, ssize_t size, const uv_buf_t *buffer)
{
    struct connection *c = stream->data;
    if (size == 0) {
        return;
    }
    if (size == UV_EOF) {
        read_ended(c);
    } else if (size < 0) {
        connection_close(c);
    } else if (c->state == CONNECTION_OPEN) {
        c->gateway->bytes_in += (uint64_t)size;
        connection_feed(c, buffer->base, (size_t)size);
    }
}

/* ---- writing ---- */

void connection_answered(struct connection *c)
{
    if (!c->dirty && c->state == CONNECTION_OPEN && !c->writing) {
        c->dirty = true;
        c->next_dirty = c->gateway->dirty;
        c->gateway->dirty = c;
    }
}

/* Buffers of the answers that are ready and next in order, from where they were left. */
static unsigned gather(struct connection *c, uv_buf_t *buffers, size_t *total)
{
    unsigned count = 0;
    *total = 0;
    for (struct exchange *x = c->first; x != NULL && x->answered; x = x->next) {
        struct out *parts[2] = {&x->head, &x->body};
        size_t skip = x->written;
        if (count + 2 > FLUSH_BUFFERS_MAX) {
            break;
        }
        for (int i = 0; i < 2; i++) {
            size_t n = parts[i]->size > skip ? parts[i]->size - skip : 0;
            if (n > 0) {
                buffers[count++] = uv_buf_init(parts[i]->data + skip, (unsigned)n);
                *total += n;
            }
            skip -= parts[i]->size < skip ? parts[i]->size : skip;
        }
    }
    return count;
}

/* So many more bytes are on their way: lets go of every answer that is complete. Returns true when
 * the last answer of the connection was among them. */
static bool advance(struct connection *c, size_t size)
{
    c->gateway->bytes_out += size;
    while (c->first != NULL && c->first->answered) {
        struct exchange *x = c->first;
        size_t left = x->head.size + x->body.size - x->written;
        if (size < left) {
            x->written += size;
            return false;
        }
        size -= left;
        bool close = x->close;
        c->first = x->next;
        c->queued--;
        let_go(x);
        if (close) {
            return true;
        }
    }
    return false;
}

static void write_cb(uv_write_t *request, int status)
{
    struct connection *c = request->data;
    c->writing = false;
    if (c->state == CONNECTION_CLOSING) {
        while (c->first != NULL) {
            struct exchange *x = c->first;
            c->first = x->next;
            let_go(x);
        }
        return;
    }
    if (status != 0) {
        connection_close(c);
        return;
    }
    if (advance(c, c->writing_size)) {
        connection_linger(c);
        return;
    }
    connection_answered(c);
}

/* Bytes that arrived while nothing could be run. */
static void feed_held(struct connection *c)
{
    if (c->state != CONNECTION_OPEN || c->writing || c->last ||
        c->queued >= c->gateway->limits.pipeline_max) {
        return;
    }
    if (c->held != NULL) {
        char *held = c->held;
        size_t size = c->held_size;
        c->held = NULL;
        c->held_size = 0;
        connection_feed(c, held, size);
        free(held);
    }
    if (c->held == NULL && c->state == CONNECTION_OPEN) {
        resume_reading(c);
        if (c->ended) {
            read_ended(c);
        }
    }
}

static void connection_flush(struct connection *c)
{
    uv_buf_t buffers[FLUSH_BUFFERS_MAX];
    size_t total;
    while (c->state == CONNECTION_OPEN && !c->writing) {
        unsigned count = gather(c, buffers, &total);
        if (count == 0) {
            break;
        }
        int n = uv_try_write((uv_stream_t *)&c->tcp, buffers, count);
        if (n < 0 && n != UV_EAGAIN) {
            connection_close(c);
            return;
        }
        if (n > 0 && advance(c, (size_t)n)) {
            connection_linger(c);
            return;
        }
        if (n < 0 || (size_t)n < total) {
            /* The socket is full: libuv waits for it. Its buffers stay in the exchanges. */
            count = gather(c, buffers, &total);
            c->writing_size = total;
            c->write.data = c;
            if (uv_write(&c->write, (uv_stream_t *)&c->tcp, buffers, count, write_cb) != 0) {
                connection_close(c);
                return;
            }
            c->writing = true;
        }
    }
    feed_held(c);
    bool idle =
        c->state == CONNECTION_OPEN && !c->writing && c->first == NULL && c->reading == NULL;
    if (idle && c->last) {
        connection_linger(c);
    } else if (idle && c->ended && c->held == NULL) {
        connection_close(c);
    }
    wait_choose(c);
}

void connections_flush(struct gateway *g)
{
    /* Feeding held bytes may make further connections dirty; it ends, for held bytes only shrink. */
    while (g->dirty != NULL) {
        struct connection *c = g->dirty;
        g->dirty = c->next_dirty;
        c->dirty = false;
        connection_flush(c);
    }
}

/* ---- life ---- */

int connection_accept(struct listener *l)
{
    struct gateway *g = l->gateway;
    struct connection *c = calloc(1, sizeof *c);
    CHECK(c != NULL);
    int result = uv_tcp_init(g->loop, &c->tcp);
    if (result != 0) {
        free(c);
        return result;
    }
    c->tcp.data = c;
    c->gateway = g;
    c->listener = l;
    c->waiting = WAIT_KINDS;
    c->next = g->connections;
    if (g->connections != NULL) {
        g->connections->prev = c;
    }
    g->connections = c;
    g->connections_count++;
    result = uv_accept((uv_stream_t *)&l->tcp, (uv_stream_t *)&c->tcp);
    if (result != 0 || g->connections_count > g->limits.connections_max) {
        if (result == 0) {
            g->shed[SHED_CONNECTIONS]++;
        }
        connection_close(c);
        return result;
    }
    l->accepted++;
    uv_tcp_nodelay(&c->tcp, 1);
    uv_read_start((uv_stream_t *)&c->tcp, alloc_cb, read_cb);
    wait_choose(c);
    return 0;
}

static void timed_out(struct connection *c)
{
    enum wait_kind kind = c->waiting;
    if (kind == WAIT_HEAD || kind == WAIT_BODY) {
        refuse_and_end(c, PROBLEM_REQUEST_TIMEOUT,
                       kind == WAIT_HEAD ? "The head of the request did not arrive in time."
                                         : "The body of the request did not arrive in time.");
        wait_choose(c);
    } else {
        connection_close(c);
    }
}

void connections_tick(struct gateway *g)
{
    const uint64_t limits[WAIT_KINDS] = {
        [WAIT_IDLE] = g->limits.idle_timeout_ms, [WAIT_HEAD] = g->limits.head_timeout_ms,
        [WAIT_BODY] = g->limits.body_timeout_ms, [WAIT_WRITE] = g->limits.write_timeout_ms,
        [WAIT_LINGER] = CONNECTION_LINGER_MS,
    };
    uint64_t now = uv_now(g->loop);
    for (int kind = 0; kind < WAIT_KINDS; kind++) {
        struct connection *c;
        while ((c = g->waits[kind].first) != NULL && now - c->waiting_since_ms >= limits[kind]) {
            timed_out(c);
            CHECK(g->waits[kind].first != c);
        }
    }
}

void connections_drain(struct gateway *g)
{
    struct connection *next;
    for (struct connection *c = g->connections; c != NULL; c = next) {
        next = c->next;
        if (c->waiting == WAIT_IDLE) {
            connection_close(c);
        }
    }
}

void connections_close(struct gateway *g)
{
    while (g->connections != NULL) {
        connection_close(g->connections);
    }
}
