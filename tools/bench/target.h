/* target: the cluster under test: where its gateway is, with what right we ask, and single calls to
 * it.
 *
 * Calls run the loop until they are answered: for set-up and checks, never while a load is running
 * on the same loop. */
#ifndef TOOLS_BENCH_TARGET_H
#define TOOLS_BENCH_TARGET_H

#include <jansson.h>

#include "base/options.h"
#include "tools/bench/request.h"

#define TARGET_KEY_SIZE_MAX 256
#define WEBHOOK_SECRET_MAX  64

struct target {
    /* options */
    const char *state_path; /* what `holdfastctl demo up` wrote; NULL: none */
    const char *url, *admin_url;
    const char *api_key_path, *admin_key_path, *payment_secret_path;
    uint64_t timeout_ms;
    bool json;
    /* opened */
    uv_loop_t *loop;
    json_t *state;
    struct http_client
        *admin; /* also for our own single calls to the gateway's public side: `calls` */
    struct http_client *calls;
    char api_key[TARGET_KEY_SIZE_MAX]; /* a back end's: places orders for any user */
    char admin_key[TARGET_KEY_SIZE_MAX];
    uint8_t payment_secret[WEBHOOK_SECRET_MAX];
    size_t payment_secret_size;
};

/* Reads a subcommand's options: those that every one has, then its own (own->table). Returns -1: go
 * on; otherwise the exit status, after help or the reason of a refusal was printed. */
int target_options_read(struct target *t, const struct options *own, int argc, char **argv);

/* Reads the state file and keys, opens clients. Returns 0, or -1 after saying why on stderr. */
int target_open(struct target *t);
void target_close(struct target *t);

/* The answer to one call. */
struct answer {
    unsigned status;
    bool replayed;
    int64_t time_ms;                /* replicated time of a read; 0: not given */
    json_t *json;                   /* NULL: no body, or not JSON */
    char code[TALLY_NAME_SIZE_MAX]; /* of a problem; "" when it is none */
};
void answer_close(struct answer *a);

enum target_side { TARGET_PUBLIC, TARGET_ADMIN };

/* One request, repeated under the same key while its outcome is open, for up to 20 s. body:
 * borrowed, may be NULL. Returns 0 with an answer of whatever status, or -1 after saying why on
 * stderr. */
int target_call(struct target *t, enum target_side side, const char *method, const char *path,
                const char *key, json_t *body, struct answer *a);
/* The same, and any status but 2xx is an error too. a may be NULL. */
int target_expect(struct target *t, enum target_side side, const char *method, const char *path,
                  const char *key, json_t *body, struct answer *a);

/* Writes the three Standard Webhooks header lines for a payment event. */
void target_sign(const struct target *t, const char *id, int64_t wall_ms, const char *body,
                 struct text *headers);

/* Integer member of an object; 0 when it is absent or no integer. */
int64_t json_member_int(const json_t *object, const char *name);
/* Text member; "" when it is absent or no text. */
const char *json_member_text(const json_t *object, const char *name);

#endif
