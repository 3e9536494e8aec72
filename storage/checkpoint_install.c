/* A checkpoint that a peer gives: filled into a temporary generation, verified, then made the
 * current one (the order of steps is told in checkpoint.c). Until commit returns, the old one is
 * untouched.
 *
 * Happy path: put judges a chunk (checksum, form, key order) and gathers it → at
 * CHECKPOINT_INSTALL_PIECE_SIZE, or _MS after the last, one synced transaction writes what was gathered and, with it, the
 * `install` record: of which checkpoint this is a part, and how many blocks there are → … → finish adds
 * the meta → the caller judges every block as it stands on disk → commit.
 *
 * LMDB is copy-on-write and each piece is synced, so a crash at any point leaves the pieces before it,
 * and a record that says so. A part is found again at the next start, judged as everything is before LMDB
 * follows it (checkpoint_verify.c), and taken up when the very same checkpoint is offered again. What is wrong with it costs the part, never more: it is removed and the install starts
 * over.
 *
 * Failure modes: a chunk that is wrong, no space, an I/O error: -1, the caller aborts. The map is too
 * small: it grows, within the call. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/clock.h"
#include "base/crc32c.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "storage/checkpoint_internal.h"

#define RECORD_MAGIC    0x534E4948u /* "HINS" */
#define RECORD_VERSION  1u
#define RECORD_SIZE_MAX (CHECKPOINT_META_SIZE_MAX + 64u)
#define GROW_MAX        8 /* doublings of the map in one call */

struct checkpoint_install {
    struct checkpoint *c;
    struct checkpoint_env env; /* env NULL: not open */
    char temporary[CHECKPOINT_PATH_SIZE];
    uint64_t generation;
    bool resumed, verified;
    bool keep; /* what is durable may be taken up again */
    /* As judged by put, durable or not. */
    bool any, has_meta;
    uint64_t last_key, blocks, bytes;
    struct checkpoint_meta meta;
    struct text gathered; /* records of blocks that are not yet written */
    uint64_t written_ms;  /* when the last piece was */
};

static MDB_val record_key(void)
{
    static char key[] = "install";
    return (MDB_val){sizeof key - 1, key};
}

/* ---- the record of how far it came ---- */

static int record_write(struct checkpoint_install *i, MDB_txn *txn)
{
    uint8_t bytes[RECORD_SIZE_MAX], meta[CHECKPOINT_META_SIZE_MAX];
    size_t meta_size = checkpoint_meta_encode(&i->meta, meta);
    struct writer w = writer_init(bytes, sizeof bytes);
    writer_u32(&w, RECORD_MAGIC);
    writer_u32(&w, RECORD_VERSION);
    writer_u64(&w, i->blocks);
    writer_u64(&w, i->bytes);
    writer_u32(&w, (uint32_t)meta_size);
    writer_bytes(&w, meta, meta_size);
    writer_u32(&w, crc32c(0, bytes, writer_size(&w)));
    CHECK(!w.failed);
    MDB_val key = record_key(), value = {writer_size(&w), bytes};
    return mdb_put(txn, i->env.meta, &key, &value, 0);
}

/* 0, or -1: there is none, or it is damaged, or does not tell what lies there. */
static int record_read(struct checkpoint_install *i, MDB_txn *txn)
{
    MDB_val key = record_key(), value;
    MDB_stat stat;
    if (mdb_get(txn, i->env.meta, &key, &value) != 0 || mdb_stat(txn, i->env.blocks, &stat) != 0) {
        return -1;
    }
    struct reader r = reader_init(value.mv_data, value.mv_size);
    if (reader_u32(&r) != RECORD_MAGIC || reader_u32(&r) != RECORD_VERSION) {
        return -1;
    }
    i->blocks = reader_u64(&r);
    i->bytes = reader_u64(&r);
    uint32_t meta_size = reader_u32(&r);
    const void *meta = meta_size <= CHECKPOINT_META_SIZE_MAX ? reader_bytes(&r, meta_size) : NULL;
    size_t covered = meta != NULL ? (size_t)(r.at - (const uint8_t *)value.mv_data) : 0;
    uint32_t crc = reader_u32(&r);
    if (meta == NULL || r.failed || reader_left(&r) != 0 ||
        crc != crc32c(0, value.mv_data, covered) ||
        checkpoint_meta_decode(&i->meta, meta, meta_size) < 0 || i->blocks != stat.ms_entries ||
        i->blocks > i->meta.blocks_count) {
        return -1;
    }
    i->has_meta = true;
    return 0;
}

/* The part's record and its last key. 0, or -1. */
static int part_read(struct checkpoint_install *i)
{
    MDB_txn *txn;
    MDB_cursor *cursor;
    MDB_val key, value;
    struct engine_block block;
    if (mdb_txn_begin(i->env.env, NULL, MDB_RDONLY, &txn) != 0) {
        return -1;
    }
    const char *outer = checkpoint_guard_begin(i->temporary);
    int result = record_read(i, txn);
    if (result == 0 && i->blocks > 0) {
        CHECK(mdb_cursor_open(txn, i->env.blocks, &cursor) == 0);
        if (mdb_cursor_get(cursor, &key, &value, MDB_LAST) == 0 &&
            checkpoint_env_check_value(&key, &value, &block) == 0) {
            i->any = true;
            i->last_key = checkpoint_key(block.table, block.number);
        } else {
            result = -1;
        }
        mdb_cursor_close(cursor);
    }
    checkpoint_guard_end(outer);
    mdb_txn_abort(txn);
    return result;
}

static void part_path(struct checkpoint_install *i, struct checkpoint *c)
{
    char name[CHECKPOINT_NAME_SIZE];
    i->c = c;
    i->generation = c->env.generation + 1;
    checkpoint_generation_name(i->generation, true, name);
    checkpoint_generation_path(c, name, i->temporary);
}

static void part_note(struct checkpoint *c, const struct checkpoint_install *i)
{
    pthread_mutex_lock(&c->lock);
    c->partial_generation = i != NULL ? i->generation : 0;
    if (i != NULL) {
        c->partial = (struct checkpoint_identity){i->meta.index, i->meta.term, i->meta.digest};
    }
    pthread_mutex_unlock(&c->lock);
}

void checkpoint_find_partial(struct checkpoint *c)
{
    struct checkpoint_install i = {0};
    struct stat st;
    char file[CHECKPOINT_PATH_SIZE + 16];
    part_path(&i, c);
    snprintf(file, sizeof file, "%s/data.mdb", i.temporary);
    if (stat(file, &st) < 0 || st.st_size == 0) {
        return;
    }
    if (checkpoint_verify_file(i.temporary, true) < 0 ||
        checkpoint_env_open(&i.env, i.temporary, i.generation, c->map_size, false, 0) < 0) {
        log_warn("install: %s: of no use, removed: the install will start over", i.temporary);
        return;
    }
    if (part_read(&i) == 0) {
        part_note(c, &i);
        log_info("install: a part is there index=%llu blocks=%llu/%llu",
                 (unsigned long long)i.meta.index, (unsigned long long)i.blocks,
                 (unsigned long long)i.meta.blocks_count);
    }
    checkpoint_env_close(&i.env);
}

bool checkpoint_get_partial(struct checkpoint *c, struct checkpoint_identity *of)
{
    pthread_mutex_lock(&c->lock);
    bool is = c->partial_generation != 0;
    *of = c->partial;
    pthread_mutex_unlock(&c->lock);
    return is;
}

void checkpoint_remove_partial(struct checkpoint *c)
{
    part_note(c, NULL);
    checkpoint_remove_others(c);
}

/* ---- begin ---- */

/* 0: i goes on where the part ends. -1: there is none of this checkpoint that is of use. */
static int resume(struct checkpoint_install *i, const struct checkpoint_identity *of)
{
    struct checkpoint *c = i->c;
    struct checkpoint_identity is;
    if (of == NULL || !checkpoint_get_partial(c, &is) || c->partial_generation != i->generation ||
        is.index != of->index || is.term != of->term || is.digest != of->digest) {
        return -1;
    }
    if (checkpoint_verify_file(i->temporary, false) < 0 ||
        checkpoint_env_open(&i->env, i->temporary, i->generation, c->map_size, false, 0) < 0 ||
        part_read(i) < 0) {
        checkpoint_env_close(&i->env);
        log_warn("install: %s: of no use, removed: the install starts over", i->temporary);
        return -1;
    }
    i->resumed = true;
    i->keep = true;
    return 0;
}

int checkpoint_install_begin(struct checkpoint *c, const struct checkpoint_identity *of,
                             struct checkpoint_install **out)
{
    struct checkpoint_install *i = calloc(1, sizeof *i);
    CHECK(i != NULL);
    part_path(i, c);
    if (resume(i, of) == 0) {
        part_note(c, NULL); /* in use: no longer one to be removed or taken up */
        i->written_ms = clock_monotonic_ms();
        *out = i;
        return 0;
    }
    struct checkpoint_install fresh = {.c = c, .generation = i->generation};
    memcpy(fresh.temporary, i->temporary, sizeof fresh.temporary);
    *i = fresh;
    checkpoint_remove_partial(c);
    if (mkdir(i->temporary, 0700) < 0) {
        log_error("%s: %s", i->temporary, strerror(errno));
        free(i);
        return -1;
    }
    if (checkpoint_env_open(&i->env, i->temporary, i->generation, c->map_size, true, 0) < 0 ||
        checkpoint_sync_path(c->path) < 0) {
        checkpoint_install_abort(i);
        return -1;
    }
    i->written_ms = clock_monotonic_ms();
    *out = i;
    return 0;
}

void checkpoint_install_get_progress(const struct checkpoint_install *i,
                                     struct checkpoint_install_progress *p)
{
    *p = (struct checkpoint_install_progress){.resumed = i->resumed,
                                              .has_meta = i->has_meta,
                                              .blocks = i->blocks,
                                              .bytes = i->bytes,
                                              .unsynced = i->gathered.len > 0,
                                              .meta = i->meta};
    if (i->any) {
        store_u64(p->next, i->last_key);
        p->next_size = sizeof p->next;
    }
}

/* ---- put ---- */

static int judge(struct checkpoint_install *i, const struct engine_block *block)
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
        (i->any && key <= i->last_key) || i->blocks == i->meta.blocks_count) {
        return -1;
    }
    i->any = true;
    i->last_key = key;
    i->blocks++;
    i->bytes += block->size;
    uint32_t head[3] = {block->table, block->number, block->size};
    text_append(&i->gathered, head, sizeof head);
    text_append(&i->gathered, block->data, block->size);
    return 0;
}

static bool next_block(struct reader *r, struct engine_block *block)
{
    if (reader_left(r) == 0) {
        return false;
    }
    block->table = reader_u32(r);
    block->number = reader_u32(r);
    block->size = reader_u32(r);
    block->data = reader_bytes(r, block->size);
    return !r->failed;
}

static int write_in(struct checkpoint_install *i, MDB_txn *txn, bool whole)
{
    struct reader r = reader_init(i->gathered.data, i->gathered.len);
    struct engine_block block;
    int rv = 0;
    while (rv == 0 && next_block(&r, &block)) {
        rv = checkpoint_env_put(&i->env, txn, &block, MDB_APPEND);
    }
    rv = rv == 0 ? record_write(i, txn) : rv;
    if (rv == 0 && whole) {
        struct checkpoint_meta meta = i->meta;
        rv = checkpoint_env_write_owner(&i->env, txn, &i->c->owner);
        rv = rv == 0 ? checkpoint_env_write_meta(&i->env, txn, &meta) : rv;
        CHECK(rv != 0 || meta.blocks_count == i->blocks);
    }
    return rv;
}

/* What was gathered, and with whole the meta: an environment with a meta is whole. Durable when it
 * returns 0. */
static int write_piece(struct checkpoint_install *i, bool whole)
{
    int rv = 0;
    for (int attempt = 0; attempt <= GROW_MAX; attempt++) {
        MDB_txn *txn;
        rv = mdb_txn_begin(i->env.env, NULL, 0, &txn);
        if (rv == 0) {
            rv = write_in(i, txn, whole);
            rv = rv == 0 ? -FAILPOINT_ERROR("install/before-piece", "a piece is written, not committed")
                         : rv;
            if (rv == 0) {
                rv = mdb_txn_commit(txn); /* synced */
            } else {
                mdb_txn_abort(txn);
            }
        }
        if (rv != MDB_MAP_FULL) {
            break;
        }
        int grown = mdb_env_set_mapsize(i->env.env, checkpoint_env_map_size(&i->env) * 2);
        if (grown != 0) {
            rv = grown;
            break;
        }
    }
    if (rv != 0) {
        log_error("install: %s: %s", i->temporary, mdb_strerror(rv));
        return -1;
    }
    FAILPOINT("install/after-piece", "a piece is durable");
    text_clear(&i->gathered);
    i->keep = true;
    i->written_ms = clock_monotonic_ms();
    return 0;
}

int checkpoint_install_put(struct checkpoint_install *i, const void *records, size_t size,
                           uint32_t crc)
{
    if (crc32c(0, records, size) != crc) {
        log_warn("install: a chunk does not match its checksum");
        return 1;
    }
    struct reader r = reader_init(records, size);
    struct engine_block block;
    while (next_block(&r, &block)) {
        if (judge(i, &block) < 0) {
            r.failed = true;
            break;
        }
    }
    if (r.failed) {
        i->keep = false;
        log_warn("install: a chunk is malformed");
        return -1;
    }
    bool due = i->gathered.len >= CHECKPOINT_INSTALL_PIECE_SIZE ||
               (i->gathered.len > 0 &&
                clock_monotonic_ms() - i->written_ms >= CHECKPOINT_INSTALL_PIECE_MS);
    return due ? write_piece(i, false) : 0;
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

/* ---- the end ---- */

int checkpoint_install_verify(struct checkpoint_install *i, checkpoint_block_cb put, void *ctx,
                              struct checkpoint_meta *meta)
{
    if (!i->has_meta || i->blocks != i->meta.blocks_count) {
        log_warn("install: %llu blocks came, %llu were promised", (unsigned long long)i->blocks,
                 (unsigned long long)(i->has_meta ? i->meta.blocks_count : 0));
        return -1;
    }
    if (write_piece(i, true) < 0 ||
        checkpoint_env_walk(&i->env, i->temporary, put, ctx, meta) < 0) {
        return -1;
    }
    i->verified = true;
    return 0;
}

static void install_free(struct checkpoint_install *i)
{
    text_close(&i->gathered);
    free(i);
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
    if (FAILPOINT_ERROR("install/before-rename", "what came is whole, under a temporary name") < 0 ||
        rename(i->temporary, path) < 0) {
        log_error("%s: %s", path, strerror(errno));
        return -1;
    }
    FAILPOINT("install/after-rename", "it has its name, CURRENT names the old one");
    memcpy(i->temporary, path, sizeof path);
    i->keep = false; /* under this name it is not looked for */
    if (checkpoint_sync_path(c->path) < 0 ||
        checkpoint_env_open(&env, path, i->generation, c->map_size, false, 0) < 0) {
        return -1;
    }
    if (checkpoint_write_current(c, name) < 0) {
        checkpoint_env_close(&env);
        return -1;
    }
    FAILPOINT("install/switched", "CURRENT names what came, the old one is still there");
    pthread_mutex_lock(&c->lock);
    checkpoint_drop_pins(c);
    checkpoint_env_close(&c->env);
    c->env = env;
    c->meta = i->meta;
    c->has_meta = true;
    c->sequence++;
    checkpoint_note(c);
    pthread_mutex_unlock(&c->lock);
    checkpoint_remove_others(c);
    install_free(i);
    return 0;
}

void checkpoint_install_suspend(struct checkpoint_install *i)
{
    if (i->gathered.len > 0) {
        (void)write_piece(i, false); /* else it is what was durable before */
    }
    if (!i->keep) {
        checkpoint_install_abort(i);
        return;
    }
    checkpoint_env_close(&i->env);
    part_note(i->c, i);
    install_free(i);
}

void checkpoint_install_abort(struct checkpoint_install *i)
{
    checkpoint_env_close(&i->env);
    checkpoint_remove_partial(i->c);
    install_free(i);
}
