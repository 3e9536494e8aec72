/* persist_driver: between the engine's event queue and the persister.
 *
 * What it owns: which events to hand over next, and the acknowledgements on their way into the log.
 * What it refuses: to hold anything back from the engine; to trim by itself (COMMAND_PERSIST_ACK
 * does).
 *
 * Happy path: the persister wants events from a sequence → they are offered as they appear, some
 * each iteration → acked → the highest watermark of each shard is kept and proposed, until the
 * engine shows it.
 *
 * Failure modes: leadership lost: an acknowledgement may be lost; the next leader's persister finds
 * the watermark in the database and reports it again. */
#ifndef SERVER_PERSIST_DRIVER_H
#define SERVER_PERSIST_DRIVER_H

#include "engine/engine.h"
#include "storage/persister.h"

#define PERSIST_OFFER_MAX    256 /* events handed over in one iteration */
#define PERSIST_ACK_RETRY_MS 1000

/* Proposes one command of the node itself; false: not now. */
typedef bool (*persist_propose_cb)(void *ctx, const struct command *command);

struct persist_driver;
/* url NULL: there is no persister; the other functions do nothing then. */
int persist_driver_create(uv_loop_t *loop, const char *url, const uint8_t cluster_id[16],
                          persist_propose_cb propose, void *ctx, struct persist_driver **d);
bool persist_driver_configured(const struct persist_driver *d);
/* The persister needs the number of shards: called when the engine is initialized; idempotent. */
int persist_driver_start(struct persist_driver *d, uint32_t shards);
void persist_driver_lead(struct persist_driver *d, uint64_t term);
void persist_driver_follow(struct persist_driver *d);
/* Each iteration of the loop, with the engine as it is now. */
void persist_driver_step(struct persist_driver *d, struct engine *e, uint64_t now_ms);
bool persist_driver_get_status(const struct persist_driver *d, struct persister_status *status);
void persist_driver_write_metrics(const struct persist_driver *d, struct text *t);
void persist_driver_destroy(struct persist_driver *d, void (*done)(void *ctx), void *ctx);

#endif
