/* Pins and chunks: a consistent read transaction kept open for a peer, read piece by piece.
 *
 * Lock order: checkpoint.lock, then a pin's lock. A chunk is read under the pin's lock alone, so
 * that it holds up neither the loop nor the writer; who ends a pin takes both, and so waits for
 * that chunk.
 *
 * A ticket: 16 secret bytes of this process, u64 pin id; of the checkpoint u64 index, u64 term,
 * u64 digest, by which the reader knows whether it has a part of it already. */
#include <string.h>

#include "base/advice.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "storage/checkpoint_internal.h"

static void pin_end(struct checkpoint_pin *p)
{
    pthread_mutex_lock(&p->lock);
    if (p->txn != NULL) {
        mdb_txn_abort(p->txn);
        p->txn = NULL;
    }
    pthread_mutex_unlock(&p->lock);
}

void checkpoint_drop_pins(struct checkpoint *c)
{
    for (size_t i = 0; i < CHECKPOINT_READERS_MAX; i++) {
        pin_end(&c->pins[i]);
    }
}

size_t checkpoint_expire_pins(struct checkpoint *c, uint64_t now_ms)
{
    size_t pinned = 0;
    if (pthread_mutex_trylock(&c->lock) != 0) {
        return CHECKPOINT_READERS_MAX; /* the map grows, say: next time */
    }
    for (size_t i = 0; i < CHECKPOINT_READERS_MAX; i++) {
        struct checkpoint_pin *p = &c->pins[i];
        /* A chunk is being read: next time. txn changes only under checkpoint.lock. */
        if (p->txn != NULL && now_ms >= p->expires_ms && pthread_mutex_trylock(&p->lock) == 0) {
            mdb_txn_abort(p->txn);
            p->txn = NULL;
            pthread_mutex_unlock(&p->lock);
        }
        pinned += p->txn != NULL ? 1 : 0;
    }
    pthread_mutex_unlock(&c->lock);
    return pinned;
}

static void write_ticket(const struct checkpoint *c, const struct checkpoint_pin *p,
                         uint8_t *ticket)
{
    memcpy(ticket, c->secret, sizeof c->secret);
    store_u64(ticket + 16, p->id);
    store_u64(ticket + 24, p->index);
    store_u64(ticket + 32, p->term);
    store_u64(ticket + 40, p->digest);
}

bool checkpoint_ticket_identity(const void *ticket, size_t size, struct checkpoint_identity *id)
{
    const uint8_t *bytes = ticket;
    if (size != CHECKPOINT_TICKET_SIZE) {
        return false;
    }
    *id = (struct checkpoint_identity){load_u64(bytes + 24), load_u64(bytes + 32),
                                       load_u64(bytes + 40)};
    return true;
}

/* Under c->lock. NULL: it is not, or no longer, one of ours. */
static struct checkpoint_pin *pin_find(struct checkpoint *c, const void *ticket, size_t size)
{
    if (size != CHECKPOINT_TICKET_SIZE || memcmp(ticket, c->secret, sizeof c->secret) != 0) {
        return NULL;
    }
    uint64_t id = load_u64((const uint8_t *)ticket + 16);
    for (size_t i = 0; i < CHECKPOINT_READERS_MAX; i++) {
        if (c->pins[i].txn != NULL && c->pins[i].id == id) {
            return &c->pins[i];
        }
    }
    return NULL;
}

int checkpoint_renew(struct checkpoint *c, const void *ticket, size_t size, uint64_t now_ms,
                     uint64_t ttl_ms)
{
    pthread_mutex_lock(&c->lock);
    struct checkpoint_pin *p = pin_find(c, ticket, size);
    if (p != NULL && p->expires_ms < now_ms + ttl_ms) {
        p->expires_ms = now_ms + ttl_ms;
    }
    pthread_mutex_unlock(&c->lock);
    return p != NULL ? 0 : -1;
}

/* A free place, else one whose time is over; NULL: none. */
static struct checkpoint_pin *pin_choose(struct checkpoint *c, uint64_t now_ms)
{
    for (size_t i = 0; i < CHECKPOINT_READERS_MAX; i++) {
        struct checkpoint_pin *p = &c->pins[i];
        if (p->txn == NULL) {
            return p;
        }
        if (now_ms >= p->expires_ms) {
            pin_end(p);
            return p;
        }
    }
    return NULL;
}

static int pin_locked(struct checkpoint *c, uint64_t now_ms, uint64_t ttl_ms, uint8_t *ticket,
                      struct checkpoint_meta *meta)
{
    if (!c->has_meta) {
        return -1;
    }
    *meta = c->meta;
    for (size_t i = 0; i < CHECKPOINT_READERS_MAX; i++) {
        struct checkpoint_pin *p = &c->pins[i];
        if (p->txn != NULL && p->sequence == c->sequence) {
            p->expires_ms = now_ms + ttl_ms;
            write_ticket(c, p, ticket);
            return 0;
        }
    }
    struct checkpoint_pin *p = pin_choose(c, now_ms);
    if (p == NULL) {
        return -1;
    }
    pthread_mutex_lock(&p->lock);
    int rv = mdb_txn_begin(c->env.env, NULL, MDB_RDONLY, &p->txn);
    if (rv == 0 && checkpoint_env_read_meta(&c->env, p->txn, meta) != 0) {
        mdb_txn_abort(p->txn); /* CRC and format were right when it was written or opened */
        rv = MDB_CORRUPTED;
    }
    if (rv != 0) {
        p->txn = NULL;
        log_error("%s: %s", c->path, mdb_strerror(rv));
    } else {
        p->id = ++c->pins_sequence;
        p->index = meta->index;
        p->term = meta->term;
        p->digest = meta->digest;
        p->sequence = c->sequence;
        p->expires_ms = now_ms + ttl_ms;
        write_ticket(c, p, ticket);
    }
    pthread_mutex_unlock(&p->lock);
    return rv == 0 ? 0 : -1;
}

int checkpoint_pin(struct checkpoint *c, uint64_t now_ms, uint64_t ttl_ms,
                   uint8_t ticket[static CHECKPOINT_TICKET_SIZE], struct checkpoint_meta *meta)
{
    pthread_mutex_lock(&c->lock);
    int result = pin_locked(c, now_ms, ttl_ms, ticket, meta);
    pthread_mutex_unlock(&c->lock);
    return result;
}

/* ---- chunks ---- */

static void append_record(struct text *t, uint32_t table, uint32_t number, const void *data,
                          uint32_t size)
{
    uint32_t head[3] = {table, number, size};
    text_append(t, head, sizeof head);
    text_append(t, data, size);
}

static enum checkpoint_chunk_result read_records(struct checkpoint *c, struct checkpoint_pin *p,
                                                 bool from_start, uint64_t after, size_t size_max,
                                                 struct checkpoint_chunk *chunk)
{
    MDB_cursor *cursor;
    uint64_t last = after, blocks = 0; /* at least one: `next` names the last that went */
    MDB_val key = {sizeof last, &last}, value;
    struct engine_block block;
    if (from_start) {
        struct checkpoint_meta meta;
        uint8_t encoded[CHECKPOINT_META_SIZE_MAX];
        if (checkpoint_env_read_meta(&c->env, p->txn, &meta) != 0) {
            return CHECKPOINT_CHUNK_DAMAGED;
        }
        append_record(&chunk->records, CHECKPOINT_META_TABLE, 0, encoded,
                      (uint32_t)checkpoint_meta_encode(&meta, encoded));
    }
    CHECK(mdb_cursor_open(p->txn, c->env.blocks, &cursor) == 0);
    int rv = mdb_cursor_get(cursor, &key, &value, from_start ? MDB_FIRST : MDB_SET_RANGE);
    if (rv == 0 && !from_start && load_u64(key.mv_data) == after) {
        rv = mdb_cursor_get(cursor, &key, &value, MDB_NEXT);
    }
    enum checkpoint_chunk_result result = CHECKPOINT_CHUNK_OK;
    for (; rv == 0; rv = mdb_cursor_get(cursor, &key, &value, MDB_NEXT)) {
        if (checkpoint_env_check_value(&key, &value, &block) < 0 ||
            (last != after && load_u64(key.mv_data) <= last)) { /* the order also ends a circle */
            result = CHECKPOINT_CHUNK_DAMAGED;
            break;
        }
        if (chunk->records.len + 12 + block.size > size_max && blocks > 0) {
            store_u64(chunk->next, last);
            chunk->next_size = sizeof chunk->next;
            break;
        }
        append_record(&chunk->records, block.table, block.number, block.data, block.size);
        blocks++;
        last = checkpoint_key(block.table, block.number);
    }
    mdb_cursor_close(cursor);
    if (rv != 0 && rv != MDB_NOTFOUND) {
        result = CHECKPOINT_CHUNK_DAMAGED;
    }
    if (result == CHECKPOINT_CHUNK_DAMAGED) {
        log_error("%s/data.mdb: block after %llx is damaged: not given to the peer. Stop this node; "
                  ADVICE_REBUILD,
                  c->env.path, (unsigned long long)last);
    }
    return result;
}

enum checkpoint_chunk_result checkpoint_read_chunk(struct checkpoint *c, const void *ticket,
                                                   size_t ticket_size, const void *from,
                                                   size_t from_size, uint32_t size_max,
                                                   struct checkpoint_chunk *chunk)
{
    *chunk = (struct checkpoint_chunk){.records = TEXT_INIT};
    if (from_size != 0 && from_size != sizeof(uint64_t)) {
        return CHECKPOINT_CHUNK_GONE;
    }
    pthread_mutex_lock(&c->lock);
    struct checkpoint_pin *pin = pin_find(c, ticket, ticket_size);
    if (pin != NULL) {
        pthread_mutex_lock(&pin->lock);
    }
    pthread_mutex_unlock(&c->lock);
    if (pin == NULL) {
        return CHECKPOINT_CHUNK_GONE;
    }
    if (size_max > CHECKPOINT_CHUNK_SIZE_MAX || size_max == 0) {
        size_max = CHECKPOINT_CHUNK_SIZE_MAX;
    }
    /* c->env cannot change meanwhile: who changes it ends all pins first. */
    const char *outer = checkpoint_guard_begin(c->env.path);
    enum checkpoint_chunk_result result =
        read_records(c, pin, from_size == 0, from_size != 0 ? load_u64(from) : 0, size_max, chunk);
    checkpoint_guard_end(outer);
    pthread_mutex_unlock(&pin->lock);
    if (result != CHECKPOINT_CHUNK_OK) {
        text_close(&chunk->records);
    } else {
        chunk->crc32c = crc32c(0, chunk->records.data, chunk->records.len);
    }
    return result;
}
