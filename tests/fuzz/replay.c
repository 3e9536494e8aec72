/* The driver of a target in builds without libFuzzer: any compiler, any sanitizer, valgrind.
 *
 *     fuzz_NAME FILE|DIRECTORY...    runs each file, of directories each file in them
 *     fuzz_NAME --seeds DIRECTORY    writes the seed corpus
 *
 * Beside each input itself it runs every prefix of it that is a power of two long and, for small inputs,
 * each with one bit turned: little, but it makes a corpus find more than what it was kept for. */
#include "tests/fuzz/replay.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "tests/fuzz/fuzz.h"

#define FILE_SIZE_MAX (16u << 20)
#define TURNED_MAX    256u /* bits of an input that are turned, spread over it */

static uint64_t files, runs;

/* Each run gets memory of its own of exactly that size, so that a sanitizer sees the first byte behind. */
static void run(const uint8_t *data, size_t size, size_t turn)
{
    uint8_t *copy = malloc(size > 0 ? size : 1);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    if (turn < size * 8) {
        copy[turn / 8] ^= (uint8_t)(1u << turn % 8);
    }
    LLVMFuzzerTestOneInput(copy, size);
    free(copy);
    runs++;
}

static int run_file(const char *path)
{
    FILE *f = fopen(path, "re");
    if (f == NULL) {
        perror(path);
        return -1;
    }
    uint8_t *data = malloc(FILE_SIZE_MAX);
    CHECK(data != NULL);
    size_t size = fread(data, 1, FILE_SIZE_MAX, f);
    bool whole = feof(f) != 0;
    fclose(f);
    if (!whole) {
        fprintf(stderr, "%s: larger than %u bytes\n", path, FILE_SIZE_MAX);
        free(data);
        return -1;
    }
    files++;
    run(data, size, SIZE_MAX);
    for (size_t part = 1; part < size; part *= 2) {
        run(data, part, SIZE_MAX);
    }
    size_t bits = size * 8, step = bits / TURNED_MAX + 1;
    for (size_t bit = 0; bit < bits; bit += step) {
        run(data, size, bit);
    }
    free(data);
    return 0;
}

static int run_path(const char *path)
{
    struct stat status;
    if (stat(path, &status) != 0) {
        perror(path);
        return -1;
    }
    if (!S_ISDIR(status.st_mode)) {
        return run_file(path);
    }
    struct dirent **names;
    int count = scandir(path, &names, NULL, alphasort), result = 0;
    if (count < 0) {
        perror(path);
        return -1;
    }
    for (int i = 0; i < count; i++) {
        char file[4096];
        if (names[i]->d_name[0] != '.') {
            snprintf(file, sizeof file, "%s/%s", path, names[i]->d_name);
            result |= run_file(file);
        }
        free(names[i]);
    }
    free(names);
    return result;
}

int main(int argc, char **argv)
{
    int result = 0;
    LLVMFuzzerInitialize(&argc, &argv);
    if (argc == 3 && strcmp(argv[1], "--seeds") == 0) {
        fuzz_seed_directory = argv[2];
        fuzz_seeds();
        return 0;
    }
    if (argc < 2 || argv[1][0] == '-') {
        fprintf(stderr, "usage: %s FILE|DIRECTORY... | --seeds DIRECTORY\n", argv[0]);
        return 2;
    }
    for (int i = 1; i < argc; i++) {
        result |= run_path(argv[i]);
    }
    printf("%llu files, %llu runs\n", (unsigned long long)files, (unsigned long long)runs);
    return result == 0 && files > 0 ? 0 : 1;
}
