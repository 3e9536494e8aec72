/* The directory of a demo: see demo.h. */
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/check.h"
#include "tools/ctl/demo.h"

#define DEMO_FORMAT    1
#define LOG_TAIL_SIZE  4096
#define LOG_TAIL_LINES 15
#define LOCK_WAIT_MS   100

void demo_path(const struct demo *d, const char *name, char path[static DEMO_PATH_SIZE])
{
    int n = snprintf(path, DEMO_PATH_SIZE, "%s/%s", d->dir, name);
    CHECK(n > 0 && n < DEMO_PATH_SIZE); /* demo_open leaves room */
}

const char *demo_text(const struct demo *d, const char *object, const char *key)
{
    const char *s = json_string_value(json_object_get(json_object_get(d->state, object), key));
    return s != NULL ? s : "";
}

/* Writes a whole file by way of a temporary one. Returns 0 or -1 after saying why. */
static int write_file(const struct demo *d, const char *name, mode_t mode, const char *content)
{
    char path[DEMO_PATH_SIZE], temporary[DEMO_PATH_SIZE + 8];
    demo_path(d, name, path);
    snprintf(temporary, sizeof temporary, "%s.new", path);
    unlink(temporary);
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
    size_t size = strlen(content);
    bool good = fd >= 0 && write(fd, content, size) == (ssize_t)size && fsync(fd) == 0;
    int error = errno;
    if (fd >= 0) {
        close(fd);
    }
    if (good && rename(temporary, path) == 0) {
        return 0;
    }
    ctl_say("cannot write %s: %s", path, strerror(good ? errno : error));
    return -1;
}

int demo_save(struct demo *d)
{
    char *text = json_dumps(d->state, JSON_INDENT(2));
    CHECK(text != NULL);
    int rv = write_file(d, "demo.json", 0600, text);
    free(text);
    return rv;
}

/* ---- opening ---- */

static void read_boot_id(char id[static 40])
{
    id[0] = '\0';
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f != NULL) {
        if (fgets(id, 40, f) == NULL) {
            id[0] = '\0';
        }
        fclose(f);
    }
    id[strcspn(id, "\n")] = '\0';
}

static enum ctl_exit find_directory(struct demo *d, const char *given, bool create)
{
    /* Others may pass through, for PostgreSQL's own user; what is inside has modes of its own. */
    if (create && mkdir(given, 0711) != 0 && errno != EEXIST) {
        ctl_say("cannot make %s: %s", given, strerror(errno));
        return CTL_FAILURE;
    }
    char *real = realpath(given, NULL);
    if (real == NULL && !create && errno == ENOENT) {
        return CTL_REFUSED;
    }
    if (real == NULL || strlen(real) > DEMO_PATH_SIZE - 256 || strpbrk(real, "\n\t") != NULL ||
        !str_is_utf8(str_from(real))) {
        ctl_say("cannot use %s: %s", given, real == NULL ? strerror(errno) : "not a usable path");
        free(real);
        return CTL_FAILURE;
    }
    str_copy(d->dir, sizeof d->dir, str_from(real));
    free(real);
    return CTL_OK;
}

static enum ctl_exit take_lock(struct demo *d)
{
    char path[DEMO_PATH_SIZE];
    demo_path(d, "lock", path);
    d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (d->lock < 0) {
        ctl_say("cannot open %s: %s", path, strerror(errno));
        return CTL_FAILURE;
    }
    for (uint64_t waited = 0; flock(d->lock, LOCK_EX | LOCK_NB) != 0; waited += LOCK_WAIT_MS) {
        if (waited > d->ctl->timeout_ms) {
            ctl_say("another demo command works in %s", d->dir);
            ctl_hint("the same command again, when that one is done");
            return CTL_FAILURE;
        }
        process_sleep_ms(LOCK_WAIT_MS);
    }
    return CTL_OK;
}

/* Ports and names, chosen once: a node's address is part of what the cluster remembers. */
static enum ctl_exit new_state(struct demo *d)
{
    const struct ctl_arguments *a = &d->ctl->arguments;
    size_t nodes = (size_t)ctl_value(a, "nodes")->u64;
    uint16_t ports[2 * DEMO_NODES_MAX + 2];
    enum ctl_exit rv = demo_choose_ports(ports, 2 * nodes + 2);
    if (rv != CTL_OK) {
        return rv;
    }
    uint8_t id[16];
    char cluster_id[37];
    randombytes_buf(id, sizeof id);
    for (size_t i = 0, at = 0; i < sizeof id; i++) {
        bool dash = i == 4 || i == 6 || i == 8 || i == 10;
        at += (size_t)snprintf(cluster_id + at, sizeof cluster_id - at, "%s%02x", dash ? "-" : "",
                               id[i]);
    }
    json_t *list = json_array();
    struct text endpoints = TEXT_INIT;
    for (size_t i = 0; i < nodes; i++) {
        json_array_append_new(list, json_pack("{s:i, s:i, s:i}", "id", (int)i + 1, "raft_port",
                                              ports[2 * i], "node_port", ports[2 * i + 1]));
        text_appendf(&endpoints, "%s127.0.0.1:%u", i > 0 ? "," : "", ports[2 * i + 1]);
    }
    char url[64], admin_url[64];
    uint16_t port = ports[2 * nodes], admin_port = ports[2 * nodes + 1];
    snprintf(url, sizeof url, "http://127.0.0.1:%u", port);
    snprintf(admin_url, sizeof admin_url, "http://127.0.0.1:%u", admin_port);
    const char *mode = ctl_given(a, "no-postgres")    ? "none"
                       : ctl_given(a, "postgres-url") ? "given"
                                                      : "private";
    d->state = json_pack(
        "{s:i, s:s, s:s, s:o, s:{s:i, s:i}, s:{s:s, s:s, s:s}, s:{s:s, s:s}, s:{}, s:{}}", "format",
        DEMO_FORMAT, "boot_id", "", "cluster_id", cluster_id, "nodes", list, "gateway", "port",
        (int)port, "admin_port", (int)admin_port, "addresses", "endpoints",
        text_cstring(&endpoints), "url", url, "admin_url", admin_url, "postgres", "mode", mode,
        "url", strcmp(mode, "given") == 0 ? ctl_text(a, "postgres-url") : "", "secrets",
        "processes");
    CHECK(d->state != NULL);
    if (ctl_given(a, "bin")) { /* the same binaries when it is started again */
        char *bin = realpath(ctl_text(a, "bin"), NULL);
        json_object_set_new(d->state, "bin", ctl_json_text(bin != NULL ? bin : ctl_text(a, "bin")));
        free(bin);
    }
    text_close(&endpoints);
    return CTL_OK;
}

static enum ctl_exit read_state(struct demo *d, bool create)
{
    char path[DEMO_PATH_SIZE], boot_id[40];
    json_error_t error;
    demo_path(d, "demo.json", path);
    read_boot_id(boot_id);
    if (access(path, F_OK) != 0) {
        enum ctl_exit rv = create ? new_state(d) : CTL_REFUSED;
        if (rv == CTL_OK) {
            json_object_set_new(d->state, "boot_id", json_string(boot_id));
            rv = demo_save(d) == 0 ? CTL_OK : CTL_FAILURE;
        }
        return rv;
    }
    d->state = json_load_file(path, JSON_REJECT_DUPLICATES, &error);
    if (json_integer_value(json_object_get(d->state, "format")) != DEMO_FORMAT) {
        ctl_say("%s is not the state of a demo of this version%s%s", path,
                d->state == NULL ? ": " : "", d->state == NULL ? error.text : "");
        return CTL_FAILURE;
    }
    const char *before = json_string_value(json_object_get(d->state, "boot_id"));
    if (before == NULL || strcmp(before, boot_id) != 0) {
        /* The machine was started anew: process ids and start times of then mean nothing. */
        json_object_set_new(d->state, "processes", json_object());
        json_object_set_new(d->state, "boot_id", json_string(boot_id));
    }
    return CTL_OK;
}

enum ctl_exit demo_open(struct demo *d, struct ctl *ctl, bool create)
{
    *d = (struct demo){.ctl = ctl, .lock = -1};
    const char *given = ctl_text(&ctl->arguments, "dir");
    enum ctl_exit rv = find_directory(d, given, create);
    if (rv == CTL_OK && !create) {
        char path[DEMO_PATH_SIZE];
        demo_path(d, "demo.json", path);
        rv = access(path, F_OK) == 0 ? CTL_OK : CTL_REFUSED; /* leave no lock file elsewhere */
    }
    rv = rv == CTL_OK ? take_lock(d) : rv;
    rv = rv == CTL_OK ? read_state(d, create) : rv;
    if (rv != CTL_OK) {
        demo_close(d);
    }
    return rv;
}

void demo_close(struct demo *d)
{
    json_decref(d->state);
    d->state = NULL;
    if (d->lock >= 0) {
        close(d->lock);
        d->lock = -1;
    }
}

/* ---- secrets ---- */

static const struct {
    const char *name, *role;
} api_keys[] = {
    {"admin", "admin"}, {"backend", "backend"}, {"viewer", "viewer"}, {"payments", "payments"}};

static int make_api_keys(struct demo *d)
{
    struct text list = TEXT_INIT;
    int rv = 0;
    text_appendf(&list, "# name role SHA-256 of the key\n");
    for (size_t i = 0; rv == 0 && i < ARRAY_COUNT(api_keys); i++) {
        uint8_t random[24], digest[crypto_hash_sha256_BYTES];
        char key[80], hex[65], name[64];
        randombytes_buf(random, sizeof random);
        sodium_bin2hex(hex, sizeof hex, random, sizeof random);
        snprintf(key, sizeof key, "hf_%s", hex);
        crypto_hash_sha256(digest, (const unsigned char *)key, strlen(key));
        sodium_bin2hex(hex, sizeof hex, digest, sizeof digest);
        text_appendf(&list, "%s %s %s\n", api_keys[i].name, api_keys[i].role, hex);
        snprintf(name, sizeof name, "secrets/%s.key", api_keys[i].name);
        rv = write_file(d, name, 0600, key);
        sodium_memzero(key, sizeof key);
    }
    rv = rv == 0 ? write_file(d, "secrets/api-keys", 0600, text_cstring(&list)) : rv;
    text_close(&list);
    return rv;
}

static int make_hex_secret(struct demo *d, const char *name)
{
    uint8_t random[32];
    char hex[66];
    randombytes_buf(random, sizeof random);
    sodium_bin2hex(hex, sizeof hex, random, sizeof random);
    return write_file(d, name, 0600, hex);
}

static int make_webhook_secret(struct demo *d)
{
    uint8_t random[32];
    char text[80] = "whsec_";
    randombytes_buf(random, sizeof random);
    sodium_bin2base64(text + 6, sizeof text - 6, random, sizeof random,
                      sodium_base64_VARIANT_ORIGINAL);
    return write_file(d, "secrets/payment-webhook", 0600, text);
}

enum ctl_exit demo_write_secrets(struct demo *d)
{
    static const char *const folders[] = {"secrets", "log"};
    static const struct {
        const char *key, *file;
    } files[] = {
        {"cluster_key_file", "secrets/cluster-key"},
        {"api_keys_file", "secrets/api-keys"},
        {"admin_key_file", "secrets/admin.key"},
        {"backend_key_file", "secrets/backend.key"},
        {"viewer_key_file", "secrets/viewer.key"},
        {"payments_key_file", "secrets/payments.key"},
        {"user_token_secret_file", "secrets/user-token"},
        {"payment_secret_file", "secrets/payment-webhook"},
    };
    char path[DEMO_PATH_SIZE];
    for (size_t i = 0; i < ARRAY_COUNT(folders); i++) {
        demo_path(d, folders[i], path);
        if (mkdir(path, 0700) != 0 && errno != EEXIST) {
            ctl_say("cannot make %s: %s", path, strerror(errno));
            return CTL_FAILURE;
        }
    }
    /* The list of API keys is written last of all: when it is there, all are. */
    demo_path(d, "secrets/api-keys", path);
    if (access(path, F_OK) != 0 && (make_hex_secret(d, "secrets/cluster-key") != 0 ||
                                    make_hex_secret(d, "secrets/user-token") != 0 ||
                                    make_webhook_secret(d) != 0 || make_api_keys(d) != 0)) {
        return CTL_FAILURE;
    }
    for (size_t i = 0; i < ARRAY_COUNT(files); i++) {
        demo_path(d, files[i].file, path);
        json_object_set_new(json_object_get(d->state, "secrets"), files[i].key, json_string(path));
    }
    return demo_save(d) == 0 ? CTL_OK : CTL_FAILURE;
}

int demo_write_postgres_url(struct demo *d)
{
    char path[DEMO_PATH_SIZE];
    demo_path(d, "secrets/postgres-url", path);
    json_object_set_new(json_object_get(d->state, "secrets"), "postgres_url_file",
                        json_string(path));
    return write_file(d, "secrets/postgres-url", 0600, demo_text(d, "postgres", "url"));
}

/* Within single quotes of a shell. */
static void append_variable(struct text *t, const char *name, const char *value)
{
    text_appendf(t, "export %s='", name);
    for (; *value != '\0'; value++) {
        text_appendf(t, *value == '\'' ? "'\\''" : "%c", *value);
    }
    text_appendf(t, "'\n");
}

int demo_write_env(struct demo *d)
{
    struct text t = TEXT_INIT;
    append_variable(&t, "HOLDFAST_ENDPOINTS", demo_text(d, "addresses", "endpoints"));
    append_variable(&t, "HOLDFAST_CLUSTER_KEY_FILE", demo_text(d, "secrets", "cluster_key_file"));
    append_variable(&t, "HOLDFAST_URL", demo_text(d, "addresses", "url"));
    append_variable(&t, "HOLDFAST_ADMIN_URL", demo_text(d, "addresses", "admin_url"));
    append_variable(&t, "HOLDFAST_ADMIN_KEY_FILE", demo_text(d, "secrets", "admin_key_file"));
    append_variable(&t, "HOLDFAST_BACKEND_KEY_FILE", demo_text(d, "secrets", "backend_key_file"));
    if (demo_text(d, "postgres", "url")[0] != '\0') {
        append_variable(&t, "HOLDFAST_POSTGRES_URL", demo_text(d, "postgres", "url"));
    }
    int rv = write_file(d, "env", 0600, text_cstring(&t));
    text_close(&t);
    return rv;
}

/* ---- wiping ---- */

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    (void)st;
    (void)type;
    (void)ftw;
    return remove(path);
}

static int remove_tree(const char *path)
{
    if (path[0] == '\0' || (access(path, F_OK) != 0 && errno == ENOENT)) {
        return 0;
    }
    if (nftw(path, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT) == 0) {
        return 0;
    }
    ctl_say("cannot remove %s: %s", path, strerror(errno));
    return -1;
}

enum ctl_exit demo_wipe(struct demo *d)
{
    static const char *const names[] = {"postgres", "log",     "secrets",
                                        "env",      "env.new", "demo.json.new"};
    char path[DEMO_PATH_SIZE], name[32];
    int rv = 0;
    for (size_t i = 0; i < ARRAY_COUNT(names); i++) {
        demo_path(d, names[i], path);
        rv |= remove_tree(path);
    }
    for (size_t i = 0; i < json_array_size(json_object_get(d->state, "nodes")); i++) {
        snprintf(name, sizeof name, "node-%zu", i + 1);
        demo_path(d, name, path);
        rv |= remove_tree(path);
    }
    rv |= remove_tree(demo_text(d, "postgres", "outside"));
    if (rv != 0) {
        return CTL_FAILURE;
    }
    /* The state goes last: until then another wipe can go on from here. */
    demo_path(d, "demo.json", path);
    rv |= remove_tree(path);
    demo_path(d, "lock", path);
    rv |= remove_tree(path);
    if (rmdir(d->dir) != 0 && errno != ENOTEMPTY && errno != EEXIST && errno != EBUSY) {
        ctl_say("cannot remove %s: %s", d->dir, strerror(errno));
        rv = -1;
    }
    return rv == 0 ? CTL_OK : CTL_FAILURE;
}

/* ---- logs ---- */

void demo_show_log(const char *path)
{
    char tail[LOG_TAIL_SIZE + 1];
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd >= 0 ? lseek(fd, 0, SEEK_END) : -1;
    if (size < 0) {
        if (fd >= 0) {
            close(fd);
        }
        return;
    }
    off_t from = size > LOG_TAIL_SIZE ? size - LOG_TAIL_SIZE : 0;
    ssize_t n = pread(fd, tail, LOG_TAIL_SIZE, from);
    close(fd);
    tail[n > 0 ? n : 0] = '\0';
    const char *start = tail + (n > 0 ? n : 0);
    for (int lines = 0; start > tail; start--) {
        lines += start[-1] == '\n' ? 1 : 0;
        if (lines > LOG_TAIL_LINES) {
            break;
        }
    }
    fprintf(stderr, "--- the end of %s ---\n%s%s---\n", path, start,
            n > 0 && tail[n - 1] != '\n' ? "\n" : "");
}
