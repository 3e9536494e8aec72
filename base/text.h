/* A growing, always NUL-terminated text buffer: for answers, metrics pages and messages. Allocates;
 * not for hot paths. Out of memory aborts, as everywhere in holdfast. */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include <stddef.h>

#include "base/str.h"

struct text {
    char *data; /* NULL until the first append */
    size_t len;
    size_t capacity;
};

#define TEXT_INIT ((struct text){NULL, 0, 0})

void text_append(struct text *t, const void *data, size_t size);
void text_append_str(struct text *t, struct str s);
void text_appendf(struct text *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Ensures room for size more bytes and returns where they go; add them with text_grow_by. */
char *text_reserve(struct text *t, size_t size);
void text_clear(struct text *t);
/* Frees the memory and leaves an empty buffer that can be used again. */
void text_close(struct text *t);
/* The whole text so far, "" when empty; valid until the next change. */
const char *text_cstring(const struct text *t);

#endif
