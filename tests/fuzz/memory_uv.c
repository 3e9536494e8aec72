/* Owns: the list of handles and what each is doing. See memory_uv.h. */
#include "tests/fuzz/memory_uv.h"

#include <stdlib.h>
#include <string.h>

#include "base/check.h"

struct piece {
    struct piece *next;
    size_t size;
    size_t taken;
    char data[];
};

struct own {
    struct own *next;
    uv_handle_t *handle;
    uv_handle_type type;
    bool active, closing;
    uv_close_cb close_cb;
    /* timer */
    uint64_t due_ms, repeat_ms, order;
    uv_timer_cb timer_cb;
    /* prepare, check, idle */
    uv_prepare_cb prepare_cb;
    uv_check_cb check_cb;
    uv_idle_cb idle_cb;
    /* tcp */
    uv_alloc_cb alloc_cb;
    uv_read_cb read_cb;
    bool reading, ended;
    struct piece *first, **last;
    struct text written;
    uv_connect_t *connect;
    uv_connect_cb connect_cb;
    uv_shutdown_t *shutdown;
    uv_shutdown_cb shutdown_cb;
    uv_write_t *write;
    uv_write_cb write_cb;
    char *write_data;
    size_t write_size;
};

uint64_t memory_uv_now_ms;
static struct own *handles; /* in the order of init */
static uint64_t timers_order;
static size_t write_limit = SIZE_MAX, write_left = SIZE_MAX;
static struct text *tap;
static bool offered;

static struct own *find(const void *handle)
{
    for (struct own *o = handles; o != NULL; o = o->next) {
        if (o->handle == handle) {
            return o;
        }
    }
    CHECK_UNREACHABLE();
}

static int add(void *handle, uv_loop_t *loop, uv_handle_type type)
{
    struct own *o = calloc(1, sizeof *o), **at = &handles;
    CHECK(o != NULL);
    for (; *at != NULL; at = &(*at)->next) {
        CHECK((*at)->handle != handle);
    }
    *at = o;
    o->handle = handle;
    o->type = type;
    o->last = &o->first;
    o->handle->loop = loop;
    o->handle->type = type;
    return 0;
}

/* ---- for the target ---- */

void memory_uv_reset(void)
{
    CHECK(handles == NULL);
    memory_uv_now_ms = 1000000;
    timers_order = 0;
    write_limit = write_left = SIZE_MAX;
    tap = NULL;
    offered = false;
}

size_t memory_uv_handles(void)
{
    size_t n = 0;
    for (struct own *o = handles; o != NULL; o = o->next) {
        n++;
    }
    return n;
}

void memory_uv_offer(void)
{
    offered = true;
}

void memory_uv_connect(uv_tcp_t *listener)
{
    (void)find(listener);
    offered = true;
    ((uv_stream_t *)listener)->connection_cb((uv_stream_t *)listener, 0);
}

void memory_uv_give(uv_tcp_t *tcp, const void *data, size_t size)
{
    struct own *o = find(tcp);
    struct piece *p = malloc(sizeof *p + size);
    CHECK(p != NULL);
    *p = (struct piece){.size = size};
    if (size > 0) {
        memcpy(p->data, data, size);
    }
    *o->last = p;
    o->last = &p->next;
}

void memory_uv_limit_writes(size_t size)
{
    write_limit = write_left = size;
}

const struct text *memory_uv_written(const uv_tcp_t *tcp)
{
    return &find(tcp)->written;
}

void memory_uv_tap(struct text *to)
{
    tap = to;
}

uv_tcp_t *memory_uv_tcp(size_t i)
{
    for (struct own *o = handles; o != NULL; o = o->next) {
        if (o->type == UV_TCP && !o->closing && i-- == 0) {
            return (uv_tcp_t *)o->handle;
        }
    }
    return NULL;
}

bool memory_uv_reading(const uv_tcp_t *tcp)
{
    return find(tcp)->reading;
}

uint64_t memory_uv_next_timer_ms(void)
{
    uint64_t due = UINT64_MAX;
    for (struct own *o = handles; o != NULL; o = o->next) {
        if (o->type == UV_TIMER && o->active && o->due_ms < due) {
            due = o->due_ms;
        }
    }
    return due;
}

/* ---- one iteration ---- */

static bool run_timers(void)
{
    uint64_t before = timers_order;
    bool any = false;
    for (;;) {
        struct own *next = NULL;
        for (struct own *o = handles; o != NULL; o = o->next) {
            if (o->type == UV_TIMER && o->active && o->due_ms <= memory_uv_now_ms && o->order < before &&
                (next == NULL || o->due_ms < next->due_ms ||
                 (o->due_ms == next->due_ms && o->order < next->order))) {
                next = o;
            }
        }
        if (next == NULL) {
            return any;
        }
        next->active = next->repeat_ms > 0;
        next->due_ms = memory_uv_now_ms + next->repeat_ms;
        next->order = timers_order++;
        any = true;
        next->timer_cb((uv_timer_t *)next->handle);
    }
}

/* Those that are active now, each once; callbacks may stop and close others. */
static bool run_hooks(uv_handle_type type)
{
    uv_handle_t *list[64];
    size_t count = 0;
    for (struct own *o = handles; o != NULL; o = o->next) {
        if (o->type == type && o->active) {
            CHECK(count < ARRAY_COUNT(list));
            list[count++] = o->handle;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct own *o = find(list[i]);
        if (!o->active) {
            continue;
        }
        if (type == UV_PREPARE) {
            o->prepare_cb((uv_prepare_t *)list[i]);
        } else if (type == UV_CHECK) {
            o->check_cb((uv_check_t *)list[i]);
        } else {
            o->idle_cb((uv_idle_t *)list[i]);
        }
    }
    return count > 0 && type == UV_IDLE;
}

static void put(struct own *o, const char *data, size_t size)
{
    text_append(&o->written, data, size);
    if (tap != NULL) {
        text_append(tap, data, size);
    }
}

/* A read of one piece, or of as much of it as the buffer takes. */
static void run_read(struct own *o)
{
    struct piece *p = o->first;
    uv_buf_t buffer = {0};
    uv_stream_t *stream = (uv_stream_t *)o->handle;
    if (p->size == 0) {
        o->reading = false;
        o->ended = true;
        o->read_cb(stream, UV_EOF, &buffer);
        return;
    }
    o->alloc_cb(o->handle, 65536, &buffer);
    CHECK(buffer.base != NULL && buffer.len > 0);
    size_t left = p->size - p->taken, size = left < buffer.len ? left : buffer.len;
    memcpy(buffer.base, p->data + p->taken, size);
    p->taken += size;
    if (p->taken == p->size) {
        o->first = p->next;
        if (o->first == NULL) {
            o->last = &o->first;
        }
        free(p);
    }
    o->read_cb(stream, (ssize_t)size, &buffer);
}

static bool run_stream(struct own *o)
{
    if (o->connect != NULL) {
        uv_connect_t *request = o->connect;
        o->connect = NULL;
        o->connect_cb(request, 0);
        return true;
    }
    if (o->write != NULL) {
        uv_write_t *request = o->write;
        put(o, o->write_data, o->write_size);
        free(o->write_data);
        o->write = NULL;
        o->write_data = NULL;
        ((uv_stream_t *)o->handle)->write_queue_size = 0;
        o->write_cb(request, 0);
        return true;
    }
    if (o->shutdown != NULL) {
        uv_shutdown_t *request = o->shutdown;
        o->shutdown = NULL;
        o->shutdown_cb(request, 0);
        return true;
    }
    if (o->reading && o->first != NULL) {
        run_read(o);
        return true;
    }
    return false;
}

static void free_own(struct own *o)
{
    while (o->first != NULL) {
        struct piece *p = o->first;
        o->first = p->next;
        free(p);
    }
    text_close(&o->written);
    free(o->write_data);
    free(o);
}

static bool run_closing(void)
{
    bool any = false;
    for (struct own **at = &handles; *at != NULL;) {
        struct own *o = *at;
        if (!o->closing) {
            at = &o->next;
            continue;
        }
        any = true;
        if (o->write != NULL || o->shutdown != NULL || o->connect != NULL) {
            /* As libuv does: whatever is under way ends first. */
            uv_write_t *write = o->write;
            uv_shutdown_t *shutdown = o->shutdown;
            uv_connect_t *connect = o->connect;
            o->write = NULL;
            o->shutdown = NULL;
            o->connect = NULL;
            if (connect != NULL) {
                o->connect_cb(connect, UV_ECANCELED);
            }
            if (write != NULL) {
                o->write_cb(write, UV_ECANCELED);
            }
            if (shutdown != NULL) {
                o->shutdown_cb(shutdown, UV_ECANCELED);
            }
            at = &handles;
            continue;
        }
        *at = o->next;
        uv_handle_t *handle = o->handle;
        uv_close_cb cb = o->close_cb;
        free_own(o);
        if (cb != NULL) {
            cb(handle);
        }
        at = &handles;
    }
    return any;
}

bool memory_uv_turn(void)
{
    write_left = write_limit;
    bool any = run_timers();
    any = run_hooks(UV_IDLE) || any;
    (void)run_hooks(UV_PREPARE);
    uv_handle_t *list[64];
    size_t count = 0;
    for (struct own *o = handles; o != NULL; o = o->next) {
        if (o->type == UV_TCP && !o->closing) {
            CHECK(count < ARRAY_COUNT(list));
            list[count++] = o->handle;
        }
    }
    for (size_t i = 0; i < count; i++) {
        struct own *o = find(list[i]);
        any = (!o->closing && run_stream(o)) || any;
    }
    (void)run_hooks(UV_CHECK);
    return run_closing() || any;
}

/* ---- what libuv offers ---- */

uint64_t uv_now(const uv_loop_t *loop)
{
    (void)loop;
    return memory_uv_now_ms;
}

uint64_t uv_hrtime(void)
{
    return memory_uv_now_ms * 1000000u;
}

void uv_update_time(uv_loop_t *loop)
{
    (void)loop;
}

int uv_timer_init(uv_loop_t *loop, uv_timer_t *timer)
{
    return add(timer, loop, UV_TIMER);
}

int uv_timer_start(uv_timer_t *timer, uv_timer_cb cb, uint64_t timeout, uint64_t repeat)
{
    struct own *o = find(timer);
    CHECK(!o->closing);
    o->active = true;
    o->timer_cb = cb;
    o->due_ms = memory_uv_now_ms + timeout;
    o->repeat_ms = repeat;
    o->order = timers_order++;
    return 0;
}

int uv_timer_stop(uv_timer_t *timer)
{
    find(timer)->active = false;
    return 0;
}

uint64_t uv_timer_get_due_in(const uv_timer_t *timer)
{
    const struct own *o = find(timer);
    return o->due_ms > memory_uv_now_ms ? o->due_ms - memory_uv_now_ms : 0;
}

#define HOOK(name, kind)                                                                           \
    int uv_##name##_init(uv_loop_t *loop, uv_##name##_t *handle)                                   \
    {                                                                                              \
        return add(handle, loop, kind);                                                            \
    }                                                                                              \
    int uv_##name##_start(uv_##name##_t *handle, uv_##name##_cb cb)                                \
    {                                                                                              \
        struct own *o = find(handle);                                                              \
        CHECK(!o->closing);                                                                        \
        o->name##_cb = cb;                                                                         \
        o->active = true;                                                                          \
        return 0;                                                                                  \
    }                                                                                              \
    int uv_##name##_stop(uv_##name##_t *handle)                                                    \
    {                                                                                              \
        find(handle)->active = false;                                                              \
        return 0;                                                                                  \
    }
HOOK(prepare, UV_PREPARE)
HOOK(check, UV_CHECK)
HOOK(idle, UV_IDLE)

int uv_is_active(const uv_handle_t *handle)
{
    return find(handle)->active;
}

int uv_is_closing(const uv_handle_t *handle)
{
    return find(handle)->closing;
}

void uv_close(uv_handle_t *handle, uv_close_cb cb)
{
    struct own *o = find(handle);
    CHECK(!o->closing);
    o->closing = true;
    o->active = o->reading = false;
    o->close_cb = cb;
}

int uv_tcp_init(uv_loop_t *loop, uv_tcp_t *tcp)
{
    ((uv_stream_t *)tcp)->write_queue_size = 0;
    return add(tcp, loop, UV_TCP);
}

int uv_tcp_nodelay(uv_tcp_t *tcp, int enable)
{
    (void)find(tcp);
    (void)enable;
    return 0;
}

int uv_tcp_connect(uv_connect_t *request, uv_tcp_t *tcp, const struct sockaddr *address, uv_connect_cb cb)
{
    struct own *o = find(tcp);
    (void)address;
    o->connect = request;
    o->connect_cb = cb;
    request->handle = (uv_stream_t *)tcp;
    return 0;
}

int uv_fileno(const uv_handle_t *handle, uv_os_fd_t *fd)
{
    (void)find(handle);
    *fd = -1;
    return UV_EBADF; /* there is no socket to tune */
}

int uv_tcp_bind(uv_tcp_t *tcp, const struct sockaddr *address, unsigned int flags)
{
    (void)find(tcp);
    (void)address;
    (void)flags;
    return 0;
}

int uv_tcp_getsockname(const uv_tcp_t *tcp, struct sockaddr *name, int *size)
{
    (void)find(tcp);
    memset(name, 0, (size_t)*size);
    return 0;
}

int uv_listen(uv_stream_t *stream, int backlog, uv_connection_cb cb)
{
    (void)find(stream);
    (void)backlog;
    stream->connection_cb = cb;
    return 0;
}

int uv_accept(uv_stream_t *server, uv_stream_t *client)
{
    (void)server;
    (void)find(client);
    if (!offered) {
        return UV_EAGAIN;
    }
    offered = false;
    return 0;
}

int uv_read_start(uv_stream_t *stream, uv_alloc_cb alloc_cb, uv_read_cb read_cb)
{
    struct own *o = find(stream);
    CHECK(!o->closing);
    CHECK(!o->ended);
    o->reading = true;
    o->alloc_cb = alloc_cb;
    o->read_cb = read_cb;
    return 0;
}

int uv_read_stop(uv_stream_t *stream)
{
    find(stream)->reading = false;
    return 0;
}

int uv_try_write(uv_stream_t *stream, const uv_buf_t buffers[], unsigned int count)
{
    struct own *o = find(stream);
    size_t total = 0;
    CHECK(!o->closing);
    if (o->write != NULL || write_left == 0) {
        return UV_EAGAIN;
    }
    for (unsigned i = 0; i < count && write_left > 0; i++) {
        size_t size = buffers[i].len < write_left ? buffers[i].len : write_left;
        put(o, buffers[i].base, size);
        write_left -= write_limit != SIZE_MAX ? size : 0;
        total += size;
    }
    return (int)total;
}

int uv_write(uv_write_t *request, uv_stream_t *stream, const uv_buf_t buffers[], unsigned int count,
             uv_write_cb cb)
{
    struct own *o = find(stream);
    size_t size = 0;
    CHECK(!o->closing && o->write == NULL && o->shutdown == NULL);
    for (unsigned i = 0; i < count; i++) {
        size += buffers[i].len;
    }
    o->write_data = malloc(size + 1);
    CHECK(o->write_data != NULL);
    o->write_size = 0;
    for (unsigned i = 0; i < count; i++) {
        memcpy(o->write_data + o->write_size, buffers[i].base, buffers[i].len);
        o->write_size += buffers[i].len;
    }
    o->write = request;
    o->write_cb = cb;
    stream->write_queue_size = size;
    return 0;
}

size_t uv_stream_get_write_queue_size(const uv_stream_t *stream)
{
    return stream->write_queue_size;
}

int uv_shutdown(uv_shutdown_t *request, uv_stream_t *stream, uv_shutdown_cb cb)
{
    struct own *o = find(stream);
    CHECK(!o->closing && o->shutdown == NULL);
    o->shutdown = request;
    o->shutdown_cb = cb;
    request->handle = stream;
    return 0;
}
