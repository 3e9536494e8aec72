/* See persister_thread.h. The thread sleeps in one poll(2): the lanes' sockets and an eventfd that the
 * loop writes to. */
#include "storage/persister_thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

struct persister_thread {
    uv_async_t async;
    void (*news)(void *ctx);
    void (*closed)(void *ctx);
    void *ctx;
    struct worker *worker; /* NULL: not started */
    pthread_t thread;
    int wake_fd;
};

static void async_cb(uv_async_t *async)
{
    struct persister_thread *t = async->data;
    t->news(t->ctx);
}

struct persister_thread *persister_thread_create(uv_loop_t *loop, void (*news)(void *ctx), void *ctx)
{
    struct persister_thread *t = calloc(1, sizeof *t);
    if (t == NULL) {
        return NULL;
    }
    t->news = news;
    t->ctx = ctx;
    t->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (t->wake_fd < 0) {
        goto err_after_alloc;
    }
    if (uv_async_init(loop, &t->async, async_cb) != 0) {
        goto err_after_eventfd;
    }
    t->async.data = t;
    return t;

err_after_eventfd:
    close(t->wake_fd);
err_after_alloc:
    free(t);
    return NULL;
}

/* Sleeps until something happens or the time comes. Returns which lanes' sockets are ready. */
static uint32_t sleep_until(struct persister_thread *t, uint64_t until_ms)
{
    struct pollfd fds[1 + PERSISTER_LANES];
    fds[0] = (struct pollfd){.fd = t->wake_fd, .events = POLLIN};
    uint32_t lanes = worker_poll(t->worker, fds + 1);
    uint64_t now_ms = clock_monotonic_ms();
    uint64_t wait_ms = until_ms <= now_ms ? 0 : until_ms - now_ms;
    int n = poll(fds, 1 + lanes, wait_ms < 60000 ? (int)wait_ms : 60000);
    CHECK(n >= 0 || errno == EINTR);
    if (n <= 0) {
        return 0;
    }
    if (fds[0].revents != 0) {
        uint64_t ignored;
        (void)!read(t->wake_fd, &ignored, sizeof ignored);
    }
    uint32_t ready = 0;
    for (uint32_t i = 0; i < lanes; i++) {
        ready |= (fds[1 + i].revents != 0 ? 1u : 0u) << i;
    }
    return ready;
}

static void *run(void *arg)
{
    struct persister_thread *t = arg;
    uint32_t ready = 0;
    uint64_t until_ms;
    while (worker_step(t->worker, ready, clock_monotonic_ms(), &until_ms)) {
        ready = sleep_until(t, until_ms);
    }
    persister_thread_wake_loop(t);
    return NULL;
}

int persister_thread_start(struct persister_thread *t, struct worker *w)
{
    t->worker = w;
    if (pthread_create(&t->thread, NULL, run, t) != 0) {
        t->worker = NULL;
        return -1;
    }
    return 0;
}

void persister_thread_wake(struct persister_thread *t)
{
    uint64_t one = 1;
    ssize_t n = write(t->wake_fd, &one, sizeof one);
    CHECK(n == sizeof one || errno == EAGAIN);
}

void persister_thread_wake_loop(struct persister_thread *t)
{
    CHECK(uv_async_send(&t->async) == 0);
}

static void closed_cb(uv_handle_t *handle)
{
    struct persister_thread *t = handle->data;
    void (*closed)(void *ctx) = t->closed;
    void *ctx = t->ctx;
    free(t);
    closed(ctx);
}

void persister_thread_close(struct persister_thread *t, void (*closed)(void *ctx))
{
    if (t->worker != NULL) {
        pthread_join(t->thread, NULL);
    }
    close(t->wake_fd);
    t->closed = closed;
    uv_close((uv_handle_t *)&t->async, closed_cb);
}
