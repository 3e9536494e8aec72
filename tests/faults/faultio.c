/* faultio: a disk that fails on demand, for any program started with LD_PRELOAD=libfaultio.so.
 *
 * What it owns: the calls below, as seen by the program and its libraries. What it refuses: to
 * lie: a call fails, waits, is cut short and says so, is passed on as it is, or is the last one.
 *
 * Happy path: a call comes → the control file named by FAULTIO_CONTROL is read again if it was
 * replaced (looked at no more than once in RELOAD_NS) → the first rule whose operation and path
 * match and whose turn has come acts → one line is appended to <control>.hits.
 *
 * Failure modes: no control file, or an empty one: everything is passed on. A line that is not a
 * rule ends the process with status 99: a test must not pass because of a typing error. Calls that
 * glibc makes inside itself (fopen's open, for one) are not seen, except fopen as a whole.
 *
 * The rules' language: tests/faults/README.md. Threads: any; a rule that holds a call holds only
 * its thread. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define EXPORT        __attribute__((visibility("default")))
#define RULES_MAX     64
#define LINE_MAX_SIZE 512
#define FILE_SIZE_MAX (RULES_MAX * LINE_MAX_SIZE)
#define RELOAD_NS     2000000u
#define HOLD_POLL_NS  5000000u
#define JOINED_SIZE   4200

enum operation { OP_OPEN, OP_READ, OP_WRITE, OP_SYNC, OP_ALLOCATE, OP_NAME, OP_SPACE, OP_COUNT };
static const char *const operation_names[] = {"open", "read", "write", "sync",
                                              "allocate", "name", "space"};

struct rule {
    enum operation op;
    char glob[256];
    int error;        /* 0: none */
    uint64_t delay_ns;
    bool hold;        /* until the rules change */
    bool is_short;    /* writes at most short_bytes */
    uint64_t short_bytes;
    bool is_late; /* pwrite: only the last late_bytes, and the end */
    uint64_t late_bytes;
    bool kills; /* after the call, the process */
    bool is_free;
    uint64_t free_bytes;
    uint64_t from, count; /* of matching calls, from 1; count 0: without end */
    double probability;
    uint64_t seen;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct rule rules[RULES_MAX];
static unsigned rules_count;
static uint64_t looked_ns, generation;
static struct timespec file_time;
static off_t file_size;
static ino_t file_inode;
static uint64_t random_state;

/* ---- the calls as they are without us ---- */

static void *real(const char *name)
{
    void *function = dlsym(RTLD_NEXT, name);
    if (function == NULL) {
        static const char text[] = "faultio: a function is missing in libc\n";
        (void)!syscall(SYS_write, 2, text, sizeof text - 1);
        _exit(99);
    }
    return function;
}

#define REAL(name)                                                                                 \
    static __typeof__(name) *real_##name;                                                          \
    if (real_##name == NULL) {                                                                     \
        *(void **)&real_##name = real(#name);                                                      \
    }

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void pause_ns(uint64_t ns)
{
    struct timespec t = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};
    while (nanosleep(&t, &t) != 0 && errno == EINTR) {
    }
}

/* ---- the control file ---- */

_Noreturn static void refuse(const char *line)
{
    char text[LINE_MAX_SIZE + 64];
    int n = snprintf(text, sizeof text, "faultio: not a rule: '%s'\n", line);
    (void)!syscall(SYS_write, 2, text, n);
    _exit(99);
}

static uint64_t parse_number(const char *text, const char *line)
{
    static const struct {
        const char *suffix;
        uint64_t factor;
    } units[] = {{"", 1},           {"ms", 1000000u},     {"s", 1000000000u}, {"KiB", 1u << 10},
                 {"MiB", 1u << 20}, {"GiB", 1u << 30}};
    char *end;
    uint64_t value = strtoull(text, &end, 10);
    for (size_t i = 0; end != text && i < sizeof units / sizeof units[0]; i++) {
        if (strcmp(end, units[i].suffix) == 0) {
            return value * units[i].factor;
        }
    }
    refuse(line);
}

static int parse_errno(const char *text, const char *line)
{
    static const struct {
        const char *name;
        int value;
    } errors[] = {{"EIO", EIO},       {"ENOSPC", ENOSPC}, {"EDQUOT", EDQUOT}, {"EROFS", EROFS},
                  {"EACCES", EACCES}, {"EINTR", EINTR},   {"EAGAIN", EAGAIN}, {"ENOENT", ENOENT},
                  {"EMFILE", EMFILE}, {"EFBIG", EFBIG},   {"EINVAL", EINVAL}};
    for (size_t i = 0; i < sizeof errors / sizeof errors[0]; i++) {
        if (strcmp(text, errors[i].name) == 0) {
            return errors[i].value;
        }
    }
    refuse(line);
}

static void parse_option(struct rule *r, char *option, const char *line)
{
    char *value = strchr(option, '=');
    if (strcmp(option, "hold") == 0) {
        r->hold = true;
        return;
    }
    if (strcmp(option, "kill") == 0) {
        r->kills = true;
        return;
    }
    if (value == NULL) {
        refuse(line);
    }
    *value++ = '\0';
    if (strcmp(option, "errno") == 0) {
        r->error = parse_errno(value, line);
    } else if (strcmp(option, "delay") == 0) {
        r->delay_ns = parse_number(value, line);
    } else if (strcmp(option, "short") == 0) {
        r->is_short = true;
        r->short_bytes = parse_number(value, line);
    } else if (strcmp(option, "late") == 0) {
        r->is_late = true;
        r->late_bytes = parse_number(value, line);
    } else if (strcmp(option, "free") == 0) {
        r->is_free = true;
        r->free_bytes = parse_number(value, line);
    } else if (strcmp(option, "from") == 0) {
        r->from = parse_number(value, line);
    } else if (strcmp(option, "count") == 0) {
        r->count = parse_number(value, line);
    } else if (strcmp(option, "probability") == 0) {
        r->probability = strtod(value, NULL);
    } else {
        refuse(line);
    }
}

static void parse_line(char *line)
{
    char copy[LINE_MAX_SIZE];
    snprintf(copy, sizeof copy, "%s", line);
    char *save = NULL, *op = strtok_r(line, " \t", &save), *glob = strtok_r(NULL, " \t", &save);
    if (op == NULL || *op == '#') {
        return;
    }
    struct rule r = {.op = OP_COUNT, .from = 1, .probability = 1};
    for (int i = 0; i < OP_COUNT; i++) {
        if (strcmp(op, operation_names[i]) == 0) {
            r.op = (enum operation)i;
        }
    }
    if (r.op == OP_COUNT || glob == NULL || strlen(glob) >= sizeof r.glob ||
        rules_count == RULES_MAX) {
        refuse(copy);
    }
    strcpy(r.glob, glob);
    for (char *option; (option = strtok_r(NULL, " \t", &save)) != NULL;) {
        parse_option(&r, option, copy);
    }
    bool acts = r.error != 0 || r.delay_ns != 0 || r.hold || r.is_short || r.is_free || r.kills;
    /* A late write that is survived would be a lost write: the program would have been lied to. */
    if (!acts || (r.is_late && !r.kills) || (r.kills && r.op != OP_WRITE)) {
        refuse(copy);
    }
    rules[rules_count++] = r;
}

/* Mutex held. Only system calls, none of our own wrappers. */
static void look(const char *path)
{
    static char text[FILE_SIZE_MAX];
    uint64_t now = now_ns();
    if (looked_ns != 0 && now - looked_ns < RELOAD_NS) {
        return;
    }
    looked_ns = now;
    struct stat st = {0};
    int fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &st) != 0) {
        memset(&st, 0, sizeof st);
    }
    if (st.st_mtim.tv_sec != file_time.tv_sec || st.st_mtim.tv_nsec != file_time.tv_nsec ||
        st.st_size != file_size || st.st_ino != file_inode) {
        ssize_t n = fd >= 0 ? syscall(SYS_read, fd, text, sizeof text - 1) : 0;
        text[n > 0 ? n : 0] = '\0';
        rules_count = 0;
        generation++;
        file_time = st.st_mtim;
        file_size = st.st_size;
        file_inode = st.st_ino;
        char *save = NULL;
        for (char *line = strtok_r(text, "\n", &save); line != NULL;
             line = strtok_r(NULL, "\n", &save)) {
            parse_line(line);
        }
    }
    if (fd >= 0) {
        syscall(SYS_close, fd);
    }
}

/* ---- rules at work ---- */

static double chance(void)
{
    if (random_state == 0) {
        random_state = now_ns() ^ ((uint64_t)getpid() << 32);
    }
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (double)(random_state >> 11) / 9007199254740992.0;
}

static void note_hit(const char *control, const struct rule *r, const char *path)
{
    char name[4096], text[4600];
    snprintf(name, sizeof name, "%s.hits", control);
    int n = snprintf(text, sizeof text, "%d %s %s\n", (int)getpid(), operation_names[r->op], path);
    int fd = (int)syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (fd >= 0) {
        (void)!syscall(SYS_write, fd, text, n);
        syscall(SYS_close, fd);
    }
}

/* Mutex held. A copy of the rule that acts on this call. */
static bool match(enum operation op, const char *path, struct rule *out)
{
    for (unsigned i = 0; i < rules_count; i++) {
        struct rule *r = &rules[i];
        if (r->op != op || fnmatch(r->glob, path, 0) != 0) {
            continue;
        }
        r->seen++;
        if (r->seen >= r->from && (r->count == 0 || r->seen < r->from + r->count) &&
            (r->probability >= 1 || chance() < r->probability)) {
            *out = *r;
            return true;
        }
    }
    return false;
}

static bool wants_any(const char *control, enum operation op)
{
    bool any = false;
    look(control);
    for (unsigned i = 0; i < rules_count && !any; i++) {
        any = rules[i].op == op;
    }
    return any;
}

/* Waits as told. true with the rule when one acted; errno is as it was. path NULL: that of fd. */
static bool act(enum operation op, int fd, const char *path, struct rule *r)
{
    const char *control = getenv("FAULTIO_CONTROL");
    if (control == NULL) {
        return false;
    }
    int saved = errno;
    pthread_mutex_lock(&mutex);
    bool acts = wants_any(control, op);
    uint64_t seen_generation = generation;
    if (acts) {
        char name[64], found[4096];
        if (path == NULL) {
            snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
            ssize_t n = readlink(name, found, sizeof found - 1);
            found[n > 0 ? n : 0] = '\0';
            path = found;
        }
        acts = match(op, path, r);
        if (acts) {
            note_hit(control, r, path);
        }
    }
    pthread_mutex_unlock(&mutex);
    if (acts && r->delay_ns > 0) {
        pause_ns(r->delay_ns);
    }
    while (acts && r->hold) {
        pause_ns(HOLD_POLL_NS);
        pthread_mutex_lock(&mutex);
        look(control);
        bool released = generation != seen_generation;
        pthread_mutex_unlock(&mutex);
        if (released) {
            break;
        }
    }
    errno = saved;
    return acts;
}

static bool fails(enum operation op, int fd, const char *path)
{
    struct rule r;
    if (act(op, fd, path, &r) && r.error != 0) {
        errno = r.error;
        return true;
    }
    return false;
}

/* ---- writing ---- */

/* What is left of a write. */
struct piece {
    size_t skip, size;
    bool kills;
};

static _Noreturn void die(void)
{
    for (;;) {
        kill(getpid(), SIGKILL);
    }
}

static bool write_fails(int fd, struct piece *p)
{
    struct rule r;
    if (!act(OP_WRITE, fd, NULL, &r)) {
        return false;
    }
    p->kills = r.kills;
    if (r.is_late && p->size > r.late_bytes) {
        p->skip = p->size - (size_t)r.late_bytes;
        p->size = (size_t)r.late_bytes;
    }
    if (r.is_short && p->size > r.short_bytes) {
        p->size = (size_t)r.short_bytes;
        return false;
    }
    if (r.error != 0 && r.kills) {
        die();
    }
    errno = r.error;
    return r.error != 0;
}

#define WRITE(name, offset_type)                                                                   \
    EXPORT ssize_t name(int fd, const void *data, size_t size, offset_type offset)                 \
    {                                                                                              \
        REAL(name)                                                                                 \
        struct piece p = {0, size, false};                                                         \
        if (write_fails(fd, &p)) {                                                                 \
            return -1;                                                                             \
        }                                                                                          \
        ssize_t rv = p.size == 0 ? 0                                                               \
                                 : real_##name(fd, (const char *)data + p.skip, p.size,            \
                                               offset + (offset_type)p.skip);                      \
        if (p.kills) {                                                                             \
            die();                                                                                 \
        }                                                                                          \
        return rv;                                                                                 \
    }
WRITE(pwrite, off_t)
WRITE(pwrite64, off64_t)

EXPORT ssize_t write(int fd, const void *data, size_t size)
{
    REAL(write)
    struct piece p = {0, size, false};
    if (write_fails(fd, &p)) {
        return -1;
    }
    ssize_t rv = real_write(fd, (const char *)data + p.skip, p.size);
    if (p.kills) {
        die();
    }
    return rv;
}

/* Vectors are passed on whole or not at all: short=, late= and kill do not touch them. */
#define WRITEV(name, offset_type)                                                                  \
    EXPORT ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset)          \
    {                                                                                              \
        REAL(name)                                                                                 \
        struct piece p = {0};                                                                      \
        return write_fails(fd, &p) ? -1 : real_##name(fd, parts, count, offset);                \
    }
WRITEV(pwritev, off_t)
WRITEV(pwritev64, off64_t)

#define WRITEV2(name, offset_type)                                                                 \
    EXPORT ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset,          \
                        int flags)                                                                 \
    {                                                                                              \
        REAL(name)                                                                                 \
        struct piece p = {0};                                                                      \
        return write_fails(fd, &p) ? -1 : real_##name(fd, parts, count, offset, flags);         \
    }
WRITEV2(pwritev2, off_t)
WRITEV2(pwritev64v2, off64_t)

EXPORT ssize_t writev(int fd, const struct iovec *parts, int count)
{
    REAL(writev)
    struct piece p = {0};
    return write_fails(fd, &p) ? -1 : real_writev(fd, parts, count);
}

/* ---- reading ---- */

#define READ(name, offset_type)                                                                    \
    EXPORT ssize_t name(int fd, void *data, size_t size, offset_type offset)                       \
    {                                                                                              \
        REAL(name)                                                                                 \
        return fails(OP_READ, fd, NULL) ? -1 : real_##name(fd, data, size, offset);                \
    }
READ(pread, off_t)
READ(pread64, off64_t)

#define READV(name, offset_type)                                                                   \
    EXPORT ssize_t name(int fd, const struct iovec *parts, int count, offset_type offset)          \
    {                                                                                              \
        REAL(name)                                                                                 \
        return fails(OP_READ, fd, NULL) ? -1 : real_##name(fd, parts, count, offset);              \
    }
READV(preadv, off_t)
READV(preadv64, off64_t)

EXPORT ssize_t readv(int fd, const struct iovec *parts, int count)
{
    REAL(readv)
    return fails(OP_READ, fd, NULL) ? -1 : real_readv(fd, parts, count);
}

EXPORT ssize_t read(int fd, void *data, size_t size)
{
    REAL(read)
    return fails(OP_READ, fd, NULL) ? -1 : real_read(fd, data, size);
}

/* What programs built with _FORTIFY_SOURCE call instead. */
EXPORT ssize_t __pread_chk(int fd, void *data, size_t size, off_t offset, size_t room);
EXPORT ssize_t __pread_chk(int fd, void *data, size_t size, off_t offset, size_t room)
{
    REAL(__pread_chk)
    return fails(OP_READ, fd, NULL) ? -1 : real___pread_chk(fd, data, size, offset, room);
}

EXPORT ssize_t __pread64_chk(int fd, void *data, size_t size, off64_t offset, size_t room);
EXPORT ssize_t __pread64_chk(int fd, void *data, size_t size, off64_t offset, size_t room)
{
    REAL(__pread64_chk)
    return fails(OP_READ, fd, NULL) ? -1 : real___pread64_chk(fd, data, size, offset, room);
}

EXPORT ssize_t __read_chk(int fd, void *data, size_t size, size_t room);
EXPORT ssize_t __read_chk(int fd, void *data, size_t size, size_t room)
{
    REAL(__read_chk)
    return fails(OP_READ, fd, NULL) ? -1 : real___read_chk(fd, data, size, room);
}

/* ---- making durable ---- */

#define SYNC(name)                                                                                 \
    EXPORT int name(int fd)                                                                        \
    {                                                                                              \
        REAL(name)                                                                                 \
        return fails(OP_SYNC, fd, NULL) ? -1 : real_##name(fd);                                    \
    }
SYNC(fsync)
SYNC(fdatasync)
SYNC(syncfs)

/* The file that is mapped at an address. */
static void mapped_path(const void *address, char path[static 4096])
{
    path[0] = '\0';
    FILE *maps = fopen("/proc/self/maps", "re");
    char line[4400];
    while (maps != NULL && fgets(line, sizeof line, maps) != NULL) {
        uintptr_t from, to;
        int at = 0;
        if (sscanf(line, "%lx-%lx %*s %*s %*s %*s %n", &from, &to, &at) >= 2 && at > 0 &&
            (uintptr_t)address >= from && (uintptr_t)address < to) {
            line[strcspn(line, "\n")] = '\0';
            snprintf(path, 4096, "%s", line + at);
            break;
        }
    }
    if (maps != NULL) {
        fclose(maps);
    }
}

EXPORT int msync(void *address, size_t size, int flags)
{
    REAL(msync)
    char path[4096];
    mapped_path(address, path);
    return fails(OP_SYNC, -1, path) ? -1 : real_msync(address, size, flags);
}

/* ---- space ---- */

EXPORT int fallocate(int fd, int mode, off_t offset, off_t size)
{
    REAL(fallocate)
    return fails(OP_ALLOCATE, fd, NULL) ? -1 : real_fallocate(fd, mode, offset, size);
}

EXPORT int fallocate64(int fd, int mode, off64_t offset, off64_t size)
{
    REAL(fallocate64)
    return fails(OP_ALLOCATE, fd, NULL) ? -1 : real_fallocate64(fd, mode, offset, size);
}

EXPORT int posix_fallocate(int fd, off_t offset, off_t size)
{
    REAL(posix_fallocate)
    return fails(OP_ALLOCATE, fd, NULL) ? errno : real_posix_fallocate(fd, offset, size);
}

EXPORT int posix_fallocate64(int fd, off64_t offset, off64_t size)
{
    REAL(posix_fallocate64)
    return fails(OP_ALLOCATE, fd, NULL) ? errno : real_posix_fallocate64(fd, offset, size);
}

EXPORT int ftruncate(int fd, off_t size)
{
    REAL(ftruncate)
    return fails(OP_ALLOCATE, fd, NULL) ? -1 : real_ftruncate(fd, size);
}

EXPORT int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64)
    return fails(OP_ALLOCATE, fd, NULL) ? -1 : real_ftruncate64(fd, size);
}

#define SPACE(name, type)                                                                          \
    EXPORT int name(const char *path, struct type *out)                                            \
    {                                                                                              \
        REAL(name)                                                                                 \
        struct rule r;                                                                             \
        bool acts = act(OP_SPACE, -1, path, &r);                                                   \
        if (acts && r.error != 0) {                                                                \
            errno = r.error;                                                                       \
            return -1;                                                                             \
        }                                                                                          \
        int rv = real_##name(path, out);                                                           \
        if (rv == 0 && acts && r.is_free) {                                                        \
            out->f_bavail = out->f_bfree = r.free_bytes / out->f_frsize;                           \
        }                                                                                          \
        return rv;                                                                                 \
    }
SPACE(statvfs, statvfs)
SPACE(statvfs64, statvfs64)

/* ---- names ---- */

/* A path relative to an open directory, as rules name it. */
static const char *joined(int dir, const char *path, char out[static JOINED_SIZE])
{
    char name[64];
    if (*path == '/' || dir == AT_FDCWD) {
        return path;
    }
    snprintf(name, sizeof name, "/proc/self/fd/%d", dir);
    ssize_t n = readlink(name, out, 4096);
    n = n > 0 ? n : 0;
    snprintf(out + n, JOINED_SIZE - (size_t)n, "/%s", path);
    return out;
}

EXPORT int rename(const char *from, const char *to)
{
    REAL(rename)
    return fails(OP_NAME, -1, to) ? -1 : real_rename(from, to);
}

EXPORT int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
    REAL(renameat)
    char full[JOINED_SIZE];
    return fails(OP_NAME, -1, joined(to_dir, to, full)) ? -1 : real_renameat(from_dir, from, to_dir, to);
}

EXPORT int unlink(const char *path)
{
    REAL(unlink)
    return fails(OP_NAME, -1, path) ? -1 : real_unlink(path);
}

EXPORT int unlinkat(int dir, const char *path, int flags)
{
    REAL(unlinkat)
    char full[JOINED_SIZE];
    return fails(OP_NAME, -1, joined(dir, path, full)) ? -1 : real_unlinkat(dir, path, flags);
}

static mode_t mode_of(int flags, va_list args)
{
    return (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(args, mode_t) : 0;
}

#define OPEN(name)                                                                                 \
    EXPORT int name(const char *path, int flags, ...)                                              \
    {                                                                                              \
        REAL(name)                                                                                 \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = mode_of(flags, args);                                                        \
        va_end(args);                                                                              \
        return fails(OP_OPEN, -1, path) ? -1 : real_##name(path, flags, mode);                     \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                               \
    EXPORT int name(int dir, const char *path, int flags, ...)                                     \
    {                                                                                              \
        REAL(name)                                                                                 \
        char full[JOINED_SIZE];                                                                           \
        va_list args;                                                                              \
        va_start(args, flags);                                                                     \
        mode_t mode = mode_of(flags, args);                                                        \
        va_end(args);                                                                              \
        return fails(OP_OPEN, -1, joined(dir, path, full)) ? -1                                    \
                                                           : real_##name(dir, path, flags, mode);  \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                                \
    EXPORT FILE *name(const char *path, const char *mode)                                          \
    {                                                                                              \
        REAL(name)                                                                                 \
        return fails(OP_OPEN, -1, path) ? NULL : real_##name(path, mode);                          \
    }
FOPEN(fopen)
FOPEN(fopen64)
