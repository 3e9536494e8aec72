/* What writer and reader share: the header, the rule of a block, and loading all of a file to prove
 * that it can be restored. */
#include "storage/snapshot.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "storage/checkpoint_internal.h"
#include "storage/snapshot_internal.h"

int snapshot_fail(char error[static SNAPSHOT_ERROR_SIZE], const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error, SNAPSHOT_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return -1;
}

size_t snapshot_header_encode(const struct snapshot_header *h,
                              uint8_t out[static SNAPSHOT_HEADER_MAX])
{
    size_t version_size = strnlen(h->version, sizeof h->version - 1);
    CHECK(h->position_size <= CHECKPOINT_POSITION_SIZE_MAX);
    struct writer w = writer_init(out, SNAPSHOT_HEADER_MAX);
    writer_bytes(&w, SNAPSHOT_MAGIC, SNAPSHOT_MAGIC_SIZE);
    writer_u32(&w, SNAPSHOT_FORMAT_VERSION);
    writer_u32(&w, (uint32_t)(SNAPSHOT_HEADER_SIZE + h->position_size + version_size));
    writer_bytes(&w, h->cluster_id, sizeof h->cluster_id);
    writer_u64(&w, h->index);
    writer_u64(&w, h->term);
    writer_u64(&w, h->digest);
    writer_u64(&w, h->blocks_count);
    writer_u64(&w, (uint64_t)h->time_ms);
    writer_u64(&w, (uint64_t)h->wall_ms);
    writer_u64(&w, h->node_id);
    writer_u32(&w, h->position_size);
    writer_bytes(&w, h->position, h->position_size);
    writer_u32(&w, (uint32_t)version_size);
    writer_bytes(&w, h->version, version_size);
    writer_u32(&w, crc32c(0, out, writer_size(&w)));
    CHECK(!w.failed);
    CHECK(writer_size(&w) == SNAPSHOT_HEADER_SIZE + h->position_size + version_size);
    return writer_size(&w);
}

int snapshot_header_decode(struct snapshot_header *h, const void *data, size_t size)
{
    *h = (struct snapshot_header){0};
    if (size < SNAPSHOT_HEADER_SIZE || crc32c(0, data, size - 4) !=
                                           load_u32((const uint8_t *)data + size - 4)) {
        return -1;
    }
    struct reader r = reader_init(data, size - 4);
    (void)reader_bytes(&r, SNAPSHOT_PREFIX_SIZE);
    const void *cluster = reader_bytes(&r, sizeof h->cluster_id);
    CHECK(cluster != NULL);
    memcpy(h->cluster_id, cluster, sizeof h->cluster_id);
    h->index = reader_u64(&r);
    h->term = reader_u64(&r);
    h->digest = reader_u64(&r);
    h->blocks_count = reader_u64(&r);
    h->time_ms = (int64_t)reader_u64(&r);
    h->wall_ms = (int64_t)reader_u64(&r);
    h->node_id = reader_u64(&r);
    h->position_size = reader_u32(&r);
    if (h->position_size > CHECKPOINT_POSITION_SIZE_MAX) {
        return -1;
    }
    const void *position = reader_bytes(&r, h->position_size);
    uint32_t version_size = reader_u32(&r);
    if (position == NULL || version_size >= sizeof h->version) {
        return -1;
    }
    memcpy(h->position, position, h->position_size);
    const void *version = reader_bytes(&r, version_size);
    if (version == NULL || reader_left(&r) != 0) {
        return -1;
    }
    memcpy(h->version, version, version_size);
    return 0;
}

bool snapshot_block_follows(const struct engine_block *block, bool any, uint64_t last)
{
    return block->table != CHECKPOINT_META_TABLE && block->size > 0 &&
           block->size <= ENGINE_BLOCK_SIZE_MAX &&
           (!any || checkpoint_key(block->table, block->number) > last);
}

static int load_cb(void *ctx, const struct engine_block *block)
{
    return engine_load_block(ctx, block);
}

static void count(const struct engine *e, struct snapshot_contents *c)
{
    struct engine_stats stats;
    engine_get_stats(e, &stats);
    c->skus = stats.skus;
    c->sales = stats.sales;
    c->users = stats.users;
    c->orders = stats.orders;
    c->orders_pending = stats.orders_pending;
    c->leases = stats.leases;
    c->denials = stats.denials;
    c->idempotency_keys = stats.idempotency_keys;
    c->events_pending = stats.events;
    c->last_event = engine_events_next(e) > 0 ? engine_events_next(e) - 1 : 0;
    c->shards = engine_shards(e);
    for (uint32_t i = 0; i < c->shards; i++) {
        c->acked[i] = engine_events_acked(e, i);
    }
}

/* The checksums are right: is what they cover a state, and a sound one? */
static int judge(const char *path, const struct snapshot_header *h, struct engine *e,
                 char error[static SNAPSHOT_ERROR_SIZE])
{
    char first[256];
    if (engine_load_finish(e, h->index, h->digest) < 0) {
        return snapshot_fail(error,
                             "%s: every checksum is right, but the blocks are not the state of "
                             "index %llu with digest %016llx: the node that gave it was not well, "
                             "or this version does not understand it; use another snapshot, or the "
                             "holdfastctl of version %s",
                             path, (unsigned long long)h->index, (unsigned long long)h->digest,
                             h->version);
    }
    uint64_t violations = engine_check(e, first, sizeof first);
    if (violations > 0) {
        return snapshot_fail(error,
                             "%s: the state breaks %llu invariants, the first: %s; the node that "
                             "gave it was not well: use another snapshot",
                             path, (unsigned long long)violations, first);
    }
    return 0;
}

int snapshot_load(const char *path, struct snapshot_header *header,
                  struct snapshot_contents *contents, struct engine **engine,
                  char error[static SNAPSHOT_ERROR_SIZE])
{
    struct snapshot_reader *r;
    if (snapshot_reader_open(path, &r, header, error) < 0) {
        return -1;
    }
    struct engine *e = engine_create();
    int result = snapshot_reader_blocks(r, load_cb, e, error);
    uint64_t bytes = snapshot_reader_bytes(r);
    snapshot_reader_close(r);
    if (result == 0) {
        result = judge(path, header, e, error);
    }
    if (result == 0 && contents != NULL) {
        *contents = (struct snapshot_contents){.bytes = bytes};
        count(e, contents);
    }
    if (result < 0 || engine == NULL) {
        engine_destroy(e);
    } else {
        *engine = e;
    }
    return result;
}
