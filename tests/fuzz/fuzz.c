/* Owns: what libFuzzer and replay.c call, seeds on disk, the scratch directory. */
#include "tests/fuzz/fuzz.h"

#include <fcntl.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "tests/fuzz/replay.h"

const char *fuzz_seed_directory;

static char scratch[64];

static void ignore_message(void *ctx, enum log_level level, const char *message)
{
    (void)ctx;
    (void)level;
    (void)message;
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    (void)argc;
    (void)argv;
    log_init("fuzz", LOG_LEVEL_ERROR);
    if (getenv("FUZZ_LOG") == NULL) {
        log_set_sink(ignore_message, NULL);
    }
    CHECK(sodium_init() >= 0);
    fuzz_begin();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_one(data, size);
    return 0;
}

void fuzz_seed(const char *name, const void *data, size_t size)
{
    char path[4096];
    CHECK(fuzz_seed_directory != NULL);
    CHECK((size_t)snprintf(path, sizeof path, "%s/%s", fuzz_seed_directory, name) < sizeof path);
    fuzz_write_file(path, data, size);
}

void fuzz_seed_text(const char *name, const char *text)
{
    fuzz_seed(name, text, strlen(text));
}

static void remove_scratch(void)
{
    char command[96];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch);
    if (system(command) != 0) {
        fprintf(stderr, "cannot remove %s\n", scratch);
    }
}

const char *fuzz_directory(void)
{
    if (scratch[0] == '\0') {
        const char *where = getenv("TMPDIR");
        if (access("/dev/shm", W_OK) == 0) {
            where = "/dev/shm";
        }
        int n = snprintf(scratch, sizeof scratch, "%s/holdfast-fuzz-XXXXXX",
                         where != NULL ? where : "/tmp");
        CHECK(n > 0 && (size_t)n < sizeof scratch);
        CHECK(mkdtemp(scratch) != NULL);
        atexit(remove_scratch);
    }
    return scratch;
}

void fuzz_write_file(const char *path, const void *data, size_t size)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0);
    CHECK(size == 0 || write(fd, data, size) == (ssize_t)size);
    CHECK(close(fd) == 0);
}
