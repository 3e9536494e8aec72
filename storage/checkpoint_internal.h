/* Inside of checkpoint: checkpoint.c (life, generations, CURRENT), checkpoint_env.c (one LMDB
 * environment, meta, walking), checkpoint_writer.c (thread and queue), checkpoint_reader.c (pins
 * and chunks), checkpoint_install.c. Nobody else includes this. */
#ifndef STORAGE_CHECKPOINT_INTERNAL_H
#define STORAGE_CHECKPOINT_INTERNAL_H

#include <lmdb.h>
#include <pthread.h>

#include "storage/checkpoint.h"

#define CHECKPOINT_NAME_SIZE     32 /* gen-00000001.tmp */
#define CHECKPOINT_PATH_SIZE     4096
#define CHECKPOINT_VALUE_HEAD    4u         /* crc32c before each block */
#define CHECKPOINT_META_TABLE    UINT32_MAX /* the meta among the records of a chunk */
#define CHECKPOINT_META_SIZE_MAX (CHECKPOINT_POSITION_SIZE_MAX + 128u)
#define CHECKPOINT_SLICE_SIZE    (256u << 10) /* handed from loop to thread at once */
#define CHECKPOINT_SPARES_MAX                                                                      \
    (CHECKPOINT_QUEUE_SIZE_MAX / CHECKPOINT_SLICE_SIZE) /* slices kept: the loop takes no new memory */

/* One LMDB environment. */
struct checkpoint_owner {
    uint8_t cluster_id[16];
    uint64_t node_id; /* 0: not known, nothing is written or compared */
};

struct checkpoint_env {
    char path[CHECKPOINT_PATH_SIZE]; /* of the directory */
    uint64_t generation;
    MDB_env *env;
    MDB_dbi blocks, meta;
};

/* ---- checkpoint_env.c ---- */

/* Opens (or with create makes) the environment in directory `path`. Returns 0, or -1 after logging.
 */
int checkpoint_env_open(struct checkpoint_env *e, const char *path, uint64_t generation,
                        uint64_t map_size, bool create, unsigned flags);
void checkpoint_env_close(struct checkpoint_env *e);
/* Says in the meta database whose this is. Returns an LMDB error. */
int checkpoint_env_write_owner(struct checkpoint_env *e, MDB_txn *txn,
                               const struct checkpoint_owner *owner);
/* 0, also when the environment does not say (none was written before ADR 0014), or -1 after logging. */
int checkpoint_env_check_owner(struct checkpoint_env *e, MDB_txn *txn,
                               const struct checkpoint_owner *owner);
/* 0, 1: there is none, -1: damaged (not logged), -2: whole, but of another version (logged). */
int checkpoint_env_read_meta(struct checkpoint_env *e, MDB_txn *txn, struct checkpoint_meta *meta);
/* Sets blocks_count and written_wall_ms, writes. Returns an LMDB error. */
int checkpoint_env_write_meta(struct checkpoint_env *e, MDB_txn *txn, struct checkpoint_meta *meta);
/* Returns an LMDB error. size 0 deletes. flags: as mdb_put. */
int checkpoint_env_put(struct checkpoint_env *e, MDB_txn *txn, const struct engine_block *block,
                       unsigned flags);
/* Every block in order, checked: key order, sizes, CRCs, the meta's count. 0, or -1 after logging
 * with `path`. put may be NULL. */
int checkpoint_env_walk(struct checkpoint_env *e, const char *path, checkpoint_block_cb put,
                        void *ctx, struct checkpoint_meta *meta);
/* The block that a value holds: 0, or -1 if key, size or CRC is wrong. */
int checkpoint_env_check_value(const MDB_val *key, const MDB_val *value,
                               struct engine_block *block);
size_t checkpoint_meta_encode(const struct checkpoint_meta *meta, uint8_t *out);
int checkpoint_meta_decode(struct checkpoint_meta *meta, const void *data, size_t size);
uint64_t checkpoint_env_used(const struct checkpoint_env *e);
uint64_t checkpoint_env_map_size(const struct checkpoint_env *e);

static inline uint64_t checkpoint_key(uint32_t table, uint32_t number)
{
    return (uint64_t)table << 32 | number;
}

/* ---- checkpoint_verify.c ---- */

/* Judges the structure of path/data.mdb without LMDB: what LMDB would trust; with content also the CRC of
 * every block. 0, or -1 after logging file, offset and what to do. */
int checkpoint_verify_file(const char *path, bool content);

/* ---- checkpoint_guard.c ---- */

/* From begin to end SIGBUS and SIGSEGV of this thread mean that path/data.mdb cannot be read: they end the
 * process with a message and CHECKPOINT_EXIT_CODE. Nests: end gets what begin returned. Borrows path. */
const char *checkpoint_guard_begin(const char *path);
void checkpoint_guard_end(const char *outer);

/* ---- the store ---- */

struct checkpoint_pin {
    pthread_mutex_t lock; /* one thread at a time in txn */
    MDB_txn *txn;         /* NULL: free */
    uint64_t id, index, term, digest, sequence, expires_ms;
};

enum slice_kind { SLICE_BLOCKS, SLICE_COMMIT, SLICE_CANCEL, SLICE_QUIT };

struct checkpoint_slice {
    struct checkpoint_slice *next;
    enum slice_kind kind;
    size_t size;
    uint8_t data[]; /* u32 table, u32 number, u32 size, bytes; repeated */
};

struct checkpoint {
    uv_loop_t *loop;
    char path[CHECKPOINT_PATH_SIZE]; /* DIR/checkpoint */
    uint64_t map_size;
    struct checkpoint_owner owner;

    /* Guards env as a whole against being switched or grown, the pins' table, and meta. Held for as
     * long as that takes, and by who ends a pin for as long as a chunk of it is read: the loop may only
     * try it. */
    pthread_mutex_t lock;
    struct checkpoint_env env;
    struct checkpoint_meta meta;
    bool has_meta;
    uint64_t sequence; /* grows with each meta */
    struct checkpoint_pin pins[CHECKPOINT_READERS_MAX];
    uint64_t pins_sequence;
    uint8_t secret[16]; /* in tickets: those of an earlier process are not ours */

    /* A part of an install, not under way: its generation, 0 when there is none; and of what */
    uint64_t partial_generation;
    struct checkpoint_identity partial;

    /* What the loop asks for, as of the last change: checkpoint_note. Held for no time. */
    pthread_mutex_t figures_lock;
    struct {
        struct checkpoint_meta meta;
        bool has_meta;
        uint64_t generation, map_size, used_size, pins;
    } figures;

    /* Writer: loop side */
    bool busy, ending, cancelled;
    struct checkpoint_meta taking;
    checkpoint_done_cb done;
    void *done_ctx;
    struct checkpoint_slice *filling;
    size_t filling_capacity;
    uint64_t begun_ns, records, bytes;
    uint64_t taken_total, failed_total, last_records, last_bytes, last_duration_ns;
    int64_t last_success_wall_ms;
    uv_async_t async;
    void (*closed)(void *ctx);
    void *closed_ctx;

    /* Writer: between loop and thread */
    pthread_t thread;
    pthread_mutex_t queue_lock;
    pthread_cond_t queue_cond;
    struct checkpoint_slice *queue_head, *queue_tail;
    struct checkpoint_slice *spare; /* of CHECKPOINT_SLICE_SIZE, to be filled again */
    size_t spares;
    size_t queued; /* bytes */
    bool result_ready, result_ok, result_again;
    struct checkpoint_meta result_meta;
    /* Writer: thread's own */
    bool grow;
};

/* ---- checkpoint_install.c ---- */
/* Before threads are started: sets c->partial if there is one that is sound. */
void checkpoint_find_partial(struct checkpoint *c);

/* ---- checkpoint_writer.c ---- */
int checkpoint_writer_start(struct checkpoint *c);
void checkpoint_writer_stop(struct checkpoint *c); /* joins */
/* Under c->lock: ends every pin. */
void checkpoint_drop_pins(struct checkpoint *c);

/* ---- checkpoint.c ---- */
/* Under c->lock, after meta or env have changed: for checkpoint_get_meta and checkpoint_get_stats. */
void checkpoint_note(struct checkpoint *c);
void checkpoint_generation_path(const struct checkpoint *c, const char *name, char *out);
void checkpoint_generation_name(uint64_t generation, bool temporary,
                                char out[static CHECKPOINT_NAME_SIZE]);
int checkpoint_sync_path(const char *path); /* file or directory; -1 after logging */
int checkpoint_write_current(struct checkpoint *c, const char *name);
/* Of the directory DIR/checkpoint. The generation, 0 if there is no CURRENT, or -1 after logging. */
int64_t checkpoint_read_current(const char *directory);
/* 0, or -1 after logging: a generation lies there without CURRENT, and it is not a first empty one. */
int checkpoint_refuse_orphans(const char *directory);
/* Removes every generation but the current one and the part of an install (partial_generation); errors
 * are logged only. */
void checkpoint_remove_others(struct checkpoint *c);

#endif
