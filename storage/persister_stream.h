/* persister_stream: one uninterrupted time of writing (persister_worker.h): connections, fence,
 * windows.
 *
 *     IDLE --begin--> STARTING --fence taken, watermarks read, all lanes connected--> OPEN
 *       ^                 |                                                            |
 *       +---- reset ------+---------------- FAILED <--- anything at all ---------------+
 *
 * STARTING is a sequence of steps on the first lane (persister_start.c); OPEN runs windows
 * (persister_stream.c). Only the persister's thread. */
#ifndef STORAGE_PERSISTER_STREAM_H
#define STORAGE_PERSISTER_STREAM_H

#include "storage/persister_lane.h"
#include "storage/persister_worker.h"

enum stream_state { STREAM_IDLE, STREAM_STARTING, STREAM_OPEN, STREAM_FAILED };

enum start_step {
    START_CONNECT,    /* the first lane */
    START_SESSION,    /* timeouts and the like */
    START_SCHEMA,     /* are the migrations there */
    START_CLUSTER,    /* is it this cluster's database; claim it when it is nobody's */
    START_COUNT,      /* how many shards it has */
    START_CREATE,     /* shards, a few at a time */
    START_FENCE,      /* from here on older leaders are refused */
    START_EVICT,      /* one of them held it up: end its connections */
    START_WATERMARKS, /* where to begin */
    START_OTHERS,     /* the other lanes connect */
};

/* The transaction of a lane. BEGIN and COPY are one request when there is nothing in between. */
enum run_step { RUN_NONE, RUN_BEGIN, RUN_CHANGES, RUN_ELIGIBILITIES, RUN_COPY };

struct lane_run {
    struct lane lane;
    bool session; /* the session's settings are made */
    uint32_t first_shard, end_shard;
    enum run_step step;
    uint64_t window; /* number of the next window to write */
    uint64_t started_ns;
    struct persister_rows rows[PERSISTER_WINDOWS];
};

struct window {
    uint64_t last_sequence, last_index;
    int64_t last_time_ms;
    size_t events;
    size_t rows[COPY_COUNT];
    uint32_t lanes_left; /* that have not committed it */
};

struct stream {
    /* for good */
    const char *url;
    uint32_t shards, lanes;
    uint8_t cluster_id[16];
    /* of this stream */
    enum stream_state state;
    enum start_step step;
    uint64_t term;
    uint64_t floor;   /* everything before it was acknowledged: watermarks must have it */
    uint32_t created; /* shards looked after by START_CREATE */
    uint32_t evictions;
    bool fenced;     /* FAILED because a later leader is there: not to be tried again */
    char error[256]; /* why FAILED */
    struct lane_run runs[PERSISTER_LANES];
    uint64_t *watermarks;                     /* of each shard, as committed */
    struct window windows[PERSISTER_WINDOWS]; /* number modulo PERSISTER_WINDOWS */
    uint64_t built, persisted;                /* numbers: built, persisted by all lanes */
    /* counted for good */
    uint64_t transactions;
    struct histogram *duration; /* of transactions, ns */
    struct text sql;
    const struct persister_event **sorted; /* scratch */
    uint32_t *offsets;
};

void stream_init(struct stream *s, const struct persister_config *config);
void stream_close(struct stream *s);

/* IDLE → STARTING. */
void stream_begin(struct stream *s, uint64_t term, uint64_t floor, uint64_t now_ms);
/* Any state → IDLE, at once. Transactions under way may still commit. */
void stream_reset(struct stream *s);

/* ready: bit i says that lane i's socket was reported by poll. */
enum stream_state stream_tick(struct stream *s, uint32_t ready, uint64_t now_ms);
/* When to tick even if nothing happens; UINT64_MAX: never. */
uint64_t stream_deadline_ms(const struct stream *s);

/* OPEN: the sequence to begin with. */
uint64_t stream_first_wanted(const struct stream *s);
bool stream_has_room(const struct stream *s); /* for a window */
bool stream_is_idle(const struct stream *s);  /* all windows are persisted */
/* Makes a window of consecutive events and gives it to the lanes. Borrows until return. */
void stream_build(struct stream *s, const struct persister_event *const *events, size_t count,
                  uint64_t now_ms);
/* The next window that became persisted since the last call: true, and *out. */
bool stream_take_persisted(struct stream *s, struct window *out);

/* ---- between persister_start.c and persister_stream.c ---- */

void stream_fail(struct stream *s, const char *error);
/* Fails by what the lane says. */
void stream_fail_lane(struct stream *s, const struct lane *lane);
/* One tick of STARTING. */
void stream_start_tick(struct stream *s, uint64_t now_ms);

#endif
