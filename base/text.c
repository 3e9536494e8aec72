#include "base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/check.h"

char *text_reserve(struct text *t, size_t size)
{
    size_t need = t->len + size + 1;
    if (need > t->capacity) {
        size_t capacity = t->capacity == 0 ? 256 : t->capacity;
        while (capacity < need) {
            capacity *= 2;
        }
        t->data = realloc(t->data, capacity);
        CHECK(t->data != NULL);
        t->capacity = capacity;
    }
    return t->data + t->len;
}

void text_append(struct text *t, const void *data, size_t size)
{
    char *to = text_reserve(t, size);
    if (size > 0) {
        memcpy(to, data, size);
    }
    t->len += size;
    t->data[t->len] = '\0';
}

void text_append_str(struct text *t, struct str s)
{
    text_append(t, s.ptr, s.len);
}

void text_appendf(struct text *t, const char *format, ...)
{
    CHECK(format != NULL); /* also tells gcc, which under -fsanitize warns otherwise */
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    CHECK(n >= 0);
    char *to = text_reserve(t, (size_t)n);
    vsnprintf(to, (size_t)n + 1, format, again);
    va_end(again);
    t->len += (size_t)n;
}

void text_clear(struct text *t)
{
    t->len = 0;
    if (t->data != NULL) {
        t->data[0] = '\0';
    }
}

void text_close(struct text *t)
{
    free(t->data);
    *t = TEXT_INIT;
}

const char *text_cstring(const struct text *t)
{
    return t->data != NULL ? t->data : "";
}
