/* Owns: the pool of exchanges and the list of those that wait for time to pass. */
#include "gateway/exchange.h"

#include <stdlib.h>

#define SPARE_MAX 1024 /* kept for reuse; beyond that memory goes back to the system */

struct exchange *exchange_take(struct gateway *g)
{
    if (g->requests_count >= g->limits.requests_max) {
        return NULL;
    }
    struct exchange *x = g->spare;
    if (x != NULL) {
        g->spare = x->next;
        g->spare_count--;
    } else {
        x = malloc(sizeof *x);
        CHECK(x != NULL);
    }
    memset(x, 0, offsetof(struct exchange, scope_text));
    x->gateway = g;
    x->started_ns = uv_hrtime();
    x->caller.role = ROLE_ANYONE;
    x->command = x->command_memory;
    out_init(&x->head, x->head_memory, sizeof x->head_memory);
    out_init(&x->fields, x->fields_memory, sizeof x->fields_memory);
    out_init(&x->body, x->body_memory, sizeof x->body_memory);
    x->request_id_size = 0;
    http_request_init(&x->request);
    g->requests_count++;
    return x;
}

void exchange_settle(struct exchange *x)
{
    if (!x->answered || x->connection != NULL || x->submit_busy || x->call_busy || x->sleeping) {
        return;
    }
    struct gateway *g = x->gateway;
    CHECK(x->tracked == NULL);
    http_request_close(&x->request);
    out_close(&x->head);
    out_close(&x->fields);
    out_close(&x->body);
    if (x->command != x->command_memory) {
        free(x->command);
    }
    CHECK(g->requests_count > 0);
    g->requests_count--;
    if (g->spare_count < SPARE_MAX) {
        x->next = g->spare;
        g->spare = x;
        g->spare_count++;
    } else {
        free(x);
    }
}

void exchange_pool_close(struct gateway *g)
{
    while (g->spare != NULL) {
        struct exchange *x = g->spare;
        g->spare = x->next;
        free(x);
    }
    g->spare_count = 0;
}

static void sleep_timer_start(struct gateway *g);

static void sleep_timer_cb(uv_timer_t *timer)
{
    struct gateway *g = timer->data;
    uint64_t now = uv_now(g->loop);
    /* Detached before anything is called: a woken exchange may go to sleep again. */
    struct exchange *due = NULL, **at = &g->sleepers;
    while (*at != NULL) {
        struct exchange *x = *at;
        if (x->wake_ms <= now) {
            *at = x->next_sleeper;
            x->next_sleeper = due;
            due = x;
        } else {
            at = &x->next_sleeper;
        }
    }
    while (due != NULL) {
        struct exchange *x = due;
        due = x->next_sleeper;
        x->next_sleeper = NULL;
        x->sleeping = false;
        x->on_wake(x);
    }
    sleep_timer_start(g);
}

static void sleep_timer_start(struct gateway *g)
{
    uint64_t now = uv_now(g->loop), first = UINT64_MAX;
    for (struct exchange *x = g->sleepers; x != NULL; x = x->next_sleeper) {
        first = x->wake_ms < first ? x->wake_ms : first;
    }
    if (first != UINT64_MAX) {
        uv_timer_start(&g->sleep_timer, sleep_timer_cb, first > now ? first - now : 0, 0);
    }
}

void exchange_sleep(struct exchange *x, uint64_t delay_ms, void (*wake)(struct exchange *x))
{
    struct gateway *g = x->gateway;
    CHECK(!x->sleeping);
    x->sleeping = true;
    x->wake_ms = uv_now(g->loop) + delay_ms;
    x->on_wake = wake;
    x->next_sleeper = g->sleepers;
    g->sleepers = x;
    if (!uv_is_active((uv_handle_t *)&g->sleep_timer) ||
        delay_ms < uv_timer_get_due_in(&g->sleep_timer)) {
        uv_timer_start(&g->sleep_timer, sleep_timer_cb, delay_ms, 0);
    }
}

void exchange_sleep_cancel(struct exchange *x)
{
    struct exchange **at = &x->gateway->sleepers;
    while (*at != NULL && *at != x) {
        at = &(*at)->next_sleeper;
    }
    if (*at == x) {
        *at = x->next_sleeper;
        x->sleeping = false;
    }
}

void exchange_sleepers_close(struct gateway *g)
{
    while (g->sleepers != NULL) {
        struct exchange *x = g->sleepers;
        g->sleepers = x->next_sleeper;
        x->sleeping = false;
        x->answered = true;
        exchange_settle(x);
    }
}

struct str exchange_query(const struct exchange *x, const char *name)
{
    for (size_t i = 0; i < x->query_count; i++) {
        if (str_equal(x->query[i].name, str_from(name))) {
            return x->query[i].value;
        }
    }
    return (struct str){NULL, 0};
}
