/* An install that is interrupted: what came is taken up again for the very same checkpoint, by the same
 * process or a later one, and for no other; damage of it costs the part and nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/check.h"
#include "base/log.h"
#include "base/prng.h"
#include "storage/checkpoint.h"

#define BLOCK_SIZE 1000u
#define CHUNK_SIZE 20000u
#define TTL_MS     1000000u

static char dir[64], from_dir[96], to_dir[96];
static uv_loop_t loop;

static int setup(void **state)
{
    (void)state;
    snprintf(dir, sizeof dir, "/tmp/holdfast-install-XXXXXX");
    CHECK(mkdtemp(dir) != NULL);
    snprintf(from_dir, sizeof from_dir, "%s/from", dir);
    snprintf(to_dir, sizeof to_dir, "%s/to", dir);
    CHECK(mkdir(from_dir, 0700) == 0);
    CHECK(mkdir(to_dir, 0700) == 0);
    return uv_loop_init(&loop);
}

static int teardown(void **state)
{
    (void)state;
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    CHECK(uv_loop_close(&loop) == 0);
    return system(command) == 0 ? 0 : -1;
}

static struct checkpoint *open_store(const char *path)
{
    struct checkpoint *c;
    struct checkpoint_config config = {.loop = &loop, .directory = path, .map_size = 1 << 20};
    assert_int_equal(checkpoint_open(&config, &c), 0);
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

static void content(uint64_t index, uint32_t number, uint8_t out[BLOCK_SIZE])
{
    for (uint32_t i = 0; i < BLOCK_SIZE; i++) {
        out[i] = (uint8_t)(index * 31 + number * 7 + i);
    }
}

struct outcome {
    bool done, ok, again;
};

static void done_cb(void *ctx, bool ok, bool again, const struct checkpoint_meta *meta)
{
    (void)meta;
    *(struct outcome *)ctx = (struct outcome){true, ok, again};
}

/* A checkpoint at index of `blocks` blocks. */
static void take(struct checkpoint *c, uint64_t index, uint32_t blocks)
{
    struct checkpoint_meta meta = {.index = index, .term = 3, .digest = index * 7};
    struct outcome o;
    do {
        o = (struct outcome){false, false, false};
        checkpoint_begin(c, &meta, done_cb, &o);
        for (uint32_t n = 0; n < blocks; n++) {
            uint8_t data[BLOCK_SIZE];
            content(index, n, data);
            checkpoint_put(c, &(struct engine_block){1, n, data, BLOCK_SIZE});
        }
        checkpoint_flush(c);
        checkpoint_end(c);
        while (!o.done) {
            uv_run(&loop, UV_RUN_ONCE);
        }
    } while (!o.ok && o.again);
    assert_true(o.ok);
}

static struct checkpoint_identity offer(struct checkpoint *from,
                                        uint8_t ticket[static CHECKPOINT_TICKET_SIZE])
{
    struct checkpoint_meta meta;
    struct checkpoint_identity of;
    assert_int_equal(checkpoint_pin(from, 0, TTL_MS, ticket, &meta), 0);
    assert_true(checkpoint_ticket_identity(ticket, CHECKPOINT_TICKET_SIZE, &of));
    assert_int_equal(of.index, meta.index);
    assert_int_equal(of.digest, meta.digest);
    return of;
}

/* At most `chunks` more (0: all). */
static int pull(struct checkpoint *from, const uint8_t *ticket, struct checkpoint_install *i,
                int chunks)
{
    struct checkpoint_chunk chunk;
    do {
        struct checkpoint_install_progress p;
        checkpoint_install_get_progress(i, &p);
        assert_int_equal(checkpoint_read_chunk(from, ticket, CHECKPOINT_TICKET_SIZE, p.next,
                                               p.next_size, CHUNK_SIZE, &chunk),
                         CHECKPOINT_CHUNK_OK);
        int rv =
            checkpoint_install_put(i, chunk.records.data, chunk.records.len, chunk.crc32c);
        text_close(&chunk.records);
        if (rv != 0) {
            return rv;
        }
    } while (chunk.next_size > 0 && --chunks != 0);
    return 0;
}

struct compare {
    uint64_t index;
    uint32_t next;
};

static int compare_cb(void *ctx, const struct engine_block *b)
{
    struct compare *k = ctx;
    uint8_t data[BLOCK_SIZE];
    content(k->index, b->number, data);
    bool same = b->table == 1 && b->number == k->next && b->size == BLOCK_SIZE &&
                memcmp(b->data, data, BLOCK_SIZE) == 0;
    k->next++;
    return same ? 0 : -1;
}

static void finish(struct checkpoint *to, struct checkpoint_install *i, uint64_t index,
                   uint32_t blocks)
{
    struct checkpoint_meta meta;
    struct compare k = {.index = index};
    struct checkpoint_identity of;
    assert_int_equal(checkpoint_install_verify(i, compare_cb, &k, &meta), 0);
    assert_int_equal(k.next, blocks);
    assert_int_equal(meta.index, index);
    assert_int_equal(checkpoint_install_commit(i), 0);
    assert_false(checkpoint_get_partial(to, &of));
    k.next = 0;
    assert_int_equal(checkpoint_load(to, compare_cb, &k), 0);
    assert_int_equal(k.next, blocks);
}

static bool part_is_there(void)
{
    char path[160];
    snprintf(path, sizeof path, "%s/checkpoint/gen-00000002.tmp", to_dir);
    return access(path, F_OK) == 0;
}

static void test_goes_on_after_suspend(void **state)
{
    (void)state;
    struct checkpoint *from = open_store(from_dir), *to = open_store(to_dir);
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_install *i;
    struct checkpoint_install_progress p;
    struct checkpoint_identity is;
    take(from, 10, 400);
    struct checkpoint_identity of = offer(from, ticket);
    assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
    uint64_t had = 0;
    for (int round = 0; round < 4; round++) {
        checkpoint_install_get_progress(i, &p);
        assert_int_equal(p.resumed, round > 0);
        assert_int_equal(p.blocks, had);
        assert_int_equal(pull(from, ticket, i, 3), 0);
        checkpoint_install_get_progress(i, &p);
        assert_true(p.blocks > had);
        assert_int_equal(p.bytes, p.blocks * BLOCK_SIZE);
        assert_int_equal(p.meta.blocks_count, 400);
        had = p.blocks;
        checkpoint_install_suspend(i);
        assert_true(checkpoint_get_partial(to, &is));
        assert_memory_equal(&is, &of, sizeof of);
        if (round == 2) { /* a later process */
            close_store(to);
            to = open_store(to_dir);
            assert_true(checkpoint_get_partial(to, &is));
        }
        assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
        assert_false(checkpoint_get_partial(to, &is)); /* in use */
    }
    assert_int_equal(pull(from, ticket, i, 0), 0);
    finish(to, i, 10, 400);
    close_store(from);
    close_store(to);
}

/* SIGKILL while it is pulled: the pieces before are there. */
static void test_goes_on_after_a_kill(void **state)
{
    (void)state;
    const uint32_t blocks = 3 * CHECKPOINT_INSTALL_PIECE_SIZE / BLOCK_SIZE;
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_install *i;
    struct checkpoint_install_progress p;
    struct checkpoint *from = open_store(from_dir);
    take(from, 10, blocks);
    close_store(from);
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        CHECK(uv_loop_init(&loop) == 0);
        from = open_store(from_dir);
        struct checkpoint *to = open_store(to_dir);
        struct checkpoint_identity of = offer(from, ticket);
        CHECK(checkpoint_install_begin(to, &of, &i) == 0);
        (void)pull(from, ticket, i, (int)(3 * CHECKPOINT_INSTALL_PIECE_SIZE / 2 / CHUNK_SIZE));
        kill(getpid(), SIGKILL);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    from = open_store(from_dir);
    struct checkpoint *to = open_store(to_dir);
    struct checkpoint_identity of = offer(from, ticket); /* another process, the same checkpoint */
    assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
    checkpoint_install_get_progress(i, &p);
    assert_true(p.resumed);
    assert_true(p.bytes >= CHECKPOINT_INSTALL_PIECE_SIZE / 2);
    assert_true(p.blocks < blocks);
    assert_int_equal(pull(from, ticket, i, 0), 0);
    finish(to, i, 10, blocks);
    close_store(from);
    close_store(to);
}

static void test_another_checkpoint_starts_over(void **state)
{
    (void)state;
    struct checkpoint *from = open_store(from_dir), *to = open_store(to_dir);
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_install *i;
    struct checkpoint_install_progress p;
    struct checkpoint_identity is;
    take(from, 10, 200);
    struct checkpoint_identity of = offer(from, ticket);
    /* Each differs in one thing only; then there is no telling. */
    const struct checkpoint_identity others[] = {{of.index + 1, of.term, of.digest},
                                                 {of.index, of.term + 1, of.digest},
                                                 {of.index, of.term, of.digest + 1}};
    for (size_t k = 0; k <= ARRAY_COUNT(others); k++) {
        assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
        assert_int_equal(pull(from, ticket, i, 3), 0);
        checkpoint_install_suspend(i);
        assert_int_equal(
            checkpoint_install_begin(to, k < ARRAY_COUNT(others) ? &others[k] : NULL, &i), 0);
        checkpoint_install_get_progress(i, &p);
        assert_false(p.resumed);
        assert_int_equal(p.next_size, 0);
        checkpoint_install_suspend(i); /* nothing came: nothing is kept */
        assert_false(checkpoint_get_partial(to, &is));
        assert_false(part_is_there());
    }
    assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
    assert_int_equal(pull(from, ticket, i, 3), 0);
    checkpoint_install_suspend(i);
    take(from, 11, 250);
    of = offer(from, ticket);
    assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
    assert_int_equal(pull(from, ticket, i, 0), 0);
    finish(to, i, 11, 250);
    /* Removed when it is of no use any more. */
    take(from, 12, 250);
    of = offer(from, ticket);
    assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
    assert_int_equal(pull(from, ticket, i, 3), 0);
    checkpoint_install_suspend(i);
    assert_true(checkpoint_get_partial(to, &is));
    checkpoint_remove_partial(to);
    assert_false(checkpoint_get_partial(to, &is));
    close_store(from);
    close_store(to);
}

/* One byte, or the end, of the part's file is not what it was. */
static void damage(struct prng *p, bool cut)
{
    char path[160];
    struct stat st;
    snprintf(path, sizeof path, "%s/checkpoint/gen-00000002.tmp/data.mdb", to_dir);
    CHECK(stat(path, &st) == 0);
    uint64_t at = prng_below(p, (uint64_t)st.st_size);
    if (cut) {
        CHECK(truncate(path, (off_t)at) == 0);
        return;
    }
    FILE *f = fopen(path, "r+e");
    CHECK(f != NULL);
    CHECK(fseek(f, (long)at, SEEK_SET) == 0);
    int byte = fgetc(f);
    CHECK(fseek(f, (long)at, SEEK_SET) == 0);
    fputc(byte ^ (1 << prng_below(p, 8)), f);
    fclose(f);
}

static void test_damage_of_the_part(void **state)
{
    (void)state;
    struct prng prng = prng_init(7);
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    int found = 0;
    struct checkpoint *from = open_store(from_dir), *to = open_store(to_dir);
    take(from, 10, 120);
    struct checkpoint_identity of = offer(from, ticket);
    for (int round = 0; round < 80; round++) {
        struct checkpoint_install *i;
        struct checkpoint_install_progress p;
        assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
        assert_int_equal(pull(from, ticket, i, 3), 0);
        checkpoint_install_suspend(i);
        close_store(to);
        damage(&prng, round % 8 == 7);
        to = open_store(to_dir); /* a part is never a reason not to start */
        assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
        checkpoint_install_get_progress(i, &p);
        found += p.resumed ? 0 : 1;
        assert_int_equal(pull(from, ticket, i, 0), 0);
        struct compare k = {.index = 10};
        struct checkpoint_meta meta;
        assert_int_equal(checkpoint_install_verify(i, compare_cb, &k, &meta), 0);
        assert_int_equal(k.next, 120);
        checkpoint_install_abort(i);
        assert_false(part_is_there());
    }
    assert_true(found > 40); /* the rest hit bytes that nobody reads */
    close_store(from);
    close_store(to);
}

/* A chunk that was changed on the way is refused, and asked for again it fits. */
static void test_chunk_damaged_on_the_way(void **state)
{
    (void)state;
    struct prng prng = prng_init(8);
    struct checkpoint *from = open_store(from_dir), *to = open_store(to_dir);
    uint8_t ticket[CHECKPOINT_TICKET_SIZE];
    struct checkpoint_install *i;
    take(from, 10, 200);
    struct checkpoint_identity of = offer(from, ticket);
    assert_int_equal(checkpoint_install_begin(to, &of, &i), 0);
    struct checkpoint_chunk chunk;
    do {
        struct checkpoint_install_progress p, after;
        checkpoint_install_get_progress(i, &p);
        assert_int_equal(checkpoint_read_chunk(from, ticket, CHECKPOINT_TICKET_SIZE, p.next,
                                               p.next_size, CHUNK_SIZE, &chunk),
                         CHECKPOINT_CHUNK_OK);
        size_t at = (size_t)prng_below(&prng, chunk.records.len);
        chunk.records.data[at] ^= 4;
        assert_int_equal(
            checkpoint_install_put(i, chunk.records.data, chunk.records.len, chunk.crc32c), 1);
        checkpoint_install_get_progress(i, &after);
        assert_int_equal(after.blocks, p.blocks);
        chunk.records.data[at] ^= 4;
        assert_int_equal(
            checkpoint_install_put(i, chunk.records.data, chunk.records.len, chunk.crc32c), 0);
        text_close(&chunk.records);
    } while (chunk.next_size > 0);
    finish(to, i, 10, 200);
    close_store(from);
    close_store(to);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_goes_on_after_suspend, setup, teardown),
        cmocka_unit_test_setup_teardown(test_goes_on_after_a_kill, setup, teardown),
        cmocka_unit_test_setup_teardown(test_another_checkpoint_starts_over, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damage_of_the_part, setup, teardown),
        cmocka_unit_test_setup_teardown(test_chunk_damaged_on_the_way, setup, teardown),
    };
    log_init("test", LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
