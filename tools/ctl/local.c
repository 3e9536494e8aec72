/* completion, version. */
#include <stdio.h>

#include "base/check.h"
#include "tools/ctl/ctl.h"
#include "tools/ctl/pages.h"

enum ctl_exit completion_print(struct ctl *ctl)
{
    struct text page = TEXT_INIT;
    pages_completion(&page, ctl_text(&ctl->arguments, "SHELL"));
    fputs(text_cstring(&page), stdout);
    text_close(&page);
    return CTL_OK;
}

enum ctl_exit version_print(struct ctl *ctl)
{
    static const struct output_column columns[] = {
        {"program", "PROGRAM", CELL_TEXT},
        {"version", "VERSION", CELL_TEXT},
    };
    output_record(&ctl->output, columns, ARRAY_COUNT(columns),
                  json_pack("{s:s, s:s}", "program", "holdfastctl", "version", HOLDFAST_VERSION));
    return CTL_OK;
}
