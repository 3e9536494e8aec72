/* Owns: a ring of the latest asynchronous order requests and an index over it. The oldest makes room
 * for the newest, unless it is still pending.
 *
 * Refuses: to be the truth. After its entry is gone, or at another gateway, the engine answers. */
#include "gateway/order_requests.h"

#include <stdlib.h>
#include <xxhash.h>

#include "gateway/response.h"

#define BUCKETS 16384

struct order_requests {
    uint64_t next; /* slot to be taken next, modulo the ring */
    struct order_request *buckets[BUCKETS];
    struct order_request ring[ORDER_REQUESTS_MAX];
};

struct order_requests *order_requests_create(void)
{
    struct order_requests *o = calloc(1, sizeof *o); /* untouched pages cost nothing */
    CHECK(o != NULL);
    return o;
}

void order_requests_destroy(struct order_requests *o)
{
    free(o);
}

static uint64_t hash_of(struct str scope, struct str key)
{
    return XXH3_64bits_withSeed(key.ptr, key.len, XXH3_64bits(scope.ptr, scope.len));
}

static struct order_request *find(struct order_requests *o, struct str scope, struct str key)
{
    uint64_t hash = hash_of(scope, key);
    struct order_request *r = o->buckets[hash % BUCKETS];
    while (r != NULL && !(r->hash == hash && str_equal(str_from(r->scope), scope) &&
                          str_equal(str_from(r->key), key))) {
        r = r->next;
    }
    return r;
}

static void unlink_entry(struct order_requests *o, struct order_request *r)
{
    struct order_request **at = &o->buckets[r->hash % BUCKETS];
    while (*at != r) {
        at = &(*at)->next;
    }
    *at = r->next;
    r->used = false;
}

bool order_requests_track(struct exchange *x)
{
    struct order_requests *o = x->gateway->order_requests;
    struct order_request *r = find(o, x->scope, x->key);
    if (r != NULL && r->state == ORDER_REQUEST_PENDING) {
        return true; /* a repetition: the first one will tell, this one only rides along */
    }
    if (r == NULL) {
        r = &o->ring[o->next % ORDER_REQUESTS_MAX];
        if (r->used && r->state == ORDER_REQUEST_PENDING) {
            return false;
        }
        if (r->used) {
            unlink_entry(o, r);
        }
        o->next++;
        r->used = true;
        r->hash = hash_of(x->scope, x->key);
        str_copy(r->scope, sizeof r->scope, x->scope);
        str_copy(r->key, sizeof r->key, x->key);
        r->next = o->buckets[r->hash % BUCKETS];
        o->buckets[r->hash % BUCKETS] = r;
    }
    r->state = ORDER_REQUEST_PENDING;
    x->tracked = r;
    return true;
}

void order_requests_finish(struct exchange *x, enum client_outcome outcome,
                           const struct reply *reply)
{
    struct order_request *r = x->tracked;
    x->tracked = NULL;
    r->outcome = outcome;
    if (outcome == CLIENT_OK && reply->result == RESULT_IDEMPOTENCY_KEY_REUSED) {
        r->state = ORDER_REQUEST_UNKNOWN; /* the key's own request has another answer */
    } else if (outcome == CLIENT_OK) {
        r->reply = *reply;
        r->state = ORDER_REQUEST_ANSWERED;
    } else {
        r->state = outcome == CLIENT_UNKNOWN ? ORDER_REQUEST_UNKNOWN : ORDER_REQUEST_FAILED;
    }
}

const struct order_request *order_requests_find(struct order_requests *o, struct str scope,
                                                struct str key)
{
    return find(o, scope, key);
}
