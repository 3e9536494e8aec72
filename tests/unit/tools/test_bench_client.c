/* holdfast-bench's HTTP client against a server on the same loop that misbehaves as told by the
 * path. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "base/check.h"
#include "tools/bench/request.h"

#define PEERS_MAX 64

struct peer {
    uv_tcp_t tcp;
    uv_write_t write;
    char in[4096];
    size_t in_size;
    bool open;
};

struct fixture {
    uv_loop_t loop;
    uv_tcp_t listener;
    char url[64];
    struct peer peers[PEERS_MAX];
    unsigned accepted, requests;
};

static void peer_closed(uv_handle_t *handle)
{
    struct peer *p = handle->data;
    p->open = false;
}

static void peer_close(struct peer *p)
{
    if (!uv_is_closing((uv_handle_t *)&p->tcp)) {
        uv_close((uv_handle_t *)&p->tcp, peer_closed);
    }
}

static void peer_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf)
{
    (void)suggested;
    struct peer *p = handle->data;
    *buf = uv_buf_init(p->in + p->in_size, (unsigned)(sizeof p->in - p->in_size));
}

static void peer_say(struct peer *p, const char *text)
{
    uv_buf_t buf = uv_buf_init((char *)(uintptr_t)text, (unsigned)strlen(text));
    assert_int_equal(uv_try_write((uv_stream_t *)&p->tcp, &buf, 1), (int)strlen(text));
}

static void peer_read(uv_stream_t *stream, ssize_t nread, const uv_buf_t *buf)
{
    (void)buf;
    struct peer *p = stream->data;
    if (nread < 0) {
        peer_close(p);
        return;
    }
    p->in_size += (size_t)nread;
    if (memmem(p->in, p->in_size, "\r\n\r\n", 4) == NULL) {
        return;
    }
    struct fixture *f = stream->loop->data;
    f->requests++;
    p->in[p->in_size < sizeof p->in ? p->in_size : sizeof p->in - 1] = '\0';
    p->in_size = 0;
    if (strstr(p->in, "/ok") != NULL) {
        peer_say(p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    } else if (strstr(p->in, "/goodbye") != NULL) {
        peer_say(p, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
        peer_close(p);
    } else if (strstr(p->in, "/leave") != NULL) { /* answers, then closes without saying so */
        peer_say(p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        peer_close(p);
    } else if (strstr(p->in, "/break") != NULL) {
        peer_say(p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no");
        peer_close(p);
    } else if (strstr(p->in, "/nonsense") != NULL) {
        peer_say(p, "what?\r\n\r\n");
    } else if (strstr(p->in, "/twice") != NULL) {
        peer_say(p, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n");
    } /* /silent: nothing */
}

static void listener_cb(uv_stream_t *server, int status)
{
    struct fixture *f = server->data;
    assert_int_equal(status, 0);
    assert_true(f->accepted < PEERS_MAX);
    struct peer *p = &f->peers[f->accepted++];
    assert_int_equal(uv_tcp_init(&f->loop, &p->tcp), 0);
    p->tcp.data = p;
    p->open = true;
    assert_int_equal(uv_accept(server, (uv_stream_t *)&p->tcp), 0);
    assert_int_equal(uv_read_start((uv_stream_t *)&p->tcp, peer_alloc, peer_read), 0);
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    CHECK(f != NULL);
    CHECK(uv_loop_init(&f->loop) == 0);
    f->loop.data = f;
    CHECK(uv_tcp_init(&f->loop, &f->listener) == 0);
    f->listener.data = f;
    struct sockaddr_in address;
    uv_ip4_addr("127.0.0.1", 0, &address);
    CHECK(uv_tcp_bind(&f->listener, (const struct sockaddr *)&address, 0) == 0);
    CHECK(uv_listen((uv_stream_t *)&f->listener, 16, listener_cb) == 0);
    int size = sizeof address;
    uv_tcp_getsockname(&f->listener, (struct sockaddr *)&address, &size);
    snprintf(f->url, sizeof f->url, "http://127.0.0.1:%d", ntohs(address.sin_port));
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    if (!uv_is_closing((uv_handle_t *)&f->listener)) {
        uv_close((uv_handle_t *)&f->listener, NULL);
    }
    for (unsigned i = 0; i < f->accepted; i++) {
        if (f->peers[i].open) {
            peer_close(&f->peers[i]);
        }
    }
    uv_run(&f->loop, UV_RUN_DEFAULT);
    CHECK(uv_loop_close(&f->loop) == 0);
    free(f);
    return 0;
}

struct probe {
    struct http_exchange x;
    struct text request;
    int done;
    enum http_failure failure;
    unsigned status;
    char body[16];
};

static void probe_done(struct http_exchange *x, enum http_failure failure,
                       const struct http_reply *reply)
{
    struct probe *p = container_of(x, struct probe, x);
    p->done++;
    p->failure = failure;
    p->status = reply->status;
    str_copy(p->body, sizeof p->body, reply->body);
}

static void probe_submit(struct http_client *c, struct probe *p, const char *path)
{
    memset(p, 0, sizeof *p);
    request_write(&p->request,
                  &(struct request){.method = "GET", .path = path, .host = http_client_host(c)});
    p->x.request = p->request.data;
    p->x.request_size = p->request.len;
    p->x.done = probe_done;
    http_client_submit(c, &p->x);
    assert_int_equal(p->done, 0); /* never from within submit */
}

static void probe_wait(struct fixture *f, struct probe *p)
{
    while (p->done == 0) {
        uv_run(&f->loop, UV_RUN_ONCE);
    }
    assert_int_equal(p->done, 1);
    text_close(&p->request);
}

static void ask(struct fixture *f, struct http_client *c, const char *path,
                enum http_failure expected)
{
    struct probe p;
    probe_submit(c, &p, path);
    probe_wait(f, &p);
    if (p.failure != expected) {
        fail_msg("%s: %s, expected %s", path, http_failure_name(p.failure),
                 http_failure_name(expected));
    }
    if (expected == HTTP_ANSWERED) {
        assert_int_equal(p.status, 200);
        assert_string_equal(p.body, "ok");
    }
    assert_int_equal(http_client_in_flight(c), 0);
}

static void test_keep_alive(void **state)
{
    struct fixture *f = *state;
    struct http_client *c = http_client_create(&f->loop, f->url, 1, 10000);
    for (int i = 0; i < 5; i++) {
        ask(f, c, "/ok", HTTP_ANSWERED);
    }
    assert_int_equal(f->accepted, 1);
    assert_int_equal(f->requests, 5);
    http_client_destroy(c);
}

static void test_more_than_connections(void **state)
{
    struct fixture *f = *state;
    struct http_client *c = http_client_create(&f->loop, f->url, 3, 10000);
    struct probe probes[50];
    for (size_t i = 0; i < ARRAY_COUNT(probes); i++) {
        probe_submit(c, &probes[i], i % 7 == 3 ? "/goodbye" : "/ok");
    }
    assert_int_equal(http_client_in_flight(c), 50);
    for (size_t i = 0; i < ARRAY_COUNT(probes); i++) {
        probe_wait(f, &probes[i]);
        assert_int_equal(probes[i].failure, HTTP_ANSWERED);
    }
    assert_int_equal(f->requests, 50);
    http_client_destroy(c);
}

static void test_faults(void **state)
{
    struct fixture *f = *state;
    struct http_client *c = http_client_create(&f->loop, f->url, 1, 10000);
    ask(f, c, "/break", HTTP_BROKEN);
    ask(f, c, "/ok", HTTP_ANSWERED);
    ask(f, c, "/nonsense", HTTP_MALFORMED);
    ask(f, c, "/ok", HTTP_ANSWERED);
    ask(f, c, "/twice", HTTP_MALFORMED);
    ask(f, c, "/goodbye", HTTP_ANSWERED);
    ask(f, c, "/ok", HTTP_ANSWERED);
    http_client_destroy(c);
}

/* A server may close a connection that is idle: the next request gets a new one. */
static void test_idle_closed(void **state)
{
    struct fixture *f = *state;
    struct http_client *c = http_client_create(&f->loop, f->url, 1, 10000);
    ask(f, c, "/leave", HTTP_ANSWERED);
    while (f->peers[0].open) {
        uv_run(&f->loop, UV_RUN_ONCE);
    }
    for (int i = 0; i < 10; i++) { /* the client sees the end of the stream */
        uv_run(&f->loop, UV_RUN_NOWAIT);
    }
    ask(f, c, "/ok", HTTP_ANSWERED);
    assert_int_equal(f->accepted, 2);
    http_client_destroy(c);
}

static void test_timeout(void **state)
{
    struct fixture *f = *state;
    struct http_client *c = http_client_create(&f->loop, f->url, 1, 50);
    ask(f, c, "/silent", HTTP_TIMEOUT);
    struct probe stuck;
    struct probe waiting; /* behind the stuck one: never sent */
    probe_submit(c, &stuck, "/silent");
    probe_submit(c, &waiting, "/silent");
    probe_wait(f, &stuck);
    probe_wait(f, &waiting);
    assert_int_equal(stuck.failure, HTTP_TIMEOUT);
    assert_int_not_equal(waiting.failure, HTTP_ANSWERED);
    http_client_destroy(c);
}

static void test_unreachable(void **state)
{
    struct fixture *f = *state;
    uv_close((uv_handle_t *)&f->listener, NULL);
    uv_run(&f->loop, UV_RUN_DEFAULT);
    struct http_client *c = http_client_create(&f->loop, f->url, 2, 10000);
    ask(f, c, "/ok", HTTP_UNREACHABLE);
    ask(f, c, "/ok", HTTP_UNREACHABLE);
    assert_int_equal(http_client_warm(c), -1);
    http_client_destroy(c);
}

static void test_warm(void **state)
{
    struct fixture *f = *state;
    struct http_client *c = http_client_create(&f->loop, f->url, 20, 10000);
    assert_int_equal(http_client_warm(c), 0);
    while (f->accepted < 20) {
        uv_run(&f->loop, UV_RUN_ONCE);
    }
    ask(f, c, "/ok", HTTP_ANSWERED);
    assert_int_equal(f->accepted, 20);
    http_client_destroy(c);
}

static void test_urls(void **state)
{
    struct fixture *f = *state;
    static const char *const bad[] = {
        "",        "127.0.0.1:80",          "https://127.0.0.1",
        "http://", "http://127.0.0.1/path", "http://127.0.0.1:notaport"};
    for (size_t i = 0; i < ARRAY_COUNT(bad); i++) {
        assert_null(http_client_create(&f->loop, bad[i], 1, 1000));
    }
}

int main(void)
{
#define WITH_SERVER(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_SERVER(test_keep_alive), WITH_SERVER(test_more_than_connections),
        WITH_SERVER(test_faults),     WITH_SERVER(test_idle_closed),
        WITH_SERVER(test_timeout),    WITH_SERVER(test_unreachable),
        WITH_SERVER(test_warm),       WITH_SERVER(test_urls),
    };
    return cmocka_run_group_tests_name("bench client", tests, NULL, NULL);
}
