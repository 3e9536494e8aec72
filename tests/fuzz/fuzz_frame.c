/* Payloads of the node protocol in both directions (proto/node.proto, proto/submit_frame.h,
 * proto/arena.h).
 *
 * Input: first byte 0: a Request as a node gets it, 1: a Response as a client gets it; then the frame.
 * Asserted: the reader in place and protobuf-c never believe different things: what both take has the
 * same ids, commands and outcomes; what protobuf-c takes packs and unpacks to the same; commands that
 * were read are inside the frame. */
#include <stdio.h>
#include <stdlib.h>

#include "proto/arena.h"
#include "proto/node.pb-c.h"
#include "proto/submit_frame.h"
#include "tests/fuzz/commands.h"
#include "tests/fuzz/fuzz.h"

static struct arena arena, arena_again;

void fuzz_begin(void)
{
    arena_init(&arena);
    arena_init(&arena_again);
}

static bool inside(const void *part, size_t part_size, const uint8_t *data, size_t size)
{
    return part_size == 0 ||
           ((const uint8_t *)part >= data && (const uint8_t *)part + part_size <= data + size);
}

/* Packs again, unpacks that, packs once more: the same bytes. protobuf-c keeps unknown fields, those with
 * the number 0 in an overlong tag, too, which it then writes short and does not take back: NULL. */
#define CHECK_PACKS(name, message)                                                                 \
    do {                                                                                           \
        size_t packed_size = name##__get_packed_size(message);                                     \
        uint8_t *packed = malloc(packed_size + 1), *again = malloc(packed_size + 1);               \
        CHECK(packed != NULL && again != NULL);                                                    \
        CHECK(name##__pack(message, packed) == packed_size);                                       \
        void *unpacked = name##__unpack(&arena_again.allocator, packed_size, packed);              \
        if (unpacked != NULL) {                                                                    \
            CHECK(name##__get_packed_size(unpacked) == packed_size);                               \
            CHECK(name##__pack(unpacked, again) == packed_size);                                   \
            CHECK(memcmp(packed, again, packed_size) == 0);                                        \
        }                                                                                          \
        free(packed);                                                                              \
        free(again);                                                                               \
        arena_reset(&arena_again);                                                                 \
    } while (0)

static void run_request(const uint8_t *data, size_t size)
{
    struct submit_request r;
    bool opened = submit_request_open(&r, data, size) == 0;
    Holdfast__Request *m = holdfast__request__unpack(&arena.allocator, size, data);
    if (m != NULL) {
        CHECK_PACKS(holdfast__request, m);
    }
    if (opened && m != NULL) {
        CHECK(r.id == m->id && r.group == m->group && r.timeout_ms == m->timeout_ms);
        CHECK(!r.is_submit || m->body_case == HOLDFAST__REQUEST__BODY_SUBMIT);
    }
    if (opened && r.is_submit) {
        const void *command;
        size_t command_size;
        uint32_t count = 0;
        if (m != NULL) {
            CHECK(r.count == m->submit->n_commands);
        }
        while (submit_request_next(&r, &command, &command_size)) {
            CHECK(inside(command, command_size, data, size));
            if (m != NULL) {
                CHECK(command_size == m->submit->commands[count].len);
                CHECK(command_size == 0 ||
                      memcmp(command, m->submit->commands[count].data, command_size) == 0);
            }
            count++;
        }
        CHECK(count == r.count);
    }
    arena_reset(&arena);
}

static void check_outcome(const Holdfast__Response *m, uint32_t i, uint32_t status, const void *reply,
                          size_t reply_size)
{
    CHECK(i < m->submit->n_outcomes);
    const Holdfast__SubmitOutcome *o = m->submit->outcomes[i];
    CHECK((uint32_t)o->status == status && o->reply.len == reply_size);
    CHECK(reply_size == 0 || memcmp(o->reply.data, reply, reply_size) == 0);
}

static void run_response(const uint8_t *data, size_t size)
{
    struct submit_response r;
    bool opened = submit_response_open(&r, data, size) == 0;
    Holdfast__Response *m = holdfast__response__unpack(&arena.allocator, size, data);
    if (m != NULL) {
        CHECK_PACKS(holdfast__response, m);
    }
    if (opened) {
        CHECK(inside(r.message.ptr, r.message.len, data, size));
        CHECK(inside(r.leader_address.ptr, r.leader_address.len, data, size));
    }
    if (opened && m != NULL) {
        CHECK(r.id == m->id && r.status == (uint32_t)m->status && r.leader_id == m->leader_id &&
              r.retry_after_ms == m->retry_after_ms);
    }
    /* A frame with a second body is nothing that a node sends: protobuf-c keeps the last one and merges
     * equal ones, the reader in place keeps the last. Only one body is compared. */
    bool comparable = opened && m != NULL && r.has_outcomes &&
                      m->body_case == HOLDFAST__RESPONSE__BODY_SUBMIT;
    if (opened && r.has_outcomes) {
        uint32_t status, count = 0;
        const void *reply;
        size_t reply_size;
        size_t left = (size_t)(r.end - r.at);
        Holdfast__SubmitResult *alone =
            comparable ? holdfast__submit_result__unpack(&arena.allocator, left, r.at) : NULL;
        if (alone == NULL || alone->n_outcomes != m->submit->n_outcomes) {
            comparable = false;
        }
        int got;
        while ((got = submit_response_next(&r, &status, &reply, &reply_size)) > 0) {
            CHECK(inside(reply, reply_size, data, size));
            if (comparable) {
                check_outcome(m, count, status, reply, reply_size);
            }
            count++;
        }
        CHECK(!comparable || got < 0 || count == m->submit->n_outcomes);
    }
    arena_reset(&arena);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return;
    }
    if (data[0] % 2 == 0) {
        run_request(data + 1, size - 1);
    } else {
        run_response(data + 1, size - 1);
    }
}

static void seed_request(const char *name, Holdfast__Request *m)
{
    static uint8_t out[65536];
    out[0] = 0;
    m->id = 44;
    m->timeout_ms = 5000;
    fuzz_seed(name, out, 1 + holdfast__request__pack(m, out + 1));
}

static void seed_response(const char *name, Holdfast__Response *m)
{
    static uint8_t out[65536];
    out[0] = 1;
    m->id = 44;
    m->index = 12;
    m->time_ms = 1700000000000;
    fuzz_seed(name, out, 1 + holdfast__response__pack(m, out + 1));
}

static void seed_submit(void)
{
    static uint8_t out[65536], commands[COMMAND_SIZE_MAX * 2];
    struct command c;
    size_t sizes[8], at = 0, total = 0, count = 0;
    for (unsigned i = 3; i < 9; i++) {
        CHECK(commands_example(i, &c));
        sizes[count] = command_encode(&c, commands + at, sizeof commands - at);
        CHECK(sizes[count] > 0);
        at += sizes[count];
        total += submit_request_command_size(sizes[count]);
        count++;
    }
    out[0] = 0;
    size_t n = 1 + submit_request_write_head(out + 1, 8, 5000, total);
    at = 0;
    for (size_t i = 0; i < count; i++) {
        n += submit_request_write_command(out + n, commands + at, sizes[i]);
        at += sizes[i];
    }
    fuzz_seed("request-submit", out, n);
    struct submit_outcome outcomes[3] = {{.status = 0}, {.status = 2}, {.status = 0}};
    struct reply r = {.result = RESULT_OK, .index = 7, .origin_index = 7, .order = 7ull << 22};
    reply_encode(&r, outcomes[0].reply);
    r.result = RESULT_SOLD_OUT;
    reply_encode(&r, outcomes[2].reply);
    out[0] = 1;
    n = submit_response_write(out + 1, 8, 7, 1700000000000, 0, outcomes, 3);
    fuzz_seed("response-submit", out, 1 + n);
}

void fuzz_seeds(void)
{
    char a[] = "A", s[] = "s", u[] = "u1", because[] = "because", address[] = "127.0.0.1:7101", eur[] = "EUR";
    uint8_t bytes[] = {1, 2, 3, 4, 5, 6, 7, 8};
    Holdfast__Request q = HOLDFAST__REQUEST__INIT;
    Holdfast__GetSku get_sku = HOLDFAST__GET_SKU__INIT;
    get_sku.id = a;
    q.body_case = HOLDFAST__REQUEST__BODY_GET_SKU;
    q.get_sku = &get_sku;
    q.consistency = HOLDFAST__CONSISTENCY__CONSISTENCY_INDEX;
    q.min_index = 99;
    seed_request("request-get-sku", &q);
    Holdfast__List list = HOLDFAST__LIST__INIT;
    list.limit = 100;
    list.sale = s;
    list.user = u;
    q.body_case = HOLDFAST__REQUEST__BODY_LIST_ORDERS;
    q.list_orders = &list;
    seed_request("request-list-orders", &q);
    Holdfast__SnapshotChunk chunk = HOLDFAST__SNAPSHOT_CHUNK__INIT;
    chunk.ticket = (ProtobufCBinaryData){sizeof bytes, bytes};
    chunk.from = (ProtobufCBinaryData){sizeof bytes, bytes};
    chunk.size_max = 65536;
    q.body_case = HOLDFAST__REQUEST__BODY_SNAPSHOT_CHUNK;
    q.snapshot_chunk = &chunk;
    seed_request("request-chunk", &q);
    Holdfast__MemberAdd add = HOLDFAST__MEMBER_ADD__INIT;
    add.id = 4;
    add.raft_address = add.node_address = address;
    q.body_case = HOLDFAST__REQUEST__BODY_MEMBER_ADD;
    q.member_add = &add;
    seed_request("request-member-add", &q);
    seed_submit();

    Holdfast__Response r = HOLDFAST__RESPONSE__INIT;
    r.status = HOLDFAST__STATUS__STATUS_NOT_LEADER;
    r.message = because;
    r.leader_id = 2;
    r.leader_address = address;
    seed_response("response-not-leader", &r);
    r.status = HOLDFAST__STATUS__STATUS_OK;
    Holdfast__OrderLine line = HOLDFAST__ORDER_LINE__INIT;
    Holdfast__OrderLine *lines[] = {&line};
    line.sku = a;
    line.quantity = 2;
    line.unit_price = -3;
    Holdfast__Order order = HOLDFAST__ORDER__INIT;
    order.id = 7ull << 22;
    order.sale = s;
    order.user = u;
    order.currency = eur;
    order.lines = lines;
    order.n_lines = 1;
    Holdfast__Order *orders_items[] = {&order};
    Holdfast__Orders orders = HOLDFAST__ORDERS__INIT;
    orders.items = orders_items;
    orders.n_items = 1;
    r.body_case = HOLDFAST__RESPONSE__BODY_ORDERS;
    r.orders = &orders;
    seed_response("response-orders", &r);
    Holdfast__Member member = HOLDFAST__MEMBER__INIT;
    Holdfast__Member *members[] = {&member};
    member.id = 1;
    member.raft_address = member.node_address = address;
    Holdfast__NodeStatusResult status = HOLDFAST__NODE_STATUS_RESULT__INIT;
    status.id = 1;
    status.cluster_id = (ProtobufCBinaryData){sizeof bytes, bytes};
    status.members = members;
    status.n_members = 1;
    r.body_case = HOLDFAST__RESPONSE__BODY_NODE_STATUS;
    r.node_status = &status;
    seed_response("response-status", &r);
}
