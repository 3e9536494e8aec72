/* The command table is consistent: what help, docs and completion are made of is there for each
 * row, and each example is a command line that parses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"
#include "tools/ctl/pages.h"
#include "tools/ctl/parse.h"

static const char *nothing(const char *name)
{
    (void)name;
    return NULL;
}

static void check_parameter(void *ctx, const struct ctl_parameter *p)
{
    const char *path = ctx;
    bool operand = p->name[0] >= 'A' && p->name[0] <= 'Z';
    if (p->help == NULL || p->help[0] == '\0') {
        fail_msg("%s: %s has no help", path, p->name);
    }
    if ((p->argument == NULL) != (operand || p->type == CTL_FLAG)) {
        fail_msg("%s: %s must name its argument if, and only if, it takes one", path, p->name);
    }
    if ((p->choices != NULL) != (p->type == CTL_CHOICE)) {
        fail_msg("%s: %s: choices belong to a choice", path, p->name);
    }
}

/* Parses one line of examples as a shell would: quotes, "&&" and ">" end a command. */
static void check_example(const char *path, const char *line)
{
    char buffer[256], *argv[32];
    int argc = 0;
    CHECK(str_copy(buffer, sizeof buffer, str_from(line)));
    bool quoted = false, word = false;
    char *to = buffer;
    for (char *c = buffer; *c != '\0'; c++) {
        if (*c == '\'') {
            quoted = !quoted;
        } else if (*c == ' ' && !quoted) {
            *to++ = '\0';
            word = false;
        } else {
            if (!word) {
                argv[argc++] = to;
                word = true;
            }
            *to++ = *c;
        }
    }
    *to = '\0';
    for (int i = 0; i < argc; i++) {
        argc = strcmp(argv[i], ">") == 0 || strcmp(argv[i], "&&") == 0 ? i : argc;
    }
    struct ctl_arguments a;
    struct parse_outcome o;
    assert_string_equal(argv[0], "holdfastctl");
    enum parse_result rv = parse_command_line(argc, argv, nothing, &a, &o);
    if (rv != PARSE_OK || strcmp(a.command->path, path) != 0) {
        fail_msg("example of %s: %s: %s", path, line, text_cstring(&o.message));
    }
    text_close(&o.topic);
    text_close(&o.message);
}

static void every_command_is_whole(void **state)
{
    (void)state;
    for (size_t i = 0; i < ctl_commands_count; i++) {
        const struct ctl_command *c = &ctl_commands[i];
        assert_non_null(c->run);
        assert_true(c->summary != NULL && c->summary[0] != '\0');
        assert_true(strlen(c->summary) < 60 && c->summary[strlen(c->summary) - 1] != '.');
        assert_true(c->help != NULL && c->help[strlen(c->help) - 1] == '.');
        assert_true(c->examples != NULL && c->examples[0] != '\0');
        for (const char *line = c->examples; *line != '\0';) {
            char copy[256];
            size_t len = strcspn(line, "\n");
            assert_int_equal(line[len], '\n');
            str_copy(copy, sizeof copy, (struct str){line, (uint32_t)len});
            check_example(c->path, copy);
            line += len + 1;
        }
        for (size_t j = 0; j < c->operands_count; j++) {
            check_parameter((void *)(uintptr_t)c->path, &c->operands[j]);
        }
        ctl_each_option(c, check_parameter, (void *)(uintptr_t)c->path);
        assert_ptr_equal(ctl_find_command(c->path), c); /* no path twice */
    }
}

struct names {
    const char *seen[CTL_VALUES_MAX];
    char letters[CTL_VALUES_MAX];
    size_t count;
    const char *path;
};

static void check_once(void *ctx, const struct ctl_parameter *p)
{
    struct names *n = ctx;
    for (size_t i = 0; i < n->count; i++) {
        if (strcmp(n->seen[i], p->name) == 0 || (p->letter != '\0' && n->letters[i] == p->letter)) {
            fail_msg("%s: --%s is there twice", n->path, p->name);
        }
    }
    assert_true(n->count < CTL_VALUES_MAX);
    n->seen[n->count] = p->name;
    n->letters[n->count++] = p->letter;
}

static void options_are_unique(void **state)
{
    (void)state;
    for (size_t i = 0; i < ctl_commands_count; i++) {
        struct names n = {.path = ctl_commands[i].path};
        for (size_t j = 0; j < ctl_commands[i].operands_count; j++) {
            check_once(&n, &ctl_commands[i].operands[j]);
        }
        ctl_each_option(&ctl_commands[i], check_once, &n);
    }
}

static void commands_belong_to_groups(void **state)
{
    (void)state;
    for (size_t g = 0; g < ctl_groups_count; g++) {
        size_t members = 0;
        for (size_t i = 0; i < ctl_commands_count; i++) {
            members += pages_in_topic(&ctl_commands[i], ctl_groups[g].name) ? 1 : 0;
        }
        assert_true(members > 0);
    }
    for (size_t i = 0; i < ctl_commands_count; i++) {
        char first[32];
        const char *rest;
        size_t groups = 0;
        pages_split(ctl_commands[i].path, first, &rest);
        for (size_t g = 0; g < ctl_groups_count; g++) {
            groups += strcmp(ctl_groups[g].name, first) == 0 ? 1 : 0;
        }
        assert_int_equal(groups, rest[0] != '\0' ? 1 : 0);
    }
}

static void pages_name_every_command(void **state)
{
    (void)state;
    struct text help = TEXT_INIT, markdown = TEXT_INIT, man = TEXT_INIT;
    pages_help(&help, "");
    pages_markdown(&markdown);
    pages_man(&man, "");
    static const char *const shells[] = {"bash", "zsh", "fish"};
    struct text scripts[ARRAY_COUNT(shells)] = {TEXT_INIT, TEXT_INIT, TEXT_INIT};
    for (size_t s = 0; s < ARRAY_COUNT(shells); s++) {
        pages_completion(&scripts[s], shells[s]);
    }
    for (size_t i = 0; i < ctl_commands_count; i++) {
        const struct ctl_command *c = &ctl_commands[i];
        char heading[96], first[32];
        const char *rest;
        snprintf(heading, sizeof heading, "### holdfastctl %s\n", c->path);
        pages_split(c->path, first, &rest);
        assert_non_null(strstr(text_cstring(&help), c->path));
        assert_non_null(strstr(text_cstring(&markdown), heading));
        assert_non_null(strstr(text_cstring(&man), first));
        for (size_t s = 0; s < ARRAY_COUNT(shells); s++) {
            assert_non_null(strstr(text_cstring(&scripts[s]), rest[0] != '\0' ? rest : first));
        }
        struct text page = TEXT_INIT;
        pages_help(&page, c->path);
        assert_non_null(strstr(text_cstring(&page), c->help));
        assert_non_null(strstr(text_cstring(&page), "--timeout"));
        text_close(&page);
    }
    for (size_t s = 0; s < ARRAY_COUNT(shells); s++) {
        text_close(&scripts[s]);
    }
    text_close(&help);
    text_close(&markdown);
    text_close(&man);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_command_is_whole),
        cmocka_unit_test(options_are_unique),
        cmocka_unit_test(commands_belong_to_groups),
        cmocka_unit_test(pages_name_every_command),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
