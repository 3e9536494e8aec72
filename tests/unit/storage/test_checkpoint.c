/* The checkpoint store with a made-up source of blocks: durable, incremental, refused when damaged,
 * handed to a peer, and whole after a kill at any moment. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/crc32c.h"
#include "base/log.h"
#include "base/prng.h"
#include "storage/checkpoint.h"

#define TABLES  3
#define NUMBERS 2000
#define TTL_MS  60000

/* What the store should hold: version 0 is no block. Content follows from (table, number, version).
 */
struct model {
    uint32_t version[TABLES][NUMBERS];
};

static uv_loop_t loop;
static char dir[64];

static void block_fill(uint8_t *data, uint32_t *size, uint32_t table, uint32_t number,
                       uint32_t version)
{
    struct prng p = prng_init((uint64_t)table << 48 ^ (uint64_t)number << 24 ^ version);
    *size = version == 0 ? 0 : 8 + (uint32_t)prng_below(&p, ENGINE_BLOCK_SIZE_MAX - 7);
    for (uint32_t i = 0; i < *size; i++) {
        data[i] = (uint8_t)prng_next(&p);
    }
    if (*size > 0) {
        store_u32(data, version);
    }
}

static void put_block(struct checkpoint *c, uint32_t table, uint32_t number, uint32_t version)
{
    uint8_t data[ENGINE_BLOCK_SIZE_MAX];
    struct engine_block b = {.table = table, .number = number, .data = data};
    block_fill(data, &b.size, table, number, version);
    checkpoint_put(c, &b);
}

struct outcome {
    bool done, ok, again;
    struct checkpoint_meta meta;
};

static void done_cb(void *ctx, bool ok, bool again, const struct checkpoint_meta *meta)
{
    *(struct outcome *)ctx = (struct outcome){true, ok, again, *meta};
}

static struct checkpoint_meta make_meta(uint64_t index)
{
    struct checkpoint_meta m = {.index = index, .term = 3, .digest = index * 7, .time_ms = 1000};
    m.position_size = 5;
    memcpy(m.position, "hello", 5);
    return m;
}

static struct outcome finish(struct checkpoint *c, struct outcome *o)
{
    checkpoint_end(c);
    while (!o->done) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    (void)c;
    return *o;
}

/* Changes `changes` random blocks in the model and takes a checkpoint of just those. */
static void take(struct checkpoint *c, struct model *m, struct prng *p, uint64_t index, int changes)
{
    struct checkpoint_meta meta = make_meta(index);
    bool changed[TABLES][NUMBERS] = {{false}};
    for (int i = 0; i < changes; i++) {
        uint64_t table = prng_below(p, TABLES), number = prng_below(p, NUMBERS);
        m->version[table][number] = prng_one_in(p, 4) ? 0 : (uint32_t)index;
        changed[table][number] = true;
    }
    struct outcome o = {0};
    do {
        o = (struct outcome){0};
        checkpoint_begin(c, &meta, done_cb, &o);
        for (uint32_t t = 0; t < TABLES; t++) {
            for (uint32_t n = 0; n < NUMBERS; n++) {
                if (changed[t][n]) {
                    put_block(c, t, n, m->version[t][n]);
                }
            }
            checkpoint_flush(c);
        }
        finish(c, &o);
    } while (!o.ok && o.again);
    assert_true(o.ok);
    assert_int_equal(o.meta.index, index);
}

struct compare {
    const struct model *m;
    uint64_t blocks;
    bool wrong;
};

static int compare_cb(void *ctx, const struct engine_block *b)
{
    struct compare *k = ctx;
    uint8_t data[ENGINE_BLOCK_SIZE_MAX];
    uint32_t size;
    if (b->table >= TABLES || b->number >= NUMBERS) {
        k->wrong = true;
        return -1;
    }
    block_fill(data, &size, b->table, b->number, k->m->version[b->table][b->number]);
    k->wrong = k->wrong || size != b->size || memcmp(data, b->data, size) != 0;
    k->blocks++;
    return 0;
}

static uint64_t model_blocks(const struct model *m)
{
    uint64_t n = 0;
    for (uint32_t t = 0; t < TABLES; t++) {
        for (uint32_t i = 0; i < NUMBERS; i++) {
            n += m->version[t][i] != 0 ? 1 : 0;
        }
    }
    return n;
}

static void expect(struct checkpoint *c, const struct model *m, uint64_t index)
{
    struct compare k = {.m = m};
    struct checkpoint_meta meta;
    assert_true(checkpoint_get_meta(c, &meta));
    assert_int_equal(meta.index, index);
    assert_int_equal(meta.digest, index * 7);
    assert_int_equal(meta.term, 3);
    assert_int_equal(meta.position_size, 5);
    assert_memory_equal(meta.position, "hello", 5);
    assert_int_equal(checkpoint_load(c, compare_cb, &k), 0);
    assert_false(k.wrong);
    assert_int_equal(k.blocks, model_blocks(m));
    assert_int_equal(meta.blocks_count, k.blocks);
}

static int try_open_in(const char *directory, uint64_t map_size, struct checkpoint **c)
{
    struct checkpoint_config config = {.loop = &loop, .directory = directory, .map_size = map_size};
    return checkpoint_open(&config, c);
}

static struct checkpoint *open_store(uint64_t map_size)
{
    struct checkpoint *c;
    assert_int_equal(try_open_in(dir, map_size, &c), 0);
    return c;
}

static void closed_cb(void *ctx)
{
    *(bool *)ctx = true;
}

static void close_store(struct checkpoint *c)
{
    bool closed = false;
    checkpoint_close(c, closed_cb, &closed);
    while (!closed) {
        uv_run(&loop, UV_RUN_ONCE);
    }
}

static void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    struct dirent *e;
    char child[512];
    while (d != NULL && (e = readdir(d)) != NULL) {
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0) {
            snprintf(child, sizeof child, "%s/%s", path, e->d_name);
            if (unlink(child) < 0) {
                remove_tree(child);
            }
        }
    }
    if (d != NULL) {
        closedir(d);
    }
    rmdir(path);
}

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/holdfast-checkpoint-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    return uv_loop_init(&loop);
}

static int teardown(void **state)
{
    (void)state;
    remove_tree(dir);
    uv_run(&loop, UV_RUN_DEFAULT);
    return uv_loop_close(&loop);
}

static bool exists(const char *name)
{
    char path[256];
    struct stat st;
    snprintf(path, sizeof path, "%s/checkpoint/%s", dir, name);
    return stat(path, &st) == 0;
}

static void write_file(const char *name, const char *content)
{
    char path[256];
    snprintf(path, sizeof path, "%s/checkpoint/%s", dir, name);
    FILE *f = fopen(path, "w");
    CHECK(f != NULL);
    fputs(content, f);
    fclose(f);
}

static void test_incremental_and_reopen(void **state)
{
    (void)state;
    struct model m = {0};
    struct prng p = prng_init(5);
    struct checkpoint *c = open_store(0);
    struct checkpoint_meta meta;
    assert_false(checkpoint_get_meta(c, &meta));
    for (uint64_t index = 1; index <= 30; index++) {
        take(c, &m, &p, index, (int)prng_below(&p, 2000));
        if (index % 7 == 0) {
            expect(c, &m, index);
            close_store(c);
            c = open_store(0);
        }
        expect(c, &m, index);
    }
    struct checkpoint_stats s;
    checkpoint_get_stats(c, &s);
    assert_int_equal(s.generation, 1);
    assert_true(s.taken_total > 0);
    assert_int_equal(s.queued, 0);
    close_store(c);
}

static void test_cancel_changes_nothing(void **state)
{
    (void)state;
    struct model m = {0};
    struct prng p = prng_init(6);
    struct checkpoint *c = open_store(0);
    take(c, &m, &p, 1, 500);
    struct checkpoint_meta meta = make_meta(2);
    struct outcome o = {0};
    checkpoint_begin(c, &meta, done_cb, &o);
    for (uint32_t n = 0; n < NUMBERS; n++) {
        put_block(c, 0, n, 99);
    }
    checkpoint_cancel(c);
    assert_true(checkpoint_busy(c));
    while (!o.done) {
        uv_run(&loop, UV_RUN_ONCE);
    }
    assert_false(o.ok);
    assert_false(o.again);
    expect(c, &m, 1);
    take(c, &m, &p, 3, 100);
    /* Closed in the middle: as if it had not begun. */
    checkpoint_begin(c, &meta, done_cb, &o);
    put_block(c, 0, 1, 98);
    checkpoint_flush(c);
    put_block(c, 0, 2, 98);
    close_store(c);
    c = open_store(0);
    expect(c, &m, 3);
    close_store(c);
}

static void test_map_grows(void **state)
{
    (void)state;
    struct model m = {0};
    struct prng p = prng_init(7);
    struct checkpoint *c = open_store(128 << 10);
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_meta meta;
    struct checkpoint_stats s;
    take(c, &m, &p, 1, 20);
    assert_int_equal(checkpoint_pin(c, 0, TTL_MS, ticket, &meta), 0);
    take(c, &m, &p, 2, 6000);
    expect(c, &m, 2);
    checkpoint_get_stats(c, &s);
    assert_true(s.map_size > 1 << 20);
    assert_true(s.failed_total > 0); /* was too small once */
    struct checkpoint_chunk chunk;   /* growing ended the pin */
    assert_int_equal(checkpoint_read_chunk(c, ticket, sizeof ticket, NULL, 0, 1000, &chunk),
                     CHECKPOINT_CHUNK_GONE);
    close_store(c);
    c = open_store(128 << 10);
    expect(c, &m, 2);
    close_store(c);
}

static void data_path(char *out, size_t size)
{
    snprintf(out, size, "%s/checkpoint/gen-00000001/data.mdb", dir);
}

/* Any damage is refused, or was to a page that is free: then what loads is exactly what was stored.
 */
static void test_damage(void **state)
{
    (void)state;
    struct model m = {0};
    struct prng p = prng_init(8);
    struct checkpoint *c = open_store(0);
    take(c, &m, &p, 1, 400);
    take(c, &m, &p, 2, 400);
    close_store(c);
    char path[256];
    data_path(path, sizeof path);
    FILE *f = fopen(path, "r");
    static uint8_t whole[8 << 20], damaged[8 << 20];
    size_t size = fread(whole, 1, sizeof whole, f);
    fclose(f);
    assert_true(size > 0 && size < sizeof whole);
    log_init("expected", LOG_LEVEL_ERROR);
    int refused = 0;
    for (int round = 0; round < 150; round++) {
        memcpy(damaged, whole, size);
        size_t now = size;
        if (round % 10 == 0) {
            now = (size_t)prng_below(&p, size); /* cut */
        } else if (round % 10 == 1) {
            memset(damaged + prng_below(&p, size - 4096), 0, 4096);
        } else {
            damaged[prng_below(&p, size)] ^= (uint8_t)(1u << prng_below(&p, 8));
        }
        f = fopen(path, "w");
        fwrite(damaged, 1, now, f);
        fclose(f);
        if (try_open_in(dir, 0, &c) < 0) { /* its structure */
            refused++;
        } else if (checkpoint_load(c, NULL, NULL) < 0) { /* its content */
            refused++;
            close_store(c);
        } else {
            /* The one thing that may differ: LMDB's own older meta page, one checkpoint earlier. */
            struct checkpoint_meta meta;
            assert_true(checkpoint_get_meta(c, &meta));
            if (meta.index == 2) {
                expect(c, &m, 2);
            } else {
                assert_int_equal(meta.index, 1);
            }
            close_store(c);
        }
        uv_run(&loop, UV_RUN_DEFAULT);
    }
    assert_true(refused > 60);
    log_init("test", LOG_LEVEL_INFO);
}

static void test_current(void **state)
{
    (void)state;
    struct model m = {0};
    struct prng p = prng_init(9);
    struct checkpoint *c = open_store(0);
    /* Nothing stored yet and CURRENT never written: the first start died. */
    close_store(c);
    char path[256];
    snprintf(path, sizeof path, "%s/checkpoint/CURRENT", dir);
    unlink(path);
    c = open_store(0);
    take(c, &m, &p, 1, 100);
    close_store(c);
    const char *const bad[] = {"",           "gen-1\n",        "gen-00000001", "gen-00000002\n",
                               "nonsense\n", "gen-00000001\nx"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        write_file("CURRENT", bad[i]);
        assert_int_equal(try_open_in(dir, 0, &c), -1);
    }
    unlink(path); /* lost, with a checkpoint beside it: not started over */
    assert_int_equal(try_open_in(dir, 0, &c), -1);
    write_file("CURRENT", "gen-00000001\n");
    c = open_store(0);
    expect(c, &m, 1);
    close_store(c);
}

/* Copies everything by chunks of size_max; stops after `chunks` if not 0. */
static struct checkpoint_install *pull(struct checkpoint *from, const uint8_t *ticket,
                                       struct checkpoint *to, uint32_t size_max, int chunks)
{
    struct checkpoint_install *i;
    struct checkpoint_chunk chunk = {.next_size = 0};
    uint8_t next[8];
    size_t next_size = 0;
    assert_int_equal(checkpoint_install_begin(to, NULL, &i), 0);
    do {
        assert_int_equal(checkpoint_read_chunk(from, ticket, CHECKPOINT_TICKET_SIZE, next,
                                               next_size, size_max, &chunk),
                         CHECKPOINT_CHUNK_OK);
        assert_int_equal(
            checkpoint_install_put(i, chunk.records.data, chunk.records.len, chunk.crc32c), 0);
        next_size = chunk.next_size;
        memcpy(next, chunk.next, sizeof next);
        text_close(&chunk.records);
    } while (next_size > 0 && --chunks != 0);
    return i;
}

static void test_install(void **state)
{
    (void)state;
    struct model m = {0}, other = {0}, later = {0};
    struct prng p = prng_init(10);
    char from_dir[96];
    struct checkpoint *from, *to = open_store(64 << 10); /* small: the install has to grow it */
    snprintf(from_dir, sizeof from_dir, "%s/from", dir);
    CHECK(mkdir(from_dir, 0700) == 0);
    assert_int_equal(try_open_in(from_dir, 0, &from), 0);
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_meta meta;
    assert_int_equal(checkpoint_pin(from, 0, TTL_MS, ticket, &meta), -1); /* there is none yet */
    take(from, &m, &p, 10, 3000);
    take(to, &other, &p, 4, 700);
    assert_int_equal(checkpoint_pin(from, 0, TTL_MS, ticket, &meta), 0);
    assert_int_equal(meta.index, 10);
    memcpy(&later, &m, sizeof m);
    take(from, &later, &p, 11, 2000); /* goes on: the pinned one stays */

    struct checkpoint_install *i = pull(from, ticket, to, 10000, 5); /* broken off */
    struct compare k = {.m = &m};
    assert_int_equal(checkpoint_install_verify(i, compare_cb, &k, &meta), -1);
    checkpoint_install_abort(i);
    expect(to, &other, 4);
    assert_false(exists("gen-00000002.tmp"));

    i = pull(from, ticket, to, 10000, 0);
    k = (struct compare){.m = &m};
    assert_int_equal(checkpoint_install_verify(i, compare_cb, &k, &meta), 0);
    assert_false(k.wrong);
    assert_int_equal(k.blocks, model_blocks(&m));
    assert_int_equal(meta.index, 10);
    assert_int_equal(checkpoint_install_commit(i), 0);
    expect(to, &m, 10);
    assert_false(exists("gen-00000001"));
    assert_true(exists("gen-00000002"));
    take(to, &m, &p, 12, 100); /* and goes on from there */
    close_store(to);
    to = open_store(0);
    expect(to, &m, 12);

    /* Two pins of one checkpoint share; an expired one is gone. */
    uint8_t second[CHECKPOINT_TICKET_SIZE];
    assert_int_equal(checkpoint_pin(from, 5, TTL_MS, second, &meta), 0);
    assert_int_equal(meta.index, 11);
    assert_int_equal(checkpoint_expire_pins(from, TTL_MS), 1);
    assert_int_equal(checkpoint_expire_pins(from, 5 + TTL_MS), 0);
    struct checkpoint_chunk chunk;
    assert_int_equal(checkpoint_read_chunk(from, ticket, sizeof ticket, NULL, 0, 1000, &chunk),
                     CHECKPOINT_CHUNK_GONE);
    for (int round = 0; round < 2; round++) {
        second[0] ^= 1; /* a ticket of another process */
        assert_int_equal(checkpoint_read_chunk(from, second, sizeof second, NULL, 0, 1000, &chunk),
                         CHECKPOINT_CHUNK_GONE);
    }
    close_store(from);
    close_store(to);
}

static void test_install_refuses(void **state)
{
    (void)state;
    struct model m = {0};
    struct prng p = prng_init(11);
    struct checkpoint *c = open_store(0);
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_meta meta;
    struct checkpoint_chunk chunk;
    struct checkpoint_install *i;
    take(c, &m, &p, 1, 300);
    assert_int_equal(checkpoint_pin(c, 0, TTL_MS, ticket, &meta), 0);
    assert_int_equal(checkpoint_read_chunk(c, ticket, sizeof ticket, NULL, 0, 0, &chunk),
                     CHECKPOINT_CHUNK_OK);
    assert_int_equal(chunk.next_size, 0);
    for (int round = 0; round < 200; round++) {
        uint8_t *damaged = malloc(chunk.records.len);
        CHECK(damaged != NULL);
        memcpy(damaged, chunk.records.data, chunk.records.len);
        damaged[prng_below(&p, chunk.records.len)] ^= (uint8_t)(1u << prng_below(&p, 8));
        assert_int_equal(checkpoint_install_begin(c, NULL, &i), 0);
        assert_int_equal(checkpoint_install_put(i, damaged, chunk.records.len, chunk.crc32c), 1);
        /* Even with a matching checksum nothing is believed that is not well-formed; content is for
         * the digest to judge. */
        size_t cut = (size_t)prng_below(&p, chunk.records.len);
        int rv = checkpoint_install_put(i, damaged, cut, crc32c(0, damaged, cut));
        if (rv == 0) {
            assert_int_equal(checkpoint_install_verify(i, NULL, NULL, &meta), -1);
        }
        checkpoint_install_abort(i);
        free(damaged);
    }
    assert_int_equal(checkpoint_install_begin(c, NULL, &i), 0);
    assert_int_equal(checkpoint_install_put(i, chunk.records.data, chunk.records.len, chunk.crc32c),
                     0);
    assert_int_equal(checkpoint_install_put(i, chunk.records.data, chunk.records.len, chunk.crc32c),
                     -1); /* twice */
    checkpoint_install_abort(i);
    text_close(&chunk.records);
    expect(c, &m, 1);
    close_store(c);
}

static void copy_generation(const char *to)
{
    char command[600];
    snprintf(command, sizeof command, "cp -r %s/checkpoint/gen-00000001 %s/checkpoint/%s", dir, dir,
             to);
    CHECK(system(command) == 0);
}

/* Each state that a crash during the switch may leave, made by hand. */
static void test_switch_crash_points(void **state)
{
    (void)state;
    struct model m = {0};
    struct prng p = prng_init(12);
    struct checkpoint *c = open_store(0);
    take(c, &m, &p, 1, 300);
    close_store(c);
    copy_generation("gen-00000002.tmp"); /* filled, not renamed */
    c = open_store(0);
    expect(c, &m, 1);
    assert_false(exists("gen-00000002.tmp"));
    close_store(c);
    copy_generation("gen-00000002"); /* renamed, CURRENT not written */
    c = open_store(0);
    expect(c, &m, 1);
    assert_false(exists("gen-00000002"));
    close_store(c);
    copy_generation("gen-00000002"); /* CURRENT written beside, not renamed */
    write_file("CURRENT.tmp", "gen-00000002\n");
    c = open_store(0);
    expect(c, &m, 1);
    assert_true(exists("gen-00000001"));
    assert_false(exists("CURRENT.tmp"));
    close_store(c);
    copy_generation("gen-00000002"); /* CURRENT switched, the old one not removed */
    write_file("CURRENT", "gen-00000002\n");
    c = open_store(0);
    expect(c, &m, 1);
    assert_false(exists("gen-00000001"));
    assert_true(exists("gen-00000002"));
    close_store(c);
}

/* A child takes checkpoints without pause, each of them all blocks of one version, and is killed.
 */
static void run_child(int ready_fd)
{
    struct checkpoint *c;
    uint64_t first = 1;
    struct checkpoint_meta meta;
    CHECK(uv_loop_init(&loop) == 0);
    CHECK(try_open_in(dir, 1 << 20, &c) == 0);
    if (checkpoint_get_meta(c, &meta)) {
        first = meta.index + 1;
    }
    for (uint64_t index = first;; index++) {
        struct outcome o = {0};
        meta = make_meta(index);
        checkpoint_begin(c, &meta, done_cb, &o);
        for (uint32_t n = 0; n < 200; n++) {
            put_block(c, 1, n, (uint32_t)index);
        }
        finish(c, &o);
        CHECK(o.ok || o.again);
        index -= o.ok ? 0 : 1;
        CHECK(write(ready_fd, &index, sizeof index) == sizeof index);
    }
}

static void test_killed(void **state)
{
    (void)state;
    struct prng p = prng_init(13);
    uint64_t last = 0;
    for (int round = 0; round < 12; round++) {
        int fds[2];
        CHECK(pipe(fds) == 0);
        pid_t pid = fork();
        if (pid == 0) {
            close(fds[0]);
            run_child(fds[1]);
        }
        close(fds[1]);
        uint64_t reported = last, index;
        for (uint64_t n = 1 + prng_below(&p, 10); n > 0; n--) {
            CHECK(read(fds[0], &index, sizeof index) == sizeof index);
            reported = index;
        }
        usleep((unsigned)prng_below(&p, 3000));
        kill(pid, SIGKILL);
        CHECK(waitpid(pid, NULL, 0) == pid);
        while (read(fds[0], &index, sizeof index) == sizeof index) {
            reported = index;
        }
        close(fds[0]);
        struct model m = {0};
        struct checkpoint *c = open_store(0);
        struct checkpoint_meta meta;
        assert_true(checkpoint_get_meta(c, &meta));
        assert_true(meta.index >= reported); /* what was reported is there */
        for (uint32_t n = 0; n < 200; n++) {
            m.version[1][n] = (uint32_t)meta.index;
        }
        expect(c, &m, meta.index); /* and it is one, not two halves */
        last = meta.index;
        close_store(c);
    }
}

/* A disk that cannot read a page gives SIGBUS, as does a file that is cut while it is mapped: a message and an
 * exit status, from a load and from a chunk for a peer. Anybody else's signal is still a signal. */
static void test_signals_are_messages(void **state)
{
    (void)state;
    struct model m = {0};
    struct prng p = prng_init(14);
    struct checkpoint *c = open_store(0);
    take(c, &m, &p, 1, 400);
    close_store(c);
    uv_run(&loop, UV_RUN_DEFAULT);
    for (int round = 0; round < 3; round++) {
        int fds[2];
        char said[4096];
        CHECK(pipe(fds) == 0);
        pid_t pid = fork();
        if (pid == 0) {
            char path[256];
            uint8_t ticket[CHECKPOINT_TICKET_SIZE];
            struct checkpoint_meta meta;
            struct checkpoint_chunk chunk;
            CHECK(dup2(fds[1], STDERR_FILENO) >= 0);
            c = open_store(0);
            CHECK(checkpoint_pin(c, 0, TTL_MS, ticket, &meta) == 0);
            data_path(path, sizeof path);
            CHECK(truncate(path, 8192) == 0);
            if (round == 0) {
                (void)checkpoint_load(c, NULL, NULL);
            } else if (round == 1) {
                (void)checkpoint_read_chunk(c, ticket, sizeof ticket, NULL, 0, 1u << 20, &chunk);
            } else {
                raise(SIGBUS);
            }
            _exit(0);
        }
        close(fds[1]);
        size_t size = 0;
        for (ssize_t n; (n = read(fds[0], said + size, sizeof said - 1 - size)) > 0;) {
            size += (size_t)n;
        }
        said[size] = '\0';
        close(fds[0]);
        int status;
        CHECK(waitpid(pid, &status, 0) == pid);
        if (round == 2) {
            CHECK(status != 0); /* a sanitizer makes an exit status of its own of it */
            CHECK(!WIFEXITED(status) || WEXITSTATUS(status) != CHECKPOINT_EXIT_CODE);
            continue;
        }
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == CHECKPOINT_EXIT_CODE);
        CHECK(strstr(said, "gen-00000001/data.mdb: the disk cannot read a page of it") != NULL);
        CHECK(strstr(said, "holdfastctl node rebuild") != NULL);
        teardown(state); /* the child cut the file */
        setup(state);
        c = open_store(0);
        take(c, &m, &p, 1, 400);
        close_store(c);
        uv_run(&loop, UV_RUN_DEFAULT);
    }
}

int main(void)
{
    log_init("test", LOG_LEVEL_INFO);
    /* Before cmocka, which catches these signals itself. */
    setup(NULL);
    test_signals_are_messages(NULL);
    teardown(NULL);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_incremental_and_reopen, setup, teardown),
        cmocka_unit_test_setup_teardown(test_cancel_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(test_map_grows, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage, setup, teardown),
        cmocka_unit_test_setup_teardown(test_current, setup, teardown),
        cmocka_unit_test_setup_teardown(test_install, setup, teardown),
        cmocka_unit_test_setup_teardown(test_install_refuses, setup, teardown),
        cmocka_unit_test_setup_teardown(test_switch_crash_points, setup, teardown),
        cmocka_unit_test_setup_teardown(test_killed, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
