/* docs/cli.md and the man pages. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tools/ctl/pages.h"

static const struct {
    int status;
    const char *name, *meaning;
} exits[] = {
    {0, "ok", "it was done; for checks: and all is well"},
    {1, "failure",
     "it was done and is not well (an audit that is red, a node that is not healthy), or "
     "something local failed"},
    {2, "usage", "the command line is wrong; nothing was done"},
    {3, "unreachable", "no node or no leader answered in time; nothing was changed"},
    {4, "refused", "the cluster said no; nothing was changed"},
    {5, "outcome unknown",
     "it may have been done: run it again with the idempotency key that was "
     "printed"},
};

/* ---- markdown ---- */

static void md_cell(struct text *t, const char *s)
{
    for (; *s != '\0'; s++) {
        text_appendf(t, *s == '|' ? "\\|" : "%c", *s);
    }
}

static void md_parameter(void *ctx, const struct ctl_parameter *p)
{
    struct text *t = ctx;
    bool operand = p->name[0] >= 'A' && p->name[0] <= 'Z';
    text_appendf(t, "| `");
    if (p->letter != '\0') {
        text_appendf(t, "-%c`, `", p->letter);
    }
    text_appendf(t, "%s%s%s", operand ? "" : "--", p->name, p->argument != NULL ? " " : "");
    md_cell(t, p->argument != NULL ? p->argument : "");
    text_appendf(t, "`%s | ", (p->flags & CTL_REQUIRED) != 0 ? " (required)" : "");
    md_cell(t, p->help);
    if (p->choices != NULL) {
        text_appendf(t, ": ");
        md_cell(t, p->choices);
    }
    text_appendf(t, " | %s%s%s |", p->initial != NULL && p->initial[0] != '\0' ? "`" : "",
                 p->initial != NULL ? p->initial : "",
                 p->initial != NULL && p->initial[0] != '\0' ? "`" : "");
    text_appendf(t, " %s%s%s |\n", p->environment != NULL ? "`" : "",
                 p->environment != NULL ? p->environment : "", p->environment != NULL ? "`" : "");
}

static void md_table(struct text *t)
{
    text_appendf(t, "| name | meaning | default | environment |\n|---|---|---|---|\n");
}

static void md_command(struct text *t, const struct ctl_command *c)
{
    text_appendf(t, "### holdfastctl %s\n\n%c%s. Needs: %s.\n\n```\n%s```\n\nUsage: `", c->path,
                 c->summary[0] >= 'a' && c->summary[0] <= 'z' ? c->summary[0] - 32 : c->summary[0],
                 c->summary + 1, ctl_role_name(c->role), c->examples);
    pages_usage(t, c);
    text_appendf(t, "`\n\n%s\n\n", c->help);
    if (c->severe) {
        text_appendf(t, "Asks at a terminal; elsewhere it needs `--confirm NAME` or `--yes`.\n\n");
    }
    if (c->operands_count + c->options_count == 0) {
        return;
    }
    md_table(t);
    for (size_t i = 0; i < c->operands_count; i++) {
        md_parameter(t, &c->operands[i]);
    }
    for (size_t i = 0; i < c->options_count; i++) {
        md_parameter(t, &c->options[i]);
    }
    text_appendf(t, "\n");
}

static void md_options(struct text *t, const char *title, const struct ctl_parameter *options,
                       size_t count)
{
    text_appendf(t, "%s\n\n", title);
    md_table(t);
    for (size_t i = 0; i < count; i++) {
        md_parameter(t, &options[i]);
    }
    text_appendf(t, "\n");
}

void pages_markdown(struct text *t)
{
    text_appendf(
        t,
        "# holdfastctl\n\n"
        "<!-- Written from the command table (tools/ctl/commands.c) by `ninja -C build ctl-docs`. "
        "-->\n\n"
        "The command line of a holdfast cluster. Data go to standard output, messages to standard "
        "error, each with the next command to try. Flags win over the environment, which wins over "
        "defaults. Secrets are never given in flags: an option names the file.\n\n"
        "`-o table` is for people. `-o json` prints whole records, the same fields as the HTTP API "
        "where it has the resource. `-o plain` prints one line a record, the table's columns "
        "between "
        "tabs, no heading. Control characters from outside are printed as escapes.\n\n"
        "The fault tool, `holdfast-chaos`, has [a page of its own](cli-chaos.md).\n\n"
        "## Exit status\n\n| status | name | meaning |\n|---|---|---|\n");
    for (size_t i = 0; i < ARRAY_COUNT(exits); i++) {
        text_appendf(t, "| %d | %s | %s |\n", exits[i].status, exits[i].name, exits[i].meaning);
    }
    text_appendf(t, "\n## Options\n\n");
    md_options(t, "Of every command:", ctl_global_options, ctl_global_options_count);
    md_options(t, "Of commands that change business data (writer):", ctl_writer_options,
               ctl_writer_options_count);
    md_options(t, "Of commands that read (reader):", ctl_reader_options, ctl_reader_options_count);
    md_options(t, "Of severe commands:", ctl_severe_options, ctl_severe_options_count);
    text_appendf(t, "## Commands\n\n");
    for (size_t i = 0; i < ctl_commands_count; i++) {
        md_command(t, &ctl_commands[i]);
    }
}

/* ---- man ---- */

/* Escapes for roff: backslashes and hyphens that are typed, and a dot that would begin a request.
 */
static void roff(struct text *t, const char *s)
{
    bool start = true;
    for (; *s != '\0'; s++) {
        if (start && (*s == '.' || *s == '\'')) {
            text_appendf(t, "\\&");
        }
        if (*s == '\\') {
            text_appendf(t, "\\e");
        } else if (*s == '-') {
            text_appendf(t, "\\-");
        } else {
            text_append(t, s, 1);
        }
        start = *s == '\n';
    }
}

static void man_parameter(void *ctx, const struct ctl_parameter *p)
{
    struct text *t = ctx;
    bool operand = p->name[0] >= 'A' && p->name[0] <= 'Z';
    text_appendf(t, ".TP\n");
    if (operand) {
        text_appendf(t, "\\fI");
        roff(t, p->name);
        text_appendf(t, "\\fR\n");
    } else {
        if (p->letter != '\0') {
            text_appendf(t, "\\fB\\-%c\\fR, ", p->letter);
        }
        text_appendf(t, "\\fB\\-\\-");
        roff(t, p->name);
        text_appendf(t, "\\fR%s\\fI", p->argument != NULL ? " " : "");
        roff(t, p->argument != NULL ? p->argument : "");
        text_appendf(t, "\\fR\n");
    }
    roff(t, p->help);
    if (p->choices != NULL) {
        text_appendf(t, ": ");
        roff(t, p->choices);
    }
    if (p->initial != NULL && p->initial[0] != '\0') {
        text_appendf(t, " (default ");
        roff(t, p->initial);
        text_appendf(t, ")");
    }
    if (p->environment != NULL) {
        text_appendf(t, "; environment %s", p->environment);
    }
    text_appendf(t, "\n");
}

static void man_heading(struct text *t, const char *name, const char *summary)
{
    text_appendf(t,
                 ".\\\" Written from the command table (tools/ctl/commands.c): do not edit.\n.TH ");
    for (const char *c = name; *c != '\0'; c++) {
        text_appendf(t, *c == '-' ? "\\-" : "%c", *c >= 'a' && *c <= 'z' ? *c - 32 : *c);
    }
    text_appendf(t, " 1 \"\" \"holdfast %s\" \"holdfast\"\n.SH NAME\n", HOLDFAST_VERSION);
    roff(t, name);
    text_appendf(t, " \\- ");
    roff(t, summary);
    text_appendf(t, "\n");
}

static void man_exits(struct text *t)
{
    text_appendf(t, ".SH EXIT STATUS\n");
    for (size_t i = 0; i < ARRAY_COUNT(exits); i++) {
        text_appendf(t, ".TP\n.B %d\n", exits[i].status);
        roff(t, exits[i].meaning);
        text_appendf(t, "\n");
    }
}

static void man_command(struct text *t, const struct ctl_command *c)
{
    text_appendf(t, ".SS ");
    pages_usage(t, c);
    text_appendf(t, "\n");
    roff(t, c->help);
    text_appendf(t, "\n");
    if (c->severe) {
        text_appendf(t,
                     ".PP\nAsks at a terminal; elsewhere it needs \\-\\-confirm or \\-\\-yes.\n");
    }
    for (size_t i = 0; i < c->operands_count; i++) {
        man_parameter(t, &c->operands[i]);
    }
    for (size_t i = 0; i < c->options_count; i++) {
        man_parameter(t, &c->options[i]);
    }
    text_appendf(t, ".PP\nExamples:\n.nf\n");
    roff(t, c->examples);
    text_appendf(t, ".fi\n");
}

static void man_see_also(void *ctx, const char *topic)
{
    struct text *t = ctx;
    text_appendf(t, ".br\n.BR holdfastctl\\-%s (1)\n", topic);
}

static void man_options(struct text *t, const char *title, const struct ctl_parameter *options,
                        size_t count)
{
    text_appendf(t, ".SS %s\n", title);
    for (size_t i = 0; i < count; i++) {
        man_parameter(t, &options[i]);
    }
}

void pages_man(struct text *t, const char *topic)
{
    if (topic[0] == '\0') {
        man_heading(t, "holdfastctl", "control a holdfast cluster");
        text_appendf(t,
                     ".SH SYNOPSIS\n.B holdfastctl\n.I COMMAND\n[operands] [options]\n"
                     ".SH DESCRIPTION\nData go to standard output, messages to standard error. "
                     "Flags win over the environment, which wins over defaults.\n.SH COMMANDS\n");
        for (size_t i = 0; i < ctl_commands_count; i++) {
            text_appendf(t, ".TP\n.B ");
            roff(t, ctl_commands[i].path);
            text_appendf(t, "\n");
            roff(t, ctl_commands[i].summary);
            text_appendf(t, "\n");
        }
        text_appendf(t, ".SH OPTIONS\n");
        man_options(t, "Of every command", ctl_global_options, ctl_global_options_count);
        man_options(t, "Of commands that change business data", ctl_writer_options,
                    ctl_writer_options_count);
        man_options(t, "Of commands that read", ctl_reader_options, ctl_reader_options_count);
        man_options(t, "Of severe commands", ctl_severe_options, ctl_severe_options_count);
        man_exits(t);
        text_appendf(t, ".SH SEE ALSO\n");
        pages_each_topic(man_see_also, t);
        return;
    }
    const struct ctl_command *alone = ctl_find_command(topic);
    const char *summary = alone != NULL ? alone->summary : "";
    for (size_t i = 0; i < ctl_groups_count; i++) {
        summary = strcmp(ctl_groups[i].name, topic) == 0 ? ctl_groups[i].summary : summary;
    }
    char name[64];
    snprintf(name, sizeof name, "holdfastctl-%s", topic);
    man_heading(t, name, summary);
    text_appendf(t, ".SH COMMANDS\n");
    for (size_t i = 0; i < ctl_commands_count; i++) {
        if (pages_in_topic(&ctl_commands[i], topic)) {
            man_command(t, &ctl_commands[i]);
        }
    }
    man_exits(t);
    text_appendf(t, ".SH SEE ALSO\n.BR holdfastctl (1): options of every command\n");
}
