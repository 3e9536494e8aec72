/* The threaded log on a real directory: tickets, group commit, waiting, restart, fail-stop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "raft/wal.h"

#define SEGMENT_SIZE (512u << 10)
#define DEADLINE_MS  60000u

struct fixture {
    uv_loop_t loop;
    uv_timer_t tick;
    char directory[64];
    struct wal_config config;
    struct wal *wal;
    struct wal_recovered recovered;
    uint64_t ticket, index, term;
    unsigned reports;
    bool went_back, closed;
};

static void on_durable(void *ctx, uint64_t ticket, uint64_t index, uint64_t term)
{
    struct fixture *f = ctx;
    f->went_back |= ticket <= f->ticket;
    f->ticket = ticket;
    f->index = index;
    f->term = term;
    f->reports++;
}

static void on_closed(void *ctx)
{
    ((struct fixture *)ctx)->closed = true;
}

static void tick_cb(uv_timer_t *timer)
{
    (void)timer;
}

static void run_until_ticket(struct fixture *f, uint64_t ticket)
{
    uint64_t began = clock_monotonic_ms();
    while (f->ticket < ticket) {
        uv_run(&f->loop, UV_RUN_ONCE);
        assert_true(clock_monotonic_ms() - began < DEADLINE_MS);
    }
}

static void open_log(struct fixture *f)
{
    f->ticket = f->index = f->term = 0;
    assert_int_equal(wal_open(&f->loop, &f->config, on_durable, f, &f->wal, &f->recovered), 0);
}

static void close_log(struct fixture *f)
{
    f->closed = false;
    wal_close(f->wal, on_closed, f);
    uint64_t began = clock_monotonic_ms();
    while (!f->closed) {
        uv_run(&f->loop, UV_RUN_ONCE);
        assert_true(clock_monotonic_ms() - began < DEADLINE_MS);
    }
    f->wal = NULL;
    wal_recovered_close(&f->recovered);
}

static void reopen(struct fixture *f)
{
    close_log(f);
    open_log(f);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    uv_loop_init(&f->loop);
    uv_timer_init(&f->loop, &f->tick);
    uv_timer_start(&f->tick, tick_cb, 10, 10);
    /* Not /tmp: where that is a tmpfs, O_DIRECT would go untested. */
    strcpy(f->directory, "/var/tmp/holdfast-wal-XXXXXX");
    assert_non_null(mkdtemp(f->directory));
    f->config = (struct wal_config){
        .directory = f->directory, .node_id = 1, .segment_size = SEGMENT_SIZE, .sync = true};
    *state = f;
    return 0;
}

static void remove_directory(const char *path)
{
    DIR *dir = opendir(path);
    for (struct dirent *e = readdir(dir); e != NULL; e = readdir(dir)) {
        (void)unlinkat(dirfd(dir), e->d_name, 0);
    }
    closedir(dir);
    rmdir(path);
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (f->wal != NULL) {
        close_log(f);
    }
    assert_false(f->went_back);
    uv_close((uv_handle_t *)&f->tick, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&f->loop), 0);
    remove_directory(f->directory);
    free(f);
    return 0;
}

/* Appends count entries from index on in one call; the records' memory is gone afterwards. */
static uint64_t append(struct fixture *f, uint64_t index, size_t count, uint64_t term,
                       uint32_t size)
{
    uint8_t *data = malloc(size + 1u);
    memset(data, (int)(index & 0xFF), size);
    const struct record_header **records = malloc(count * sizeof *records);
    for (size_t i = 0; i < count; i++) {
        void *record = malloc(record_span(size));
        record_encode(record, RECORD_COMMAND, index + i, term, data, size);
        records[i] = record;
    }
    uint64_t ticket = wal_append(f->wal, records, count);
    for (size_t i = 0; i < count; i++) {
        memset((void *)(uintptr_t)records[i], 0xEE, record_span(size));
        free((void *)(uintptr_t)records[i]);
    }
    free(records);
    free(data);
    return ticket;
}

static void test_append_and_restart(void **state)
{
    struct fixture *f = *state;
    open_log(f);
    assert_true(f->recovered.fresh);
    assert_int_equal(wal_set_vote(f->wal, 1, 2), 1);
    assert_int_equal(append(f, 1, 1, 1, 100), 2);
    assert_int_equal(append(f, 2, 3, 1, 1000), 3);
    run_until_ticket(f, 3);
    assert_int_equal(f->index, 4);
    assert_int_equal(f->term, 1);
    assert_int_equal(wal_durable_ticket(f->wal), 3);
    assert_int_equal(wal_queued_bytes(f->wal), 0);
    reopen(f);
    assert_false(f->recovered.fresh);
    assert_int_equal(f->recovered.count, 4);
    assert_int_equal(f->recovered.entries[3]->index, 4);
    assert_int_equal(f->recovered.entries[3]->size, 1000);
    assert_int_equal(f->recovered.term, 1);
    assert_int_equal(f->recovered.vote, 2);
    run_until_ticket(f, append(f, 5, 1, 1, 0));
    assert_int_equal(f->index, 5);
}

static void test_wait(void **state)
{
    struct fixture *f = *state;
    open_log(f);
    uint64_t ticket = wal_set_vote(f->wal, 7, 3);
    wal_wait(f->wal, ticket);
    assert_true(wal_durable_ticket(f->wal) >= ticket);
    assert_int_equal(f->reports, 0); /* the callback comes from the loop, and it does come */
    run_until_ticket(f, ticket);
    reopen(f);
    assert_int_equal(f->recovered.term, 7);
    assert_int_equal(f->recovered.vote, 3);
}

static void test_group_commit(void **state)
{
    struct fixture *f = *state;
    open_log(f);
    wal_set_vote(f->wal, 1, 0);
    uint64_t ticket = 0;
    for (uint64_t i = 1; i <= 3000; i++) {
        ticket = append(f, i, 1, 1, 200);
    }
    run_until_ticket(f, ticket);
    struct wal_stats stats;
    wal_get_stats(f->wal, &stats);
    assert_int_equal(stats.records, 3001);
    assert_true(stats.writes < 1500); /* many records per write */
    assert_int_equal(stats.write_ns->count, stats.writes);
    reopen(f);
    assert_int_equal(f->recovered.count, 3000);
}

/* More than one block of the group commit in one call, over many segments, with trimming. */
static void test_large_appends_and_trim(void **state)
{
    struct fixture *f = *state;
    open_log(f);
    wal_set_vote(f->wal, 1, 0);
    uint64_t index = 1;
    for (int i = 0; i < 12; i++, index += 10) {
        uint64_t ticket = append(f, index, 10, 1, 200000);
        run_until_ticket(f, ticket);
        assert_int_equal(f->index, index + 9);
        wal_trim(f->wal, index);
    }
    struct wal_stats stats;
    wal_get_stats(f->wal, &stats);
    assert_true(stats.writes > 50);
    reopen(f);
    assert_true(f->recovered.base_index >= 100);
    assert_int_equal(f->recovered.base_index + f->recovered.count, 120);
    wal_get_stats(f->wal, &stats);
    assert_true(stats.segments < 20);
}

static void test_override_and_reset(void **state)
{
    struct fixture *f = *state;
    open_log(f);
    wal_set_vote(f->wal, 2, 0);
    append(f, 1, 50, 1, 10);
    uint64_t ticket = append(f, 20, 1, 2, 10);
    run_until_ticket(f, ticket);
    assert_int_equal(f->index, 20);
    assert_int_equal(f->term, 2);
    reopen(f);
    assert_int_equal(f->recovered.count, 20);
    assert_int_equal(f->recovered.entries[19]->term, 2);
    ticket = wal_reset(f->wal, 500, 2);
    run_until_ticket(f, ticket);
    assert_int_equal(f->index, 500);
    reopen(f);
    assert_int_equal(f->recovered.base_index, 500);
    assert_int_equal(f->recovered.base_term, 2);
    assert_int_equal(f->recovered.count, 0);
    wal_reset(f->wal, 900, 2); /* with entries queued behind it at once */
    ticket = append(f, 901, 5, 2, 10);
    run_until_ticket(f, ticket);
    assert_int_equal(f->index, 905);
    reopen(f);
    assert_int_equal(f->recovered.base_index, 900);
    assert_int_equal(f->recovered.count, 5);
}

static void test_close_writes_what_is_queued(void **state)
{
    struct fixture *f = *state;
    open_log(f);
    wal_set_vote(f->wal, 1, 0);
    uint64_t ticket = append(f, 1, 100, 1, 5000);
    close_log(f);
    assert_int_equal(f->ticket, ticket); /* and reports it */
    open_log(f);
    assert_int_equal(f->recovered.count, 100);
}

/* Closed with work for several segments queued, and the spares for them still being made. */
static void test_close_while_segments_are_made(void **state)
{
    struct fixture *f = *state;
    for (uint64_t round = 0; round < 20; round++) {
        open_log(f);
        if (round == 0) {
            wal_set_vote(f->wal, 1, 0);
        }
        uint64_t ticket = append(f, round * 30 + 1, 30, 1, 100000);
        close_log(f);
        assert_int_equal(f->ticket, ticket);
    }
    open_log(f);
    assert_int_equal(f->recovered.count, 600);
}

static void test_directory_is_locked(void **state)
{
    struct fixture *f = *state;
    open_log(f);
    struct wal *other = NULL;
    struct wal_recovered recovered;
    assert_int_equal(wal_open(&f->loop, &f->config, on_durable, f, &other, &recovered), -1);
}

static void test_refusals_at_open(void **state)
{
    struct fixture *f = *state;
    open_log(f);
    wal_set_vote(f->wal, 1, 0);
    close_log(f);
    struct wal *other = NULL;
    struct wal_recovered recovered;
    f->config.node_id = 2;
    assert_int_equal(wal_open(&f->loop, &f->config, on_durable, f, &other, &recovered), -1);
    f->config.node_id = 1;
    f->config.segment_size = 8192; /* too small for an entry */
    assert_int_equal(wal_open(&f->loop, &f->config, on_durable, f, &other, &recovered), -1);
    f->config.segment_size = SEGMENT_SIZE;
    f->config.directory = "/proc/holdfast";
    assert_int_equal(wal_open(&f->loop, &f->config, on_durable, f, &other, &recovered), -1);
    f->config.directory = f->directory;
    open_log(f); /* none of that took the lock or did harm */
    assert_int_equal(f->recovered.term, 1);
}

static void test_without_sync(void **state)
{
    struct fixture *f = *state;
    f->config.sync = false;
    open_log(f);
    wal_set_vote(f->wal, 1, 0);
    run_until_ticket(f, append(f, 1, 10, 1, 1000));
    reopen(f);
    assert_int_equal(f->recovered.count, 10);
}

/* A disk that refuses a write ends the process, with the code that says so and without an
 * acknowledgement. (A file size limit stands for the broken disk.) */
static void test_write_error_is_fail_stop(void **state)
{
    struct fixture *f = *state;
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        alarm(DEADLINE_MS / 1000);
        signal(SIGXFSZ, SIG_IGN);
        open_log(f);
        uint64_t ticket = wal_set_vote(f->wal, 1, 0);
        wal_wait(f->wal, ticket);
        const struct rlimit limit = {65536, 65536};
        setrlimit(RLIMIT_FSIZE, &limit);
        for (uint64_t i = 1; i < 1000; i++) {
            ticket = append(f, i, 1, 1, 3000);
            wal_wait(f->wal, ticket);
        }
        _exit(1);
    }
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), WAL_EXIT_CODE);
    open_log(f);
    assert_true(f->recovered.count >= 10);
}

/* Killed at an arbitrary moment: whatever was reported durable is there. */
static void test_killed_process(void **state)
{
    struct fixture *f = *state;
    for (int round = 0; round < 10; round++) {
        int pipes[2];
        assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
        fflush(NULL);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            alarm(DEADLINE_MS / 1000);
            open_log(f);
            wal_set_vote(f->wal, 1, 0);
            uint64_t index = f->recovered.base_index + f->recovered.count;
            for (;;) {
                index++;
                uint64_t ticket = append(f, index, 1, 1, (uint32_t)(index * 379 % 20000));
                wal_wait(f->wal, ticket);
                if (index % 20 == 0) {
                    wal_trim(f->wal, index - 10);
                }
                if (write(pipes[1], &index, sizeof index) != sizeof index) {
                    _exit(1);
                }
            }
        }
        close(pipes[1]);
        uint64_t acknowledged = 0, index;
        for (int i = 0; i < 30 + round * 7; i++) {
            assert_int_equal(read(pipes[0], &index, sizeof index), sizeof index);
            acknowledged = index;
        }
        kill(child, SIGKILL);
        int status;
        assert_int_equal(waitpid(child, &status, 0), child);
        assert_true(WIFSIGNALED(status));
        while (read(pipes[0], &index, sizeof index) == sizeof index) {
            acknowledged = index;
        }
        close(pipes[0]);
        open_log(f);
        assert_true(f->recovered.base_index + f->recovered.count >= acknowledged);
        for (size_t i = 0; i < f->recovered.count; i++) {
            assert_int_equal(f->recovered.entries[i]->index, f->recovered.base_index + 1 + i);
        }
        close_log(f);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_append_and_restart),
        TEST(test_wait),
        TEST(test_group_commit),
        TEST(test_large_appends_and_trim),
        TEST(test_override_and_reset),
        TEST(test_close_writes_what_is_queued),
        TEST(test_close_while_segments_are_made),
        TEST(test_directory_is_locked),
        TEST(test_refusals_at_open),
        TEST(test_without_sync),
        TEST(test_write_error_is_fail_stop),
        TEST(test_killed_process),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
