#include "tools/bench/load.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "base/check.h"
#include "base/clock.h"

#define DIGITS      10
#define TICK_MIN_NS 250000 /* finer: twice the processor time a request, on the cores it measures  \
                            */
#define TICK_MAX_NS       1000000
#define RETRY_INTERVAL_MS 5

struct load_slot {
    struct http_exchange x;
    struct load *load;
    struct load_slot *next_free;
    uint64_t index;
    uint64_t due_ns, sent_ns;
    uint64_t retry_ns; /* 0: not waiting to ask again */
    unsigned attempts;
    bool unknown; /* some attempt ended so: only an answer under this key settles it */
    size_t key_at, user_at, sku_at; /* where the digits go; sku_at 0: one SKU */
    char request[LOAD_REQUEST_SIZE_MAX];
};

static uint64_t mix(uint64_t z)
{
    z += 0x9E3779B97F4A7C15u;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static void digits_write(char *to, int count, uint64_t value)
{
    for (int i = count - 1; i >= 0; i--) {
        to[i] = (char)('0' + value % 10);
        value /= 10;
    }
}

static uint64_t cpu_now_ns(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return ((uint64_t)u.ru_utime.tv_sec + (uint64_t)u.ru_stime.tv_sec) * 1000000000u +
           ((uint64_t)u.ru_utime.tv_usec + (uint64_t)u.ru_stime.tv_usec) * 1000u;
}

static void u64_push(uint64_t **array, size_t *count, size_t *capacity, uint64_t value)
{
    if (*count == *capacity) {
        *capacity = *capacity == 0 ? 1 << 16 : *capacity * 2;
        *array = realloc(*array, *capacity * sizeof **array);
        CHECK(*array != NULL);
    }
    (*array)[(*count)++] = value;
}

/* ---- slots ---- */

static size_t offset_of(const struct text *request, const char *mark)
{
    const char *at = strstr(request->data, mark);
    CHECK(at != NULL);
    return (size_t)(at - request->data);
}

static void slot_done(struct http_exchange *x, enum http_failure failure,
                      const struct http_reply *reply);

/* Writes the request that all of this slot's will look like. */
static void slot_init(struct load_slot *s, struct load *l)
{
    const struct load_options *o = &l->options;
    char key[KEY_SIZE_MAX];
    char sku[ID_SIZE_MAX + 1];
    snprintf(key, sizeof key, "%s-%0*d", o->run, DIGITS, 0);
    catalog_sku_name(o->catalog, 0, sku);
    json_t *body = json_pack("{s:s,s:s,s:[{s:s,s:i}]}", "sale_id", o->catalog->sale, "user_id",
                             "u0000000000", "lines", "sku", sku, "quantity", (int)o->quantity);
    char *text = json_dumps(body, JSON_COMPACT | JSON_PRESERVE_ORDER);
    CHECK(text != NULL);
    struct text request = TEXT_INIT;
    request_write(&request, &(struct request){.method = "POST",
                                              .path = "/v1/orders",
                                              .host = http_client_host(l->client),
                                              .bearer = o->bearer,
                                              .key = key,
                                              .body = text});
    CHECK(request.len < sizeof s->request);
    memcpy(s->request, request.data, request.len + 1);
    s->key_at = offset_of(&request, key) + strlen(key) - DIGITS;
    s->user_at = offset_of(&request, "\"u0000000000\"") + 2;
    if (o->catalog->skus_count > 1) {
        char mark[ID_SIZE_MAX + 3];
        snprintf(mark, sizeof mark, "\"%s\"", sku);
        s->sku_at = offset_of(&request, mark) + strlen(mark) - 3;
    }
    s->load = l;
    s->x = (struct http_exchange){
        .request = s->request, .request_size = request.len, .done = slot_done};
    text_close(&request);
    free(text);
    json_decref(body);
}

static void slot_fill(struct load_slot *s, uint64_t index)
{
    const struct load_options *o = &s->load->options;
    uint64_t random = mix(o->seed ^ mix(index));
    s->index = index;
    s->attempts = 0;
    s->unknown = false;
    digits_write(s->request + s->key_at, DIGITS, index);
    digits_write(s->request + s->user_at, DIGITS, (random >> 16) % o->users);
    if (s->sku_at != 0) {
        digits_write(s->request + s->sku_at, 2, (random & 0xffff) % o->catalog->skus_count);
    }
}

static uint64_t due_ns(const struct load *l, uint64_t index)
{
    uint64_t rate = l->options.rate;
    return l->start_ns + index / rate * 1000000000u + index % rate * 1000000000u / rate;
}

/* Gives a slot its next request, or puts it on the free list. */
static void slot_next(struct load_slot *s)
{
    struct load *l = s->load;
    uint64_t now = clock_monotonic_ns();
    s->retry_ns = 0;
    if (l->settling && l->unknown_at < l->unknown_end) {
        slot_fill(s, l->unknown[l->unknown_at++]);
        s->unknown = true;
        s->due_ns = now;
    } else if (l->running && (l->options.rate == 0 || due_ns(l, l->next) <= now)) {
        slot_fill(s, l->next);
        s->due_ns = l->options.rate == 0 ? now : due_ns(l, l->next);
        l->next++;
        if (now - s->due_ns > l->late_max_ns) {
            l->late_max_ns = now - s->due_ns;
        }
    } else {
        s->next_free = l->free;
        l->free = s;
        return;
    }
    l->busy++;
    s->sent_ns = now;
    http_client_submit(l->client, &s->x);
}

static void slots_feed(struct load *l)
{
    while (l->free != NULL) {
        struct load_slot *s = l->free;
        l->free = s->next_free;
        slot_next(s);
        if (l->free == s) {
            return; /* nothing to do for it */
        }
    }
}

static void slot_settled(struct load_slot *s)
{
    s->load->busy--;
    slot_next(s);
}

static void slot_granted(struct load_slot *s, const struct http_reply *reply, uint64_t now)
{
    struct load *l = s->load;
    /* An id of 0 is no order: load_check will say so. */
    u64_push(&l->orders, &l->orders_count, &l->orders_capacity, request_order_id(reply));
    l->granted++;
    if (l->options.granted != NULL) {
        l->options.granted(l, s->sent_ns, now);
    }
}

static void slot_done(struct http_exchange *x, enum http_failure failure,
                      const struct http_reply *reply)
{
    struct load_slot *s = container_of(x, struct load_slot, x);
    struct load *l = s->load;
    uint64_t now = clock_monotonic_ns();
    enum verdict verdict = request_judge(failure, reply);
    bool settles = verdict == VERDICT_DONE || verdict == VERDICT_REFUSED;
    s->unknown |= verdict == VERDICT_UNKNOWN;
    bool patient = now - s->sent_ns < LOAD_PATIENCE_MS * 1000000ULL;
    if (!settles && (l->options.retry || l->settling) && patient) {
        s->retry_ns = now + request_backoff_ms(reply, s->attempts) * 1000000;
        s->attempts++;
        l->retries++;
        l->retrying++;
        return;
    }
    if (verdict == VERDICT_DONE) {
        slot_granted(s, reply, now);
    } else if (verdict == VERDICT_REFUSED) {
        l->refused++;
    } else if (s->unknown) {
        u64_push(&l->unknown, &l->unknown_count, &l->unknown_capacity, s->index);
    } else {
        l->shed++;
    }
    if (!l->settling) {
        tally_add(&l->tally, request_outcome(failure, reply), 1);
        if (settles && s->due_ns >= l->measure_ns) {
            histogram_add(&l->latency, now - s->due_ns);
        }
        if (now >= l->measure_ns && l->running) {
            l->answered_measured++;
            if (l->cpu_start_ns == 0) {
                l->cpu_start_ns = cpu_now_ns();
            }
        }
    }
    slot_settled(s);
}

/* ---- timers ---- */

static void retry_cb(uv_timer_t *timer)
{
    struct load *l = timer->data;
    if (l->retrying == 0) {
        return;
    }
    uint64_t now = clock_monotonic_ns();
    for (unsigned i = 0; i < l->options.connections; i++) {
        struct load_slot *s = &l->slots[i];
        if (s->retry_ns != 0 && now >= s->retry_ns) {
            s->retry_ns = 0;
            l->retrying--;
            http_client_submit(l->client, &s->x);
        }
    }
}

static void tick_cb(uv_poll_t *handle, int status, int events)
{
    (void)status;
    (void)events;
    struct load *l = handle->data;
    uint64_t expirations;
    ssize_t n = read(l->tick_fd, &expirations, sizeof expirations);
    CHECK(n == (ssize_t)sizeof expirations || errno == EAGAIN);
    slots_feed(l);
}

static void tick_start(struct load *l)
{
    uint64_t interval = 1000000000u / l->options.rate;
    interval = interval < TICK_MIN_NS   ? TICK_MIN_NS
               : interval > TICK_MAX_NS ? TICK_MAX_NS
                                        : interval;
    struct itimerspec spec = {.it_interval = {.tv_nsec = (long)interval},
                              .it_value = {.tv_nsec = (long)interval}};
    CHECK(timerfd_settime(l->tick_fd, 0, &spec, NULL) == 0);
    CHECK(uv_poll_start(&l->tick, UV_READABLE, tick_cb) == 0);
}

/* ---- life ---- */

int load_init(struct load *l, uv_loop_t *loop, const struct load_options *options)
{
    memset(l, 0, sizeof *l);
    l->options = *options;
    l->loop = loop;
    histogram_init(&l->latency);
    l->client = http_client_create(loop, options->url, options->connections, options->timeout_ms);
    if (l->client == NULL) {
        return -1;
    }
    if (http_client_warm(l->client) != 0) {
        fprintf(stderr, "cannot open %u connections to %s\n", options->connections, options->url);
        http_client_destroy(l->client);
        return -1;
    }
    l->slots = calloc(options->connections, sizeof *l->slots);
    CHECK(l->slots != NULL);
    for (unsigned i = 0; i < options->connections; i++) {
        slot_init(&l->slots[i], l);
        l->slots[i].next_free = l->free;
        l->free = &l->slots[i];
    }
    l->tick_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    CHECK(l->tick_fd >= 0);
    CHECK(uv_poll_init(loop, &l->tick, l->tick_fd) == 0);
    CHECK(uv_timer_init(loop, &l->retry) == 0);
    l->tick.data = l;
    l->retry.data = l;
    return 0;
}

void load_start(struct load *l)
{
    l->running = true;
    l->start_ns = clock_monotonic_ns();
    l->measure_ns = l->start_ns + l->options.warmup_ms * 1000000;
    uv_timer_start(&l->retry, retry_cb, RETRY_INTERVAL_MS, RETRY_INTERVAL_MS);
    if (l->options.rate != 0) {
        tick_start(l);
    }
    slots_feed(l);
}

void load_stop(struct load *l)
{
    l->running = false;
    l->stop_ns = clock_monotonic_ns();
    l->cpu_ns = l->cpu_start_ns != 0 ? cpu_now_ns() - l->cpu_start_ns : 0;
    uv_poll_stop(&l->tick);
}

bool load_is_busy(const struct load *l)
{
    return l->busy > 0;
}

void load_settle(struct load *l)
{
    CHECK(!l->running);
    while (l->busy > 0) {
        uv_run(l->loop, UV_RUN_ONCE);
    }
    /* Each once more; what stays unknown even so is pushed behind them. */
    l->unknown_end = l->unknown_count;
    l->unknown_at = 0;
    l->settling = l->unknown_end > 0;
    if (l->settling) {
        slots_feed(l);
    }
    while (l->busy > 0) {
        uv_run(l->loop, UV_RUN_ONCE);
    }
    if (l->unknown_end > 0) {
        l->unknown_count -= l->unknown_end;
        memmove(l->unknown, l->unknown + l->unknown_end, l->unknown_count * sizeof *l->unknown);
    }
    l->settling = false;
    uv_timer_stop(&l->retry);
}

static void load_close_cb(uv_handle_t *handle)
{
    struct load *l = handle->data;
    l->closing--;
}

void load_close(struct load *l)
{
    CHECK(l->busy == 0);
    l->closing = 2;
    uv_close((uv_handle_t *)&l->tick, load_close_cb);
    uv_close((uv_handle_t *)&l->retry, load_close_cb);
    while (l->closing > 0) {
        uv_run(l->loop, UV_RUN_ONCE);
    }
    close(l->tick_fd);
    http_client_destroy(l->client);
    free(l->slots);
    free(l->orders);
    free(l->unknown);
}

/* load_run_for: ends by time or by a signal. */
struct run_for {
    uv_timer_t timer;
    uv_signal_t signals[2];
    bool over, interrupted;
    int open;
};

static void run_for_cb(uv_timer_t *timer)
{
    struct run_for *r = timer->data;
    r->over = true;
}

static void run_for_signal_cb(uv_signal_t *handle, int number)
{
    (void)number;
    struct run_for *r = handle->data;
    r->over = r->interrupted = true;
}

static void run_for_close_cb(uv_handle_t *handle)
{
    struct run_for *r = handle->data;
    r->open--;
}

bool load_run_for(struct load *l, uint64_t duration_ms)
{
    static const int numbers[2] = {SIGINT, SIGTERM};
    struct run_for r = {.open = 3};
    CHECK(uv_timer_init(l->loop, &r.timer) == 0);
    r.timer.data = &r;
    uv_update_time(l->loop);
    uv_timer_start(&r.timer, run_for_cb, duration_ms, 0);
    for (int i = 0; i < 2; i++) {
        CHECK(uv_signal_init(l->loop, &r.signals[i]) == 0);
        r.signals[i].data = &r;
        uv_signal_start(&r.signals[i], run_for_signal_cb, numbers[i]);
    }
    while (!r.over) {
        uv_run(l->loop, UV_RUN_ONCE);
    }
    uv_close((uv_handle_t *)&r.timer, run_for_close_cb);
    for (int i = 0; i < 2; i++) {
        uv_close((uv_handle_t *)&r.signals[i], run_for_close_cb);
    }
    while (r.open > 0) {
        uv_run(l->loop, UV_RUN_NOWAIT);
    }
    return !r.interrupted;
}
