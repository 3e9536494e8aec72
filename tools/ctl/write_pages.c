/* Writes docs/cli.md and docs/man/ from the command table: write_pages MARKDOWN_FILE MAN_DIR. With
 * --check it compares instead, and exits 1 when a file is not what the table says. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "tools/ctl/pages.h"

struct writer {
    bool check;
    const char *man_dir;
    int wrong;
};

static void write_file(struct writer *w, const char *path, const struct text *page)
{
    if (!w->check) {
        FILE *f = fopen(path, "w");
        if (f == NULL || fwrite(page->data, 1, page->len, f) != page->len || fclose(f) != 0) {
            fprintf(stderr, "cannot write %s: %s\n", path, strerror(errno));
            w->wrong++;
        }
        return;
    }
    FILE *f = fopen(path, "r");
    char *old = calloc(1, page->len + 2);
    CHECK(old != NULL);
    size_t n = f != NULL ? fread(old, 1, page->len + 1, f) : 0;
    if (n != page->len || memcmp(old, page->data, n) != 0) {
        fprintf(stderr, "%s is not what the command table says: ninja ctl-docs\n", path);
        w->wrong++;
    }
    if (f != NULL) {
        fclose(f);
    }
    free(old);
}

static void write_man(void *ctx, const char *topic)
{
    struct writer *w = ctx;
    struct text page = TEXT_INIT;
    char path[512];
    snprintf(path, sizeof path, "%s/holdfastctl%s%s.1", w->man_dir, topic[0] != '\0' ? "-" : "",
             topic);
    pages_man(&page, topic);
    write_file(w, path, &page);
    text_close(&page);
}

int main(int argc, char **argv)
{
    struct writer w = {.check = argc > 1 && strcmp(argv[1], "--check") == 0};
    int first = w.check ? 2 : 1;
    if (argc != first + 2) {
        fprintf(stderr, "usage: write_pages [--check] MARKDOWN_FILE MAN_DIR\n");
        return 2;
    }
    struct text page = TEXT_INIT;
    pages_markdown(&page);
    write_file(&w, argv[first], &page);
    text_close(&page);
    w.man_dir = argv[first + 1];
    write_man(&w, "");
    pages_each_topic(write_man, &w);
    return w.wrong == 0 ? 0 : 1;
}
