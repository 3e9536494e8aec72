/* The private PostgreSQL of a demo: Debian's binaries, one Unix socket, no TCP port, no service
 * touched.
 *
 * PostgreSQL refuses to run as root: then it runs as user postgres, and its files stand where that
 * user can reach them (DIR/postgres, or a directory of its own under /var/tmp when DIR is closed to
 * it, or when DIR is too long for the path of a socket). Authentication is trust: the socket's
 * directory is closed to everybody else. */
#include <ctype.h>
#include <errno.h>
#include <glob.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "storage/migrate.h"
#include "tools/ctl/demo.h"
#include "tools/ctl/postgres.h"

#define INITDB_TIMEOUT_MS 120000
#define PING_POLL_MS      50
#define SOCKET_NAME       "/.s.PGSQL.5432"
#define BINARIES          "/usr/lib/postgresql"

/* PostgreSQL's user when we are root; else ourselves (0, 0). */
static enum ctl_exit find_user(uid_t *uid, gid_t *gid)
{
    *uid = 0;
    *gid = 0;
    if (geteuid() != 0) {
        return CTL_OK;
    }
    const struct passwd *user = getpwnam("postgres");
    if (user == NULL) {
        ctl_say("PostgreSQL does not run as root and there is no user postgres");
        ctl_hint("apt-get install postgresql, or holdfastctl demo up --no-postgres");
        return CTL_FAILURE;
    }
    *uid = user->pw_uid;
    *gid = user->pw_gid;
    return CTL_OK;
}

/* The directory with initdb and postgres: of version `wanted`, or the newest when it is "". */
static enum ctl_exit find_binaries(const char *wanted, char *path, size_t size)
{
    glob_t found;
    unsigned long best = 0;
    if (glob(BINARIES "/*/bin/initdb", 0, NULL, &found) == 0) {
        for (size_t i = 0; i < found.gl_pathc; i++) {
            const char *at = found.gl_pathv[i] + strlen(BINARIES) + 1;
            unsigned long version = strtoul(at, NULL, 10);
            bool fits = wanted[0] == '\0' || version == strtoul(wanted, NULL, 10);
            if (fits && version > best) {
                best = version;
            }
        }
        globfree(&found);
    }
    if (best == 0) {
        ctl_say("no PostgreSQL%s%s in " BINARIES, wanted[0] != '\0' ? " of version " : "", wanted);
        ctl_hint("apt-get install postgresql, or holdfastctl demo up --no-postgres");
        return CTL_FAILURE;
    }
    snprintf(path, size, BINARIES "/%lu/bin", best);
    return CTL_OK;
}

/* Whether PostgreSQL's user gets as far as the directory. */
static bool is_reachable(const char *path, uid_t uid, gid_t gid)
{
    const char *const arguments[] = {"/usr/bin/test", "-x", path, NULL};
    struct process_spawn spawn = {.arguments = arguments, .uid = uid, .gid = gid};
    struct text wrong = TEXT_INIT;
    bool reachable = process_run(&spawn, 10000, &wrong) == 0;
    text_close(&wrong);
    return reachable;
}

/* The libpq URI of a database behind the socket in home. */
static void append_url(struct text *t, const char *home, const char *database)
{
    text_appendf(t, "postgresql://holdfast@/%s?host=", database);
    for (const char *c = home; *c != '\0'; c++) {
        bool plain = isalnum((unsigned char)*c) || strchr("-_.~/", *c) != NULL;
        text_appendf(t, plain ? "%c" : "%%%02X", (unsigned char)*c);
    }
}

/* Chooses and makes the directory of its files, once. */
static enum ctl_exit place(struct demo *d, uid_t uid, gid_t gid, char home[static DEMO_PATH_SIZE])
{
    json_t *postgres = json_object_get(d->state, "postgres");
    const char *known = demo_text(d, "postgres", "home");
    if (known[0] != '\0') {
        str_copy(home, DEMO_PATH_SIZE, str_from(known));
        return CTL_OK;
    }
    struct sockaddr_un address;
    demo_path(d, "postgres", home);
    bool fits = strlen(home) + sizeof SOCKET_NAME <= sizeof address.sun_path &&
                strpbrk(home, ",\"") == NULL; /* PostgreSQL reads a list of directories */
    bool inside = fits && (mkdir(home, 0700) == 0 || errno == EEXIST) &&
                  (uid == 0 || chown(home, uid, gid) == 0) && is_reachable(home, uid, gid);
    if (!inside) {
        rmdir(home);
        snprintf(home, DEMO_PATH_SIZE, "/var/tmp/holdfast-demo-XXXXXX");
        if (mkdtemp(home) == NULL || (uid != 0 && chown(home, uid, gid) != 0)) {
            ctl_say("cannot make %s: %s", home, strerror(errno));
            return CTL_FAILURE;
        }
        json_object_set_new(postgres, "outside", json_string(home));
    }
    json_object_set_new(postgres, "home", json_string(home));
    struct text url = TEXT_INIT;
    append_url(&url, home, "holdfast");
    json_object_set_new(postgres, "url", json_string(text_cstring(&url)));
    text_close(&url);
    return demo_save(d) == 0 ? CTL_OK : CTL_FAILURE;
}

/* The data directory, made once: under another name until it is whole. */
static enum ctl_exit init_data(const char *home, const char *log, uid_t uid, gid_t gid,
                               char binaries[static DEMO_PATH_SIZE])
{
    char data[DEMO_PATH_SIZE + 16], fresh[DEMO_PATH_SIZE + 16], version_path[DEMO_PATH_SIZE + 32];
    char version[16] = "", initdb[DEMO_PATH_SIZE + 16];
    snprintf(data, sizeof data, "%s/data", home);
    snprintf(fresh, sizeof fresh, "%s/data.new", home);
    snprintf(version_path, sizeof version_path, "%s/PG_VERSION", data);
    FILE *f = fopen(version_path, "re");
    if (f != NULL) {
        if (fgets(version, sizeof version, f) != NULL) {
            version[strcspn(version, "\n")] = '\0';
        }
        fclose(f);
    }
    enum ctl_exit rv = find_binaries(version, binaries, DEMO_PATH_SIZE);
    if (rv != CTL_OK || version[0] != '\0') {
        return rv;
    }
    struct text wrong = TEXT_INIT;
    const char *const remove[] = {"/bin/rm", "-rf", "--", fresh, NULL};
    struct process_spawn spawn = {.arguments = remove, .log_path = log, .uid = uid, .gid = gid};
    int status = process_run(&spawn, INITDB_TIMEOUT_MS, &wrong);
    snprintf(initdb, sizeof initdb, "%s/initdb", binaries);
    const char *const arguments[] = {initdb,
                                     "-D",
                                     fresh,
                                     "-U",
                                     "holdfast",
                                     "--auth=trust",
                                     "-E",
                                     "UTF8",
                                     "--locale=C.UTF-8",
                                     "--no-instructions",
                                     NULL};
    spawn.arguments = arguments;
    status = status == 0 ? process_run(&spawn, INITDB_TIMEOUT_MS, &wrong) : status;
    if (status != 0) {
        ctl_say("initdb failed%s%s", wrong.len > 0 ? ": " : "", text_cstring(&wrong));
        demo_show_log(log);
        rv = CTL_FAILURE;
    } else if (rename(fresh, data) != 0) {
        ctl_say("cannot rename %s: %s", fresh, strerror(errno));
        rv = CTL_FAILURE;
    }
    text_close(&wrong);
    return rv;
}

/* Waits until it takes connections, and makes the database. */
static enum ctl_exit make_database(struct demo *d, const char *home, const char *log)
{
    struct text url = TEXT_INIT;
    append_url(&url, home, "postgres");
    enum ctl_exit rv = CTL_OK;
    while (PQping(text_cstring(&url)) != PQPING_OK) {
        if (!demo_is_up(d, "postgres") || clock_monotonic_ms() >= d->deadline_ms) {
            ctl_say("PostgreSQL did not start");
            demo_show_log(log);
            rv = CTL_FAILURE;
            break;
        }
        process_sleep_ms(PING_POLL_MS);
    }
    PGconn *c = rv == CTL_OK ? PQconnectdb(text_cstring(&url)) : NULL;
    if (rv == CTL_OK) {
        PGresult *there = PQexec(c, "SELECT 1 FROM pg_database WHERE datname = 'holdfast'");
        if (PQresultStatus(there) == PGRES_TUPLES_OK && PQntuples(there) == 0) {
            PQclear(there);
            there = PQexec(c, "CREATE DATABASE holdfast");
        }
        ExecStatusType status = PQresultStatus(there);
        if (status != PGRES_TUPLES_OK && status != PGRES_COMMAND_OK) {
            ctl_say("cannot make the database: %s", PQerrorMessage(c));
            rv = CTL_FAILURE;
        }
        PQclear(there);
        PQfinish(c);
    }
    text_close(&url);
    return rv;
}

static enum ctl_exit private_up(struct demo *d)
{
    char home[DEMO_PATH_SIZE], log[DEMO_PATH_SIZE], binaries[DEMO_PATH_SIZE];
    uid_t uid;
    gid_t gid;
    enum ctl_exit rv = find_user(&uid, &gid);
    demo_path(d, "log/postgres.log", log);
    rv = rv == CTL_OK ? place(d, uid, gid, home) : rv;
    if (rv != CTL_OK || demo_is_up(d, "postgres")) {
        return rv;
    }
    rv = init_data(home, log, uid, gid, binaries);
    if (rv != CTL_OK) {
        return rv;
    }
    char server[DEMO_PATH_SIZE + 16], data[DEMO_PATH_SIZE + 16];
    snprintf(server, sizeof server, "%s/postgres", binaries);
    snprintf(data, sizeof data, "%s/data", home);
    const char *const arguments[] = {server,
                                     "-D",
                                     data,
                                     "-k",
                                     home,
                                     "--listen_addresses=",
                                     "--port=5432", /* of the socket's name */
                                     "--unix_socket_permissions=0700",
                                     "--logging_collector=off",
                                     "--log_line_prefix=%m [%p] ",
                                     NULL};
    struct process_spawn spawn = {.arguments = arguments, .log_path = log, .uid = uid, .gid = gid};
    rv = demo_start(d, "postgres", &spawn);
    return rv == CTL_OK ? make_database(d, home, log) : rv;
}

enum ctl_exit demo_postgres_up(struct demo *d)
{
    const char *mode = demo_text(d, "postgres", "mode");
    if (strcmp(mode, "none") == 0) {
        return CTL_OK;
    }
    enum ctl_exit rv = strcmp(mode, "private") == 0 ? private_up(d) : CTL_OK;
    if (rv == CTL_OK && demo_write_postgres_url(d) != 0) {
        rv = CTL_FAILURE;
    }
    if (rv != CTL_OK) {
        return rv;
    }
    char error[512] = "";
    enum migrate_result result = migrate_up(demo_text(d, "postgres", "url"), d->ctl->timeout_ms,
                                            NULL, NULL, error, sizeof error);
    if (result != MIGRATE_OK) {
        ctl_say("migrate: %s: %s", migrate_result_name(result), error);
        rv = result == MIGRATE_UNREACHABLE ? CTL_UNREACHABLE : CTL_FAILURE;
    }
    return rv;
}
