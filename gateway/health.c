/* Owns: what probes and people ask of the process itself. Alive: the loop turns. Ready: orders can be
 * placed through here: a leader is known, and nobody asked us to stop. */
#include "gateway/handlers.h"

#include <stdio.h>

#include "base/check.h"
#include "gateway/openapi.h"
#include "gateway/response.h"

static void put_check(struct out *o, bool good, const char *name)
{
    out_str(o, good ? STR_LITERAL("[+]") : STR_LITERAL("[-]"));
    out_str(o, str_from(name));
    out_str(o, good ? STR_LITERAL(" ok\n") : STR_LITERAL(" failed\n"));
}

static const char *phase_name(uint32_t phase)
{
    static const char *const names[] = {"", "loading its checkpoint", "replaying its log",
                                        "installing a checkpoint"};
    return phase < ARRAY_COUNT(names) ? names[phase] : "starting";
}

/* What a node last said of itself, a line for people. No addresses: anyone may ask. */
static void put_node(struct out *o, const struct client_node_info *n)
{
    char line[128];
    if (n->id == 0) {
        snprintf(line, sizeof line, "    node not reached yet\n");
    } else if (!n->connected) {
        snprintf(line, sizeof line, "    node %llu not connected\n", (unsigned long long)n->id);
    } else if (n->startup_phase != 0) {
        snprintf(line, sizeof line, "    node %llu %s: %u %%\n", (unsigned long long)n->id,
                 phase_name(n->startup_phase),
                 n->startup_total > 0 ? (unsigned)(n->startup_done * 100 / n->startup_total) : 0);
    } else {
        snprintf(line, sizeof line, "    node %llu %s\n", (unsigned long long)n->id,
                 n->ready ? "ready" : "not ready");
    }
    out_str(o, str_from(line));
}

static void answer(struct exchange *x, bool good)
{
    out_str(&x->body, good ? STR_LITERAL("ok\n") : STR_LITERAL("not ready\n"));
    x->content_type = "text/plain; charset=utf-8";
    response_field(x, "Cache-Control", STR_LITERAL("no-store"));
    response_send(x, good ? 200 : 503);
}

void health_live(struct exchange *x)
{
    if (exchange_query(x, "verbose").ptr != NULL) {
        put_check(&x->body, true, "loop");
    }
    answer(x, true);
}

void health_ready(struct exchange *x)
{
    struct client_info info;
    client_get_info(x->gateway->client, &info);
    bool connected = false;
    for (size_t i = 0; i < info.nodes_count; i++) {
        connected = connected || info.nodes[i].connected;
    }
    bool leader = info.leader_id != 0, serving = !x->gateway->draining;
    if (exchange_query(x, "verbose").ptr != NULL) {
        put_check(&x->body, connected, "nodes");
        for (size_t i = 0; i < info.nodes_count; i++) {
            put_node(&x->body, &info.nodes[i]);
        }
        put_check(&x->body, leader, "leader");
        put_check(&x->body, serving, "serving");
    }
    answer(x, connected && leader && serving);
}

void health_version(struct exchange *x)
{
    struct json_writer w = json_writer_init(&x->body);
    json_object_begin(&w);
    json_put(&w, "program", text, STR_LITERAL("holdfast-gateway"));
    json_put(&w, "version", text, STR_LITERAL(HOLDFAST_VERSION));
    json_put(&w, "api", text, STR_LITERAL("v1"));
    json_object_end(&w);
    response_field(x, "Cache-Control", STR_LITERAL("no-cache"));
    response_send(x, 200);
}

void health_openapi(struct exchange *x)
{
    out_bytes(&x->body, openapi_json, openapi_json_size);
    response_field(x, "Cache-Control", STR_LITERAL("public, max-age=300"));
    response_send_versioned(x, 1);
}
