/* snapshot: a backup of the state machine as one file.
 *
 * What it owns: the bytes of the file (storage/README.md), writing it so that it is whole or not
 * there, finding every kind of damage when it is read. What it refuses: to fetch blocks (who saves
 * pulls them from a node, as a peer does), to look inside a block or a position in the log, to make
 * a data directory of it (server/restore.h).
 *
 * Happy path, writing: snapshot_writer_open(header) → snapshot_writer_put for each chunk as a node
 * gives it → snapshot_writer_commit: trailer, synced, renamed from FILE.part to FILE, directory
 * synced. Reading: snapshot_reader_open → snapshot_reader_blocks gives every block in key order and
 * returns 0 only when chunks, counts and the checksum over the whole file are right.
 *
 * Failure modes: every function that can fail returns -1 with one line in `error` that names the
 * file, the offset where there is one, and what to do. A writer that fails leaves no FILE; a
 * reader may have handed out blocks (each covered by its chunk's checksum) before it finds the
 * damage: what was made of them must not be used.
 *
 * Threads: one at a time. Everything blocks. */
#ifndef STORAGE_SNAPSHOT_H
#define STORAGE_SNAPSHOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "proto/limits.h"
#include "storage/checkpoint.h"

#define SNAPSHOT_FORMAT_VERSION 1u
#define SNAPSHOT_VERSION_SIZE   32 /* of holdfast's version, with its NUL */
#define SNAPSHOT_CHUNK_SIZE_MAX (8u << 20)
#define SNAPSHOT_ERROR_SIZE     640

struct snapshot_header {
    uint8_t cluster_id[16];
    uint64_t index, term; /* of the engine's last batch; of the position in the log */
    uint64_t digest, blocks_count;
    int64_t time_ms; /* replicated */
    int64_t wall_ms; /* when it was saved, by the clock of who saved it */
    uint64_t node_id; /* that gave it */
    uint32_t position_size;
    uint8_t position[CHECKPOINT_POSITION_SIZE_MAX]; /* opaque */
    char version[SNAPSHOT_VERSION_SIZE];            /* of the holdfastctl that wrote the file */
};

/* ---- writing ---- */

struct snapshot_writer;

/* Makes FILE.part (mode 0600, locked against a second writer). replace false: an existing FILE is
 * refused, now and again at commit. header is copied. */
int snapshot_writer_open(const char *path, bool replace, const struct snapshot_header *header,
                         struct snapshot_writer **w, char error[static SNAPSHOT_ERROR_SIZE]);
/* Appends one SnapshotChunkResult: its checksum, the order of its blocks and the checkpoint's own
 * meta record, which it must agree with, are checked. */
int snapshot_writer_put(struct snapshot_writer *w, const void *records, size_t size, uint32_t crc,
                        char error[static SNAPSHOT_ERROR_SIZE]);
uint64_t snapshot_writer_blocks(const struct snapshot_writer *w); /* so far */
uint64_t snapshot_writer_bytes(const struct snapshot_writer *w);
/* Frees w, whatever it returns. */
int snapshot_writer_commit(struct snapshot_writer *w, char error[static SNAPSHOT_ERROR_SIZE]);
/* Removes FILE.part and frees w. */
void snapshot_writer_abort(struct snapshot_writer *w);

/* ---- reading ---- */

struct snapshot_reader;

/* Reads and checks the header. */
int snapshot_reader_open(const char *path, struct snapshot_reader **r,
                         struct snapshot_header *header, char error[static SNAPSHOT_ERROR_SIZE]);
/* Gives every block to put (NULL: only checks), in key order, then checks the trailer and that the
 * file ends there. put returns 0, or -1 to stop. Once per reader. */
int snapshot_reader_blocks(struct snapshot_reader *r, checkpoint_block_cb put, void *ctx,
                           char error[static SNAPSHOT_ERROR_SIZE]);
uint64_t snapshot_reader_chunks(const struct snapshot_reader *r); /* read so far */
uint64_t snapshot_reader_bytes(const struct snapshot_reader *r);
void snapshot_reader_close(struct snapshot_reader *r);

/* What is in it, as the state machine counts it. */
struct snapshot_contents {
    uint64_t bytes; /* of the file */
    uint64_t skus, sales, users, orders, orders_pending, leases, denials, idempotency_keys;
    uint64_t events_pending; /* not in PostgreSQL when it was saved, as far as the cluster knew */
    uint64_t last_event;     /* sequence; 0: there was none */
    uint32_t shards;
    uint64_t acked[SHARDS_MAX]; /* of each shard: what PostgreSQL was known to have */
};

/* Reads all of the file into a new engine, compares index and digest, and checks the invariants of
 * the state: what it accepts can be restored. *engine is the caller's to destroy; engine and
 * contents may be NULL. */
int snapshot_load(const char *path, struct snapshot_header *header,
                  struct snapshot_contents *contents, struct engine **engine,
                  char error[static SNAPSHOT_ERROR_SIZE]);

#endif
