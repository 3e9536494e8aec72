/* checkpoint: the state machine on disk, in LMDB, taken while it goes on.
 *
 * What it owns: DIR/checkpoint, its writer thread, readers that are pinned for installs. What it
 * refuses: to look inside a block, to know Raft (a position is opaque bytes), to stall the loop.
 *
 *     DIR/checkpoint/CURRENT          the name of the generation that counts, one line
 *     DIR/checkpoint/gen-00000001/    an LMDB environment: blocks and meta (storage/README.md)
 *     DIR/checkpoint/gen-00000002.tmp one that an install is writing
 *
 * Happy path: checkpoint_begin(meta) → checkpoint_put for each changed block, in slices →
 * checkpoint_end → the thread commits blocks and meta in one transaction, synced → done(ok). What
 * was there before stays readable until that moment and after a crash at any point of it.
 *
 * Failure modes: no space or an I/O error: done(false), the environment is what it was, try again
 * later. The map is too small: done(false) too, it is larger the next time. Damage: refused when
 * opened or loaded, with the file's name and what to do; never a partial state.
 *
 * Threads: "loop" functions belong to the loop's thread. "Blocking" functions read or write files
 * and belong on a worker thread, or on the loop's before it runs; they may run beside everything
 * else. */
#ifndef STORAGE_CHECKPOINT_H
#define STORAGE_CHECKPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/text.h"
#include "engine/engine.h"

#define CHECKPOINT_FORMAT_VERSION    1u
#define CHECKPOINT_EXIT_CODE         74 /* EX_IOERR: the map cannot be read: checkpoint_guard.c */
#define CHECKPOINT_POSITION_SIZE_MAX 2048u
#define CHECKPOINT_QUEUE_SIZE_MAX                                                                  \
    (16u << 20)                        /* handed over and not yet written: see checkpoint_room */
#define CHECKPOINT_READERS_MAX      8u /* pinned for installs at once */
#define CHECKPOINT_CHUNK_SIZE_MAX   (4u << 20)
#define CHECKPOINT_TICKET_SIZE      48u
#define CHECKPOINT_MAP_SIZE_DEFAULT (4ull << 30) /* of addresses, not of disk; doubles by itself   \
                                                  */

struct checkpoint_meta {
    uint64_t index, term, digest;
    int64_t time_ms; /* replicated */
    uint32_t position_size;
    uint8_t position[CHECKPOINT_POSITION_SIZE_MAX]; /* opaque */
    /* Set by the store: */
    uint64_t blocks_count;
    int64_t written_wall_ms;
};

struct checkpoint_config {
    uv_loop_t *loop;       /* NULL: checkpoint_attach follows */
    const char *directory; /* the node's data directory; checkpoint/ is made in it. Copied */
    uint64_t map_size;     /* at least; 0: CHECKPOINT_MAP_SIZE_DEFAULT */
    /* Whose checkpoints these are: another's are refused. 0: nobody asks. */
    uint64_t node_id;
    uint8_t cluster_id[16];
};

struct checkpoint;

/* Opens or creates, removes what an unfinished install or switch left, and judges the structure of the
 * file before LMDB, which trusts its pages, follows them (docs/adr/0014); the content of each block is
 * judged by whoever reads it. Blocking. Returns 0, or -1 after logging what is wrong and what to do. */
int checkpoint_open(const struct checkpoint_config *config, struct checkpoint **c);
/* After an open without a loop, on another thread perhaps: until now it could only be read. Loop. */
int checkpoint_attach(struct checkpoint *c, uv_loop_t *loop);

/* Loop. A checkpoint under way is given up (its done is not called). No blocking function may be
 * running. done is called when nothing is left. */
void checkpoint_close(struct checkpoint *c, void (*done)(void *ctx), void *ctx);

/* The newest durable one; false: there is none yet. Any thread. */
bool checkpoint_get_meta(struct checkpoint *c, struct checkpoint_meta *meta);

/* Gets one block; returns 0, or -1 to stop. */
typedef int (*checkpoint_block_cb)(void *ctx, const struct engine_block *block);

/* Gives every block of the newest checkpoint to put, CRCs checked. Blocking. Returns 0, or -1 after
 * logging (damage, or put refused). */
int checkpoint_load(struct checkpoint *c, checkpoint_block_cb put, void *ctx);

/* Loads the newest checkpoint into an engine fresh from engine_create and verifies it against its
 * meta: checksums and order of the blocks, their number, the engine's digest and index. Works on two
 * threads, this one and one of its own: one reads and checks blocks while the other puts them into
 * the engine; both derive its indexes. put (NULL: engine_load_block) is called with the engine, on
 * this thread, and so is progress (may be NULL), now and then, with blocks. Blocking. Returns 0, or -1 after logging: then only destroy the engine. */
typedef void (*checkpoint_progress_cb)(void *ctx, uint64_t done, uint64_t total);
int checkpoint_load_engine(struct checkpoint *c, struct engine *engine, checkpoint_block_cb put,
                           checkpoint_progress_cb progress, void *ctx);

/* The same without a store, without a change on disk and beside nothing: judges DIR/checkpoint as a start
 * would, structure and content, and gives every block to put (NULL: to nobody). owner as in the config.
 * Returns 1 with the meta, 0: there is no checkpoint, -1 after logging. Blocking. */
int checkpoint_inspect(const struct checkpoint_config *config, checkpoint_block_cb put, void *ctx,
                       struct checkpoint_meta *meta);

/* ---- taking one (loop) ---- */

/* ok false: nothing changed on disk; again: worth trying at once (the map has grown). */
typedef void (*checkpoint_done_cb)(void *ctx, bool ok, bool again,
                                   const struct checkpoint_meta *meta);

/* One at a time. meta is copied. */
void checkpoint_begin(struct checkpoint *c, const struct checkpoint_meta *meta,
                      checkpoint_done_cb done, void *ctx);
/* Copies the block into the queue (size 0: delete). Always takes it: blocks that an apply pushes
 * cannot wait. What may wait should, while checkpoint_room is small. */
void checkpoint_put(struct checkpoint *c, const struct engine_block *block);
/* Bytes until the queue holds CHECKPOINT_QUEUE_SIZE_MAX; 0 beyond. */
size_t checkpoint_room(struct checkpoint *c);
/* Hands over what checkpoint_put gathered so far; call it once a slice. */
void checkpoint_flush(struct checkpoint *c);
/* The digest, when begin could not know it yet; before end. */
void checkpoint_set_digest(struct checkpoint *c, uint64_t digest);
/* No more blocks: commit, or give up (blocks that still come are dropped). done follows. */
void checkpoint_end(struct checkpoint *c);
void checkpoint_cancel(struct checkpoint *c);
bool checkpoint_busy(const struct checkpoint *c);

/* ---- reading one for a peer ---- */

/* Pins the newest checkpoint for ttl_ms (again for a reader of the same one) and writes a ticket.
 * Loop. Returns 0, or -1: there is none, or all readers are in use. */
int checkpoint_pin(struct checkpoint *c, uint64_t now_ms, uint64_t ttl_ms,
                   uint8_t ticket[static CHECKPOINT_TICKET_SIZE], struct checkpoint_meta *meta);
/* What a checkpoint is, whoever has it: where identities are equal, so are all blocks. */
struct checkpoint_identity {
    uint64_t index, term, digest; /* of the meta */
};
/* That of the checkpoint which a ticket is for; false: it is no ticket of this version. Any thread. */
bool checkpoint_ticket_identity(const void *ticket, size_t size, struct checkpoint_identity *id);
/* Keeps what the ticket names readable for ttl_ms from now. Loop. Returns 0, or -1: it is gone. */
int checkpoint_renew(struct checkpoint *c, const void *ticket, size_t size, uint64_t now_ms,
                     uint64_t ttl_ms);
/* Unpins what has expired; the loop calls it now and then. Returns how many are pinned. */
size_t checkpoint_expire_pins(struct checkpoint *c, uint64_t now_ms);

enum checkpoint_chunk_result {
    CHECKPOINT_CHUNK_OK,
    CHECKPOINT_CHUNK_GONE,    /* the ticket is not, or no longer, one of ours: ask for a new one */
    CHECKPOINT_CHUNK_DAMAGED, /* logged; ask another node */
};
struct checkpoint_chunk {
    struct text
        records; /* count × (u32 table, u32 number, u32 size, bytes); the caller closes it */
    uint32_t crc32c;
    uint8_t next[8];
    size_t next_size; /* 0: that was the last one */
};
/* Appends records after the key `from` (from_size 0: from the start, where the first record is the
 * meta), until size_max (clamped to CHECKPOINT_CHUNK_SIZE_MAX). Blocking, any thread. */
enum checkpoint_chunk_result checkpoint_read_chunk(struct checkpoint *c, const void *ticket,
                                                   size_t ticket_size, const void *from,
                                                   size_t from_size, uint32_t size_max,
                                                   struct checkpoint_chunk *chunk);

/* ---- writing one that a peer gave ---- */

/* Begins a temporary generation, put fills it in the order read, verify checks that it is whole and
 * gives every block to put, commit makes it the current one: that is the commit point, synced.
 *
 * What came is made durable every CHECKPOINT_INSTALL_PIECE_SIZE bytes or CHECKPOINT_INSTALL_PIECE_MS, in one transaction with a record
 * of how far it came. So an install that is suspended, or whose process dies, goes on from there when
 * the same checkpoint is offered again; begin of any other removes what is left of it.
 *
 * All blocking, one thread at a time; no checkpoint may be under way from commit's call to its return.
 * Each returns 0, or -1 after logging; then call suspend (the source failed) or abort (what came is
 * wrong, or cannot be written). */
#define CHECKPOINT_INSTALL_PIECE_SIZE (4u << 20)
#define CHECKPOINT_INSTALL_PIECE_MS   1000 /* or, when little comes, as often as this */

struct checkpoint_install;
struct checkpoint_install_progress {
    bool resumed;      /* begin found a part of it */
    bool has_meta;     /* meta is set; blocks_count of it is how many there will be */
    uint64_t blocks;   /* taken so far, of meta.blocks_count */
    uint64_t bytes;    /* of their content */
    uint8_t next[8];   /* the key after which to go on: checkpoint_read_chunk's `from` */
    size_t next_size;  /* 0: from the start */
    bool unsynced;     /* something came since the last durable piece */
    struct checkpoint_meta meta;
};

/* of: what is offered; a part of the same is taken up. NULL: unknown, from the start. */
int checkpoint_install_begin(struct checkpoint *c, const struct checkpoint_identity *of,
                             struct checkpoint_install **i);
/* How far it came. Never beside another call on i. */
void checkpoint_install_get_progress(const struct checkpoint_install *i,
                                     struct checkpoint_install_progress *p);
/* 1: the chunk does not match its checksum; nothing of it was taken, ask for it again. */
int checkpoint_install_put(struct checkpoint_install *i, const void *records, size_t size,
                           uint32_t crc);
/* A meta that comes from elsewhere than a peer's chunk: before the first block. */
int checkpoint_install_put_meta(struct checkpoint_install *i, const struct checkpoint_meta *meta);
int checkpoint_install_verify(struct checkpoint_install *i, checkpoint_block_cb put, void *ctx,
                              struct checkpoint_meta *meta);
int checkpoint_install_commit(struct checkpoint_install *i);   /* frees i when it returns 0 */
void checkpoint_install_suspend(struct checkpoint_install *i); /* keeps what came and frees i */
void checkpoint_install_abort(struct checkpoint_install *i);   /* removes it and frees i */

/* Whether a part of an install lies on the disk and none is under way. Any thread. */
bool checkpoint_get_partial(struct checkpoint *c, struct checkpoint_identity *of);
/* Removes it. Blocking; no install may be under way. */
void checkpoint_remove_partial(struct checkpoint *c);

/* ---- figures ---- */

struct checkpoint_stats {
    uint64_t generation, map_size, used_size; /* bytes */
    uint64_t taken_total, failed_total, last_records, last_bytes;
    uint64_t last_duration_ns; /* from begin to durable */
    int64_t last_success_wall_ms;
    uint64_t queued, pins;
};
void checkpoint_get_stats(struct checkpoint *c, struct checkpoint_stats *stats); /* loop */

#endif
