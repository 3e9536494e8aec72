/* holdfast-damage: does a start notice damage in a data directory?
 *
 * template.c makes directories with real content through the real code, wound.c hurts a copy in one way and
 * place that a seed draws, outcome.c starts a node in it, in a child, and says what came of it; main.c runs
 * many seeds and writes the table. See README.md. */
#ifndef TESTS_DAMAGE_H
#define TESTS_DAMAGE_H

#include <stdbool.h>
#include <stdint.h>

#define DAMAGE_PATH_SIZE   4096
#define DAMAGE_ENTRIES_MAX 4096

/* What the log says at the end of a template. */
struct log_end {
    uint64_t term, vote, last_index;
};

struct template {
    char path[DAMAGE_PATH_SIZE];  /* the data directory of node 1 */
    char older[DAMAGE_PATH_SIZE]; /* the same at an earlier time */
    char other[DAMAGE_PATH_SIZE]; /* of node 2 of the same cluster */
    char stranger[DAMAGE_PATH_SIZE]; /* of node 1 of another cluster */
    char key_file[DAMAGE_PATH_SIZE];
    bool stopped; /* cleanly; else it was killed */
    uint8_t cluster_id[16];
    struct log_end end, before_last; /* before_last: without the last write */
    char last_name[64];              /* where the last write is: file of the log, offset, bytes */
    uint64_t last_offset, last_size;
    /* By index: */
    uint64_t terms[DAMAGE_ENTRIES_MAX], digests[DAMAGE_ENTRIES_MAX];
    uint32_t crcs[DAMAGE_ENTRIES_MAX];
};

/* Makes both templates (stopped, killed) below `root`, which exists and is empty. The same for each run but
 * for salts and times. Aborts when it cannot. */
void template_make(const char *root, struct template *stopped, struct template *killed);

void copy_directory(const char *from, const char *to); /* to must not exist */
void remove_directory(const char *path);

enum wound_kind {
    WOUND_BIT,
    WOUND_BYTE,
    WOUND_CUT,
    WOUND_EXTEND,
    WOUND_ZERO,
    WOUND_GARBAGE,
    WOUND_SWAP_BLOCKS,
    WOUND_OLD_BLOCK,
    WOUND_MISSING,
    WOUND_EMPTY,
    WOUND_SWAP_FILES,
    WOUND_OTHERS_FILE,
    WOUND_KINDS
};

enum wound_file {
    FILE_IDENTITY,
    FILE_SEGMENT,      /* of the log, not the newest */
    FILE_LAST_SEGMENT, /* the newest */
    FILE_SPARE,
    FILE_DATA, /* data.mdb */
    FILE_CURRENT,
    FILE_LOCK, /* the three lock files */
    FILE_KINDS
};

const char *wound_kind_name(enum wound_kind kind);
const char *wound_file_name(enum wound_file file);

struct wound {
    enum wound_kind kind;
    enum wound_file file;
    char name[128], second[128]; /* relative to the directory; second: "" unless two were hurt */
    uint64_t offset, size;       /* what was changed at most */
    bool changed;                /* else the bytes are as before */
};

/* Hurts `directory`, a copy of t. */
void wound_inflict(const struct template *t, const char *directory, uint64_t seed, struct wound *w);

enum outcome {
    OUTCOME_HARMLESS, /* started; state, log, term and vote are those of the template */
    OUTCOME_CUT,      /* started without the last write before a kill, in which the damage is */
    OUTCOME_REFUSED,  /* with file, offset or reason, and what to do */
    OUTCOME_UNCLEAR,  /* refused, but the message names neither what was hurt nor what to do */
    OUTCOME_DIFFERS,  /* node verify says something else than the start */
    OUTCOME_SILENT,   /* started with anything else */
    OUTCOME_CRASH,    /* ended by a signal */
    OUTCOME_HANG,
    OUTCOMES
};

const char *outcome_name(enum outcome o);
static inline bool outcome_is_failure(enum outcome o)
{
    return o >= OUTCOME_UNCLEAR;
}

/* Starts a node in `directory` as holdfastd does, in a child. message gets its last error, or what is wrong. */
enum outcome outcome_of_start(const struct template *t, const char *directory, const struct wound *w,
                              char *message, size_t size);

#endif
