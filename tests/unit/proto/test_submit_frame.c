/* Submit frames in place against protobuf-c: what one writes the other reads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "base/check.h"
#include "base/prng.h"
#include "proto/arena.h"
#include "proto/node.pb-c.h"
#include "proto/submit_frame.h"

#define COMMANDS_MAX 40

static uint8_t buffer[1 << 20];

static void test_request_round_trip(void **state)
{
    (void)state;
    struct prng p = prng_init(1);
    for (int round = 0; round < 500; round++) {
        uint8_t bodies[COMMANDS_MAX][300];
        size_t sizes[COMMANDS_MAX], total = 0;
        uint32_t count = (uint32_t)prng_below(&p, COMMANDS_MAX);
        for (uint32_t i = 0; i < count; i++) {
            sizes[i] = (size_t)prng_below(&p, sizeof bodies[i]);
            memset(bodies[i], (int)prng_below(&p, 256), sizes[i]);
            total += submit_request_command_size(sizes[i]);
        }
        uint64_t id = prng_next(&p) >> prng_below(&p, 64);
        uint32_t timeout_ms = (uint32_t)(prng_next(&p) >> (32 + prng_below(&p, 32)));
        size_t size = submit_request_write_head(buffer, id, timeout_ms, total);
        assert_true(size <= SUBMIT_REQUEST_HEAD_MAX);
        for (uint32_t i = 0; i < count; i++) {
            size += submit_request_write_command(buffer + size, bodies[i], sizes[i]);
        }
        Holdfast__Request *m = holdfast__request__unpack(NULL, size, buffer);
        assert_non_null(m);
        assert_int_equal(m->id, id);
        assert_int_equal(m->timeout_ms, timeout_ms);
        assert_int_equal(m->body_case, HOLDFAST__REQUEST__BODY_SUBMIT);
        assert_int_equal(m->submit->n_commands, count);
        m->group = 7;
        size = holdfast__request__pack(m, buffer);
        struct submit_request r;
        assert_int_equal(submit_request_open(&r, buffer, size), 0);
        assert_true(r.is_submit);
        assert_int_equal(r.id, id);
        assert_int_equal(r.group, 7);
        assert_int_equal(r.timeout_ms, timeout_ms);
        assert_int_equal(r.count, count);
        for (uint32_t i = 0; i < count; i++) {
            const void *command;
            size_t command_size;
            assert_true(submit_request_next(&r, &command, &command_size));
            assert_int_equal(command_size, sizes[i]);
            assert_memory_equal(command, bodies[i], sizes[i]);
            assert_int_equal(m->submit->commands[i].len, sizes[i]);
        }
        const void *command;
        size_t command_size;
        assert_false(submit_request_next(&r, &command, &command_size));
        holdfast__request__free_unpacked(m, NULL);
    }
}

static void test_other_request_is_left(void **state)
{
    (void)state;
    Holdfast__GetSku body = HOLDFAST__GET_SKU__INIT;
    char id[] = "A";
    body.id = id;
    Holdfast__Request m = HOLDFAST__REQUEST__INIT;
    m.id = 300;
    m.min_index = 77;
    m.body_case = HOLDFAST__REQUEST__BODY_GET_SKU;
    m.get_sku = &body;
    size_t size = holdfast__request__pack(&m, buffer);
    struct submit_request r;
    assert_int_equal(submit_request_open(&r, buffer, size), 0);
    assert_false(r.is_submit);
    assert_int_equal(r.id, 300);
}

static void test_response_round_trip(void **state)
{
    (void)state;
    struct prng p = prng_init(2);
    for (int round = 0; round < 500; round++) {
        struct submit_outcome outcomes[COMMANDS_MAX];
        uint32_t count = (uint32_t)prng_below(&p, COMMANDS_MAX);
        for (uint32_t i = 0; i < count; i++) {
            outcomes[i].status = (uint8_t)(prng_one_in(&p, 3) ? 1 + prng_below(&p, 8) : 0);
            memset(outcomes[i].reply, (int)prng_below(&p, 256), REPLY_SIZE);
        }
        uint64_t id = prng_next(&p), index = prng_next(&p) >> 20;
        size_t size = submit_response_write(buffer, id, index, -5, 12, outcomes, count);
        assert_true(size <= SUBMIT_RESPONSE_HEAD_MAX + count * SUBMIT_RESPONSE_OUTCOME_MAX);
        Holdfast__Response *m = holdfast__response__unpack(NULL, size, buffer);
        assert_non_null(m);
        assert_int_equal(m->id, id);
        assert_int_equal(m->index, index);
        assert_int_equal(m->time_ms, -5);
        assert_int_equal(m->retry_after_ms, 12);
        assert_int_equal(m->submit->n_outcomes, count);
        char text[] = "because", address[] = "127.0.0.1:7";
        m->message = text;
        m->leader_address = address;
        m->leader_id = 3;
        m->status = HOLDFAST__STATUS__STATUS_OK;
        size = holdfast__response__pack(m, buffer);
        struct submit_response r;
        assert_int_equal(submit_response_open(&r, buffer, size), 0);
        assert_int_equal(r.id, id);
        assert_int_equal(r.leader_id, 3);
        assert_true(str_equal(r.leader_address, str_from(address)));
        assert_true(str_equal(r.message, str_from(text)));
        for (uint32_t i = 0; i < count; i++) {
            uint32_t status;
            const void *reply;
            size_t reply_size;
            assert_int_equal(submit_response_next(&r, &status, &reply, &reply_size), 1);
            assert_int_equal(status, outcomes[i].status);
            assert_int_equal(m->submit->outcomes[i]->status, outcomes[i].status);
            if (status == 0) {
                assert_int_equal(reply_size, REPLY_SIZE);
                assert_memory_equal(reply, outcomes[i].reply, REPLY_SIZE);
            }
        }
        uint32_t status;
        const void *reply;
        size_t reply_size;
        assert_int_equal(submit_response_next(&r, &status, &reply, &reply_size), 0);
        m->message = NULL;
        m->leader_address = NULL;
        holdfast__response__free_unpacked(m, NULL);
    }
}

/* Any bytes are answered, never believed: run under ASan this is the bounds test. */
static void test_damaged_frames(void **state)
{
    (void)state;
    struct prng p = prng_init(3);
    for (int round = 0; round < 20000; round++) {
        size_t size =
            submit_request_write_head(buffer, 9, 100, 3 * submit_request_command_size(20));
        for (int i = 0; i < 3; i++) {
            size += submit_request_write_command(buffer + size, "01234567890123456789", 20);
        }
        for (uint64_t n = 1 + prng_below(&p, 4); n > 0; n--) {
            buffer[prng_below(&p, size)] = (uint8_t)prng_next(&p);
        }
        size_t cut = (size_t)prng_below(&p, size + 1);
        uint8_t *exact = malloc(cut + 1);
        CHECK(exact != NULL);
        memcpy(exact, buffer, cut);
        struct submit_request r;
        if (submit_request_open(&r, exact, cut) == 0 && r.is_submit) {
            const void *command;
            size_t command_size;
            uint32_t count = 0;
            while (submit_request_next(&r, &command, &command_size)) {
                count++;
            }
            assert_int_equal(count, r.count);
        }
        struct submit_response s;
        if (submit_response_open(&s, exact, cut) == 0 && s.has_outcomes) {
            uint32_t status;
            const void *reply;
            size_t reply_size;
            while (submit_response_next(&s, &status, &reply, &reply_size) > 0) {
            }
        }
        free(exact);
    }
}

static void test_arena(void **state)
{
    (void)state;
    struct arena a;
    arena_init(&a);
    for (int round = 0; round < 3; round++) {
        for (size_t size = 1; size < 3 * ARENA_SIZE; size = size * 3 + 1) {
            uint8_t *at = arena_alloc(&a, size);
            assert_int_equal((uintptr_t)at % 16, 0);
            memset(at, 1, size);
        }
        arena_reset(&a);
    }
    arena_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_request_round_trip),
        cmocka_unit_test(test_other_request_is_left),
        cmocka_unit_test(test_response_round_trip),
        cmocka_unit_test(test_damaged_frames),
        cmocka_unit_test(test_arena),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
