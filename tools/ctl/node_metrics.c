/* node metrics: what a node says of itself, as Prometheus reads it. */
#include <stdio.h>

#include "tools/ctl/ctl.h"

enum ctl_exit node_metrics(struct ctl *ctl)
{
    Holdfast__Metrics body = HOLDFAST__METRICS__INIT;
    Holdfast__Request request = HOLDFAST__REQUEST__INIT;
    Holdfast__Response *response;
    request.body_case = HOLDFAST__REQUEST__BODY_METRICS;
    request.metrics = &body;
    enum ctl_exit rv = ctl_call(ctl, &request, ctl_value(&ctl->arguments, "ID")->u64, &response);
    if (rv != CTL_OK) {
        return rv;
    }
    if (response->body_case == HOLDFAST__RESPONSE__BODY_METRICS) {
        fputs(response->metrics, stdout); /* its own format, whatever --output says */
    } else {
        ctl_say("the node answered something else");
        rv = CTL_FAILURE;
    }
    holdfast__response__free_unpacked(response, NULL);
    return rv;
}
