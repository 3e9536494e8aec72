#include "server/warm_up.h"

#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"
#include "base/log.h"

/* Worker thread. */
static void work_cb(uv_work_t *work)
{
    struct warm_up *w = container_of(work, struct warm_up, work);
    uint8_t *at = w->memory.at;
    for (size_t done = 0; done < w->memory.size && !atomic_load(&w->stop);) {
        size_t left = w->memory.size - done;
        size_t size = left < WARM_UP_PIECE_SIZE ? left : WARM_UP_PIECE_SIZE;
        if (engine_memory_warm((struct engine_memory){at + done, size}) != 0) {
            return;
        }
        done += size;
    }
}

static void done_cb(uv_work_t *work, int status)
{
    struct warm_up *w = container_of(work, struct warm_up, work);
    (void)status;
    w->running = false;
    log_info("indexes warmed size_mb=%zu", w->memory.size >> 20);
}

static bool is_affordable(size_t size)
{
    long pages = sysconf(_SC_AVPHYS_PAGES), page_size = sysconf(_SC_PAGESIZE);
    return pages > 0 && page_size > 0 &&
           (size_t)pages / WARM_UP_RESERVE >= size / (size_t)page_size;
}

void warm_up_tick(struct warm_up *w, uv_loop_t *loop, const struct engine *engine)
{
    struct engine_memory memory = engine_index_memory(engine);
    if (w->running || memory.at == NULL || memory.at == w->warmed) {
        return;
    }
    w->warmed = memory.at;
    if (!is_affordable(memory.size)) {
        log_info("indexes not warmed: %zu MB is too much of the free memory", memory.size >> 20);
        return;
    }
    w->memory = memory;
    atomic_store(&w->stop, false);
    w->running = uv_queue_work(loop, &w->work, work_cb, done_cb) == 0;
}

void warm_up_stop(struct warm_up *w)
{
    atomic_store(&w->stop, true);
    w->warmed = NULL; /* the next engine may get the same address */
}
