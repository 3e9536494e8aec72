/* demo up|down|status: see demo.h. */
#include "tools/ctl/demo.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "base/clock.h"

#define STOP_GRACE_MS 15000

struct process demo_process(const struct demo *d, const char *name)
{
    const json_t *p = json_object_get(json_object_get(d->state, "processes"), name);
    return (struct process){.pid = (pid_t)json_integer_value(json_object_get(p, "pid")),
                            .start = (uint64_t)json_integer_value(json_object_get(p, "start"))};
}

bool demo_is_up(const struct demo *d, const char *name)
{
    struct process p = demo_process(d, name);
    return process_alive(&p);
}

struct recording {
    struct demo *d;
    const char *name, *log;
};

static bool record(void *ctx, const struct process *p)
{
    struct recording *r = ctx;
    json_object_set_new(json_object_get(r->d->state, "processes"), r->name,
                        json_pack("{s:I, s:I, s:s}", "pid", (json_int_t)p->pid, "start",
                                  (json_int_t)p->start, "log", r->log));
    return demo_save(r->d) == 0;
}

enum ctl_exit demo_start(struct demo *d, const char *name, const struct process_spawn *spawn)
{
    if (demo_is_up(d, name)) {
        return CTL_OK;
    }
    struct recording r = {d, name, spawn->log_path};
    struct process p;
    struct text wrong = TEXT_INIT;
    enum ctl_exit rv = CTL_OK;
    if (process_start(spawn, record, &r, &p, &wrong) != 0) {
        ctl_say("%s: %s", name, text_cstring(&wrong));
        rv = CTL_FAILURE;
    } else {
        CHECK(d->started_count < DEMO_PROCESSES_MAX);
        /* The key in the state lives as long as the state: the name may be the caller's buffer. */
        json_t *processes = json_object_get(d->state, "processes");
        d->started[d->started_count++] = json_object_iter_key(json_object_iter_at(processes, name));
    }
    text_close(&wrong);
    return rv;
}

/* Stops by the order in which they depend on each other: gateway, nodes, PostgreSQL. PostgreSQL's
 * word for "end now, properly" is SIGINT. */
static size_t stop_processes(struct demo *d, bool only_started)
{
    struct process gateway[1], nodes[DEMO_NODES_MAX], postgres[1];
    size_t counts[3] = {0, 0, 0};
    const char *name;
    json_t *unused;
    json_object_foreach(json_object_get(d->state, "processes"), name, unused)
    {
        bool ours = !only_started;
        for (size_t i = 0; i < d->started_count; i++) {
            ours = ours || strcmp(d->started[i], name) == 0;
        }
        struct process p = demo_process(d, name);
        if (!ours || !process_alive(&p)) {
            continue;
        }
        if (strcmp(name, "gateway") == 0) {
            gateway[0] = p;
            counts[0] = 1;
        } else if (strcmp(name, "postgres") == 0) {
            postgres[0] = p;
            counts[2] = 1;
        } else if (counts[1] < DEMO_NODES_MAX) {
            nodes[counts[1]++] = p;
        }
    }
    size_t killed = process_stop(gateway, counts[0], SIGTERM, STOP_GRACE_MS);
    killed += process_stop(nodes, counts[1], SIGTERM, STOP_GRACE_MS);
    killed += process_stop(postgres, counts[2], SIGINT, STOP_GRACE_MS);
    if (killed > 0) {
        ctl_say("%zu processes did not end within %d s and were killed", killed,
                STOP_GRACE_MS / 1000);
    }
    return counts[0] + counts[1] + counts[2];
}

/* ---- up ---- */

static bool all_up(const struct demo *d)
{
    char name[32];
    size_t nodes = json_array_size(json_object_get(d->state, "nodes"));
    bool up = demo_is_up(d, "gateway");
    if (strcmp(demo_text(d, "postgres", "mode"), "private") == 0) {
        up = up && demo_is_up(d, "postgres");
    }
    for (size_t i = 1; i <= nodes; i++) {
        snprintf(name, sizeof name, "node-%zu", i);
        up = up && demo_is_up(d, name);
    }
    return up;
}

/* What was asked for must be what is there: a cluster's size and database are not changed by up. */
static enum ctl_exit check_same(const struct demo *d)
{
    const struct ctl_arguments *a = &d->ctl->arguments;
    size_t nodes = json_array_size(json_object_get(d->state, "nodes"));
    const char *mode = demo_text(d, "postgres", "mode");
    const char *other = NULL;
    if (ctl_value(a, "nodes")->explicit && ctl_value(a, "nodes")->u64 != nodes) {
        other = "--nodes";
    } else if (ctl_given(a, "no-postgres") && strcmp(mode, "none") != 0) {
        other = "--no-postgres";
    } else if (ctl_given(a, "postgres-url") &&
               strcmp(ctl_text(a, "postgres-url"), demo_text(d, "postgres", "url")) != 0) {
        other = "--postgres-url";
    }
    if (other == NULL) {
        return CTL_OK;
    }
    ctl_say("the cluster in %s was made with another %s", d->dir, other);
    ctl_hint("holdfastctl demo down --wipe --dir %s, or another --dir", d->dir);
    return CTL_REFUSED;
}

static void print_reach(struct ctl *ctl, const struct demo *d, bool already)
{
    static const struct output_column columns[] = {
        {"dir", "DIRECTORY", CELL_TEXT},           {"url", "GATEWAY", CELL_TEXT},
        {"admin_url", "ADMIN", CELL_TEXT},         {"endpoints", "NODES", CELL_TEXT},
        {"postgres_url", "POSTGRESQL", CELL_TEXT}, {"env", "ENVIRONMENT", CELL_TEXT},
    };
    char env[DEMO_PATH_SIZE];
    demo_path(d, "env", env);
    const char *url = demo_text(d, "postgres", "url");
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:s, s:s, s:s, s:s, s:o, s:s, s:b, s:O}", "dir", d->dir, "url",
                            demo_text(d, "addresses", "url"), "admin_url",
                            demo_text(d, "addresses", "admin_url"), "endpoints",
                            demo_text(d, "addresses", "endpoints"), "postgres_url",
                            url[0] != '\0' ? json_string(url) : json_null(), "env", env,
                            "already_up", (int)already, "secrets",
                            json_object_get(d->state, "secrets")));
}

enum ctl_exit demo_up(struct ctl *ctl)
{
    if (ctl_given(&ctl->arguments, "no-postgres") && ctl_given(&ctl->arguments, "postgres-url")) {
        ctl_say("--no-postgres and --postgres-url exclude each other");
        ctl_hint("holdfastctl demo up --help");
        return CTL_USAGE;
    }
    struct demo d;
    enum ctl_exit rv = demo_open(&d, ctl, true);
    if (rv != CTL_OK) {
        return rv;
    }
    d.deadline_ms = clock_monotonic_ms() + ctl_value(&ctl->arguments, "wait")->u64;
    rv = check_same(&d);
    bool already = rv == CTL_OK && all_up(&d);
    if (rv == CTL_OK && !already) {
        rv = demo_write_secrets(&d);
        rv = rv == CTL_OK ? demo_postgres_up(&d) : rv;
        rv = rv == CTL_OK ? demo_nodes_up(&d) : rv;
        rv = rv == CTL_OK ? demo_gateway_up(&d) : rv;
        rv = rv == CTL_OK && demo_write_env(&d) != 0 ? CTL_FAILURE : rv;
    }
    rv = rv == CTL_OK ? demo_wait_ready(&d) : rv;
    if (rv == CTL_OK) {
        print_reach(ctl, &d, already);
        ctl_say("%s", already ? "it is up already" : "it is up");
        ctl_hint(". %s/env, then: holdfastctl status", d.dir);
    } else if (d.started_count > 0) {
        stop_processes(&d, true);
        ctl_say("what was started is stopped again; data and logs are in %s", d.dir);
    }
    demo_close(&d);
    return rv;
}

/* ---- down and status ---- */

static enum ctl_exit no_demo(struct ctl *ctl)
{
    ctl_say("no demo in %s", ctl_text(&ctl->arguments, "dir"));
    ctl_hint("holdfastctl demo up");
    return CTL_REFUSED;
}

enum ctl_exit demo_down(struct ctl *ctl)
{
    struct demo d;
    bool wipe = ctl_given(&ctl->arguments, "wipe");
    enum ctl_exit rv = demo_open(&d, ctl, false);
    if (rv != CTL_OK) {
        return rv == CTL_REFUSED ? no_demo(ctl) : rv;
    }
    if (wipe) {
        char what[DEMO_PATH_SIZE + 64];
        snprintf(what, sizeof what, "the demo cluster in %s and all its data will be removed",
                 d.dir);
        rv = ctl_confirm(ctl, "demo", what);
        if (rv != CTL_OK) {
            demo_close(&d);
            return rv;
        }
    }
    size_t stopped = stop_processes(&d, false);
    json_object_clear(json_object_get(d.state, "processes"));
    rv = demo_save(&d) == 0 ? CTL_OK : CTL_FAILURE;
    rv = rv == CTL_OK && wipe ? demo_wipe(&d) : rv;
    if (rv == CTL_OK) {
        static const struct output_column columns[] = {
            {"dir", "DIRECTORY", CELL_TEXT},
            {"stopped", "STOPPED", CELL_NUMBER},
            {"wiped", "DATA REMOVED", CELL_YES},
        };
        output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                      json_pack("{s:s, s:I, s:b}", "dir", d.dir, "stopped", (json_int_t)stopped,
                                "wiped", (int)wipe));
    }
    demo_close(&d);
    return rv;
}

enum ctl_exit demo_status(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"name", "PROCESS", CELL_TEXT}, {"pid", "PID", CELL_NUMBER},
        {"alive", "ALIVE", CELL_YES},   {"address", "ADDRESS", CELL_TEXT},
        {"log", "LOG", CELL_TEXT},
    };
    struct demo d;
    enum ctl_exit rv = demo_open(&d, ctl, false);
    if (rv != CTL_OK) {
        return rv == CTL_REFUSED ? no_demo(ctl) : rv;
    }
    json_t *records = json_array();
    const char *name;
    json_t *p;
    json_object_foreach(json_object_get(d.state, "processes"), name, p)
    {
        char address[64] = "";
        size_t id = 0;
        if (sscanf(name, "node-%zu", &id) == 1) {
            const json_t *node = json_array_get(json_object_get(d.state, "nodes"), id - 1);
            snprintf(address, sizeof address, "127.0.0.1:%d",
                     (int)json_integer_value(json_object_get(node, "node_port")));
        } else if (strcmp(name, "gateway") == 0) {
            snprintf(address, sizeof address, "%s", demo_text(&d, "addresses", "url"));
        }
        json_array_append_new(records, json_pack("{s:s, s:O, s:b, s:s, s:O}", "name", name, "pid",
                                                 json_object_get(p, "pid"), "alive",
                                                 (int)demo_is_up(&d, name), "address", address,
                                                 "log", json_object_get(p, "log")));
    }
    output_list(&ctl->output, columns, ARRAY_COUNT(columns), records);
    if (!all_up(&d)) {
        ctl_say("not everything of it runs");
        ctl_hint("holdfastctl demo up --dir %s", d.dir);
        rv = CTL_FAILURE;
    }
    demo_close(&d);
    return rv;
}
