/* A start of a node in a child, and what it means.
 *
 * The child first asks data_dir_verify, then does what holdfastd does (node_start, real options), and when that
 * succeeds tells over a pipe what the node believes: state, log, term, vote. It is judged here, against what
 * the template knows. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <sodium.h>

#include "base/check.h"
#include "base/log.h"
#include "raft/wal_inspect.h"
#include "server/data_dir.h"
#include "server/node_internal.h"
#include "tests/damage/damage.h"

#define TIME_LIMIT_MS 60000
#define OUTPUT_SIZE   65536

const char *outcome_name(enum outcome o)
{
    static const char *const names[] = {"harmless", "cut",    "refused", "UNCLEAR",
                                        "DIFFERS",  "SILENT", "CRASH",   "HANG"};
    return names[o];
}

/* What the child tells; in shared memory, so that it survives however the child ends. */
struct belief {
    bool verify_done, started;
    enum data_dir_result verdict;
    uint64_t verified_index, verified_term, verified_vote;
    char verify_text[4096];
    uint64_t applied_index, digest, base_index;
    bool initialized;
    struct log_end end;
    uint64_t terms[DAMAGE_ENTRIES_MAX];
    uint32_t crcs[DAMAGE_ENTRIES_MAX];
};

/* ---- in the child ---- */

static void tell_log(struct belief *b, const struct template *t, const char *directory)
{
    char path[DAMAGE_PATH_SIZE + 8], error[WAL_ERROR_SIZE];
    struct wal_recovered r;
    snprintf(path, sizeof path, "%s/log", directory);
    CHECK(wal_inspect_recover(path, t->cluster_id, 1, &r, error) == 0);
    b->base_index = r.base_index;
    b->end = (struct log_end){r.term, r.vote, r.base_index + r.count};
    for (size_t i = 0; i < r.count; i++) {
        CHECK(r.entries[i]->index < DAMAGE_ENTRIES_MAX);
        b->terms[r.entries[i]->index] = r.entries[i]->term;
        b->crcs[r.entries[i]->index] = r.entries[i]->crc32c;
    }
    wal_recovered_close(&r);
}

static void start(const struct template *t, const char *directory, struct belief *b)
{
    static struct data_dir_report report;
    static struct node_options options;
    static uv_loop_t loop;
    char cluster[CLUSTER_ID_TEXT_SIZE];
    struct node *node;
    b->verdict = data_dir_verify(directory, &report);
    b->verified_index = report.last_index;
    b->verified_term = report.term;
    b->verified_vote = report.vote;
    for (int i = 0; i < DATA_DIR_PARTS; i++) {
        size_t used = strlen(b->verify_text);
        snprintf(b->verify_text + used, sizeof b->verify_text - used, "%s: %.1000s; ",
                 data_dir_part_name((enum data_dir_part)i), report.details[i]);
    }
    b->verify_done = true;

    cluster_id_format(t->cluster_id, cluster);
    char *argv[] = {(char[]){"holdfastd"}, (char[]){"--id"}, (char[]){"1"}, (char[]){"--data-dir"},
                    (char *)(uintptr_t)directory, (char[]){"--cluster-id"}, cluster,
                    (char[]){"--cluster-key-file"}, (char *)(uintptr_t)t->key_file,
                    (char[]){"--listen-raft"}, (char[]){"127.0.0.1:0"}, (char[]){"--listen-node"},
                    (char[]){"127.0.0.1:0"},
                    (char[]){"--member"}, (char[]){"1=127.0.0.1:1/127.0.0.1:11"},
                    (char[]){"--member"}, (char[]){"2=127.0.0.1:2/127.0.0.1:12"},
                    (char[]){"--member"}, (char[]){"3=127.0.0.1:3/127.0.0.1:13"}, NULL};
    CHECK(node_options_parse(&options, (int)(sizeof argv / sizeof argv[0]) - 1, argv) == OPTIONS_OK);
    options.segment_size = 288u << 10; /* smaller than the option takes: the template's */
    log_init("holdfastd", LOG_LEVEL_INFO);
    CHECK(sodium_init() >= 0);
    CHECK(uv_loop_init(&loop) == 0);
    if (node_start(&loop, &options, &node) < 0) {
        _exit(1);
    }
    while (node->start != NULL) { /* checkpoint and log are read on a thread; what is wrong exits */
        uv_run(&loop, UV_RUN_ONCE);
    }
    b->applied_index = node->applied_index;
    b->initialized = engine_initialized(node->engine);
    b->digest = engine_digest(node->engine);
    tell_log(b, t, directory);
    b->started = true;
    _exit(0);
}

/* ---- judging ---- */

static const char *differs(const struct template *t, const struct belief *b,
                           const struct log_end *end)
{
    if (b->end.term != end->term || b->end.vote != end->vote) {
        return "term or vote";
    }
    if (b->end.last_index != end->last_index) {
        return "the last entry";
    }
    if (b->applied_index > end->last_index || b->base_index > b->applied_index) {
        return "entries are missing behind the checkpoint";
    }
    for (uint64_t i = b->applied_index + 1; i <= end->last_index; i++) {
        if (b->terms[i] != t->terms[i] || b->crcs[i] != t->crcs[i]) {
            return "an entry";
        }
    }
    if (b->applied_index > 0 && b->digest != t->digests[b->applied_index]) {
        return "the state";
    }
    return NULL;
}

static bool from_last_write_on(const struct template *t, const struct wound *w)
{
    /* Behind it is nothing. */
    return strcmp(w->name, t->last_name) == 0 && w->second[0] == '\0' && w->offset >= t->last_offset;
}

static enum outcome judge_started(const struct template *t, const struct belief *b,
                                  const struct wound *w, char *message, size_t size)
{
    const char *wrong = differs(t, b, &t->end);
    enum outcome outcome = OUTCOME_HARMLESS;
    snprintf(message, size, "state and log as before");
    if (wrong != NULL && !t->stopped && from_last_write_on(t, w) &&
        differs(t, b, &t->before_last) == NULL) {
        outcome = OUTCOME_CUT;
        snprintf(message, size, "without the last write before the kill");
    } else if (wrong != NULL) {
        snprintf(message, size,
                 "started with another %s: checkpoint %llu, log %llu to %llu, term %llu, vote %llu", wrong,
                 (unsigned long long)b->applied_index, (unsigned long long)b->base_index + 1,
                 (unsigned long long)b->end.last_index, (unsigned long long)b->end.term,
                 (unsigned long long)b->end.vote);
        return OUTCOME_SILENT;
    }
    if (b->verdict != DATA_DIR_OK || b->verified_index != b->end.last_index ||
        b->verified_term != b->end.term || b->verified_vote != b->end.vote) {
        snprintf(message, size, "started, but node verify says: %s", b->verify_text);
        return OUTCOME_DIFFERS;
    }
    return outcome;
}

static bool names(const char *text, const char *file)
{
    const char *base = strrchr(file, '/');
    base = base != NULL ? base + 1 : file;
    return base[0] != '\0' && strstr(text, base) != NULL;
}

/* The first line of level error: what is wrong; others follow from it. */
static void first_error(char *output, char *message, size_t size)
{
    char *at = strstr(output, " error ");
    snprintf(message, size, "no message");
    if (at != NULL) {
        at[strcspn(at, "\n")] = '\0';
        snprintf(message, size, "%s", at + 1);
    }
}

static enum outcome judge_refused(const struct belief *b, const struct wound *w, char *output,
                                  char *message, size_t size)
{
    static char whole[OUTPUT_SIZE];
    snprintf(whole, sizeof whole, "%s", output);
    first_error(output, message, size);
    bool advice = strstr(whole, "holdfastctl node rebuild") != NULL ||
                  strstr(whole, "use the right --data-dir") != NULL ||
                  strstr(whole, "Check the data directory") != NULL;
    /* A log or checkpoint directory may be named as a whole when its only file is gone. */
    bool named = names(whole, w->name) || names(whole, w->second) ||
                 (w->file == FILE_DATA && strstr(whole, "checkpoint") != NULL);
    if (!advice || !named) {
        return OUTCOME_UNCLEAR;
    }
    if (b->verify_done && b->verdict != DATA_DIR_BAD) {
        snprintf(message, size, "refused, but node verify says: %s", b->verify_text);
        return OUTCOME_DIFFERS;
    }
    return OUTCOME_REFUSED;
}

/* Waits for the end of the child; false: it did not come in time, and it was killed. */
static bool wait_for(pid_t pid, int *status)
{
    for (int waited = 0; waited < TIME_LIMIT_MS;) {
        pid_t done = waitpid(pid, status, WNOHANG);
        if (done == pid) {
            return true;
        }
        CHECK(done == 0 || errno == EINTR);
        int step = waited < 20 ? 1 : waited < 200 ? 5 : 20;
        usleep((useconds_t)step * 1000);
        waited += step;
    }
    kill(pid, SIGKILL);
    CHECK(waitpid(pid, status, 0) == pid);
    return false;
}

enum outcome outcome_of_start(const struct template *t, const char *directory, const struct wound *w,
                              char *message, size_t size)
{
    static struct belief *belief;
    static char output[OUTPUT_SIZE];
    if (belief == NULL) {
        belief = mmap(NULL, sizeof *belief, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        CHECK(belief != MAP_FAILED);
    }
    memset(belief, 0, sizeof *belief);
    int errors = memfd_create("stderr", MFD_CLOEXEC);
    CHECK(errors >= 0);
    CHECK(fcntl(errors, F_SETFL, O_APPEND) == 0); /* else threads write over each other's lines */
    pid_t pid = fork();
    CHECK(pid >= 0);
    if (pid == 0) {
        struct rlimit none = {0, 0};
        (void)setrlimit(RLIMIT_CORE, &none);
        CHECK(dup2(errors, STDERR_FILENO) >= 0);
        start(t, directory, belief);
        _exit(99);
    }
    int status;
    bool ended = wait_for(pid, &status);
    ssize_t n = pread(errors, output, sizeof output - 1, 0);
    output[n > 0 ? n : 0] = '\0';
    close(errors);
    if (!ended) {
        snprintf(message, size, "no end after %d ms", TIME_LIMIT_MS);
        return OUTCOME_HANG;
    }
    if (WIFSIGNALED(status)) {
        char *last = strstr(output, "check failed");
        snprintf(message, size, "signal %d%s%.300s", WTERMSIG(status),
                 belief->verify_done ? " in the start " : " in verify ", last != NULL ? last : "");
        return OUTCOME_CRASH;
    }
    if (WEXITSTATUS(status) == 0 && belief->started) {
        return judge_started(t, belief, w, message, size);
    }
    if (WEXITSTATUS(status) == 1 || WEXITSTATUS(status) == CHECKPOINT_EXIT_CODE) {
        return judge_refused(belief, w, output, message, size);
    }
    snprintf(message, size, "exit status %d: %.400s", WEXITSTATUS(status), output);
    return OUTCOME_CRASH;
}
