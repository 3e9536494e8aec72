/* From LMDB into an engine, on two threads.
 *
 *     reader (own thread): cursor → key order, CRC of each block → batches of references
 *     caller:              batches → engine_load_block (copies, hashes) → engine_load_check
 *     both:                engine_load_index, part by part, whoever is free
 *
 * A batch refers to blocks where LMDB has them: the reader keeps a read transaction until the last batch
 * is taken. At most LOAD_BATCHES are between the two.
 *
 * Failure modes: a damaged block ends the walk, which says so; a block that the engine does not take,
 * or a digest that is another, is said here. Either way the caller destroys the engine. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "base/advice.h"
#include "base/check.h"
#include "base/log.h"
#include "storage/checkpoint_internal.h"

#define LOAD_BATCHES      8u
#define LOAD_BATCH_BLOCKS 1024u

struct load_batch {
    struct engine_block blocks[LOAD_BATCH_BLOCKS];
    uint32_t count;
};

struct load {
    struct checkpoint *c;
    struct engine *engine;
    checkpoint_block_cb put;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct load_batch batches[LOAD_BATCHES];
    uint64_t filled, taken; /* batches, ever */
    bool ended, stop;       /* the reader is done; it should be */
    bool judged, good;      /* what was loaded, by the caller */
    int result;             /* of the walk */
    struct checkpoint_meta meta;
    atomic_uint parts;
};

/* ---- reader ---- */

/* Hands the batch being filled over, and waits for a free one. 0, or -1: stop. */
static int batch_filled(struct load *l)
{
    pthread_mutex_lock(&l->lock);
    l->filled++;
    pthread_cond_broadcast(&l->changed);
    while (l->filled - l->taken == LOAD_BATCHES && !l->stop) {
        pthread_cond_wait(&l->changed, &l->lock);
    }
    int result = l->stop ? -1 : 0;
    pthread_mutex_unlock(&l->lock);
    l->batches[l->filled % LOAD_BATCHES].count = 0;
    return result;
}

static int gather(void *ctx, const struct engine_block *block)
{
    struct load *l = ctx;
    struct load_batch *b = &l->batches[l->filled % LOAD_BATCHES];
    b->blocks[b->count++] = *block;
    return b->count < LOAD_BATCH_BLOCKS ? 0 : batch_filled(l);
}

/* The last batch, and until all are taken. */
static void drain(struct load *l)
{
    pthread_mutex_lock(&l->lock);
    l->filled++;
    pthread_cond_broadcast(&l->changed);
    while (l->taken < l->filled && !l->stop) {
        pthread_cond_wait(&l->changed, &l->lock);
    }
    pthread_mutex_unlock(&l->lock);
}

static void index_parts(struct load *l)
{
    for (unsigned part; (part = atomic_fetch_add(&l->parts, 1)) < ENGINE_LOAD_PARTS;) {
        engine_load_index(l->engine, part);
    }
}

static void *reader_main(void *arg)
{
    struct load *l = arg;
    char name[CHECKPOINT_NAME_SIZE], path[CHECKPOINT_PATH_SIZE];
    MDB_txn *txn; /* keeps what the walk's own transaction sees */
    checkpoint_generation_name(l->c->env.generation, false, name);
    checkpoint_generation_path(l->c, name, path);
    const char *outer = checkpoint_guard_begin(l->c->env.path);
    int rv = mdb_txn_begin(l->c->env.env, NULL, MDB_RDONLY, &txn);
    CHECK(rv == 0);
    int result = checkpoint_env_walk(&l->c->env, path, gather, l, &l->meta);
    drain(l);
    mdb_txn_abort(txn);
    checkpoint_guard_end(outer);
    pthread_mutex_lock(&l->lock);
    l->result = result;
    l->ended = true;
    pthread_cond_broadcast(&l->changed);
    /* What was loaded is judged by the other side before its indexes are derived. */
    while (!l->judged) {
        pthread_cond_wait(&l->changed, &l->lock);
    }
    bool good = l->good;
    pthread_mutex_unlock(&l->lock);
    if (good) {
        index_parts(l);
    }
    return NULL;
}

/* ---- caller ---- */

/* Returns the next batch, or NULL: that was the last one. */
static struct load_batch *batch_wait(struct load *l)
{
    pthread_mutex_lock(&l->lock);
    while (l->filled == l->taken && !l->ended) {
        pthread_cond_wait(&l->changed, &l->lock);
    }
    struct load_batch *b = l->filled > l->taken ? &l->batches[l->taken % LOAD_BATCHES] : NULL;
    pthread_mutex_unlock(&l->lock);
    return b;
}

static void batch_taken(struct load *l, bool stop)
{
    pthread_mutex_lock(&l->lock);
    l->taken++;
    l->stop = stop;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
}

/* Until the reader has ended. Returns false when the engine did not take a block. */
static bool take_batches(struct load *l, uint64_t total, checkpoint_progress_cb progress, void *ctx)
{
    uint64_t done = 0;
    bool good = true;
    for (struct load_batch *b; (b = batch_wait(l)) != NULL;) {
        for (uint32_t i = 0; i < b->count && good; i++) {
            good = l->put(l->engine, &b->blocks[i]) == 0;
        }
        done += b->count;
        batch_taken(l, !good);
        if (progress != NULL) {
            progress(ctx, done, total);
        }
    }
    return good;
}

static bool judge(struct load *l, bool taken)
{
    pthread_mutex_lock(&l->lock);
    CHECK(l->ended);
    bool good = taken && l->result == 0 &&
                engine_load_check(l->engine, l->meta.index, l->meta.digest) == 0;
    if (!good && l->result == 0) {
        log_error("%s/data.mdb: the state does not match its digest: a page is of another time, or "
                  "damaged, or it was written by another version. " ADVICE_REBUILD,
                  l->c->env.path);
    }
    l->good = good;
    l->judged = true;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    return good;
}

static int put_block(void *engine, const struct engine_block *block)
{
    return engine_load_block(engine, block);
}

int checkpoint_load_engine(struct checkpoint *c, struct engine *engine, checkpoint_block_cb put,
                           checkpoint_progress_cb progress, void *ctx)
{
    struct load *l = calloc(1, sizeof *l);
    struct checkpoint_meta meta;
    pthread_t reader;
    CHECK(l != NULL);
    CHECK(checkpoint_get_meta(c, &meta));
    l->c = c;
    l->engine = engine;
    l->put = put != NULL ? put : put_block;
    CHECK(pthread_mutex_init(&l->lock, NULL) == 0);
    CHECK(pthread_cond_init(&l->changed, NULL) == 0);
    CHECK(pthread_create(&reader, NULL, reader_main, l) == 0);
    const char *outer = checkpoint_guard_begin(c->env.path);
    bool taken = take_batches(l, meta.blocks_count, progress, ctx);
    checkpoint_guard_end(outer);
    bool good = judge(l, taken);
    if (good) {
        index_parts(l);
    }
    CHECK(pthread_join(reader, NULL) == 0);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->changed);
    free(l);
    return good ? 0 : -1;
}
