#include "tools/bench/sale.h"

#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "tools/bench/bench.h"

static int options_read(struct sale *s, int argc, char **argv)
{
    struct sale_options *o = &s->options;
    const struct option own[] = {
        {"buyers", 0, OPTION_U64, &o->buyers, "2000", "N", "people who want one", 1, 100000},
        {"units", 0, OPTION_U64, &o->units, "100", "N", "units in stock", 1, 100000},
        {"eligibilities", 0, OPTION_U64, &o->eligibilities, "1500", "N",
         "rights to buy that are given out", 1, 100000},
        {"payers", 0, OPTION_U64, &o->payers, "70", "N",
         "how many of the first orders, one for each unit, are paid", 0, 100000},
        {"early", 0, OPTION_U64, &o->early, "40", "N", "buyers who click before the opening", 0,
         100000},
        {"lead", 0, OPTION_DURATION, &o->lead_ms, "5s", "TIME", "from the start to the opening",
         2500, 600000},
        {"registering", 0, OPTION_DURATION, &o->register_ms, "1500ms", "TIME",
         "within which all ask for a right", 1, 600000},
        {"rush", 0, OPTION_DURATION, &o->rush_ms, "2s", "TIME", "within which all click", 1,
         600000},
        {"payment-timeout", 0, OPTION_DURATION, &o->payment_timeout_ms, "8s", "TIME",
         "after which an unpaid order expires", 1000, 600000},
        {"limit", 0, OPTION_DURATION, &o->limit_ms, "120s", "TIME", "give up after", 1000, 3600000},
        {"connections", 'c', OPTION_U64, &o->connections, "400", "N", "connections to the gateway",
         1, HTTP_CONNECTIONS_MAX},
        {"seed", 0, OPTION_U64, &o->seed, "1", "N", "of the buyers' moments", 0, 0},
        {"name", 0, OPTION_TEXT, &o->name, NULL, "NAME",
         "of the sale, new to the cluster (one made at random)"},
        {"kill-leader", 0, OPTION_FLAG, &o->kill_leader, "false", NULL,
         "kill -9 of the leader when half of the units are granted; needs --state"},
        {"ctl", 0, OPTION_TEXT, &o->ctl, NULL, "PATH", "holdfastctl, if not beside this program"},
        {"restart-command", 0, OPTION_TEXT, &o->restart_command, NULL, "COMMAND",
         "brings the killed node back (holdfastctl demo up)"},
        {"quiet", 0, OPTION_FLAG, &o->quiet, "false", NULL, "do not tell the story on stderr"},
    };
    const struct options options = {
        .program = "holdfast-bench sale",
        .summary = "a whole flash sale that checks itself; exits 1 if a figure is wrong",
        .examples = "  holdfast-bench sale --state .demo/demo.json --kill-leader\n",
        .table = own,
        .count = ARRAY_COUNT(own),
    };
    int status = target_options_read(&s->target, &options, argc, argv);
    if (status >= 0) {
        return status;
    }
    if ((o->name != NULL && !str_is_identifier(str_from(o->name), RUN_NAME_SIZE - 1)) ||
        o->payers > o->units || o->early > o->buyers || o->register_ms + 1500 > o->lead_ms ||
        o->eligibilities < 2 * o->units) {
        fprintf(stderr, "holdfast-bench sale: want payers <= units, early <= buyers, twice as many "
                        "eligibilities as units,\nregistering + 1.5 s <= lead, and a short name\n");
        return 2;
    }
    return -1;
}

static void sale_close(struct sale *s)
{
    if (s->client != NULL) {
        http_client_destroy(s->client);
    }
    for (uint64_t i = 0; s->buyers != NULL && i < s->options.buyers; i++) {
        text_close(&s->buyers[i].request);
    }
    free(s->buyers);
    text_close(&s->page_request);
    target_close(&s->target);
    free(s);
}

int bench_sale(int argc, char **argv)
{
    struct sale *s = calloc(1, sizeof *s);
    CHECK(s != NULL);
    histogram_init(&s->latency_register);
    histogram_init(&s->latency_order);
    int status = options_read(s, argc, argv);
    if (status >= 0) {
        free(s);
        return status;
    }
    status = 1;
    s->out = s->target.json ? stderr : stdout;
    if (target_open(&s->target) == 0 && sale_prepare(s) == 0 && sale_play(s) == 0) {
        bool settled = sale_pay_late(s) == 0;
        bool recovered = sale_recover(s) == 0;
        int wrong = sale_report(s);
        status = settled && recovered && wrong == 0 ? 0 : 1;
        if (wrong == 0 && status == 0) {
            fprintf(s->out, "\nevery unit is accounted for\n");
        } else if (wrong > 0) {
            fprintf(s->out, "\n%d figures are WRONG\n", wrong);
        }
    }
    sale_close(s);
    return status;
}
