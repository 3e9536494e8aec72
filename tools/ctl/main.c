/* holdfastctl: controls a holdfast cluster. Parses the command line from the table, runs one
 * handler, exits with what it says. */
#include <errno.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/failpoint.h"
#include "base/log.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/pages.h"

static const char *environment(const char *name)
{
    return getenv(name);
}

static struct output make_output(const struct ctl_arguments *a)
{
    const char *format = ctl_text(a, "output"), *no_color = getenv("NO_COLOR"),
               *term = getenv("TERM");
    return (struct output){
        .format = strcmp(format, "json") == 0    ? OUTPUT_JSON
                  : strcmp(format, "plain") == 0 ? OUTPUT_PLAIN
                                                 : OUTPUT_TABLE,
        .color = !ctl_given(a, "no-color") && (no_color == NULL || no_color[0] == '\0') &&
                 (term == NULL || strcmp(term, "dumb") != 0) && isatty(STDOUT_FILENO),
        .file = stdout};
}

/* What was printed must have arrived: a full disk is a failure, not a success with half an answer.
 */
static enum ctl_exit flush(enum ctl_exit status)
{
    if (fflush(stdout) != 0 || ferror(stdout) != 0) {
        if (errno == EPIPE) { /* the reader has seen enough: end as every filter does */
            signal(SIGPIPE, SIG_DFL);
            raise(SIGPIPE);
        }
        ctl_say("cannot write to standard output");
        return status == CTL_OK ? CTL_FAILURE : status;
    }
    return status;
}

int main(int argc, char **argv)
{
    log_init("holdfastctl", LOG_LEVEL_WARN);
    int ended = FAILPOINT_START();
    if (ended >= 0) {
        return ended;
    }
    signal(SIGPIPE, SIG_IGN); /* a node that goes away is an answer, not the end of us */
    if (sodium_init() < 0) {
        ctl_say("no source of randomness");
        return CTL_FAILURE;
    }
    struct ctl ctl = {.resolved = TEXT_INIT};
    struct parse_outcome outcome;
    enum parse_result rv = parse_command_line(argc, argv, environment, &ctl.arguments, &outcome);
    enum ctl_exit status = CTL_OK;
    switch (rv) {
    case PARSE_HELP: {
        struct text page = TEXT_INIT;
        pages_help(&page, text_cstring(&outcome.topic));
        fputs(text_cstring(&page), stdout);
        text_close(&page);
        break;
    }
    case PARSE_INVALID:
        fprintf(stderr, "holdfastctl: %s", text_cstring(&outcome.message));
        status = CTL_USAGE;
        break;
    case PARSE_OK:
        ctl.output = make_output(&ctl.arguments);
        ctl.timeout_ms = ctl_value(&ctl.arguments, "timeout")->u64;
        status = ctl.arguments.command->run(&ctl);
        ctl_close(&ctl);
        break;
    }
    text_close(&outcome.topic);
    text_close(&outcome.message);
    return (int)flush(status);
}
