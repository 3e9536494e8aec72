/* The verdicts on the nodes, and the table of all of them: see audit.h. */
#include "tools/ctl/audit.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tools/ctl/digest.h"
#include "tools/ctl/postgres.h"

#define SKU_ROUNDS 5

void audit_verdict(struct audit *a, const char *check, const char *subject,
                   enum audit_result result, const char *format, ...)
{
    char detail[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(detail, sizeof detail, format, arguments);
    va_end(arguments);
    a->green = a->green && result != AUDIT_WRONG;
    json_t *ok = result == AUDIT_OPEN ? json_null() : json_boolean(result == AUDIT_GOOD);
    json_array_append_new(a->verdicts,
                          json_pack("{s:s, s:s, s:o, s:o}", "check", check, "subject", subject,
                                    "ok", ok, "detail", ctl_json_text(detail)));
}

static void check_digests(struct audit *a, const struct digest_report *report)
{
    for (size_t i = 0; i < report->count; i++) {
        const struct digest_node *n = &report->nodes[i];
        char subject[32];
        snprintf(subject, sizeof subject, "node %" PRIu64, n->member.id);
        if (n->known) {
            audit_verdict(a, "digest", subject,
                          n->digest == report->nodes[0].digest ? AUDIT_GOOD : AUDIT_WRONG,
                          "%016" PRIx64 " at index %" PRIu64, n->digest, report->index);
        } else {
            audit_verdict(a, "digest", subject, AUDIT_WRONG, "%s", n->wrong);
        }
    }
}

/* Returns false when the node cannot be asked. */
static bool check_invariants(struct audit *a, uint64_t id)
{
    Holdfast__CheckInvariants body = HOLDFAST__CHECK_INVARIANTS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    const char *wrong;
    char subject[32];
    request.body_case = HOLDFAST__REQUEST__BODY_CHECK_INVARIANTS;
    request.check_invariants = &body;
    snprintf(subject, sizeof subject, "node %" PRIu64, id);
    enum ctl_exit rv =
        ctl_call_quietly(a->ctl, &request, id, a->ctl->timeout_ms, &response, &wrong);
    if (rv == CTL_OK && response->body_case == HOLDFAST__RESPONSE__BODY_CHECK_INVARIANTS) {
        const Holdfast__CheckInvariantsResult *r = response->check_invariants;
        audit_verdict(a, "invariants", subject, r->violations == 0 ? AUDIT_GOOD : AUDIT_WRONG,
                      "%" PRIu64 " violations at index %" PRIu64 "%s%s", r->violations,
                      response->index, r->violations > 0 ? ": " : "", r->first);
    } else {
        audit_verdict(a, "invariants", subject, AUDIT_WRONG, "%s",
                      rv == CTL_OK ? "answered something else" : wrong);
    }
    if (response != NULL) {
        holdfast__response__free_unpacked(response, NULL);
    }
    return rv != CTL_UNREACHABLE;
}

/* ---- conservation ---- */

struct node_stock {
    struct audit_sku *skus;
    size_t count;
    uint64_t index;
    bool known;
};

static void check_conservation(struct audit *a, uint64_t id, const struct node_stock *s)
{
    char subject[32];
    int64_t units = 0;
    snprintf(subject, sizeof subject, "node %" PRIu64, id);
    if (!s->known) {
        audit_verdict(a, "conservation", subject, AUDIT_WRONG, "its SKUs cannot be read");
        return;
    }
    for (size_t i = 0; i < s->count; i++) {
        const struct audit_sku *k = &s->skus[i];
        units += k->received;
        if (k->available + k->reserved + k->sold != k->received || k->reserved < 0 || k->sold < 0) {
            audit_verdict(a, "conservation", subject, AUDIT_WRONG,
                          "SKU %s: %" PRId64 " available + %" PRId64 " reserved + %" PRId64
                          " sold is not %" PRId64 " received",
                          k->id, k->available, k->reserved, k->sold, k->received);
            return;
        }
    }
    audit_verdict(a, "conservation", subject, AUDIT_GOOD, "%zu SKUs, %" PRId64 " units", s->count,
                  units);
}

static bool same_stock(const struct node_stock *x, const struct node_stock *y)
{
    bool same = x->count == y->count;
    for (size_t i = 0; same && i < x->count; i++) {
        const struct audit_sku *p = &x->skus[i], *q = &y->skus[i];
        same = strcmp(p->id, q->id) == 0 && p->available == q->available &&
               p->reserved == q->reserved && p->sold == q->sold && p->received == q->received;
    }
    return same;
}

/* Equal stock at equal indexes. While commands come the nodes are read at different ones: then
 * again. */
static void check_stock(struct audit *a, const bool answers[static CTL_NODES_MAX])
{
    struct node_stock stocks[CTL_NODES_MAX];
    enum audit_result result = AUDIT_OPEN;
    for (int round = 0; round < SKU_ROUNDS && result == AUDIT_OPEN; round++) {
        bool same = true, one_index = true, all = true;
        for (size_t i = 0; i < a->members_count; i++) {
            struct node_stock *s = &stocks[i];
            *s = (struct node_stock){0};
            s->known = answers[i] && audit_skus_read(a, a->members[i].id, a->mark, &s->skus,
                                                     &s->count, &s->index) == CTL_OK;
            all = all && s->known;
            same = same && s->known && same_stock(s, &stocks[0]);
            one_index = one_index && s->index == stocks[0].index;
        }
        result = same ? AUDIT_GOOD : one_index || !all ? AUDIT_WRONG : AUDIT_OPEN;
        if (result != AUDIT_OPEN || round + 1 == SKU_ROUNDS) {
            for (size_t i = 0; i < a->members_count; i++) {
                check_conservation(a, a->members[i].id, &stocks[i]);
            }
        }
        for (size_t i = 0; i < a->members_count; i++) {
            free(stocks[i].skus);
        }
    }
    audit_verdict(a, "stock equal", "all nodes", result, "%s",
                  result == AUDIT_GOOD    ? "the same units of each SKU on every node"
                  : result == AUDIT_WRONG ? "nodes differ at one index, or one does not answer"
                                          : "commands keep coming: the digests tell");
}

/* ---- the command ---- */

static void print(struct audit *a)
{
    static const struct output_column columns[] = {
        {"check", "CHECK", CELL_TEXT},
        {"subject", "OF", CELL_TEXT},
        {"ok", "VERDICT", CELL_VERDICT},
        {"detail", "DETAIL", CELL_TEXT},
    };
    output_list(&a->ctl->output, columns, ARRAY_COUNT(columns), a->verdicts);
    if (a->green) {
        ctl_say("audit: all green");
    } else {
        ctl_say("audit: NOT GREEN");
        ctl_hint(
            "holdfastctl endpoint status, holdfastctl persist status, holdfastctl migrate status");
    }
}

enum ctl_exit audit_run(struct ctl *ctl)
{
    const char *url;
    bool no_postgres = ctl_given(&ctl->arguments, "no-postgres");
    enum ctl_exit rv = postgres_url(ctl, false, &url);
    if (rv == CTL_OK && ctl_value(&ctl->arguments, "postgres-url")->explicit && no_postgres) {
        ctl_say("--no-postgres and --postgres-url exclude each other");
        ctl_hint("holdfastctl audit --help");
        rv = CTL_USAGE;
    }
    if (rv != CTL_OK) {
        return rv;
    }
    struct digest_report report;
    struct audit a = {.ctl = ctl, .green = true};
    rv = digest_collect(ctl, &report);
    if (rv != CTL_OK) {
        return rv;
    }
    a.verdicts = json_array();
    a.mark = report.index;
    a.members_count = report.count;
    for (size_t i = 0; i < report.count; i++) {
        a.members[i] = report.nodes[i].member;
    }
    bool answers[CTL_NODES_MAX] = {false}; /* who is silent once is not asked again and again */
    check_digests(&a, &report);
    for (size_t i = 0; i < a.members_count; i++) {
        answers[i] = check_invariants(&a, a.members[i].id);
    }
    check_stock(&a, answers);
    struct audit_persist persist;
    if (no_postgres) {
        audit_verdict(&a, "PostgreSQL", "-", AUDIT_OPEN, "not looked at (--no-postgres)");
    } else if (url != NULL) {
        rv = audit_postgres(&a, url);
    } else if ((rv = audit_persist_read(&a, &persist, NULL, 0)) == CTL_OK) {
        /* A cluster that writes to PostgreSQL is not green by not looking there. */
        audit_verdict(&a, "PostgreSQL", "-", persist.configured ? AUDIT_WRONG : AUDIT_OPEN, "%s",
                      persist.configured ? "the nodes write to one: give --postgres-url (or "
                                           "--no-postgres)"
                                         : "the nodes have none");
    }
    if (rv != CTL_OK) {
        json_decref(a.verdicts);
        return rv;
    }
    bool green = a.green;
    print(&a);
    return green ? CTL_OK : CTL_FAILURE;
}
