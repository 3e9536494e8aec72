/* Free ports. The kernel hands out ports of ip_local_port_range to outgoing connections at any
 * time, so that a port from there may be gone by the time a node wants it; these are taken from
 * below. All are held while the others are chosen, so that they differ. Two demos at once choose at
 * random among some ten thousand; what still collides shows as a process that cannot listen, and up
 * says so. */
#include <arpa/inet.h>
#include <errno.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/check.h"
#include "tools/ctl/demo.h"

#define PORT_MIN      10240
#define PORT_MAX      32000
#define ATTEMPTS_MAX  2000
#define PORTS_AT_ONCE (2 * DEMO_NODES_MAX + 2)

static void outgoing_range(unsigned *low, unsigned *high)
{
    FILE *f = fopen("/proc/sys/net/ipv4/ip_local_port_range", "re");
    *low = 32768;
    *high = 60999;
    if (f != NULL) {
        if (fscanf(f, "%u %u", low, high) != 2) {
            *low = 32768;
            *high = 60999;
        }
        fclose(f);
    }
}

/* A bound socket, or -1 when somebody has the port. */
static int hold(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd >= 0 && bind(fd, (const struct sockaddr *)&address, sizeof address) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

enum ctl_exit demo_choose_ports(uint16_t *ports, size_t count)
{
    int held[PORTS_AT_ONCE];
    size_t found = 0;
    unsigned low, high;
    CHECK(count <= PORTS_AT_ONCE);
    outgoing_range(&low, &high);
    for (int i = 0; i < ATTEMPTS_MAX && found < count; i++) {
        unsigned port = PORT_MIN + randombytes_uniform(PORT_MAX - PORT_MIN);
        /* A machine whose whole range is given to outgoing connections: better one of those than
         * none. */
        if (port >= low && port <= high && i < ATTEMPTS_MAX / 2) {
            continue;
        }
        int fd = hold((uint16_t)port);
        if (fd >= 0) {
            held[found] = fd;
            ports[found++] = (uint16_t)port;
        }
    }
    for (size_t i = 0; i < found; i++) {
        close(held[i]);
    }
    if (found < count) {
        ctl_say("no free ports on 127.0.0.1");
        return CTL_FAILURE;
    }
    return CTL_OK;
}
