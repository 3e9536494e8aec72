/* Completion scripts: commands, options, and the words of a choice. Nothing is asked of a cluster.
 */
#include <stdio.h>
#include <string.h>

#include "base/check.h"
#include "tools/ctl/pages.h"

static bool is_first_of_group(size_t i)
{
    char first[32], before[32];
    const char *rest;
    pages_split(ctl_commands[i].path, first, &rest);
    if (i == 0) {
        return true;
    }
    pages_split(ctl_commands[i - 1].path, before, &rest);
    return strcmp(first, before) != 0;
}

/* ---- bash ---- */

static void bash_option(void *ctx, const struct ctl_parameter *p)
{
    text_appendf(ctx, " --%s", p->name);
}

static void bash_choice(void *ctx, const struct ctl_parameter *p)
{
    struct text *t = ctx;
    if (p->type != CTL_CHOICE || p->argument == NULL) {
        return;
    }
    text_appendf(t, "        *\" --%s\") words='", p->name);
    for (const char *c = p->choices; *c != '\0'; c++) {
        text_appendf(t, "%c", *c == '|' ? ' ' : *c);
    }
    text_appendf(t, "' ;;\n");
}

struct choices {
    struct text *t;
    void (*each)(void *ctx, const struct ctl_parameter *p);
    const char *seen[64];
    size_t count;
};

static void once(void *ctx, const struct ctl_parameter *p)
{
    struct choices *c = ctx;
    for (size_t i = 0; i < c->count; i++) {
        if (strcmp(c->seen[i], p->name) == 0) {
            return;
        }
    }
    CHECK(c->count < ARRAY_COUNT(c->seen));
    if (p->type == CTL_CHOICE) {
        c->seen[c->count++] = p->name;
        c->each(c->t, p);
    }
}

static void bash(struct text *t)
{
    text_appendf(t, "# bash completion of holdfastctl; written from its command table.\n"
                    "_holdfastctl() {\n"
                    "    local cur=${COMP_WORDS[COMP_CWORD]} words=''\n"
                    "    local before=\" ${COMP_WORDS[*]:1:COMP_CWORD-1}\"\n"
                    "    local path=${COMP_WORDS[1]}\n"
                    "    [[ ${COMP_CWORD} -gt 2 ]] && path+=\" ${COMP_WORDS[2]}\"\n"
                    "    case $before in\n");
    struct choices choices = {.t = t, .each = bash_choice};
    for (size_t i = 0; i < ctl_commands_count; i++) {
        ctl_each_option(&ctl_commands[i], once, &choices);
    }
    text_appendf(t, "        *\" -o\") words='table json plain' ;;\n"
                    "        *\" --file\"|*\" --cluster-key-file\"|*\" --dir\"|*\" --bin\")\n"
                    "            COMPREPLY=($(compgen -f -- \"$cur\")); return ;;\n"
                    "        ' ') words='help");
    for (size_t i = 0; i < ctl_commands_count; i++) {
        char first[32];
        const char *rest;
        pages_split(ctl_commands[i].path, first, &rest);
        text_appendf(t, "%s%s", is_first_of_group(i) ? " " : "", is_first_of_group(i) ? first : "");
    }
    text_appendf(t, "' ;;\n");
    for (size_t g = 0; g < ctl_groups_count; g++) {
        text_appendf(t, "        ' %s') words='", ctl_groups[g].name);
        const char *separator = "";
        for (size_t i = 0; i < ctl_commands_count; i++) {
            if (pages_in_topic(&ctl_commands[i], ctl_groups[g].name)) {
                text_appendf(t, "%s%s", separator, strchr(ctl_commands[i].path, ' ') + 1);
                separator = " ";
            }
        }
        text_appendf(t, "' ;;\n");
    }
    text_appendf(t, "        *) case $path in\n");
    for (size_t i = 0; i < ctl_commands_count; i++) {
        const struct ctl_command *c = &ctl_commands[i];
        bool grouped = strchr(c->path, ' ') != NULL;
        text_appendf(t, "            '%s'%s) words='--help", c->path, grouped ? "" : "*");
        ctl_each_option(c, bash_option, t);
        for (size_t k = 0; k < c->operands_count; k++) {
            for (const char *w = c->operands[k].choices; w != NULL && *w != '\0'; w++) {
                text_appendf(t, "%s%c", w == c->operands[k].choices ? " " : "",
                             *w == '|' ? ' ' : *w);
            }
        }
        text_appendf(t, "' ;;\n");
    }
    text_appendf(t, "        esac ;;\n    esac\n"
                    "    COMPREPLY=($(compgen -W \"$words\" -- \"$cur\"))\n"
                    "}\n"
                    "complete -F _holdfastctl holdfastctl\n");
}

/* ---- zsh and fish ---- */

/* A text within single quotes: a quote, and what the shell's own completion syntax would take. */
static void quoted(struct text *t, const char *s, const char *special)
{
    for (; *s != '\0'; s++) {
        if (*s == '\'') {
            text_appendf(t, "'\\''");
        } else if (strchr(special, *s) != NULL) {
            text_appendf(t, "\\%c", *s);
        } else {
            text_append(t, s, 1);
        }
    }
}

static void zsh_option(void *ctx, const struct ctl_parameter *p)
{
    struct text *t = ctx;
    text_appendf(t, " \\\n                '%s--%s%s[", (p->flags & CTL_REPEATED) != 0 ? "*" : "",
                 p->name, p->argument != NULL ? "=" : "");
    quoted(t, p->help, "[]:\\");
    text_appendf(t, "]");
    if (p->type == CTL_CHOICE) {
        text_appendf(t, ":%s:(", p->name);
        for (const char *c = p->choices; *c != '\0'; c++) {
            text_appendf(t, "%c", *c == '|' ? ' ' : *c);
        }
        text_appendf(t, ")");
    } else if (p->type == CTL_FILE || p->type == CTL_DIRECTORY) {
        text_appendf(t, ":%s:_files", p->name);
    } else if (p->argument != NULL) {
        text_appendf(t, ":%s:", p->name);
    }
    text_appendf(t, "'");
}

static void zsh(struct text *t)
{
    text_appendf(t, "#compdef holdfastctl\n# Written from holdfastctl's command table.\n"
                    "_holdfastctl() {\n    local -a commands\n"
                    "    if (( CURRENT == 2 )); then\n        commands=(\n");
    for (size_t g = 0; g < ctl_groups_count; g++) {
        text_appendf(t, "            '%s:%s'\n", ctl_groups[g].name, ctl_groups[g].summary);
    }
    for (size_t i = 0; i < ctl_commands_count; i++) {
        if (strchr(ctl_commands[i].path, ' ') == NULL) {
            text_appendf(t, "            '%s:%s'\n", ctl_commands[i].path, ctl_commands[i].summary);
        }
    }
    text_appendf(t, "        )\n        _describe command commands\n        return\n    fi\n"
                    "    if (( CURRENT == 3 )); then\n        case $words[2] in\n");
    for (size_t g = 0; g < ctl_groups_count; g++) {
        text_appendf(t, "            %s) commands=(", ctl_groups[g].name);
        for (size_t i = 0; i < ctl_commands_count; i++) {
            if (pages_in_topic(&ctl_commands[i], ctl_groups[g].name)) {
                text_appendf(t, " '%s:", strchr(ctl_commands[i].path, ' ') + 1);
                quoted(t, ctl_commands[i].summary, ":");
                text_appendf(t, "'");
            }
        }
        text_appendf(t, " ); _describe command commands; return ;;\n");
    }
    text_appendf(t, "        esac\n    fi\n    case \"$words[2] $words[3]\" in\n");
    for (size_t i = 0; i < ctl_commands_count; i++) {
        const struct ctl_command *c = &ctl_commands[i];
        bool grouped = strchr(c->path, ' ') != NULL;
        text_appendf(t, "        %s%s%s)\n            _arguments '--help[show help]'",
                     grouped ? "'" : "", c->path, grouped ? "'" : "\\ *");
        for (size_t k = 0; k < c->operands_count; k++) {
            text_appendf(t, " \\\n                '*:%s:", c->operands[k].name);
            if (c->operands[k].choices != NULL) {
                text_appendf(t, "(");
                for (const char *w = c->operands[k].choices; *w != '\0'; w++) {
                    text_appendf(t, "%c", *w == '|' ? ' ' : *w);
                }
                text_appendf(t, ")");
            }
            text_appendf(t, "'");
            break; /* one pattern for all operands: their order is the help's to tell */
        }
        ctl_each_option(c, zsh_option, t);
        text_appendf(t, "\n            ;;\n");
    }
    text_appendf(t, "    esac\n}\n_holdfastctl \"$@\"\n");
}

struct fish_pass {
    struct text *t;
    const struct ctl_command *command;
};

static void fish_condition(struct text *t, const struct ctl_command *c)
{
    char first[32];
    const char *rest;
    pages_split(c->path, first, &rest);
    text_appendf(t, "'__fish_seen_subcommand_from %s%s%s'", first,
                 rest[0] != '\0' ? "; and __fish_seen_subcommand_from " : "", rest);
}

static void fish_option(void *ctx, const struct ctl_parameter *p)
{
    struct fish_pass *pass = ctx;
    struct text *t = pass->t;
    text_appendf(t, "complete -c holdfastctl -n ");
    fish_condition(t, pass->command);
    text_appendf(t, " -l %s", p->name);
    if (p->letter != '\0') {
        text_appendf(t, " -s %c", p->letter);
    }
    if (p->type == CTL_CHOICE) {
        text_appendf(t, " -x -a '");
        for (const char *c = p->choices; *c != '\0'; c++) {
            text_appendf(t, "%c", *c == '|' ? ' ' : *c);
        }
        text_appendf(t, "'");
    } else if (p->type == CTL_FILE || p->type == CTL_DIRECTORY) {
        text_appendf(t, " -r -F");
    } else if (p->argument != NULL) {
        text_appendf(t, " -x");
    }
    text_appendf(t, " -d '");
    quoted(t, p->help, "\\");
    text_appendf(t, "'\n");
}

static void fish(struct text *t)
{
    text_appendf(t, "# fish completion of holdfastctl; written from its command table.\n"
                    "complete -c holdfastctl -f\n");
    for (size_t g = 0; g < ctl_groups_count; g++) {
        text_appendf(t, "complete -c holdfastctl -n __fish_use_subcommand -a %s -d '",
                     ctl_groups[g].name);
        quoted(t, ctl_groups[g].summary, "\\");
        text_appendf(t, "'\n");
    }
    for (size_t i = 0; i < ctl_commands_count; i++) {
        const struct ctl_command *c = &ctl_commands[i];
        char first[32];
        const char *rest;
        pages_split(c->path, first, &rest);
        if (rest[0] == '\0') {
            text_appendf(t, "complete -c holdfastctl -n __fish_use_subcommand -a %s -d '", first);
        } else {
            text_appendf(t,
                         "complete -c holdfastctl -n '__fish_seen_subcommand_from %s' -a %s -d '",
                         first, rest);
        }
        quoted(t, c->summary, "\\");
        text_appendf(t, "'\n");
        struct fish_pass pass = {t, c};
        ctl_each_option(c, fish_option, &pass);
    }
    text_appendf(t, "complete -c holdfastctl -n '__fish_seen_subcommand_from completion' -a "
                    "'bash zsh fish'\n");
}

void pages_completion(struct text *t, const char *shell)
{
    if (strcmp(shell, "bash") == 0) {
        bash(t);
    } else if (strcmp(shell, "zsh") == 0) {
        zsh(t);
    } else {
        CHECK(strcmp(shell, "fish") == 0);
        fish(t);
    }
}
