/* Happy path: COMMAND_DIGEST_MARK → its index → MarkedDigest of each node until it has one. Failure
 * modes: a node that is down or does not get there in time is reported as unknown, and then the
 * digests count as not equal: silence proves nothing. */
#include "tools/ctl/digest.h"

#include <string.h>
#include <time.h>

#include "base/clock.h"

#define DIGEST_POLL_MS 20

static void sleep_ms(unsigned ms)
{
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* One node until it has the mark or the deadline is there. */
static void ask(struct ctl *ctl, struct digest_node *node, uint64_t index, uint64_t deadline_ms)
{
    Holdfast__MarkedDigest body = HOLDFAST__MARKED_DIGEST__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    body.index = index;
    request.body_case = HOLDFAST__REQUEST__BODY_MARKED_DIGEST;
    request.marked_digest = &body;
    request.consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_INDEX;
    request.min_index = index;
    for (;;) {
        uint64_t now = clock_monotonic_ms();
        if (now >= deadline_ms) {
            return;
        }
        Holdfast__Response *response;
        enum ctl_exit rv = ctl_call_quietly(ctl, &request, node->member.id, deadline_ms - now,
                                            &response, &node->wrong);
        bool forgotten = false;
        if (rv == CTL_OK && response->body_case == HOLDFAST__RESPONSE__BODY_DIGEST) {
            node->known = true;
            node->digest = response->digest;
        } else if (rv == CTL_REFUSED && response->index >= index) {
            node->wrong = "does not remember the mark"; /* restarted, or caught up by an install */
            forgotten = true;
        } else if (rv == CTL_OK) {
            node->wrong = "answered something else";
            forgotten = true;
        }
        if (response != NULL) {
            holdfast__response__free_unpacked(response, NULL);
        }
        if (node->known || forgotten) {
            return;
        }
        sleep_ms(DIGEST_POLL_MS);
    }
}

enum ctl_exit digest_collect(struct ctl *ctl, struct digest_report *report)
{
    *report = (struct digest_report){0};
    struct ctl_member members[CTL_NODES_MAX];
    enum ctl_exit rv = ctl_members(ctl, members, &report->count);
    if (rv != CTL_OK) {
        return rv;
    }
    struct command command = {.kind = COMMAND_DIGEST_MARK, .scope = STR_LITERAL("sys")};
    struct reply reply;
    rv = ctl_submit(ctl, &command, &reply);
    if (rv != CTL_OK) {
        return rv;
    }
    report->index = reply.index;
    report->equal = true;
    uint64_t deadline_ms = clock_monotonic_ms() + ctl->timeout_ms;
    for (size_t i = 0; i < report->count; i++) {
        struct digest_node *node = &report->nodes[i];
        *node = (struct digest_node){.member = members[i], .wrong = "no answer in time"};
        ask(ctl, node, report->index, deadline_ms);
        report->equal = report->equal && node->known && node->digest == report->nodes[0].digest;
    }
    return CTL_OK;
}
