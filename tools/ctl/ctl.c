/* Messages, confirmation and the small makers of JSON values. */
#include "tools/ctl/ctl.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "proto/order_id.h"

void ctl_say(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("holdfastctl: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

void ctl_hint(const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    fputs("try: ", stderr);
    vfprintf(stderr, format, arguments);
    fputc('\n', stderr);
    va_end(arguments);
}

enum ctl_exit ctl_confirm(struct ctl *ctl, const char *name, const char *what)
{
    if (ctl_given(&ctl->arguments, "yes")) {
        return CTL_OK;
    }
    const char *confirm = ctl_text(&ctl->arguments, "confirm");
    if (confirm != NULL) {
        if (strcmp(confirm, name) == 0) {
            return CTL_OK;
        }
        ctl_say("--confirm %s does not name %s: nothing was done", confirm, name);
        return CTL_USAGE;
    }
    if (!isatty(STDIN_FILENO) || !isatty(STDERR_FILENO)) {
        ctl_say("%s: nothing was done without being confirmed", what);
        ctl_hint("the same command with --confirm %s", name);
        return CTL_USAGE;
    }
    char line[256];
    fprintf(stderr, "%s.\nType %s to go on: ", what, name);
    if (fgets(line, sizeof line, stdin) == NULL) {
        line[0] = '\0';
    }
    line[strcspn(line, "\r\n")] = '\0';
    if (strcmp(line, name) == 0) {
        return CTL_OK;
    }
    ctl_say("not confirmed: nothing was done");
    return CTL_FAILURE;
}

char *ctl_lend(const char *text)
{
    return (char *)(uintptr_t)(text != NULL ? text : "");
}

json_t *ctl_json_text(const char *text)
{
    struct text t = TEXT_INIT;
    for (size_t i = 0, len = strlen(text); i < len;) {
        size_t size = 1;
        while (size < 4 && i + size < len && ((unsigned char)text[i + size] & 0xc0) == 0x80) {
            size++;
        }
        bool good = str_is_utf8((struct str){text + i, (uint32_t)size});
        text_append(&t, good ? text + i : "?", good ? size : 1);
        i += size;
    }
    json_t *value = json_string(text_cstring(&t));
    text_close(&t);
    return value;
}

json_t *ctl_json_time(int64_t ms)
{
    if (ms == 0) {
        return json_null();
    }
    char text[CLOCK_RFC3339_SIZE];
    clock_format_rfc3339(ms, text);
    return json_string(text);
}

json_t *ctl_json_u64(uint64_t n)
{
    return json_integer((json_int_t)n);
}

json_t *ctl_json_order(uint64_t id)
{
    char text[ORDER_ID_TEXT_SIZE];
    order_id_format(id, text);
    return json_string(text);
}
