/* The structure of an LMDB file, judged before LMDB itself is let near it.
 *
 * LMDB trusts its pages: a page number that was damaged leads it out of its map and into a signal, a
 * separator key that was damaged makes it put a record where nobody will find it, a damaged list of free
 * pages makes it write over live ones at the next checkpoint. So before an environment is opened its file
 * is read here, with pread, and every page is accounted for:
 *
 *     both meta pages          magic, version, page size, flags
 *     the trees of the newer   free list, main, blocks, meta: page numbers, kinds, bounds of every node,
 *                              order of keys within pages and between them, depth, counts
 *     every page up to the     is in exactly one tree or, once, in the free list
 *     last one
 *
 * What it does not see: the content of blocks, unless asked to (each carries a CRC, checked by whoever
 * reads it), a page of an older state that is whole in itself (the digest of the whole state tells), and
 * bytes that nobody reads.
 *
 * Layout: LMDB 0.9 data version 1 on a little-endian machine with 8-byte pointers, as in its mdb.c. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/advice.h"
#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "storage/checkpoint_internal.h"

#define PAGE_SIZE_MIN 512u
#define PAGE_SIZE_MAX 65536u
#define PAGE_HEAD     16u
#define NODE_HEAD     8u
#define DEPTH_MAX     32u /* LMDB's own cursor stack */
#define META_MAGIC    0xBEEFC0DEu
#define META_VERSION  1u
#define NO_PAGE       UINT64_MAX
#define DB_SIZE       48u

enum { PAGE_BRANCH = 1, PAGE_LEAF = 2, PAGE_OVERFLOW = 4, PAGE_META = 8 };
enum { NODE_BIG = 1, NODE_SUB = 2 };
enum { DB_INTEGER_KEY = 8 };

enum tree_kind { TREE_FREE, TREE_MAIN, TREE_BLOCKS, TREE_META };

/* MDB_db */
struct tree {
    enum tree_kind kind;
    const char *name;
    uint16_t flags, depth;
    uint64_t branches, leaves, overflows, entries, root;
    uint64_t found_branches, found_leaves, found_overflows, found_entries;
};

struct verify {
    const char *file;
    int fd;
    uint32_t page_size;
    uint64_t last_page;
    uint8_t *seen;  /* a bit a page */
    uint8_t *pages; /* one buffer a level, and one for overflow pages */
    bool content;
    bool has_blocks, has_meta;
    struct tree blocks, meta;
};

struct bound {
    const uint8_t *key; /* NULL: none */
    size_t size;
};

static int damaged(struct verify *v, uint64_t offset, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static int damaged(struct verify *v, uint64_t offset, const char *format, ...)
{
    char what[160];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    log_error("%s offset %llu: %s: it is damaged. " ADVICE_REBUILD, v->file,
              (unsigned long long)offset, what);
    return -1;
}

static int read_at(struct verify *v, uint64_t offset, void *data, size_t size)
{
    for (size_t done = 0; done < size;) {
        ssize_t n = pread(v->fd, (uint8_t *)data + done, size - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR) {
            continue;
        }
        if (n < 0) {
            log_error("%s offset %llu: read: %s. " ADVICE_REBUILD, v->file,
                      (unsigned long long)(offset + done), strerror(errno));
            return -1;
        }
        if (n == 0) {
            return damaged(v, offset + done, "the file ends here: it was cut");
        }
        done += (size_t)n;
    }
    return 0;
}

/* A page belongs to one owner. */
static int take_page(struct verify *v, uint64_t page, uint64_t where)
{
    if (page < 2 || page > v->last_page) {
        return damaged(v, where, "page %llu is named, the last one is %llu",
                       (unsigned long long)page, (unsigned long long)v->last_page);
    }
    if ((v->seen[page / 8] & 1u << page % 8) != 0) {
        return damaged(v, where, "page %llu is used twice", (unsigned long long)page);
    }
    v->seen[page / 8] |= (uint8_t)(1u << page % 8);
    return 0;
}

static int compare_keys(const struct tree *t, const uint8_t *a, size_t a_size, const uint8_t *b,
                        size_t b_size)
{
    if (t->kind == TREE_FREE || t->kind == TREE_BLOCKS) {
        uint64_t x = load_u64(a), y = load_u64(b);
        return x < y ? -1 : x > y;
    }
    size_t size = a_size < b_size ? a_size : b_size;
    int rv = memcmp(a, b, size);
    return rv != 0 ? rv : a_size < b_size ? -1 : a_size > b_size;
}

static void decode_tree(struct tree *t, const uint8_t *at)
{
    t->flags = load_u16(at + 4);
    t->depth = load_u16(at + 6);
    t->branches = load_u64(at + 8);
    t->leaves = load_u64(at + 16);
    t->overflows = load_u64(at + 24);
    t->entries = load_u64(at + 32);
    t->root = load_u64(at + 40);
}

/* ---- values ---- */

/* A free list: count, then page numbers, descending. */
static int check_free(struct verify *v, const uint8_t *data, size_t size, uint64_t where)
{
    uint64_t count = size >= 8 ? load_u64(data) : UINT64_MAX;
    if (size % 8 != 0 || count > size / 8 - 1) {
        return damaged(v, where, "a list of free pages does not fit");
    }
    for (uint64_t i = 1; i <= count; i++) {
        if (i > 1 && load_u64(data + 8 * i) >= load_u64(data + 8 * (i - 1))) {
            return damaged(v, where + 8 * i, "a list of free pages is out of order");
        }
        if (take_page(v, load_u64(data + 8 * i), where + 8 * i) < 0) {
            return -1;
        }
    }
    return 0;
}

static int check_value(struct verify *v, struct tree *t, const uint8_t *key, size_t key_size,
                       unsigned flags, const uint8_t *data, size_t size, uint64_t where)
{
    struct engine_block block;
    MDB_val block_key = {key_size, (void *)(uintptr_t)key};
    MDB_val value = {size, (void *)(uintptr_t)data};
    switch (t->kind) {
    case TREE_FREE:
        return check_free(v, data, size, where);
    case TREE_MAIN: {
        struct tree *sub = key_size == 6 && memcmp(key, "blocks", 6) == 0 ? &v->blocks
                           : key_size == 4 && memcmp(key, "meta", 4) == 0 ? &v->meta
                                                                          : NULL;
        if (sub == NULL || flags != NODE_SUB || size != DB_SIZE) {
            return damaged(v, where, "no database of ours");
        }
        decode_tree(sub, data);
        *(sub == &v->blocks ? &v->has_blocks : &v->has_meta) = true;
        return 0;
    }
    case TREE_BLOCKS:
        if (size <= CHECKPOINT_VALUE_HEAD || size > CHECKPOINT_VALUE_HEAD + ENGINE_BLOCK_SIZE_MAX ||
            flags != 0) {
            return damaged(v, where, "a block of %zu bytes", size);
        }
        if (v->content && checkpoint_env_check_value(&block_key, &value, &block) < 0) {
            return damaged(v, where, "block %llx does not match its checksum",
                           (unsigned long long)load_u64(key));
        }
        return 0;
    case TREE_META:
        return 0;
    }
    CHECK_UNREACHABLE();
}

static int check_overflow(struct verify *v, struct tree *t, const uint8_t *key, size_t key_size,
                          uint64_t page, size_t size, uint64_t where)
{
    uint64_t count = (PAGE_HEAD - 1 + size) / v->page_size + 1;
    if (page > v->last_page || count > v->last_page - page + 1) {
        return damaged(v, where, "page %llu is named, the last one is %llu",
                       (unsigned long long)page, (unsigned long long)v->last_page);
    }
    for (uint64_t i = 0; i < count; i++) {
        if (take_page(v, page + i, where) < 0) {
            return -1;
        }
    }
    t->found_overflows += count;
    uint64_t offset = page * v->page_size;
    uint8_t *data = malloc(PAGE_HEAD + size);
    CHECK(data != NULL);
    int rv = read_at(v, offset, data, PAGE_HEAD + size);
    if (rv == 0 && (load_u64(data) != page || load_u16(data + 10) != PAGE_OVERFLOW ||
                    load_u32(data + 12) != count)) {
        rv = damaged(v, offset, "this is not the overflow page that it should be");
    }
    if (rv == 0) {
        rv = check_value(v, t, key, key_size, 0, data + PAGE_HEAD, size, offset + PAGE_HEAD);
    }
    free(data);
    return rv;
}

/* ---- pages ---- */

struct page {
    const uint8_t *data;
    uint64_t offset; /* in the file */
    uint32_t lower, upper, count;
    bool branch;
};

struct node {
    const uint8_t *key;
    size_t key_size, size; /* of the data; of a branch 0 */
    unsigned flags;
    uint64_t child;
    uint64_t where; /* of the data, in the file */
    const uint8_t *data;
    size_t span;
};

static int open_page(struct verify *v, struct tree *t, uint64_t number, unsigned depth,
                     struct page *p)
{
    p->offset = number * v->page_size;
    uint8_t *data = v->pages + (size_t)depth * v->page_size;
    p->data = data;
    if (read_at(v, p->offset, data, v->page_size) < 0) {
        return -1;
    }
    unsigned flags = load_u16(data + 10);
    p->branch = depth + 1 < t->depth;
    p->lower = load_u16(data + 12);
    p->upper = load_u16(data + 14);
    if (load_u64(data) != number) {
        return damaged(v, p->offset, "this is page %llu and says %llu", (unsigned long long)number,
                       (unsigned long long)load_u64(data));
    }
    if (flags != (p->branch ? PAGE_BRANCH : PAGE_LEAF)) {
        return damaged(v, p->offset + 10, "a page of kind %x where another belongs", flags);
    }
    if (p->lower < PAGE_HEAD + 2 || p->lower % 2 != 0 || p->upper < p->lower ||
        p->upper > v->page_size) {
        return damaged(v, p->offset + 12, "a page whose bounds are %u and %u", p->lower, p->upper);
    }
    p->count = (p->lower - PAGE_HEAD) / 2;
    return 0;
}

static int open_node(struct verify *v, const struct tree *t, const struct page *p, uint32_t i,
                     struct node *n)
{
    size_t slot_at = PAGE_HEAD + 2 * (size_t)i;
    uint64_t slot = p->offset + slot_at;
    uint32_t at = load_u16(p->data + slot_at);
    if (at < p->upper || at % 2 != 0 || at + NODE_HEAD > v->page_size) {
        return damaged(v, slot, "a record at %u of its page", at);
    }
    const uint8_t *head = p->data + at;
    uint32_t low = load_u16(head) | (uint32_t)load_u16(head + 2) << 16;
    n->flags = load_u16(head + 4);
    n->key_size = load_u16(head + 6);
    n->key = head + NODE_HEAD;
    n->data = n->key + n->key_size;
    n->where = p->offset + at + NODE_HEAD + n->key_size;
    n->size = p->branch ? 0 : low;
    n->child = (uint64_t)low | (uint64_t)n->flags << 32;
    bool big = !p->branch && (n->flags & NODE_BIG) != 0;
    n->span = NODE_HEAD + n->key_size + (big ? 8 : n->size);
    n->span += n->span % 2;
    if (n->span > v->page_size - at) {
        return damaged(v, p->offset + at, "a record that ends behind its page");
    }
    bool integer = t->kind == TREE_FREE || t->kind == TREE_BLOCKS;
    if (integer && n->key_size != 8 && !(p->branch && i == 0)) {
        return damaged(v, p->offset + at, "a key of %zu bytes", n->key_size);
    }
    if (!p->branch && ((n->flags & ~(unsigned)(NODE_BIG | NODE_SUB)) != 0 || n->key_size == 0)) {
        return damaged(v, p->offset + at, "a record of kind %x", n->flags);
    }
    return 0;
}

static int walk(struct verify *v, struct tree *t, uint64_t number, unsigned depth, struct bound low,
                struct bound high, uint64_t where);

static int walk_child(struct verify *v, struct tree *t, const struct page *p, uint32_t i,
                      const struct node *n, unsigned depth, struct bound low, struct bound high)
{
    struct node next = {0};
    struct bound child_low = i == 0 ? low : (struct bound){n->key, n->key_size};
    struct bound child_high = high;
    if (i + 1 < p->count) {
        if (open_node(v, t, p, i + 1, &next) < 0) {
            return -1;
        }
        child_high = (struct bound){next.key, next.key_size};
    }
    return walk(v, t, n->child, depth + 1, child_low, child_high, n->where - n->key_size - NODE_HEAD);
}

static int walk_record(struct verify *v, struct tree *t, const struct node *n)
{
    t->found_entries++;
    if ((n->flags & NODE_BIG) != 0) {
        return check_overflow(v, t, n->key, n->key_size, load_u64(n->data), n->size, n->where);
    }
    return check_value(v, t, n->key, n->key_size, n->flags, n->data, n->size, n->where);
}

static int walk(struct verify *v, struct tree *t, uint64_t number, unsigned depth, struct bound low,
                struct bound high, uint64_t where)
{
    struct page p = {0};
    struct bound before = {NULL, 0};
    size_t used = 0;
    if (take_page(v, number, where) < 0 || open_page(v, t, number, depth, &p) < 0) {
        return -1;
    }
    *(p.branch ? &t->found_branches : &t->found_leaves) += 1;
    for (uint32_t i = 0; i < p.count; i++) {
        struct node n = {0};
        if (open_node(v, t, &p, i, &n) < 0) {
            return -1;
        }
        used += n.span;
        bool keyed = !(p.branch && i == 0); /* the first key of a branch is never looked at */
        if (keyed && ((before.key != NULL &&
                       compare_keys(t, n.key, n.key_size, before.key, before.size) <= 0) ||
                      (low.key != NULL && compare_keys(t, n.key, n.key_size, low.key, low.size) < 0) ||
                      (high.key != NULL &&
                       compare_keys(t, n.key, n.key_size, high.key, high.size) >= 0))) {
            return damaged(v, n.where - n.key_size, "a key out of order");
        }
        if (keyed) {
            before = (struct bound){n.key, n.key_size};
        }
        if ((p.branch ? walk_child(v, t, &p, i, &n, depth, low, high) : walk_record(v, t, &n)) < 0) {
            return -1;
        }
    }
    if (used != v->page_size - p.upper) {
        return damaged(v, p.offset + 14, "records of %zu bytes where %u are used", used,
                       v->page_size - p.upper);
    }
    return 0;
}

static int walk_tree(struct verify *v, struct tree *t, unsigned flags, uint64_t where)
{
    if (t->flags != flags) {
        return damaged(v, where, "database %s has flags %x", t->name, t->flags);
    }
    if (t->root == NO_PAGE ? t->depth != 0 : t->depth == 0 || t->depth > DEPTH_MAX) {
        return damaged(v, where, "database %s has depth %u", t->name, t->depth);
    }
    struct bound none = {NULL, 0};
    if (t->root != NO_PAGE && walk(v, t, t->root, 0, none, none, where) < 0) {
        return -1;
    }
    if (t->found_entries != t->entries || t->found_branches != t->branches ||
        t->found_leaves != t->leaves || t->found_overflows != t->overflows) {
        return damaged(v, where, "database %s has %llu records on %llu pages, should be %llu on %llu",
                       t->name, (unsigned long long)t->found_entries,
                       (unsigned long long)(t->found_branches + t->found_leaves + t->found_overflows),
                       (unsigned long long)t->entries,
                       (unsigned long long)(t->branches + t->leaves + t->overflows));
    }
    return 0;
}

/* ---- the whole ---- */

struct meta_page {
    uint64_t transaction, last_page;
    uint32_t page_size;
    struct tree free, main;
};

static int read_meta_page(struct verify *v, unsigned number, struct meta_page *m)
{
    uint8_t page[168];
    uint64_t offset = (uint64_t)number * v->page_size;
    if (read_at(v, offset, page, sizeof page) < 0) {
        return -1;
    }
    if (load_u16(page + 10) != PAGE_META || load_u32(page + 16) != META_MAGIC ||
        load_u32(page + 20) != META_VERSION) {
        return damaged(v, offset, "meta page %u is none", number);
    }
    *m = (struct meta_page){.free = {.kind = TREE_FREE, .name = "free"},
                            .main = {.kind = TREE_MAIN, .name = "main"}};
    m->page_size = load_u32(page + 40);
    decode_tree(&m->free, page + 40);
    decode_tree(&m->main, page + 40 + DB_SIZE);
    m->last_page = load_u64(page + 136);
    m->transaction = load_u64(page + 144);
    if (m->page_size < PAGE_SIZE_MIN || m->page_size > PAGE_SIZE_MAX ||
        (m->page_size & (m->page_size - 1)) != 0 ||
        (number > 0 && m->page_size != v->page_size)) {
        return damaged(v, offset + 40, "pages of %u bytes", m->page_size);
    }
    v->page_size = m->page_size;
    return 0;
}

static int check_all_seen(struct verify *v)
{
    for (uint64_t page = 2; page <= v->last_page; page++) {
        if ((v->seen[page / 8] & 1u << page % 8) == 0) {
            return damaged(v, page * v->page_size, "page %llu is neither used nor free",
                           (unsigned long long)page);
        }
    }
    return 0;
}

static int verify_trees(struct verify *v, struct meta_page *m, uint64_t where)
{
    v->blocks = (struct tree){.kind = TREE_BLOCKS, .name = "blocks"};
    v->meta = (struct tree){.kind = TREE_META, .name = "meta"};
    if (walk_tree(v, &m->free, DB_INTEGER_KEY, where + 40) < 0 ||
        walk_tree(v, &m->main, 0, where + 40 + DB_SIZE) < 0) {
        return -1;
    }
    if (!v->has_blocks || !v->has_meta) {
        return damaged(v, where + 40 + DB_SIZE, "database %s is missing",
                       v->has_blocks ? "meta" : "blocks");
    }
    uint64_t main_at = m->main.root * v->page_size;
    if (walk_tree(v, &v->blocks, DB_INTEGER_KEY, main_at) < 0 ||
        walk_tree(v, &v->meta, 0, main_at) < 0) {
        return -1;
    }
    if (v->meta.entries == 0 && v->blocks.entries > 0) {
        return damaged(v, main_at, "blocks without a meta record");
    }
    return check_all_seen(v);
}

static int verify_open_file(struct verify *v)
{
    struct meta_page metas[2] = {{0}};
    struct stat st;
    if (fstat(v->fd, &st) < 0) {
        log_error("%s: %s", v->file, strerror(errno));
        return -1;
    }
    if (read_meta_page(v, 0, &metas[0]) < 0 || read_meta_page(v, 1, &metas[1]) < 0) {
        return -1;
    }
    unsigned newer = metas[0].transaction < metas[1].transaction; /* as LMDB decides */
    v->last_page = metas[newer].last_page;
    if (v->last_page < 1 || v->last_page >= (uint64_t)st.st_size / v->page_size) {
        return damaged(v, (uint64_t)st.st_size, "the file ends here and should have %llu pages of %u "
                       "bytes: it was cut", (unsigned long long)v->last_page + 1, v->page_size);
    }
    v->seen = calloc(1, (size_t)(v->last_page / 8 + 1));
    v->pages = malloc((size_t)DEPTH_MAX * v->page_size);
    CHECK(v->seen != NULL && v->pages != NULL);
    int rv = verify_trees(v, &metas[newer], (uint64_t)newer * v->page_size);
    free(v->seen);
    free(v->pages);
    return rv;
}

int checkpoint_verify_file(const char *path, bool content)
{
    char file[CHECKPOINT_PATH_SIZE + 16];
    snprintf(file, sizeof file, "%s/data.mdb", path);
    struct verify v = {.file = file, .content = content};
    v.fd = open(file, O_RDONLY | O_CLOEXEC);
    if (v.fd < 0) {
        log_error("%s: %s. " ADVICE_REBUILD, file, strerror(errno));
        return -1;
    }
    int rv = verify_open_file(&v);
    close(v.fd);
    return rv;
}
