/* One LMDB environment: blocks by integer key (table << 32 | number), each with its CRC in front,
 * and one meta record, all changed in single transactions. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/advice.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/checkpoint_internal.h"

_Static_assert(sizeof(size_t) == sizeof(uint64_t), "MDB_INTEGERKEY takes size_t or unsigned int");

#define META_MAGIC 0x504B4348u /* "HCKP" */
#define META_KEY   "checkpoint"
#define OWNER_KEY   "owner"
#define OWNER_MAGIC 0x4E574F48u /* "HOWN" */
#define OWNER_SIZE  32u
#define READERS    (CHECKPOINT_READERS_MAX + 8)

static MDB_val meta_key(void)
{
    static char key[] = META_KEY;
    return (MDB_val){sizeof key - 1, key};
}

int checkpoint_env_open(struct checkpoint_env *e, const char *path, uint64_t generation,
                        uint64_t map_size, bool create, unsigned flags)
{
    char file[CHECKPOINT_PATH_SIZE + 16];
    struct stat st;
    snprintf(file, sizeof file, "%s/data.mdb", path);
    map_size = map_size != 0 ? map_size : CHECKPOINT_MAP_SIZE_DEFAULT;
    if (stat(file, &st) == 0 && (uint64_t)st.st_size > map_size / 4) {
        map_size = (uint64_t)st.st_size * 4;
    } else if (!create && stat(file, &st) < 0) {
        log_error("%s: %s. " ADVICE_REBUILD,
                  file, strerror(errno));
        return -1;
    }
    memset(e, 0, sizeof *e);
    e->generation = generation;
    snprintf(e->path, sizeof e->path, "%s", path);
    const char *outer = checkpoint_guard_begin(e->path);
    int rv = mdb_env_create(&e->env);
    CHECK(rv == 0);
    CHECK(mdb_env_set_maxdbs(e->env, 2) == 0);
    CHECK(mdb_env_set_maxreaders(e->env, READERS) == 0);
    CHECK(mdb_env_set_mapsize(e->env, map_size) == 0);
    rv = mdb_env_open(e->env, path, MDB_NOTLS | MDB_NORDAHEAD | flags, 0600);
    MDB_txn *txn = NULL;
    if (rv == 0 && (flags & MDB_NOLOCK) == 0) {
        int dead;
        rv = mdb_reader_check(e->env, &dead);
    }
    unsigned create_flag = create ? MDB_CREATE : 0;
    if (rv == 0) {
        rv = mdb_txn_begin(e->env, NULL, create ? 0 : MDB_RDONLY, &txn);
    }
    if (rv == 0) {
        rv = mdb_dbi_open(txn, "blocks", create_flag | MDB_INTEGERKEY, &e->blocks);
    }
    if (rv == 0) {
        rv = mdb_dbi_open(txn, "meta", create_flag, &e->meta);
    }
    if (rv == 0) {
        rv = mdb_txn_commit(txn);
        txn = NULL;
    }
    checkpoint_guard_end(outer);
    if (rv != 0) {
        if (txn != NULL) {
            mdb_txn_abort(txn);
        }
        log_error("%s: %s; it is damaged or not readable. " ADVICE_REBUILD,
                  file, mdb_strerror(rv));
        checkpoint_env_close(e);
        return -1;
    }
    /* A file that was cut would end in SIGBUS when its tail is read. */
    if (!create && (stat(file, &st) < 0 || (uint64_t)st.st_size < checkpoint_env_used(e))) {
        log_error(
            "%s: is %llu bytes, should be at least %llu: it was cut. " ADVICE_REBUILD,
            file, (unsigned long long)st.st_size, (unsigned long long)checkpoint_env_used(e));
        checkpoint_env_close(e);
        return -1;
    }
    return 0;
}

void checkpoint_env_close(struct checkpoint_env *e)
{
    if (e->env != NULL) {
        mdb_env_close(e->env);
        e->env = NULL;
    }
}

uint64_t checkpoint_env_used(const struct checkpoint_env *e)
{
    MDB_envinfo info;
    MDB_stat stat;
    CHECK(mdb_env_info(e->env, &info) == 0);
    CHECK(mdb_env_stat(e->env, &stat) == 0);
    return ((uint64_t)info.me_last_pgno + 1) * stat.ms_psize;
}

uint64_t checkpoint_env_map_size(const struct checkpoint_env *e)
{
    MDB_envinfo info;
    CHECK(mdb_env_info(e->env, &info) == 0);
    return info.me_mapsize;
}

/* ---- meta ---- */

size_t checkpoint_meta_encode(const struct checkpoint_meta *m, uint8_t *out)
{
    CHECK(m->position_size <= CHECKPOINT_POSITION_SIZE_MAX);
    struct writer w = writer_init(out, CHECKPOINT_META_SIZE_MAX);
    writer_u32(&w, META_MAGIC);
    writer_u32(&w, CHECKPOINT_FORMAT_VERSION);
    writer_u64(&w, m->index);
    writer_u64(&w, m->term);
    writer_u64(&w, m->digest);
    writer_u64(&w, (uint64_t)m->time_ms);
    writer_u64(&w, m->blocks_count);
    writer_u64(&w, (uint64_t)m->written_wall_ms);
    writer_u32(&w, m->position_size);
    writer_bytes(&w, m->position, m->position_size);
    writer_u32(&w, crc32c(0, out, writer_size(&w)));
    CHECK(!w.failed);
    return writer_size(&w);
}

int checkpoint_meta_decode(struct checkpoint_meta *m, const void *data, size_t size)
{
    *m = (struct checkpoint_meta){0};
    struct reader r = reader_init(data, size);
    if (reader_u32(&r) != META_MAGIC || reader_u32(&r) != CHECKPOINT_FORMAT_VERSION) {
        return -1;
    }
    m->index = reader_u64(&r);
    m->term = reader_u64(&r);
    m->digest = reader_u64(&r);
    m->time_ms = (int64_t)reader_u64(&r);
    m->blocks_count = reader_u64(&r);
    m->written_wall_ms = (int64_t)reader_u64(&r);
    m->position_size = reader_u32(&r);
    const void *position = m->position_size <= CHECKPOINT_POSITION_SIZE_MAX
                               ? reader_bytes(&r, m->position_size)
                               : NULL;
    if (position == NULL) {
        return -1;
    }
    memcpy(m->position, position, m->position_size);
    size_t covered = (size_t)(r.at - (const uint8_t *)data);
    uint32_t crc = reader_u32(&r);
    return r.failed || reader_left(&r) != 0 || crc != crc32c(0, data, covered) ? -1 : 0;
}

/* The version of a meta record whose magic and checksum are right; ours of anything else, which
 * checkpoint_meta_decode then finds damaged. Magic, version and a checksum at the end are in all. */
static uint32_t meta_version(const uint8_t *data, size_t size)
{
    bool whole = size >= 12 && load_u32(data) == META_MAGIC &&
                 load_u32(data + size - 4) == crc32c(0, data, size - 4);
    return whole ? load_u32(data + 4) : CHECKPOINT_FORMAT_VERSION;
}

int checkpoint_env_read_meta(struct checkpoint_env *e, MDB_txn *txn, struct checkpoint_meta *meta)
{
    MDB_val key = meta_key(), value;
    int rv = mdb_get(txn, e->meta, &key, &value);
    if (rv == MDB_NOTFOUND) {
        return 1;
    }
    if (rv == 0 && meta_version(value.mv_data, value.mv_size) != CHECKPOINT_FORMAT_VERSION) {
        log_error("%s/data.mdb: checkpoint format %u, this program reads %u. Nothing was changed. Run the "
                  "version of holdfast that wrote it, or one release before or after",
                  e->path, meta_version(value.mv_data, value.mv_size), CHECKPOINT_FORMAT_VERSION);
        return -2;
    }
    return rv != 0 || checkpoint_meta_decode(meta, value.mv_data, value.mv_size) < 0 ? -1 : 0;
}

int checkpoint_env_write_meta(struct checkpoint_env *e, MDB_txn *txn, struct checkpoint_meta *meta)
{
    MDB_stat stat;
    int rv = mdb_stat(txn, e->blocks, &stat);
    if (rv != 0) {
        return rv;
    }
    meta->blocks_count = stat.ms_entries;
    meta->written_wall_ms = clock_wall_ms();
    uint8_t encoded[CHECKPOINT_META_SIZE_MAX];
    MDB_val key = meta_key(), value = {checkpoint_meta_encode(meta, encoded), encoded};
    return mdb_put(txn, e->meta, &key, &value, 0);
}

/* ---- whose it is ---- */

static MDB_val owner_key(void)
{
    static char key[] = OWNER_KEY;
    return (MDB_val){sizeof key - 1, key};
}

static size_t owner_encode(const struct checkpoint_owner *o, uint8_t out[static OWNER_SIZE])
{
    struct writer w = writer_init(out, OWNER_SIZE);
    writer_u32(&w, OWNER_MAGIC);
    writer_bytes(&w, o->cluster_id, sizeof o->cluster_id);
    writer_u64(&w, o->node_id);
    writer_u32(&w, crc32c(0, out, writer_size(&w)));
    CHECK(!w.failed);
    return writer_size(&w);
}

int checkpoint_env_write_owner(struct checkpoint_env *e, MDB_txn *txn,
                               const struct checkpoint_owner *owner)
{
    uint8_t encoded[OWNER_SIZE];
    if (owner->node_id == 0) {
        return 0;
    }
    MDB_val key = owner_key(), value = {owner_encode(owner, encoded), encoded};
    return mdb_put(txn, e->meta, &key, &value, 0);
}

int checkpoint_env_check_owner(struct checkpoint_env *e, MDB_txn *txn,
                               const struct checkpoint_owner *owner)
{
    uint8_t encoded[OWNER_SIZE];
    MDB_val key = owner_key(), value;
    if (owner->node_id == 0 || mdb_get(txn, e->meta, &key, &value) == MDB_NOTFOUND) {
        return 0;
    }
    size_t size = owner_encode(owner, encoded);
    if (value.mv_size != size ||
        load_u32((const uint8_t *)value.mv_data + size - 4) != crc32c(0, value.mv_data, size - 4)) {
        log_error("%s/data.mdb: the record of its owner is damaged. " ADVICE_REBUILD, e->path);
        return -1;
    }
    if (memcmp(value.mv_data, encoded, size) != 0) {
        log_error("%s/data.mdb: this checkpoint belongs to node %llu of %s, we are node %llu. Put the "
                  "right file back. " ADVICE_REBUILD,
                  e->path, (unsigned long long)load_u64((const uint8_t *)value.mv_data + 20),
                  memcmp((const uint8_t *)value.mv_data + 4, owner->cluster_id, 16) == 0
                      ? "this cluster"
                      : "another cluster",
                  (unsigned long long)owner->node_id);
        return -1;
    }
    return 0;
}

/* ---- blocks ---- */

static uint32_t block_crc(uint64_t key, const void *data, size_t size)
{
    return crc32c(crc32c(0, &key, sizeof key), data, size);
}

int checkpoint_env_put(struct checkpoint_env *e, MDB_txn *txn, const struct engine_block *block,
                       unsigned flags)
{
    uint64_t number = checkpoint_key(block->table, block->number);
    MDB_val key = {sizeof number, &number};
    if (block->size == 0) {
        int rv = mdb_del(txn, e->blocks, &key, NULL);
        return rv == MDB_NOTFOUND ? 0 : rv;
    }
    CHECK(block->size <= ENGINE_BLOCK_SIZE_MAX);
    CHECK(block->table != CHECKPOINT_META_TABLE);
    MDB_val value = {CHECKPOINT_VALUE_HEAD + block->size, NULL};
    int rv = mdb_put(txn, e->blocks, &key, &value, flags | MDB_RESERVE);
    if (rv == 0) {
        store_u32(value.mv_data, block_crc(number, block->data, block->size));
        memcpy((uint8_t *)value.mv_data + CHECKPOINT_VALUE_HEAD, block->data, block->size);
    }
    return rv;
}

int checkpoint_env_check_value(const MDB_val *key, const MDB_val *value, struct engine_block *block)
{
    if (key->mv_size != sizeof(uint64_t) || value->mv_size <= CHECKPOINT_VALUE_HEAD ||
        value->mv_size > CHECKPOINT_VALUE_HEAD + ENGINE_BLOCK_SIZE_MAX) {
        return -1;
    }
    uint64_t number = load_u64(key->mv_data);
    *block = (struct engine_block){.table = (uint32_t)(number >> 32),
                                   .number = (uint32_t)number,
                                   .data = (const uint8_t *)value->mv_data + CHECKPOINT_VALUE_HEAD,
                                   .size = (uint32_t)(value->mv_size - CHECKPOINT_VALUE_HEAD)};
    return load_u32(value->mv_data) == block_crc(number, block->data, block->size) ? 0 : -1;
}

static int walk_blocks(struct checkpoint_env *e, MDB_txn *txn, const char *path,
                       checkpoint_block_cb put, void *ctx, uint64_t *count)
{
    MDB_cursor *cursor;
    MDB_val key, value;
    uint64_t last = 0;
    int result = 0;
    *count = 0;
    CHECK(mdb_cursor_open(txn, e->blocks, &cursor) == 0);
    int rv = mdb_cursor_get(cursor, &key, &value, MDB_FIRST);
    while (rv == 0) {
        struct engine_block block;
        if (checkpoint_env_check_value(&key, &value, &block) < 0) {
            log_error(
                "%s/data.mdb: block after %llx does not match its checksum: it is damaged. " ADVICE_REBUILD,
                path, (unsigned long long)last);
            (void)checkpoint_verify_file(path, true); /* says at which offset */
            result = -1;
            break;
        }
        uint64_t number = checkpoint_key(block.table, block.number);
        if (*count > 0 && number <= last) { /* also ends a walk in a circle */
            log_error(
                "%s/data.mdb: blocks out of order after %llx: it is damaged. " ADVICE_REBUILD,
                path, (unsigned long long)last);
            result = -1;
            break;
        }
        last = number;
        (*count)++;
        if (put != NULL && put(ctx, &block) < 0) {
            log_error("%s/data.mdb: block %llx is not understood: written by another version, or "
                      "damaged. " ADVICE_REBUILD,
                      path, (unsigned long long)number);
            result = -1;
            break;
        }
        rv = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    mdb_cursor_close(cursor);
    if (rv != 0 && rv != MDB_NOTFOUND) {
        log_error("%s: %s", path, mdb_strerror(rv));
        result = -1;
    }
    return result;
}

int checkpoint_env_walk(struct checkpoint_env *e, const char *path, checkpoint_block_cb put,
                        void *ctx, struct checkpoint_meta *meta)
{
    MDB_txn *txn;
    uint64_t count;
    const char *outer = checkpoint_guard_begin(e->path);
    int rv = mdb_txn_begin(e->env, NULL, MDB_RDONLY, &txn);
    if (rv != 0) {
        log_error("%s: %s", path, mdb_strerror(rv));
        checkpoint_guard_end(outer);
        return -1;
    }
    int result = checkpoint_env_read_meta(e, txn, meta);
    if (result != 0) {
        if (result != -2) {
            log_error("%s/data.mdb: its meta record is %s. " ADVICE_REBUILD, path,
                      result > 0 ? "missing" : "damaged");
        }
        result = -1;
    } else {
        result = walk_blocks(e, txn, path, put, ctx, &count);
        if (result == 0 && count != meta->blocks_count) {
            log_error(
                "%s/data.mdb: has %llu blocks, should have %llu: it is damaged. " ADVICE_REBUILD,
                path, (unsigned long long)count, (unsigned long long)meta->blocks_count);
            result = -1;
        }
    }
    mdb_txn_abort(txn);
    checkpoint_guard_end(outer);
    return result;
}
