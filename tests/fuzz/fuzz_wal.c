/* Recovery of the write-ahead log (raft/wal_core.h) from disks on which anything happened.
 *
 * Input: a script. First byte even: a log is written (entries, votes, overrides, resets, trims, restarts,
 * clean stops), then its files are damaged (bytes, sectors, cuts, removed and exchanged files) and it is
 * opened. Odd: the rest is a segment as it stands; checksums in it are put right, so that what lies
 * behind them is reached.
 * Asserted: undamaged, it says exactly what was written. Damaged in one place, it is refused with a
 * sentence, or says what was written up to the end or up to the last write but one (never more, never
 * other, never less). Damaged in several places, it is refused or says what was written up to some write.
 * Nothing on the disk was changed by a refusal. */
#include <stdio.h>
#include <stdlib.h>

#include "base/crc32c.h"
#include "raft/wal_format.h"
#include "tests/fuzz/fuzz.h"
#include "tests/unit/raft/memory_disk.h"

#define ENTRIES_MAX 512
#define RAW_MAX     (3u * WAL_BLOCK_SIZE)
#define STEPS_MAX   24u
#define WRITES_MAX  (STEPS_MAX + 1)

struct model {
    uint64_t first, last; /* entries that must be there: (first, last] */
    uint64_t term, vote;
    uint32_t crcs[ENTRIES_MAX]; /* of the record, by index */
};

static struct memory_disk disk, copy;
static struct wal_core core;
static struct wal_recovered recovered;
static struct model model; /* as of the last write */
static struct model history[WRITES_MAX]; /* as of the ones before it, the newest last */
static size_t history_count;
static uint8_t *block_memory;
static const struct wal_core_config config = {.cluster_id = "cluster", .node_id = 1,
                                              .segment_size = 4 * WAL_BLOCK_SIZE, .spares_max = 2};

void fuzz_begin(void)
{
    block_memory = aligned_alloc(WAL_BLOCK_SIZE, 4 * WAL_BLOCK_SIZE);
    CHECK(block_memory != NULL);
}

static int open_log(void)
{
    return wal_core_open(&core, &config, &disk.io, &recovered);
}

/* What was recovered, against what must be there. first: entries may also reach further back. */
static bool says(const struct model *m)
{
    if (recovered.term != m->term || recovered.vote != m->vote ||
        recovered.base_index + recovered.count != m->last || recovered.base_index > m->first) {
        return false;
    }
    for (size_t i = 0; i < recovered.count; i++) {
        const struct record_header *e = recovered.entries[i];
        if (e->index != recovered.base_index + 1 + i ||
            (e->index > m->first && e->crc32c != m->crcs[e->index])) {
            return false;
        }
    }
    return true;
}

static void close_log(void)
{
    wal_recovered_close(&recovered);
    wal_core_close(&core);
}

/* ---- writing ---- */

static void add_entry(struct reader *r, struct wal_block *b, uint64_t index, uint64_t term)
{
    static _Alignas(8) uint8_t memory[2048];
    uint8_t data[1024];
    uint32_t size = fuzz_below(r, sizeof data);
    memset(data, (int)(index + term), size);
    record_encode(memory, RECORD_COMMAND, index, term, data, size);
    const struct record_header *h = (const struct record_header *)(const void *)memory;
    if (index < ENTRIES_MAX && wal_block_add(b, h)) {
        model.crcs[index] = h->crc32c;
        model.last = index;
    }
}

static void add_vote(struct wal_block *b, uint64_t term, uint64_t vote)
{
    _Alignas(8) uint8_t memory[RECORD_VOTE_SPAN];
    record_encode_vote(memory, term, vote);
    if (wal_block_add(b, (const struct record_header *)(const void *)memory)) {
        model.term = term;
        model.vote = vote;
    }
}

static void remember(const struct model *m)
{
    CHECK(history_count < WRITES_MAX);
    history[history_count++] = *m;
}

/* One write of the kind that the script names. */
static void step_write(struct reader *r, uint8_t what)
{
    struct wal_block b;
    struct wal_write w;
    struct model was = model;
    wal_block_init(&b, block_memory, wal_block_capacity_max(config.segment_size));
    uint8_t count = 1 + reader_u8(r) % 3;
    if (what == 0) { /* vote */
        add_vote(&b, model.term + 1, reader_u8(r) % 4);
    } else if (what == 1 && model.last > model.first) { /* override */
        uint64_t at = model.first + 1 + reader_u8(r) % (model.last - model.first);
        add_vote(&b, model.term + 1, 0);
        for (uint8_t i = 0; i < count; i++) {
            add_entry(r, &b, at + i, model.term);
        }
    } else if (what == 2) { /* reset */
        uint64_t at = model.last + 1 + reader_u8(r) % 4;
        if (at + 4 >= ENTRIES_MAX || model.term == 0) {
            return;
        }
        wal_block_add_reset(&b, at, model.term);
        model.first = model.last = at;
    } else {
        if (model.term == 0) {
            add_vote(&b, 1, 1);
        }
        for (uint8_t i = 0; i < count && model.last + 1 < ENTRIES_MAX; i++) {
            add_entry(r, &b, model.last + 1, model.term);
        }
    }
    if (b.count == 0 && !b.has_reset) {
        return;
    }
    remember(&was);
    CHECK(wal_core_seal(&core, &b, &w) == 0);
    CHECK(wal_core_write(&core, &w) == 0);
}

static void step(struct reader *r)
{
    uint8_t what = reader_u8(r) % 12;
    if (what == 3) { /* trim: what is gone may be gone */
        uint64_t upto = model.first + reader_u8(r) % (model.last - model.first + 1);
        CHECK(wal_core_trim(&core, upto) == 0);
        model.first = upto;
        for (size_t i = 0; i < history_count; i++) {
            struct model *m = &history[i];
            m->first = upto < m->last ? upto : m->last;
        }
    } else if (what == 4) { /* restart, clean or not */
        if (reader_u8(r) % 2 == 0) {
            CHECK(wal_core_mark(&core) == 0);
            remember(&model); /* the mark is a write that says nothing new */
        }
        close_log();
        CHECK(open_log() == 0);
        CHECK(recovered.fresh ? model.last == 0 : says(&model));
    } else {
        step_write(r, what);
    }
}

/* ---- damaging ---- */

static struct memory_file *some_segment(uint8_t which, uint64_t *number)
{
    char name[WAL_IO_NAME_SIZE];
    if (core.segments_count == 0) {
        return NULL;
    }
    *number = core.segments[which % core.segments_count].number;
    wal_name(name, WAL_NAME_SEGMENT, *number);
    return memory_disk_find(&disk, name);
}

static bool damage(struct reader *r)
{
    uint64_t number, other_number;
    char name[WAL_IO_NAME_SIZE];
    uint8_t what = reader_u8(r) % 6;
    struct memory_file *f = some_segment(reader_u8(r), &number);
    if (f == NULL || f->size == 0) {
        return false;
    }
    uint64_t at = reader_u16(r) % f->size, sector = at / SECTOR * SECTOR;
    switch (what) {
    case 0:
        f->data[at] = reader_u8(r);
        return true;
    case 1:
        memset(f->data + sector, reader_u8(r), SECTOR);
        return true;
    case 2:
        f->size = sector;
        return true;
    case 3: { /* a sector that was meant for another place */
        struct memory_file *from = some_segment(reader_u8(r), &other_number);
        if (from == NULL) {
            return true;
        }
        uint64_t there = reader_u16(r) % (from->size > 0 ? from->size : 1) / SECTOR * SECTOR;
        if (there + SECTOR <= from->size && sector + SECTOR <= f->size) {
            memmove(f->data + sector, from->data + there, SECTOR);
        }
        return true;
    }
    case 4:
        wal_name(name, WAL_NAME_SEGMENT, number);
        CHECK(disk.io.unlink(&disk.io, name) == 0 && disk.io.sync_dir(&disk.io) == 0);
        return true;
    default: {
        struct str bytes = fuzz_str(r, reader_u8(r));
        /* Within a sector: a place, not two. */
        for (uint32_t i = 0; i < bytes.len && at + i < f->size && (at + i) / SECTOR == at / SECTOR; i++) {
            f->data[at + i] = (uint8_t)bytes.ptr[i];
        }
        return true;
    }
    }
}

static void check_unchanged(void)
{
    for (int i = 0; i < MEMORY_DISK_FILES; i++) {
        CHECK((disk.files[i].data == NULL) == (copy.files[i].data == NULL));
        CHECK(disk.files[i].data == NULL ||
              (disk.files[i].size == copy.files[i].size &&
               memcmp(disk.files[i].data, copy.files[i].data, disk.files[i].size) == 0));
    }
}

static void explain(void)
{
    fprintf(stderr, "recovered: after %llu, %zu entries, term %llu, vote %llu, torn %llu\nwritten, newest first:\n",
            (unsigned long long)recovered.base_index, recovered.count, (unsigned long long)recovered.term,
            (unsigned long long)recovered.vote, (unsigned long long)recovered.torn_bytes);
    for (size_t i = history_count + 1; i-- > 0;) {
        const struct model *m = i == history_count ? &model : &history[i];
        fprintf(stderr, "  after %llu to %llu, term %llu, vote %llu\n", (unsigned long long)m->first,
                (unsigned long long)m->last, (unsigned long long)m->term, (unsigned long long)m->vote);
    }
}

/* It says what was written up to one of the last `writes` writes. */
static bool says_one_of_the_last(size_t writes)
{
    if (says(&model)) {
        return true;
    }
    for (size_t i = history_count; i-- > 0 && --writes > 0;) {
        if (says(&history[i])) {
            return true;
        }
    }
    return false;
}

static void run_script(struct reader *r)
{
    memset(&model, 0, sizeof model);
    history_count = 0;
    memory_disk_init(&disk, 1);
    CHECK(open_log() == 0 && recovered.fresh);
    for (uint32_t steps = fuzz_below(r, STEPS_MAX); steps > 0 && !fuzz_done(r); steps--) {
        step(r);
    }
    if (fuzz_done(r)) {
        close_log();
        CHECK(open_log() == 0);
        CHECK(recovered.fresh ? model.last == 0 && model.term == 0 : says(&model));
        close_log();
        memory_disk_close(&disk);
        return;
    }
    bool whole_files = true;
    size_t segments = core.segments_count;
    size_t damages = 0;
    for (; damages < 4 && !fuzz_done(r); damages++) {
        uint8_t peek = *r->at % 6;
        whole_files = whole_files && peek != 4;
        damage(r);
    }
    close_log();
    memory_disk_copy(&copy, &disk);
    if (open_log() != 0) {
        CHECK(core.error[0] != '\0');
        check_unchanged();
    } else {
        /* A log whose every file is gone, or whose oldest ones are, is one that others must miss: there is
         * nothing left in it that could. */
        CHECK(segments == 0 || !whole_files || !recovered.fresh);
        if (whole_files) {
            if (segments > 0 && !says_one_of_the_last(damages == 1 ? 2 : SIZE_MAX)) {
                explain();
                CHECK_UNREACHABLE();
            }
        } else if (!recovered.fresh) {
            uint64_t last = model.last;
            for (size_t i = 0; i < history_count; i++) {
                last = history[i].last > last ? history[i].last : last;
            }
            CHECK(recovered.base_index + recovered.count <= last);
        }
        close_log();
    }
    memory_disk_close(&copy);
    memory_disk_close(&disk);
}

/* ---- a segment as it stands ---- */

static void put_checksums_right(uint8_t *data, size_t size)
{
    struct wal_segment_header *header = (struct wal_segment_header *)(void *)data;
    header->version = WAL_VERSION;
    memcpy(header->cluster_id, config.cluster_id, sizeof header->cluster_id);
    header->node_id = config.node_id;
    header->number = 1;
    header->segment_size = size;
    wal_segment_header_seal(data);
    uint64_t sequence = header->sequence_first;
    for (size_t at = WAL_BLOCK_SIZE; at + WAL_BLOCK_SIZE <= size;) {
        struct wal_write_header *h = (struct wal_write_header *)(void *)(data + at);
        uint32_t digest = 0, count = 0;
        size_t end = at + sizeof *h, limit = at + h->size < size && h->size >= sizeof *h ? at + h->size : end;
        while (end + sizeof(struct record_header) <= limit) {
            uint32_t record = load_u32(data + end + 4);
            if (record > RECORD_DATA_SIZE_MAX || end + record_span(record) > limit) {
                break;
            }
            uint32_t crc = crc32c(0, data + end + 4, record_span(record) - 4);
            store_u32(data + end, crc);
            digest = crc32c(digest, &crc, sizeof crc);
            end += record_span(record);
            count++;
        }
        h->size = (uint32_t)(end - at);
        h->count = count;
        h->digest = digest;
        h->salt = header->salt;
        h->sequence = sequence++;
        h->flags &= WAL_WRITE_RESETS;
        wal_write_header_seal(h);
        size_t span = wal_round_up(h->size);
        memset(data + end, 0, at + span - end);
        at += span;
    }
}

static void run_raw(struct reader *r)
{
    char name[WAL_IO_NAME_SIZE];
    memory_disk_init(&disk, 1);
    wal_name(name, WAL_NAME_SEGMENT, 1);
    bool right = reader_u8(r) % 4 != 0;
    struct str bytes = fuzz_str(r, RAW_MAX);
    CHECK(disk.io.create(&disk.io, name, RAW_MAX) == 0 && disk.io.sync_dir(&disk.io) == 0);
    struct memory_file *f = memory_disk_find(&disk, name);
    /* The script's bytes: the header's, then those of writes, one block each. */
    size_t at = 0, head = bytes.len < sizeof(struct wal_segment_header) ? bytes.len
                                                                      : sizeof(struct wal_segment_header);
    memcpy(f->data, bytes.ptr, head);
    at = head;
    for (size_t block = WAL_BLOCK_SIZE; block < RAW_MAX && at < bytes.len; block += WAL_BLOCK_SIZE) {
        size_t n = bytes.len - at < WAL_BLOCK_SIZE / 8 ? bytes.len - at : WAL_BLOCK_SIZE / 8;
        memcpy(f->data + block, bytes.ptr + at, n);
        at += n;
    }
    if (right) {
        put_checksums_right(f->data, RAW_MAX);
    }
    memory_disk_copy(&copy, &disk);
    if (open_log() != 0) {
        CHECK(core.error[0] != '\0');
        check_unchanged();
    } else {
        uint64_t term = 0;
        for (size_t i = 0; i < recovered.count; i++) {
            const struct record_header *e = recovered.entries[i];
            CHECK(e->index == recovered.base_index + 1 + i);
            CHECK(record_check(e, record_size(e)) == RECORD_VALID);
            CHECK(e->type != RECORD_VOTE);
            CHECK(e->term <= recovered.term || recovered.term < term);
            term = e->term;
        }
        close_log();
    }
    memory_disk_close(&copy);
    memory_disk_close(&disk);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    struct reader r = reader_init(data, size);
    if (reader_u8(&r) % 2 == 0) {
        run_script(&r);
    } else {
        run_raw(&r);
    }
}

void fuzz_seeds(void)
{
    uint8_t out[700];
    for (unsigned k = 0; k < 6; k++) {
        char name[32];
        for (size_t i = 0; i < 96; i++) {
            out[i] = (uint8_t)(i * (2 * k + 5) + k * 31);
        }
        out[0] = 0;
        out[1] = (uint8_t)(10 + 2 * k);
        snprintf(name, sizeof name, "script-%u", k);
        fuzz_seed(name, out, 96);
    }
    /* One segment: header, one write with a vote and two entries. */
    memset(out, 0, sizeof out);
    out[0] = 1;
    out[1] = 1;
    struct wal_segment_header h = {.salt = 7, .sequence_first = 1};
    memcpy(out + 2, &h, sizeof h);
    _Alignas(8) uint8_t records[256];
    size_t n = record_encode_vote(records, 2, 1);
    n += record_encode(records + n, RECORD_COMMAND, 1, 1, "one", 3);
    n += record_encode(records + n, RECORD_NOOP, 2, 2, NULL, 0);
    struct wal_write_header w = {.size = (uint32_t)(sizeof w + n), .count = 3};
    memcpy(out + 2 + sizeof h, &w, sizeof w);
    memcpy(out + 2 + sizeof h + sizeof w, records, n);
    fuzz_seed("segment", out, 2 + sizeof h + sizeof w + n);
    out[1] = 0;
    fuzz_seed("segment-unsealed", out, 2 + sizeof h + sizeof w + n);
}
