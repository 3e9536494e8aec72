/* Commands, batches and replies as bytes (proto/command.h).
 *
 * Input: what follows the first byte, which says as what it is read: 0 command, 1 batch, 2 reply.
 * Asserted: what decodes encodes again to the same bytes; nothing shorter or longer decodes to it; what
 * the encoder refuses room for it does not write; a batch gives back each of its commands. */
#include <stdlib.h>

#include "proto/command.h"
#include "tests/fuzz/commands.h"
#include "tests/fuzz/fuzz.h"

enum { AS_COMMAND, AS_BATCH, AS_REPLY, AS_COUNT };

void fuzz_begin(void)
{
}

static void run_command(const uint8_t *data, size_t size)
{
    static uint8_t out[COMMAND_SIZE_MAX];
    struct command c, again;
    if (command_decode(&c, data, size) != 0) {
        return;
    }
    CHECK(size <= COMMAND_SIZE_MAX);
    CHECK(c.body >= data && c.body + c.body_size <= data + size);
    CHECK(c.scope.len <= SCOPE_SIZE_MAX && c.key.len <= KEY_SIZE_MAX);
    CHECK(command_kind_format((uint8_t)c.kind) != 0);
    size_t written = command_encode(&c, out, sizeof out);
    CHECK(written == size);
    CHECK(memcmp(out, data, size) == 0);
    CHECK(command_encode(&c, out, size - 1) == 0);
    CHECK(command_decode(&again, data, size - 1) != 0);
    uint8_t *longer = malloc(size + 1);
    CHECK(longer != NULL);
    memcpy(longer, data, size);
    longer[size] = 0;
    CHECK(command_decode(&again, longer, size + 1) != 0);
    free(longer);
}

static void run_batch(const uint8_t *data, size_t size)
{
    static uint8_t out[BATCH_SIZE_MAX + COMMAND_SIZE_MAX];
    struct batch_reader b;
    struct batch_builder builder;
    char what[160];
    (void)batch_judge(data, size, what, sizeof what);
    if (size > BATCH_SIZE_MAX || batch_open(&b, data, size) != 0) {
        return;
    }
    int64_t time_ms = b.leader_time_ms;
    CHECK(b.count <= BATCH_COMMANDS_MAX);
    uint32_t count = 0;
    const void *command;
    size_t command_size;
    int got;
    batch_begin(&builder, out, sizeof out);
    while ((got = batch_next(&b, &command, &command_size)) > 0) {
        CHECK((const uint8_t *)command >= data);
        CHECK((const uint8_t *)command + command_size <= data + size);
        CHECK(batch_add(&builder, command, command_size));
        run_command(command, command_size);
        count++;
    }
    if (got == 0) {
        CHECK(count == builder.count);
        size_t written = batch_end(&builder, time_ms);
        CHECK(written <= size && size - written < 8); /* the log pads entries to a multiple of 8 */
        CHECK(memcmp(out, data, written) == 0);
    }
}

static void run_reply(const uint8_t *data, size_t size)
{
    struct reply r;
    uint8_t out[REPLY_SIZE];
    if (reply_decode(&r, data, size) != 0) {
        return;
    }
    CHECK(size == REPLY_SIZE);
    CHECK(r.result <= RESULT_MAX);
    reply_encode(&r, out);
    struct reply again;
    uint8_t out_again[REPLY_SIZE];
    CHECK(reply_decode(&again, out, sizeof out) == 0);
    reply_encode(&again, out_again);
    CHECK(memcmp(out, out_again, sizeof out) == 0);
}

void fuzz_one(const uint8_t *data, size_t size)
{
    if (size < 1) {
        return;
    }
    switch (data[0] % AS_COUNT) {
    case AS_COMMAND:
        run_command(data + 1, size - 1);
        return;
    case AS_BATCH:
        run_batch(data + 1, size - 1);
        return;
    default:
        run_reply(data + 1, size - 1);
    }
}

void fuzz_seeds(void)
{
    static uint8_t out[1 + BATCH_SIZE_MAX];
    struct batch_builder b;
    struct command c;
    uint8_t one[COMMAND_SIZE_MAX];
    out[0] = AS_COMMAND;
    for (unsigned i = 0; commands_example(i, &c); i++) {
        char name[32];
        snprintf(name, sizeof name, "command-%02u", i);
        size_t n = command_encode(&c, out + 1, COMMAND_SIZE_MAX);
        CHECK(n > 0);
        fuzz_seed(name, out, 1 + n);
    }
    out[0] = AS_BATCH;
    batch_begin(&b, out + 1, BATCH_SIZE_MAX);
    for (unsigned i = 0; commands_example(i, &c); i++) {
        size_t n = command_encode(&c, one, sizeof one);
        CHECK(batch_add(&b, one, n));
    }
    fuzz_seed("batch", out, 1 + batch_end(&b, 1700000000000));
    batch_begin(&b, out + 1, BATCH_SIZE_MAX);
    fuzz_seed("batch-empty", out, 1 + batch_end(&b, 0));
    out[0] = AS_REPLY;
    struct reply r = {.result = RESULT_OK, .order_status = ORDER_PENDING_PAYMENT, .index = 7,
                      .origin_index = 7, .time_ms = 1700000000000, .order = 7ull << 22, .amount = 1999,
                      .currency = "EUR", .available = 9, .reserved = 1};
    reply_encode(&r, out + 1);
    fuzz_seed("reply", out, 1 + REPLY_SIZE);
}
