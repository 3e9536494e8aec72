/* Inside of snapshot: the bytes of the file (storage/README.md). snapshot_writer.c and
 * snapshot_reader.c include this, nobody else. */
#ifndef STORAGE_SNAPSHOT_INTERNAL_H
#define STORAGE_SNAPSHOT_INTERNAL_H

#include "storage/snapshot.h"

#define SNAPSHOT_MAGIC        "HFSNAP\r\n" /* a transfer as text would change it */
#define SNAPSHOT_MAGIC_SIZE   8u
#define SNAPSHOT_PREFIX_SIZE  16u /* magic, format version, size of the whole header */
#define SNAPSHOT_HEADER_SIZE  (SNAPSHOT_PREFIX_SIZE + 16u + 7 * 8u + 4u + 4u + 4u) /* without texts */
#define SNAPSHOT_HEADER_MAX                                                                        \
    (SNAPSHOT_HEADER_SIZE + CHECKPOINT_POSITION_SIZE_MAX + SNAPSHOT_VERSION_SIZE)
#define SNAPSHOT_CHUNK_MAGIC   0x4B4E4843u /* "CHNK" */
#define SNAPSHOT_TRAILER_MAGIC 0x21444E45u /* "END!" */
#define SNAPSHOT_CHUNK_HEAD    20u         /* magic, number, blocks, size, crc32c */
#define SNAPSHOT_TRAILER_SIZE  44u         /* magic, chunks, blocks, file size, hash, crc32c */
#define SNAPSHOT_TRAILER_HASH  24u         /* where the hash stands: of all bytes of the file before */
#define SNAPSHOT_HASH_SIZE     16u
#define SNAPSHOT_RECORD_HEAD   12u /* u32 table, u32 number, u32 size */

/* Formats into error and returns -1. */
int snapshot_fail(char error[static SNAPSHOT_ERROR_SIZE], const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Returns the size. */
size_t snapshot_header_encode(const struct snapshot_header *h,
                              uint8_t out[static SNAPSHOT_HEADER_MAX]);
/* data: the whole header, its prefix included, magic, version and size already judged. 0 or -1. */
int snapshot_header_decode(struct snapshot_header *h, const void *data, size_t size);

/* One record of a chunk: whether it can be in a snapshot behind a block whose key was last (any:
 * there was one). */
bool snapshot_block_follows(const struct engine_block *block, bool any, uint64_t last);

#endif
