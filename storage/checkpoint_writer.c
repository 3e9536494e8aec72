/* The writer: slices from the loop, one transaction on a thread.
 *
 *     loop:   idle ── begin ──► taking ── end or cancel ──► ending ── done ──► idle
 *     thread: takes slices off the queue in order; the first opens a transaction, SLICE_COMMIT ends
 * it
 *
 * The first error spoils the transaction: what follows is thrown away until SLICE_COMMIT reports
 * it. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "storage/checkpoint_internal.h"

#define RECORD_HEAD 12u /* u32 table, u32 number, u32 size */
#define WRITER_NICE 5   /* a third of the weight of the loop's thread */

/* ---- loop ---- */

static struct checkpoint_slice *slice_create(enum slice_kind kind, size_t capacity)
{
    struct checkpoint_slice *s = malloc(sizeof *s + capacity);
    CHECK(s != NULL);
    s->next = NULL;
    s->kind = kind;
    s->size = 0;
    return s;
}

/* For blocks: a spare one, for fresh memory is cleared by the kernel page by page, in the loop's
 * time. */
static struct checkpoint_slice *slice_get(struct checkpoint *c)
{
    pthread_mutex_lock(&c->queue_lock);
    struct checkpoint_slice *s = c->spare;
    if (s != NULL) {
        c->spare = s->next;
        c->spares--;
    }
    pthread_mutex_unlock(&c->queue_lock);
    if (s == NULL) {
        return slice_create(SLICE_BLOCKS, CHECKPOINT_SLICE_SIZE);
    }
    s->next = NULL;
    s->size = 0;
    return s;
}

/* On the thread: keeps it, or frees it. */
static void slice_put(struct checkpoint *c, struct checkpoint_slice *s)
{
    if (s->kind == SLICE_BLOCKS) {
        pthread_mutex_lock(&c->queue_lock);
        if (c->spares < CHECKPOINT_SPARES_MAX) {
            s->next = c->spare;
            c->spare = s;
            c->spares++;
            s = NULL;
        }
        pthread_mutex_unlock(&c->queue_lock);
    }
    free(s);
}

static void enqueue(struct checkpoint *c, struct checkpoint_slice *s)
{
    pthread_mutex_lock(&c->queue_lock);
    if (c->queue_tail != NULL) {
        c->queue_tail->next = s;
    } else {
        c->queue_head = s;
    }
    c->queue_tail = s;
    c->queued += s->size;
    pthread_mutex_unlock(&c->queue_lock);
    pthread_cond_signal(&c->queue_cond); /* after: who is woken would wait for the lock else */
}

void checkpoint_begin(struct checkpoint *c, const struct checkpoint_meta *meta,
                      checkpoint_done_cb done, void *ctx)
{
    CHECK(!c->busy);
    c->busy = true;
    c->ending = false;
    c->cancelled = false;
    c->taking = *meta;
    c->done = done;
    c->done_ctx = ctx;
    c->begun_ns = clock_monotonic_ns();
    c->records = 0;
    c->bytes = 0;
}

void checkpoint_put(struct checkpoint *c, const struct engine_block *block)
{
    CHECK(c->busy);
    CHECK(block->size <= ENGINE_BLOCK_SIZE_MAX);
    if (c->cancelled) {
        return; /* applies go on pushing blocks until the engine is told */
    }
    CHECK(!c->ending);
    if (c->filling != NULL && c->filling->size + RECORD_HEAD + block->size > c->filling_capacity) {
        checkpoint_flush(c);
    }
    if (c->filling == NULL) {
        c->filling = slice_get(c);
        c->filling_capacity = CHECKPOINT_SLICE_SIZE;
    }
    uint8_t *at = c->filling->data + c->filling->size;
    store_u32(at, block->table);
    store_u32(at + 4, block->number);
    store_u32(at + 8, block->size);
    if (block->size > 0) {
        memcpy(at + RECORD_HEAD, block->data, block->size);
    }
    c->filling->size += RECORD_HEAD + block->size;
    c->records++;
    c->bytes += block->size;
}

void checkpoint_flush(struct checkpoint *c)
{
    if (c->filling != NULL) {
        enqueue(c, c->filling);
        c->filling = NULL;
    }
}

size_t checkpoint_room(struct checkpoint *c)
{
    size_t filling = c->filling != NULL ? c->filling->size : 0;
    pthread_mutex_lock(&c->queue_lock);
    size_t queued = c->queued + filling;
    pthread_mutex_unlock(&c->queue_lock);
    return queued < CHECKPOINT_QUEUE_SIZE_MAX ? CHECKPOINT_QUEUE_SIZE_MAX - queued : 0;
}

void checkpoint_set_digest(struct checkpoint *c, uint64_t digest)
{
    CHECK(c->busy);
    CHECK(!c->ending);
    c->taking.digest = digest;
}

void checkpoint_end(struct checkpoint *c)
{
    CHECK(c->busy);
    CHECK(!c->ending);
    c->ending = true;
    checkpoint_flush(c);
    struct checkpoint_slice *s = slice_create(SLICE_COMMIT, sizeof c->taking);
    memcpy(s->data, &c->taking, sizeof c->taking);
    enqueue(c, s);
}

void checkpoint_cancel(struct checkpoint *c)
{
    CHECK(c->busy);
    if (c->ending) {
        return; /* it will be durable, or not: done tells */
    }
    c->ending = true;
    c->cancelled = true;
    free(c->filling);
    c->filling = NULL;
    enqueue(c, slice_create(SLICE_CANCEL, 0));
}

bool checkpoint_busy(const struct checkpoint *c)
{
    return c->busy;
}

static void async_cb(uv_async_t *async)
{
    struct checkpoint *c = async->data;
    pthread_mutex_lock(&c->queue_lock);
    bool ready = c->result_ready, ok = c->result_ok, again = c->result_again;
    struct checkpoint_meta meta = c->result_meta;
    c->result_ready = false;
    pthread_mutex_unlock(&c->queue_lock);
    if (!ready) {
        return;
    }
    c->busy = false;
    if (ok) {
        c->taken_total++;
        c->last_records = c->records;
        c->last_bytes = c->bytes;
        c->last_duration_ns = clock_monotonic_ns() - c->begun_ns;
        c->last_success_wall_ms = meta.written_wall_ms;
    } else {
        c->failed_total++;
    }
    c->done(c->done_ctx, ok, again, &meta);
}

/* ---- thread ---- */

struct transaction {
    MDB_txn *txn;
    int error;
};

/* No transaction of this process may be open then: what peers have pinned ends. They ask again. */
static int grow_map(struct checkpoint *c)
{
    pthread_mutex_lock(&c->lock);
    uint64_t size = checkpoint_env_map_size(&c->env);
    uint64_t used = checkpoint_env_used(&c->env);
    while (size < used * 2 || c->grow) {
        size *= 2;
        c->grow = false;
    }
    checkpoint_drop_pins(c);
    int rv = mdb_env_set_mapsize(c->env.env, size);
    if (rv == 0) {
        log_info("checkpoint map grew size=%llu", (unsigned long long)size);
        checkpoint_note(c);
    }
    pthread_mutex_unlock(&c->lock);
    return rv;
}

/* After a failed write of its root page LMDB begins no transaction any more, because it does not
 * know what the file says. Opened anew it reads that. Nothing may be open then, as in grow_map. */
static void reopen(struct checkpoint *c)
{
    pthread_mutex_lock(&c->lock);
    struct checkpoint_env env;
    char path[sizeof c->env.path];
    memcpy(path, c->env.path, sizeof path);
    checkpoint_drop_pins(c);
    checkpoint_env_close(&c->env);
    if (checkpoint_env_open(&env, path, c->env.generation, c->map_size, false, 0) < 0) {
        log_error("%s: giving up: the checkpoint cannot be opened again after a failed write. The "
                  "other nodes go on. Check the disk (space, errors), then start this node again",
                  path);
        _exit(CHECKPOINT_EXIT_CODE);
    }
    c->env = env;
    pthread_mutex_unlock(&c->lock);
    log_info("%s: opened anew after a failed write of its root", path);
}

static void begin(struct checkpoint *c, struct transaction *t)
{
    t->error = 0;
    if (c->grow || checkpoint_env_used(&c->env) * 2 > checkpoint_env_map_size(&c->env)) {
        t->error = grow_map(c);
    }
    if (t->error == 0) {
        t->error = mdb_txn_begin(c->env.env, NULL, 0, &t->txn);
    }
    if (t->error == MDB_PANIC) {
        reopen(c);
        t->error = mdb_txn_begin(c->env.env, NULL, 0, &t->txn);
    }
    if (t->error == MDB_MAP_RESIZED) { /* a tool that opened it has made it larger */
        pthread_mutex_lock(&c->lock);
        checkpoint_drop_pins(c);
        t->error = mdb_env_set_mapsize(c->env.env, 0);
        pthread_mutex_unlock(&c->lock);
        if (t->error == 0) {
            t->error = mdb_txn_begin(c->env.env, NULL, 0, &t->txn);
        }
    }
    if (t->error != 0) {
        t->txn = NULL;
    }
}

static void write_blocks(struct checkpoint *c, struct transaction *t,
                         const struct checkpoint_slice *s)
{
    for (size_t at = 0; at < s->size && t->error == 0;) {
        struct engine_block block = {.table = load_u32(s->data + at),
                                     .number = load_u32(s->data + at + 4),
                                     .data = s->data + at + RECORD_HEAD,
                                     .size = load_u32(s->data + at + 8)};
        t->error = -FAILPOINT_ERROR("checkpoint/before-write", "a block is to be written");
        t->error = t->error == 0 ? checkpoint_env_put(&c->env, t->txn, &block, 0) : t->error;
        at += RECORD_HEAD + block.size;
    }
}

static void commit(struct checkpoint *c, struct transaction *t, struct checkpoint_meta *meta)
{
    if (t->error == 0) {
        t->error = checkpoint_env_write_owner(&c->env, t->txn, &c->owner);
    }
    if (t->error == 0) {
        t->error = checkpoint_env_write_meta(&c->env, t->txn, meta);
    }
    if (t->error == 0) {
        t->error = -FAILPOINT_ERROR("checkpoint/before-commit", "all blocks are written, not committed");
    }
    if (t->error == 0) {
        t->error = mdb_txn_commit(t->txn); /* synced; frees it either way */
        t->txn = NULL;
        FAILPOINT("checkpoint/after-commit", "the checkpoint is durable, nobody knows");
    }
    if (t->txn != NULL) {
        mdb_txn_abort(t->txn);
        t->txn = NULL;
    }
    if (t->error == 0) {
        pthread_mutex_lock(&c->lock);
        c->meta = *meta;
        c->has_meta = true;
        c->sequence++;
        checkpoint_note(c);
        pthread_mutex_unlock(&c->lock);
    } else if (t->error == MDB_MAP_FULL) {
        c->grow = true;
    } else {
        log_error("%s: checkpoint failed: %s; the log is kept until one succeeds", c->path,
                  mdb_strerror(t->error));
    }
}

static void report(struct checkpoint *c, const struct transaction *t,
                   const struct checkpoint_meta *meta, bool cancelled)
{
    pthread_mutex_lock(&c->queue_lock);
    c->result_ready = true;
    c->result_ok = t->error == 0 && !cancelled;
    c->result_again = t->error == MDB_MAP_FULL && !cancelled;
    c->result_meta = *meta;
    pthread_mutex_unlock(&c->queue_lock);
    CHECK(uv_async_send(&c->async) == 0);
}

static struct checkpoint_slice *dequeue(struct checkpoint *c)
{
    pthread_mutex_lock(&c->queue_lock);
    while (c->queue_head == NULL) {
        pthread_cond_wait(&c->queue_cond, &c->queue_lock);
    }
    struct checkpoint_slice *s = c->queue_head;
    c->queue_head = s->next;
    if (c->queue_head == NULL) {
        c->queue_tail = NULL;
    }
    c->queued -= s->size;
    pthread_mutex_unlock(&c->queue_lock);
    return s;
}

/* As many as the loop may have handed over at once, touched here and not there. */
static void make_spares(struct checkpoint *c)
{
    for (unsigned i = 0; i < CHECKPOINT_SPARES_MAX; i++) {
        struct checkpoint_slice *s = slice_create(SLICE_BLOCKS, CHECKPOINT_SLICE_SIZE);
        memset(s->data, 0, CHECKPOINT_SLICE_SIZE);
        slice_put(c, s);
    }
}

/* Whoever serves orders goes first where processors are scarce; a checkpoint may take longer. */
static void step_back(void)
{
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), WRITER_NICE);
}

static void *thread_main(void *arg)
{
    struct checkpoint *c = arg;
    step_back();
    make_spares(c);
    struct transaction t = {0};
    struct checkpoint_meta meta;
    (void)checkpoint_guard_begin(c->env.path); /* for the life of the thread */
    for (bool quit = false; !quit;) {
        struct checkpoint_slice *s = dequeue(c);
        if (s->kind != SLICE_QUIT && t.txn == NULL && t.error == 0) {
            begin(c, &t);
        }
        switch (s->kind) {
        case SLICE_BLOCKS:
            write_blocks(c, &t, s);
            break;
        case SLICE_COMMIT:
            memcpy(&meta, s->data, sizeof meta);
            commit(c, &t, &meta);
            report(c, &t, &meta, false);
            t = (struct transaction){0};
            break;
        case SLICE_CANCEL:
        case SLICE_QUIT:
            if (t.txn != NULL) {
                mdb_txn_abort(t.txn);
            }
            if (s->kind == SLICE_CANCEL) {
                meta = (struct checkpoint_meta){0};
                report(c, &t, &meta, true);
            }
            t = (struct transaction){0};
            quit = s->kind == SLICE_QUIT;
            break;
        }
        slice_put(c, s);
    }
    return NULL;
}

int checkpoint_writer_start(struct checkpoint *c)
{
    CHECK(pthread_mutex_init(&c->queue_lock, NULL) == 0);
    CHECK(pthread_cond_init(&c->queue_cond, NULL) == 0);
    CHECK(uv_async_init(c->loop, &c->async, async_cb) == 0);
    c->async.data = c;
    int rv = pthread_create(&c->thread, NULL, thread_main, c);
    if (rv != 0) {
        log_error("checkpoint thread: %s", strerror(rv));
        uv_close((uv_handle_t *)&c->async, NULL);
        uv_run(c->loop, UV_RUN_NOWAIT);
        return -1;
    }
    return 0;
}

void checkpoint_writer_stop(struct checkpoint *c)
{
    free(c->filling);
    c->filling = NULL;
    enqueue(c, slice_create(SLICE_QUIT, 0));
    CHECK(pthread_join(c->thread, NULL) == 0);
    while (c->spare != NULL) {
        struct checkpoint_slice *next = c->spare->next;
        free(c->spare);
        c->spare = next;
    }
    pthread_mutex_destroy(&c->queue_lock);
    pthread_cond_destroy(&c->queue_cond);
}
