/* The nodes and the gateway of a demo, and when they are ready. */
#include <arpa/inet.h>
#include <inttypes.h>
#include <libgen.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "tools/ctl/demo.h"

#define READY_POLL_MS     50
#define READY_PATIENCE_MS 1000
#define ARGUMENT_SIZE     (DEMO_PATH_SIZE + 64)

/* ---- binaries ---- */

/* Looks in --bin, beside holdfastctl, where the build puts it, where it is installed. */
static enum ctl_exit find_binary(struct demo *d, const char *name, const char *build_folder,
                                 char path[static ARGUMENT_SIZE])
{
    char self[DEMO_PATH_SIZE];
    const char *given = ctl_text(&d->ctl->arguments, "bin");
    given = given != NULL ? given : json_string_value(json_object_get(d->state, "bin"));
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    self[n > 0 ? n : 0] = '\0';
    const char *folder = dirname(self);
    struct text tried = TEXT_INIT;
    for (int i = 0; i < 5; i++) {
        switch (i) {
        case 0:
            snprintf(path, ARGUMENT_SIZE, "%s/%s", given != NULL ? given : folder, name);
            break;
        case 1:
            snprintf(path, ARGUMENT_SIZE, "%s/%s/%s", given != NULL ? given : folder, build_folder,
                     name);
            break;
        case 2:
            snprintf(path, ARGUMENT_SIZE, "%s/../../%s/%s", folder, build_folder, name);
            break;
        case 3:
            snprintf(path, ARGUMENT_SIZE, "/usr/local/bin/%s", name);
            break;
        default:
            snprintf(path, ARGUMENT_SIZE, "/usr/bin/%s", name);
            break;
        }
        char *real = access(path, X_OK) == 0 ? realpath(path, NULL) : NULL;
        if (real != NULL && strlen(real) < ARGUMENT_SIZE) {
            str_copy(path, ARGUMENT_SIZE, str_from(real));
            free(real);
            text_close(&tried);
            return CTL_OK;
        }
        free(real);
        text_appendf(&tried, "%s%s", i > 0 ? ", " : "", path);
    }
    ctl_say("no %s: not at %s", name, text_cstring(&tried));
    ctl_hint("ninja -C build, or holdfastctl demo up --bin DIR");
    text_close(&tried);
    return CTL_FAILURE;
}

/* ---- arguments ---- */

#define ARGUMENTS_MAX 48

struct arguments {
    const char *list[ARGUMENTS_MAX + 1];
    size_t count;
};

static void add(struct arguments *a, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void add(struct arguments *a, const char *format, ...)
{
    char *text;
    va_list values;
    va_start(values, format);
    int n = vasprintf(&text, format, values);
    va_end(values);
    CHECK(n >= 0 && a->count < ARGUMENTS_MAX);
    a->list[a->count++] = text;
    a->list[a->count] = NULL;
}

static void close_arguments(struct arguments *a)
{
    for (size_t i = 0; i < a->count; i++) {
        free((char *)(uintptr_t)a->list[i]);
    }
}

static int port_of(const json_t *object, const char *key)
{
    return (int)json_integer_value(json_object_get(object, key));
}

/* Starts one process with its log; frees the arguments. */
static enum ctl_exit start(struct demo *d, const char *name, struct arguments *a)
{
    char log[DEMO_PATH_SIZE], log_name[48];
    snprintf(log_name, sizeof log_name, "log/%s.log", name);
    demo_path(d, log_name, log);
    struct process_spawn spawn = {.arguments = a->list, .log_path = log};
    enum ctl_exit rv = demo_start(d, name, &spawn);
    close_arguments(a);
    return rv;
}

static enum ctl_exit start_node(struct demo *d, const char *binary, const json_t *nodes, size_t i)
{
    char name[32], data[DEMO_PATH_SIZE];
    snprintf(name, sizeof name, "node-%zu", i + 1);
    demo_path(d, name, data);
    struct arguments a = {.count = 0};
    add(&a, "%s", binary);
    add(&a, "--id=%zu", i + 1);
    add(&a, "--data-dir=%s", data);
    if (!json_is_true(json_object_get(d->state, "created"))) {
        add(&a, "--new-cluster"); /* never again: a node that lost its data must refill */
    }
    add(&a, "--cluster-id=%s", json_string_value(json_object_get(d->state, "cluster_id")));
    add(&a, "--cluster-key-file=%s", demo_text(d, "secrets", "cluster_key_file"));
    for (size_t j = 0; j < json_array_size(nodes); j++) {
        const json_t *node = json_array_get(nodes, j);
        add(&a, "--member=%zu=127.0.0.1:%d/127.0.0.1:%d", j + 1, port_of(node, "raft_port"),
            port_of(node, "node_port"));
    }
    if (demo_text(d, "postgres", "url")[0] != '\0') { /* in a file: it may have a password */
        add(&a, "--postgres-url-file=%s", demo_text(d, "secrets", "postgres_url_file"));
    }
    return start(d, name, &a);
}

enum ctl_exit demo_nodes_up(struct demo *d)
{
    char binary[ARGUMENT_SIZE];
    const json_t *nodes = json_object_get(d->state, "nodes");
    enum ctl_exit rv = find_binary(d, "holdfastd", "server", binary);
    for (size_t i = 0; rv == CTL_OK && i < json_array_size(nodes); i++) {
        rv = start_node(d, binary, nodes, i);
    }
    return rv;
}

enum ctl_exit demo_gateway_up(struct demo *d)
{
    char binary[ARGUMENT_SIZE];
    enum ctl_exit rv = find_binary(d, "holdfast-gateway", "gateway", binary);
    if (rv != CTL_OK) {
        return rv;
    }
    const json_t *gateway = json_object_get(d->state, "gateway");
    const json_t *nodes = json_object_get(d->state, "nodes");
    struct arguments a = {.count = 0};
    add(&a, "%s", binary);
    add(&a, "--listen=127.0.0.1:%d", port_of(gateway, "port"));
    add(&a, "--listen-admin=127.0.0.1:%d", port_of(gateway, "admin_port"));
    for (size_t i = 0; i < json_array_size(nodes); i++) {
        add(&a, "--nodes=127.0.0.1:%d", port_of(json_array_get(nodes, i), "node_port"));
    }
    add(&a, "--cluster-key-file=%s", demo_text(d, "secrets", "cluster_key_file"));
    add(&a, "--api-keys-file=%s", demo_text(d, "secrets", "api_keys_file"));
    add(&a, "--user-token-secret-file=%s", demo_text(d, "secrets", "user_token_secret_file"));
    add(&a, "--payment-secret-file=%s", demo_text(d, "secrets", "payment_secret_file"));
    add(&a, "--drain-timeout=10s"); /* less than what demo down waits */
    return start(d, "gateway", &a);
}

/* ---- readiness ---- */

/* GET /readyz, within a second. Returns the status code, 0 when there is no answer. */
static int ask_ready(int port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval patience = {READY_PATIENCE_MS / 1000, 0};
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)port),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static const char request[] =
        "GET /readyz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n";
    char answer[64] = "";
    int status = 0;
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) == 0 &&
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience) == 0 &&
        connect(fd, (const struct sockaddr *)&address, sizeof address) == 0 &&
        send(fd, request, sizeof request - 1, MSG_NOSIGNAL) == (ssize_t)sizeof request - 1 &&
        recv(fd, answer, sizeof answer - 1, MSG_WAITALL) > 12) {
        sscanf(answer, "HTTP/1.%*d %d", &status);
    }
    if (fd >= 0) {
        close(fd);
    }
    return status;
}

/* The name of a process that has ended, or NULL. */
static const char *find_dead(const struct demo *d)
{
    const char *name;
    json_t *unused;
    json_object_foreach(json_object_get(d->state, "processes"), name, unused)
    {
        if (!demo_is_up(d, name)) {
            return name;
        }
    }
    return NULL;
}

static enum ctl_exit give_up(const struct demo *d, const char *name, const char *what)
{
    ctl_say("%s %s", name, what);
    const json_t *p = json_object_get(json_object_get(d->state, "processes"), name);
    const char *log = json_string_value(json_object_get(p, "log"));
    if (log != NULL) {
        demo_show_log(log);
    }
    return CTL_FAILURE;
}

/* Whether every node says that it is ready; *waiting is the first that does not. */
static bool nodes_ready(struct ctl *ctl, size_t count, uint64_t *waiting)
{
    for (size_t i = 0; i < count; i++) {
        Holdfast__Response *response;
        const char *wrong;
        *waiting = i + 1;
        if (ctl_read_status_quietly(ctl, i + 1, READY_PATIENCE_MS, &response, &wrong) != CTL_OK) {
            return false;
        }
        bool ready = response->node_status->ready && response->node_status->leader_id != 0;
        holdfast__response__free_unpacked(response, NULL);
        if (!ready) {
            return false;
        }
    }
    return true;
}

/* Whether the leader's persister writes, where there is a database. */
static bool persister_ready(const struct demo *d, struct ctl *ctl)
{
    if (demo_text(d, "postgres", "url")[0] == '\0') {
        return true;
    }
    Holdfast__PersistStatus body = HOLDFAST__PERSIST_STATUS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    const char *wrong;
    request.body_case = HOLDFAST__REQUEST__BODY_PERSIST_STATUS;
    request.persist_status = &body;
    enum ctl_exit rv =
        ctl_call_quietly(ctl, &request, CLIENT_TARGET_LEADER, READY_PATIENCE_MS, &response, &wrong);
    bool ready = rv == CTL_OK && response->body_case == HOLDFAST__RESPONSE__BODY_PERSIST_STATUS &&
                 response->persist_status->connected;
    if (response != NULL) {
        holdfast__response__free_unpacked(response, NULL);
    }
    return ready;
}

/* The same program asks as a client would: with the demo's own addresses and key. */
static enum ctl_exit open_client(struct demo *d, struct ctl *client)
{
    static const struct ctl_parameter endpoints = {"endpoints", CTL_TEXT, "", ""};
    static const struct ctl_parameter key_file = {"cluster-key-file", CTL_FILE, "", ""};
    *client = (struct ctl){.output = d->ctl->output, .timeout_ms = READY_PATIENCE_MS};
    client->arguments.command = d->ctl->arguments.command;
    client->arguments.count = 2;
    client->arguments.values[0] = (struct ctl_value){
        .parameter = &endpoints, .given = true, .text = demo_text(d, "addresses", "endpoints")};
    client->arguments.values[1] = (struct ctl_value){
        .parameter = &key_file, .given = true, .text = demo_text(d, "secrets", "cluster_key_file")};
    return ctl_open(client);
}

enum ctl_exit demo_wait_ready(struct demo *d)
{
    struct ctl *client = calloc(1, sizeof *client);
    CHECK(client != NULL);
    size_t count = json_array_size(json_object_get(d->state, "nodes"));
    int port = port_of(json_object_get(d->state, "gateway"), "port");
    uint64_t waiting = 1;
    bool nodes = false, persister = false;
    enum ctl_exit rv = open_client(d, client);
    while (rv == CTL_OK) {
        const char *dead = find_dead(d);
        nodes = nodes || nodes_ready(client, count, &waiting);
        persister = persister || (nodes && persister_ready(d, client));
        if (dead != NULL) {
            rv = give_up(d, dead, "has ended");
        } else if (persister && ask_ready(port) == 200) {
            break;
        } else if (clock_monotonic_ms() >= d->deadline_ms) {
            char name[32] = "gateway";
            if (!nodes) {
                snprintf(name, sizeof name, "node-%" PRIu64, waiting);
            } else if (!persister) {
                snprintf(name, sizeof name, "node-1");
            }
            rv = give_up(d, name,
                         nodes && !persister ? "answers, but no persister reaches PostgreSQL"
                                             : "is not ready in time");
        } else {
            process_sleep_ms(READY_POLL_MS);
        }
    }
    if (rv == CTL_OK && !json_is_true(json_object_get(d->state, "created"))) {
        json_object_set_new(d->state, "created", json_true());
        rv = demo_save(d) == 0 ? CTL_OK : CTL_FAILURE;
    }
    ctl_close(client);
    free(client);
    return rv;
}
