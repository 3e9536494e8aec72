/* See pg_proxy.h. A thread per connection, blocking poll; clear text protocol on a Unix socket. */
#include "pg_proxy.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"

struct pg_proxy {
    char dir[64], server[128];
    int listener;
    uint64_t cut_every, late_ms;
    pthread_t thread;
    atomic_bool stopping, calm;
    atomic_ulong commits, dropped, delayed;
    atomic_int connections;
};

struct connection {
    struct pg_proxy *proxy;
    int client, server;
};

static bool send_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = send(fd, data, size, MSG_NOSIGNAL);
        if (n <= 0) {
            return false;
        }
        data += n;
        size -= (size_t)n;
    }
    return true;
}

/* Which commit is cut, and how: 0 not, 1 drop the answer, 2 deliver late. */
static int decide(struct pg_proxy *p)
{
    unsigned long n = atomic_fetch_add(&p->commits, 1) + 1;
    if (atomic_load(&p->calm) || n % p->cut_every != 0) {
        return 0;
    }
    return n / p->cut_every % 2 == 0 ? 2 : 1;
}

static bool contains(const char *data, size_t size, const char *word, size_t len)
{
    return memmem(data, size, word, len) != NULL;
}

/* The persister's last message of a transaction ends in CopyDone: 'c' and a length of 4. */
static bool is_last(const char *data, size_t size)
{
    return size >= 5 && memcmp(data + size - 5, "c\0\0\0\4", 5) == 0;
}

static void serve(struct connection *c)
{
    static const char commit[] = "COMMIT";
    struct pg_proxy *p = c->proxy;
    char *buffer = malloc(1 << 16);
    int copies = 0; /* COPYs of the present transaction, of which the CopyDones are counted off */
    int cut = 0;
    while (!atomic_load(&p->stopping)) {
        struct pollfd fds[2] = {{.fd = c->client, .events = POLLIN},
                                {.fd = c->server, .events = POLLIN}};
        if (poll(fds, 2, 50) <= 0) {
            continue;
        }
        if (fds[0].revents != 0) {
            ssize_t n = recv(c->client, buffer, 1 << 16, 0);
            if (n <= 0) {
                break;
            }
            const char *q = memmem(buffer, (size_t)n, "COPY holdfast.", 14);
            for (; q != NULL;
                 q = memmem(q + 1, (size_t)(buffer + n - q - 1), "COPY holdfast.", 14)) {
                copies++;
            }
            if (copies > 0 && is_last(buffer, (size_t)n) && --copies == 0) {
                cut = decide(p);
            }
            if (cut == 2) {
                shutdown(c->client,
                         SHUT_RDWR); /* the client sees the end, the server sees nothing yet */
                usleep((useconds_t)p->late_ms * 1000);
                send_all(c->server, buffer, (size_t)n);
                atomic_fetch_add(&p->delayed, 1);
                usleep(20000); /* let it read before the end of the connection */
                break;
            }
            if (!send_all(c->server, buffer, (size_t)n)) {
                break;
            }
        }
        if (fds[1].revents != 0) {
            ssize_t n = recv(c->server, buffer, 1 << 16, 0);
            if (n <= 0) {
                break;
            }
            if (cut == 1 && contains(buffer, (size_t)n, commit, sizeof commit)) {
                atomic_fetch_add(&p->dropped, 1);
                break;
            }
            if (!send_all(c->client, buffer, (size_t)n)) {
                break;
            }
        }
    }
    free(buffer);
    close(c->client);
    close(c->server);
}

static void *connection_thread(void *arg)
{
    struct connection *c = arg;
    struct pg_proxy *p = c->proxy;
    serve(c);
    free(c);
    atomic_fetch_sub(&p->connections, 1);
    return NULL;
}

static int unix_socket(const char *path, struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    CHECK(fd >= 0);
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    CHECK(strlen(path) < sizeof address->sun_path);
    memcpy(address->sun_path, path, strlen(path) + 1);
    return fd;
}

static void *accept_thread(void *arg)
{
    struct pg_proxy *p = arg;
    while (!atomic_load(&p->stopping)) {
        struct pollfd fd = {.fd = p->listener, .events = POLLIN};
        if (poll(&fd, 1, 50) <= 0) {
            continue;
        }
        int client = accept4(p->listener, NULL, NULL, SOCK_CLOEXEC);
        struct sockaddr_un address;
        int server = unix_socket(p->server, &address);
        if (client < 0 || connect(server, (struct sockaddr *)&address, sizeof address) != 0) {
            close(client);
            close(server);
            continue;
        }
        struct connection *c = malloc(sizeof *c);
        *c = (struct connection){p, client, server};
        pthread_t thread;
        atomic_fetch_add(&p->connections, 1);
        CHECK(pthread_create(&thread, NULL, connection_thread, c) == 0);
        pthread_detach(thread);
    }
    return NULL;
}

struct pg_proxy *pg_proxy_start(const char *server_dir, uint64_t cut_every, uint64_t late_ms)
{
    struct pg_proxy *p = calloc(1, sizeof *p);
    CHECK(p != NULL);
    p->cut_every = cut_every;
    p->late_ms = late_ms;
    snprintf(p->dir, sizeof p->dir, "/tmp/hfpx.XXXXXX");
    CHECK(mkdtemp(p->dir) != NULL);
    snprintf(p->server, sizeof p->server, "%s/.s.PGSQL.5432", server_dir);
    char path[128];
    snprintf(path, sizeof path, "%s/.s.PGSQL.5432", p->dir);
    struct sockaddr_un address;
    p->listener = unix_socket(path, &address);
    CHECK(bind(p->listener, (struct sockaddr *)&address, sizeof address) == 0);
    CHECK(listen(p->listener, 16) == 0);
    CHECK(pthread_create(&p->thread, NULL, accept_thread, p) == 0);
    return p;
}

const char *pg_proxy_dir(const struct pg_proxy *p)
{
    return p->dir;
}

void pg_proxy_counts(struct pg_proxy *p, uint64_t *dropped, uint64_t *delayed)
{
    *dropped = atomic_load(&p->dropped);
    *delayed = atomic_load(&p->delayed);
}

void pg_proxy_calm(struct pg_proxy *p)
{
    atomic_store(&p->calm, true);
}

void pg_proxy_stop(struct pg_proxy *p)
{
    atomic_store(&p->stopping, true);
    pthread_join(p->thread, NULL);
    while (atomic_load(&p->connections) > 0) {
        usleep(1000);
    }
    close(p->listener);
    char path[128];
    snprintf(path, sizeof path, "%s/.s.PGSQL.5432", p->dir);
    unlink(path);
    rmdir(p->dir);
    free(p);
}
