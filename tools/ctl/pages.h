/* pages: everything that is written from the command table. Pure: each appends text. */
#ifndef TOOLS_CTL_PAGES_H
#define TOOLS_CTL_PAGES_H

#include "base/text.h"
#include "tools/ctl/table.h"

/* What --help prints. topic: "" for the overview, else a group or a command's path. */
void pages_help(struct text *t, const char *topic);

/* docs/cli.md, whole. */
void pages_markdown(struct text *t);

/* A man page: topic "" for holdfastctl(1), else a group (holdfastctl-sale(1)) or a command without
 * a group (holdfastctl-audit(1)). */
void pages_man(struct text *t, const char *topic);

/* The topics of man pages after the first: called in order. */
void pages_each_topic(void (*each)(void *ctx, const char *topic), void *ctx);

/* A completion script. shell: bash, zsh or fish. */
void pages_completion(struct text *t, const char *shell);

/* ---- shared by the writers ---- */

/* "sale put SALE [options]" */
void pages_usage(struct text *t, const struct ctl_command *command);
/* The first word of a command's path, and the rest ("" when there is none). */
void pages_split(const char *path, char first[static 32], const char **rest);
/* Whether a command belongs to the topic (a group, or its own path). */
bool pages_in_topic(const struct ctl_command *command, const char *topic);

#endif
