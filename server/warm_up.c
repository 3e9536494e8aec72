#include "server/warm_up.h"

#include <string.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

/* Worker thread. */
static void work_cb(uv_work_t *work)
{
    struct warm_up *w = container_of(work, struct warm_up, work);
    for (unsigned i = 0; i < ENGINE_AHEAD_COUNT; i++) {
        uint8_t *at = w->parts[i].at;
        for (size_t done = 0; done < w->parts[i].size && !atomic_load(&w->stop);) {
            size_t left = w->parts[i].size - done;
            size_t size = w->huge || left < WARM_UP_PIECE_SIZE ? left : WARM_UP_PIECE_SIZE;
            if (engine_memory_warm((struct engine_memory){at + done, size}, w->huge) != 0) {
                return;
            }
            done += size;
        }
    }
}

static void done_cb(uv_work_t *work, int status)
{
    struct warm_up *w = container_of(work, struct warm_up, work);
    (void)status;
    w->running = false;
    if (!w->huge) {
        log_info("indexes warmed size_mb=%zu", w->parts[0].size >> 20);
    }
}

static bool is_affordable(size_t size)
{
    long pages = sysconf(_SC_AVPHYS_PAGES), page_size = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_size > 0 &&
           (size_t)pages / WARM_UP_RESERVE >= size / (size_t)page_size;
}

static void start(struct warm_up *w, uv_loop_t *loop, bool huge)
{
    w->huge = huge;
    atomic_store(&w->stop, false);
    w->running = uv_queue_work(loop, &w->work, work_cb, done_cb) == 0;
}

static void warm_indexes(struct warm_up *w, uv_loop_t *loop, struct engine_memory memory)
{
    w->indexes = memory.at;
    if (!is_affordable(memory.size)) {
        log_info("indexes not warmed: %zu MB is too much of the free memory", memory.size >> 20);
        return;
    }
    memset(w->parts, 0, sizeof w->parts);
    w->parts[0] = memory;
    start(w, loop, false);
}

/* Gathers the tables of which less than half of WARM_UP_AHEAD_SIZE is left. */
static size_t gather_ahead(struct warm_up *w, const struct engine *engine)
{
    size_t total = 0;
    engine_memory_ahead(engine, WARM_UP_AHEAD_SIZE, w->parts);
    for (unsigned i = 0; i < ENGINE_AHEAD_COUNT; i++) {
        struct engine_memory *p = &w->parts[i];
        const uint8_t *at = p->at;
        size_t backed = at != NULL && w->ahead_end[i] > at ? (size_t)(w->ahead_end[i] - at) : 0;
        if (backed >= p->size || backed > WARM_UP_AHEAD_SIZE / 2) {
            *p = (struct engine_memory){NULL, 0};
            continue;
        }
        w->ahead_end[i] = at + p->size;
        *p = (struct engine_memory){(uint8_t *)p->at + backed, p->size - backed};
        total += p->size;
    }
    return total;
}

void warm_up_tick(struct warm_up *w, uv_loop_t *loop, const struct engine *engine)
{
    struct engine_memory indexes = engine_index_memory(engine);
    if (w->running || indexes.at == NULL) {
        return;
    }
    size_t wanted = gather_ahead(w, engine);
    if (wanted > 0 && is_affordable(wanted)) {
        start(w, loop, true);
    } else if (indexes.at != w->indexes) {
        warm_indexes(w, loop, indexes);
    }
}

void warm_up_stop(struct warm_up *w)
{
    atomic_store(&w->stop, true);
    w->indexes = NULL; /* the next engine may get the same address */
    memset(w->ahead_end, 0, sizeof w->ahead_end);
}
