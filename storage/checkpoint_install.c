/* A checkpoint that a peer gives: filled into a temporary generation, verified, then made the
 * current one (the order of steps is told in checkpoint.c). Until commit returns, the old one is
 * untouched. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/checkpoint_internal.h"

#define RECORD_HEAD 12u

struct checkpoint_install {
    struct checkpoint *c;
    struct checkpoint_env env; /* env NULL: not open */
    char temporary[CHECKPOINT_PATH_SIZE];
    uint64_t generation, last_key;
    bool any, has_meta, verified;
    struct checkpoint_meta meta;
};

int checkpoint_install_begin(struct checkpoint *c, struct checkpoint_install **out)
{
    struct checkpoint_install *i = calloc(1, sizeof *i);
    char name[CHECKPOINT_NAME_SIZE];
    CHECK(i != NULL);
    i->c = c;
    i->generation = c->env.generation + 1;
    checkpoint_remove_others(c);
    checkpoint_generation_name(i->generation, true, name);
    checkpoint_generation_path(c, name, i->temporary);
    if (mkdir(i->temporary, 0700) < 0) {
        log_error("%s: %s", i->temporary, strerror(errno));
        free(i);
        return -1;
    }
    /* Not synced at each chunk: once, before it counts. */
    if (checkpoint_env_open(&i->env, i->temporary, i->generation, c->map_size, true, MDB_NOSYNC) <
        0) {
        checkpoint_install_abort(i);
        return -1;
    }
    *out = i;
    return 0;
}

static int put_record(struct checkpoint_install *i, MDB_txn *txn, const struct engine_block *block)
{
    if (block->table == CHECKPOINT_META_TABLE) {
        if (i->any || i->has_meta ||
            checkpoint_meta_decode(&i->meta, block->data, block->size) < 0) {
            return -1;
        }
        i->has_meta = true;
        return 0;
    }
    uint64_t key = checkpoint_key(block->table, block->number);
    if (!i->has_meta || block->size == 0 || block->size > ENGINE_BLOCK_SIZE_MAX ||
        (i->any && key <= i->last_key)) {
        return -1;
    }
    i->any = true;
    i->last_key = key;
    return checkpoint_env_put(&i->env, txn, block, MDB_APPEND);
}

static int put_records(struct checkpoint_install *i, MDB_txn *txn, const void *records, size_t size)
{
    struct reader r = reader_init(records, size);
    while (reader_left(&r) > 0) {
        struct engine_block block = {.table = reader_u32(&r), .number = reader_u32(&r)};
        block.size = reader_u32(&r);
        block.data = reader_bytes(&r, block.size);
        if (r.failed) {
            return -1;
        }
        int rv = put_record(i, txn, &block);
        if (rv != 0) {
            return rv;
        }
    }
    return 0;
}

int checkpoint_install_put(struct checkpoint_install *i, const void *records, size_t size,
                           uint32_t crc)
{
    if (crc32c(0, records, size) != crc) {
        log_warn("install: a chunk does not match its checksum");
        return -1;
    }
    struct checkpoint_install before = *i;
    for (int attempt = 0;; attempt++) {
        MDB_txn *txn;
        int rv = mdb_txn_begin(i->env.env, NULL, 0, &txn);
        if (rv == 0) {
            rv = put_records(i, txn, records, size);
            if (rv == 0) {
                rv = mdb_txn_commit(txn);
            } else {
                mdb_txn_abort(txn);
            }
        }
        if (rv == 0) {
            return 0;
        }
        if (rv != MDB_MAP_FULL || attempt == 8 ||
            mdb_env_set_mapsize(i->env.env, checkpoint_env_map_size(&i->env) * 2) != 0) {
            log_error("install: %s: %s", i->temporary,
                      rv == -1 ? "a chunk is malformed" : mdb_strerror(rv));
            return -1;
        }
        before.env = i->env;
        *i = before;
    }
}

int checkpoint_install_put_meta(struct checkpoint_install *i, const struct checkpoint_meta *meta)
{
    if (i->any || i->has_meta) {
        log_error("install: %s: a second meta record", i->temporary);
        return -1;
    }
    i->meta = *meta;
    i->has_meta = true;
    return 0;
}

/* The meta goes in last: an environment with a meta is whole. */
static int finish(struct checkpoint_install *i)
{
    MDB_txn *txn;
    struct checkpoint_meta meta = i->meta;
    int rv = mdb_txn_begin(i->env.env, NULL, 0, &txn);
    if (rv == 0) {
        rv = checkpoint_env_write_owner(&i->env, txn, &i->c->owner);
    }
    if (rv == 0) {
        rv = checkpoint_env_write_meta(&i->env, txn, &meta);
        if (rv == 0 && meta.blocks_count != i->meta.blocks_count) {
            mdb_txn_abort(txn);
            log_warn("install: %llu blocks came, %llu were promised",
                     (unsigned long long)meta.blocks_count,
                     (unsigned long long)i->meta.blocks_count);
            return -1;
        }
        if (rv == 0) {
            rv = mdb_txn_commit(txn);
        } else {
            mdb_txn_abort(txn);
        }
    }
    if (rv == 0) {
        rv = mdb_env_sync(i->env.env, 1);
    }
    if (rv != 0) {
        log_error("install: %s: %s", i->temporary, mdb_strerror(rv));
        return -1;
    }
    return 0;
}

int checkpoint_install_verify(struct checkpoint_install *i, checkpoint_block_cb put, void *ctx,
                              struct checkpoint_meta *meta)
{
    if (!i->has_meta) {
        log_warn("install: nothing came");
        return -1;
    }
    if (finish(i) < 0 || checkpoint_env_walk(&i->env, i->temporary, put, ctx, meta) < 0) {
        return -1;
    }
    i->verified = true;
    return 0;
}

int checkpoint_install_commit(struct checkpoint_install *i)
{
    struct checkpoint *c = i->c;
    char name[CHECKPOINT_NAME_SIZE], path[CHECKPOINT_PATH_SIZE];
    struct checkpoint_env env;
    CHECK(i->verified);
    checkpoint_generation_name(i->generation, false, name);
    checkpoint_generation_path(c, name, path);
    checkpoint_env_close(&i->env);
    if (checkpoint_sync_path(i->temporary) < 0) {
        return -1;
    }
    if (rename(i->temporary, path) < 0) {
        log_error("%s: %s", path, strerror(errno));
        return -1;
    }
    memcpy(i->temporary, path, sizeof path); /* what abort has to remove from now on */
    if (checkpoint_sync_path(c->path) < 0 ||
        checkpoint_env_open(&env, path, i->generation, c->map_size, false, 0) < 0) {
        return -1;
    }
    if (checkpoint_write_current(c, name) < 0) {
        checkpoint_env_close(&env);
        return -1;
    }
    pthread_mutex_lock(&c->lock);
    checkpoint_drop_pins(c);
    checkpoint_env_close(&c->env);
    c->env = env;
    c->meta = i->meta;
    c->has_meta = true;
    c->sequence++;
    pthread_mutex_unlock(&c->lock);
    checkpoint_remove_others(c);
    free(i);
    return 0;
}

void checkpoint_install_abort(struct checkpoint_install *i)
{
    checkpoint_env_close(&i->env);
    checkpoint_remove_others(i->c);
    free(i);
}
