/* CHECK: programming errors, always on.
 *
 * Three channels never mix in holdfast: a negative int is an infrastructure error, a result enum is
 * a business answer, and a failed CHECK is a bug in holdfast itself. A bug aborts: a node that no
 * longer understands its own state must not go on answering, and its peers can go on without it. */
#ifndef BASE_CHECK_H
#define BASE_CHECK_H

/* Prints "file:line: check failed: expression" to stderr and aborts. Never returns. */
_Noreturn void check_failed(const char *file, int line, const char *expression);

/* One condition per CHECK, stated positively. */
#define CHECK(condition) \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, #condition))

/* Marks a place that cannot be reached. */
#define CHECK_UNREACHABLE() check_failed(__FILE__, __LINE__, "unreachable")

#define container_of(pointer, type, member) \
    ((type *)(void *)((char *)(pointer)-offsetof(type, member)))

#define ARRAY_COUNT(array) (sizeof(array) / sizeof((array)[0]))

#endif
