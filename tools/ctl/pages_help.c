/* --help, and what all pages share. */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tools/ctl/pages.h"

void pages_split(const char *path, char first[static 32], const char **rest)
{
    size_t len = strcspn(path, " ");
    CHECK(len < 32);
    memcpy(first, path, len);
    first[len] = '\0';
    *rest = path[len] == ' ' ? path + len + 1 : "";
}

bool pages_in_topic(const struct ctl_command *command, const char *topic)
{
    size_t len = strlen(topic);
    return strncmp(command->path, topic, len) == 0 &&
           (command->path[len] == ' ' || command->path[len] == '\0');
}

void pages_usage(struct text *t, const struct ctl_command *command)
{
    text_appendf(t, "holdfastctl %s", command->path);
    for (size_t i = 0; i < command->operands_count; i++) {
        const struct ctl_parameter *p = &command->operands[i];
        bool required = (p->flags & CTL_REQUIRED) != 0;
        text_appendf(t, " %s%s%s", required ? "" : "[", p->name, required ? "" : "]");
    }
    for (size_t i = 0; i < command->options_count; i++) {
        const struct ctl_parameter *p = &command->options[i];
        if ((p->flags & CTL_REQUIRED) != 0) {
            text_appendf(t, " --%s %s", p->name, p->argument);
        }
    }
    text_appendf(t, " [options]");
}

void pages_each_topic(void (*each)(void *ctx, const char *topic), void *ctx)
{
    for (size_t i = 0; i < ctl_groups_count; i++) {
        each(ctx, ctl_groups[i].name);
    }
    for (size_t i = 0; i < ctl_commands_count; i++) {
        if (strchr(ctl_commands[i].path, ' ') == NULL) {
            each(ctx, ctl_commands[i].path);
        }
    }
}

static void append_examples(struct text *t, const char *examples)
{
    for (const char *line = examples; *line != '\0';) {
        size_t len = strcspn(line, "\n");
        text_appendf(t, "  %.*s\n", (int)len, line);
        line += len + (line[len] == '\n' ? 1 : 0);
    }
}

static void append_parameter(void *ctx, const struct ctl_parameter *p)
{
    struct text *t = ctx;
    char left[96];
    bool operand = p->name[0] >= 'A' && p->name[0] <= 'Z';
    if (operand) {
        snprintf(left, sizeof left, "%s", p->name);
    } else if (p->letter != '\0') {
        snprintf(left, sizeof left, "-%c, --%s%s%s", p->letter, p->name, p->argument ? " " : "",
                 p->argument ? p->argument : "");
    } else {
        snprintf(left, sizeof left, "--%s%s%s", p->name, p->argument ? " " : "",
                 p->argument ? p->argument : "");
    }
    if (strlen(left) > 30) {
        text_appendf(t, "  %s\n  %-30s  %s", left, "", p->help);
    } else {
        text_appendf(t, "  %-30s  %s", left, p->help);
    }
    if (p->choices != NULL) {
        text_appendf(t, " (%s)", p->choices);
    }
    if (p->initial != NULL && p->initial[0] != '\0') {
        text_appendf(t, " [%s]", p->initial);
    }
    if (p->environment != NULL) {
        text_appendf(t, " {%s}", p->environment);
    }
    text_appendf(t, "\n");
}

static void help_command(struct text *t, const struct ctl_command *command)
{
    text_appendf(t, "%s: %s\n\nExamples:\n", command->path, command->summary);
    append_examples(t, command->examples);
    text_appendf(t, "\nUsage:\n  ");
    pages_usage(t, command);
    text_appendf(t, "\n\n%s\n", command->help);
    if (command->operands_count > 0) {
        text_appendf(t, "\nOperands:\n");
        for (size_t i = 0; i < command->operands_count; i++) {
            append_parameter(t, &command->operands[i]);
        }
    }
    text_appendf(t, "\nOptions ([default], {environment}):\n");
    ctl_each_option(command, append_parameter, t);
}

static void help_overview(struct text *t)
{
    text_appendf(t, "holdfastctl: controls a holdfast cluster\n\nExamples:\n"
                    "  holdfastctl demo up\n"
                    "  . .demo/env\n"
                    "  holdfastctl status\n"
                    "  holdfastctl sku put phone-x && holdfastctl sku adjust phone-x +100\n"
                    "  holdfastctl sale put launch --currency EUR --offer phone-x=79900 --opens "
                    "now --closes +1h\n"
                    "\nUsage:\n  holdfastctl COMMAND [operands] [options]\n\nCommands:\n");
    char last[32] = "";
    for (size_t i = 0; i < ctl_commands_count; i++) {
        char first[32];
        const char *rest;
        pages_split(ctl_commands[i].path, first, &rest);
        if (strcmp(first, last) != 0 && i > 0) {
            text_appendf(t, "\n");
        }
        memcpy(last, first, sizeof last);
        text_appendf(t, "  %-22s %s\n", ctl_commands[i].path, ctl_commands[i].summary);
    }
    text_appendf(t, "\nOptions of every command ([default], {environment}):\n");
    for (size_t i = 0; i < ctl_global_options_count; i++) {
        append_parameter(t, &ctl_global_options[i]);
    }
    text_appendf(t, "\nExit status: 0 ok, 1 failure, 2 usage, 3 unreachable, 4 refused, 5 outcome "
                    "unknown.\nMore: holdfastctl COMMAND --help\n");
}

void pages_help(struct text *t, const char *topic)
{
    const struct ctl_command *command = ctl_find_command(topic);
    if (topic[0] == '\0') {
        help_overview(t);
        return;
    }
    if (command != NULL) {
        help_command(t, command);
        return;
    }
    for (size_t i = 0; i < ctl_groups_count; i++) {
        if (strcmp(ctl_groups[i].name, topic) == 0) {
            text_appendf(t, "%s: %s\n\nCommands:\n", topic, ctl_groups[i].summary);
        }
    }
    for (size_t i = 0; i < ctl_commands_count; i++) {
        if (pages_in_topic(&ctl_commands[i], topic)) {
            text_appendf(t, "  %-22s %s\n", ctl_commands[i].path, ctl_commands[i].summary);
        }
    }
    text_appendf(t, "\nMore: holdfastctl %s COMMAND --help\n", topic);
}
