/* The file with the cluster key: what is accepted, and what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "proto/link.h"

static void write_key(const char *path, const char *text, mode_t mode)
{
    unlink(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    assert_int_equal(fchmod(fd, mode), 0);
    close(fd);
}

static void test_read_key(void **state)
{
    (void)state;
    char path[] = "/tmp/holdfast-key-XXXXXX";
    close(mkstemp(path));
    uint8_t key[LINK_KEY_SIZE];
    const char *hex = "000102030405060708090a0b0c0d0e0f101112131415161718191A1B1C1D1E1F";
    char text[200];
    write_key(path, hex, 0600);
    assert_int_equal(link_read_key(path, key), 0);
    for (uint8_t i = 0; i < LINK_KEY_SIZE; i++) {
        assert_int_equal(key[i], i);
    }
    snprintf(text, sizeof text, "%s\n", hex);
    write_key(path, text, 0400);
    assert_int_equal(link_read_key(path, key), 0);
    write_key(path, text, 0640);
    assert_int_equal(link_read_key(path, key), -1);
    write_key(path, text, 0604);
    assert_int_equal(link_read_key(path, key), -1);
    const char *bad[] = {"", "\n", "00", "zz", "%s%s", "%s ", "%s\n\n", "%s0"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        const char *at = strstr(bad[i], "%s");
        if (at == NULL) {
            snprintf(text, sizeof text, "%s", bad[i]);
        } else {
            snprintf(text, sizeof text, "%s%s", hex, strcmp(at, "%s%s") == 0 ? hex : at + 2);
        }
        write_key(path, text, 0600);
        assert_int_equal(link_read_key(path, key), -1);
    }
    unlink(path);
    assert_int_equal(link_read_key(path, key), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_read_key),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
