/* clock_peers: see clock_peers.h. Nanoseconds on signed 64 bits: good until the year 2262. */
#include "server/clock_peers.h"

#include <string.h>

#include "base/check.h"

#define NS_PER_MS 1000000
#define PPB_MAX   ((int64_t)CLOCK_CORRECT_PPM * 1000)
/* An older sample is taken for a wider one when the best is chosen: 2 ms for a second. */
#define AGE_COST 500
/* What two honest clocks may drift apart. */
#define AGE_ERROR (1000000 / (2 * CLOCK_DRIFT_PPM))
#define JUMP_NS   (100 * NS_PER_MS)

_Static_assert(CLOCK_WALL_STALE_MS < CLOCK_SUSPECT_AFTER_MS,
               "a step of all wall clocks makes nobody suspect");

void clock_peers_init(struct clock_peers *p)
{
    memset(p, 0, sizeof *p);
}

static struct clock_peer *find(struct clock_peers *p, uint64_t id)
{
    for (size_t i = 0; i < p->count; i++) {
        if (p->peers[i].id == id) {
            return &p->peers[i];
        }
    }
    return NULL;
}

void clock_peers_set(struct clock_peers *p, const uint64_t *ids, size_t count, bool votes)
{
    struct clock_peer kept[CLOCK_PEERS_MAX];
    CHECK(count <= CLOCK_PEERS_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct clock_peer *known = find(p, ids[i]);
        kept[i] = known != NULL ? *known : (struct clock_peer){.id = ids[i]};
    }
    memcpy(p->peers, kept, count * sizeof kept[0]);
    p->count = count;
    p->votes = votes;
}

size_t clock_peers_needed(const struct clock_peers *p)
{
    size_t voters = p->count + p->votes;
    return voters == 0 ? 0 : voters / 2 + 1;
}

/* ---- samples ---- */

static int64_t distance(int64_t a, int64_t b)
{
    return a > b ? a - b : b - a;
}

static const struct clock_lead *newest(const struct clock_peer *peer)
{
    return peer->leads_count == 0
               ? NULL
               : &peer->leads[(peer->leads_next + CLOCK_SAMPLES_MAX - 1) % CLOCK_SAMPLES_MAX];
}

/* More than a tenth of what passed, and more than any error: the host was rebooted or suspended. */
static bool jumped(const struct clock_lead *before, const struct clock_lead *now)
{
    int64_t elapsed_ns = (int64_t)(now->at_ns - before->at_ns);
    return distance(now->lead_ns, before->lead_ns) >
           before->error_ns + now->error_ns + elapsed_ns / 10 + JUMP_NS;
}

const struct clock_lead *clock_peers_sample(struct clock_peers *p, uint64_t id,
                                            const struct clock_sample *s)
{
    struct clock_peer *peer = find(p, id);
    if (peer == NULL || s->received_ns < s->sent_ns) {
        return NULL;
    }
    uint64_t half_ns = (s->received_ns - s->sent_ns) / 2;
    struct clock_lead lead = {.at_ns = s->sent_ns + half_ns,
                              .lead_ns = (int64_t)(s->peer_ns - (s->sent_ns + half_ns)),
                              .error_ns = (int64_t)half_ns + 1};
    const struct clock_lead *before = newest(peer);
    if (before != NULL && (lead.at_ns < before->at_ns || jumped(before, &lead))) {
        peer->leads_count = peer->leads_next = 0;
        peer->based = false;
    }
    struct clock_lead *to = &peer->leads[peer->leads_next];
    *to = lead;
    peer->leads_next = (peer->leads_next + 1) % CLOCK_SAMPLES_MAX;
    if (peer->leads_count < CLOCK_SAMPLES_MAX) {
        peer->leads_count++;
    }
    peer->wall_ns = s->peer_wall_ms * NS_PER_MS - (int64_t)s->peer_ns;
    peer->suspect = s->peer_suspect;
    peer->knows_cluster = s->peer_cluster_ns != 0;
    peer->cluster_ns = s->peer_cluster_ns - (int64_t)s->peer_ns;
    return to;
}

static int64_t age_of(const struct clock_lead *lead, uint64_t now_ns)
{
    return now_ns > lead->at_ns ? (int64_t)(now_ns - lead->at_ns) : 0;
}

/* Sets fresh and best. */
static void choose_best(struct clock_peer *peer, uint64_t now_ns)
{
    const struct clock_lead *last = newest(peer);
    peer->fresh = last != NULL && age_of(last, now_ns) < (int64_t)CLOCK_STALE_MS * NS_PER_MS;
    peer->wall_fresh =
        last != NULL && age_of(last, now_ns) < (int64_t)CLOCK_WALL_STALE_MS * NS_PER_MS;
    if (!peer->fresh) {
        peer->based = false;
        return;
    }
    const struct clock_lead *best = last;
    for (unsigned i = 0; i < peer->leads_count; i++) {
        const struct clock_lead *l = &peer->leads[i];
        if (l->error_ns + age_of(l, now_ns) / AGE_COST <
            best->error_ns + age_of(best, now_ns) / AGE_COST) {
            best = l;
        }
    }
    peer->best = *best;
}

/* ---- pace ---- */

static int64_t target_ns(const struct clock_peers *p, uint64_t now_ns)
{
    if (p->window_ns == 0 || now_ns < p->window_ns) {
        return p->settled_ns;
    }
    int64_t elapsed_us = (int64_t)(now_ns - p->window_ns) / 1000;
    return p->settled_ns + elapsed_us * p->pace_ppb / 1000000;
}

static void begin_window(struct clock_peers *p, uint64_t now_ns)
{
    p->settled_ns = target_ns(p, now_ns);
    p->window_ns = now_ns;
    for (size_t i = 0; i < p->count; i++) {
        p->peers[i].based = p->peers[i].fresh;
        p->peers[i].base = p->peers[i].best;
    }
}

/* A window is over after its time; or earlier, when enough sources say something and no majority of
 * them agrees: then somebody's pace has changed in the middle of it. */
static void renew_window(struct clock_peers *p, uint64_t now_ns)
{
    uint64_t age_ms = (now_ns - p->window_ns) / NS_PER_MS;
    bool split = !p->pace.found && p->pace_sources >= clock_peers_needed(p);
    if (p->window_ns == 0 || age_ms >= CLOCK_WINDOW_MS ||
        (split && age_ms >= CLOCK_WINDOW_SPLIT_MS)) {
        begin_window(p, now_ns);
        return;
    }
    for (size_t i = 0; i < p->count; i++) {
        if (p->peers[i].fresh && !p->peers[i].based) {
            p->peers[i].based = true;
            p->peers[i].base = p->peers[i].best;
        }
    }
}

/* The peer's pace less ours, in ppb. Returns false when its base is too young. */
static bool pace_of(const struct clock_peer *peer, struct clock_interval *pace)
{
    int64_t elapsed_ns = (int64_t)(peer->best.at_ns - peer->base.at_ns);
    if (!peer->fresh || !peer->based || peer->best.at_ns <= peer->base.at_ns ||
        elapsed_ns < (int64_t)CLOCK_WINDOW_YOUNG_MS * NS_PER_MS) {
        return false;
    }
    /* In ns for each ms: leads are below days, so that this does not overflow. */
    int64_t elapsed_ms = elapsed_ns / NS_PER_MS;
    int64_t gained = (peer->best.lead_ns - peer->base.lead_ns) * 1000 / elapsed_ms;
    int64_t error =
        (peer->best.error_ns + peer->base.error_ns) * 1000 / elapsed_ms + CLOCK_DRIFT_PPM * 1000;
    *pace = (struct clock_interval){gained - error, gained + error};
    return true;
}

static void doubt_update(struct clock_doubt *d, bool agrees, uint64_t now_ns)
{
    bool opposite = agrees == d->suspect;
    if (opposite && !d->opposite) {
        d->since_ns = now_ns;
    }
    d->opposite = opposite;
    uint64_t patience_ms = d->suspect ? CLOCK_TRUST_AFTER_MS : CLOCK_SUSPECT_AFTER_MS;
    if (opposite && now_ns - d->since_ns >= patience_ms * NS_PER_MS) {
        d->suspect = !d->suspect;
        d->opposite = false;
    }
}

static void evaluate_pace(struct clock_peers *p, uint64_t now_ns)
{
    const struct clock_interval own = {-CLOCK_DRIFT_PPM * 1000, CLOCK_DRIFT_PPM * 1000};
    struct clock_interval sources[CLOCK_SOURCES_MAX];
    size_t count = 0;
    if (p->votes) {
        sources[count++] = own;
    }
    for (size_t i = 0; i < p->count; i++) {
        count += pace_of(&p->peers[i], &sources[count]);
    }
    p->pace_sources = count;
    clock_agree(sources, count, clock_peers_needed(p), &p->pace);
    if (!p->pace.found) {
        /* The last pace goes on, and the last judgements. A window that has only just begun says
         * nothing, and that is no break. */
        bool young = now_ns - p->window_ns < (uint64_t)CLOCK_WINDOW_SPLIT_MS * NS_PER_MS;
        p->pace_doubt.opposite = p->pace_doubt.opposite && young;
        return;
    }
    p->pace_ppb = p->pace.value > PPB_MAX    ? PPB_MAX
                  : p->pace.value < -PPB_MAX ? -PPB_MAX
                                             : p->pace.value;
    doubt_update(&p->pace_doubt, clock_agrees(&p->pace, &own), now_ns);
    for (size_t i = 0; i < p->count; i++) {
        struct clock_interval pace;
        if (pace_of(&p->peers[i], &pace)) {
            p->peers[i].pace_good = clock_agrees(&p->pace, &pace);
        }
    }
}

uint64_t clock_peers_steady_ns(struct clock_peers *p, uint64_t monotonic_ns)
{
    if (monotonic_ns > p->corrected_ns) {
        int64_t room = p->corrected_ns == 0 ? 0
                                            : (int64_t)(monotonic_ns - p->corrected_ns) /
                                                  (1000000 / CLOCK_CORRECT_PPM);
        int64_t missing = target_ns(p, monotonic_ns) - p->correction_ns;
        p->correction_ns += missing > room ? room : missing < -room ? -room : missing;
        p->corrected_ns = monotonic_ns;
    }
    return monotonic_ns + (uint64_t)p->correction_ns;
}

/* ---- wall clocks ---- */

static int64_t wall_of(const struct clock_peer *peer)
{
    return peer->wall_ns + peer->best.lead_ns;
}

static struct clock_interval wall_interval(int64_t wall_ns, int64_t error_ns)
{
    /* Wall clocks are told in whole milliseconds. */
    int64_t error = error_ns + NS_PER_MS + (int64_t)CLOCK_TOLERANCE_MS * NS_PER_MS;
    return (struct clock_interval){wall_ns - error, wall_ns + error};
}

static void evaluate_wall(struct clock_peers *p, uint64_t now_ns)
{
    struct clock_interval sources[CLOCK_SOURCES_MAX];
    struct clock_interval own = wall_interval(p->own_wall_ns, 0);
    size_t count = 0;
    if (p->votes) {
        sources[count++] = own;
    }
    for (size_t i = 0; i < p->count; i++) {
        const struct clock_peer *peer = &p->peers[i];
        if (peer->wall_fresh) {
            int64_t error = peer->best.error_ns + age_of(&peer->best, now_ns) / AGE_ERROR;
            sources[count++] = wall_interval(wall_of(peer), error);
        }
    }
    clock_agree(sources, count, clock_peers_needed(p), &p->wall);
    if (!p->wall.found) {
        p->wall_doubt.opposite = false;
        return;
    }
    doubt_update(&p->wall_doubt, clock_agrees(&p->wall, &own), now_ns);
    for (size_t i = 0; i < p->count; i++) {
        struct clock_peer *peer = &p->peers[i];
        struct clock_interval wall = wall_interval(wall_of(peer), peer->best.error_ns);
        if (peer->wall_fresh) {
            peer->wall_good = clock_agrees(&p->wall, &wall);
        }
    }
}

void clock_peers_evaluate(struct clock_peers *p, uint64_t now_ns, int64_t wall_ms)
{
    (void)clock_peers_steady_ns(p, now_ns);
    p->evaluated_ns = now_ns;
    p->own_wall_ns = wall_ms * NS_PER_MS - (int64_t)now_ns;
    p->sources = p->votes;
    for (size_t i = 0; i < p->count; i++) {
        choose_best(&p->peers[i], now_ns);
        p->sources += p->peers[i].fresh;
    }
    if (clock_peers_needed(p) == 0) {
        p->wall.found = p->pace.found = false;
        return;
    }
    renew_window(p, now_ns);
    evaluate_pace(p, now_ns);
    evaluate_wall(p, now_ns);
}

/* ---- what is known ---- */

bool clock_peers_suspect(const struct clock_peers *p)
{
    return p->wall_doubt.suspect || p->pace_doubt.suspect;
}

bool clock_peers_disagrees(const struct clock_peers *p)
{
    return (p->wall_doubt.suspect && !p->wall_doubt.opposite) ||
           (p->pace_doubt.suspect && !p->pace_doubt.opposite);
}

bool clock_peers_good(const struct clock_peers *p, uint64_t id)
{
    for (size_t i = 0; i < p->count; i++) {
        const struct clock_peer *peer = &p->peers[i];
        if (peer->id == id) {
            return p->wall.found && peer->fresh && peer->wall_good && peer->pace_good &&
                   !peer->suspect;
        }
    }
    return false;
}

bool clock_peers_offset_ms(const struct clock_peers *p, int64_t *offset_ms)
{
    *offset_ms = p->wall.found ? (p->own_wall_ns - p->wall.value) / NS_PER_MS : 0;
    return p->wall.found;
}

bool clock_peers_cluster(const struct clock_peers *p, int64_t *cluster_ns)
{
    int64_t known[CLOCK_PEERS_MAX];
    size_t count = 0;
    for (size_t i = 0; i < p->count; i++) {
        const struct clock_peer *peer = &p->peers[i];
        if (!peer->fresh || !peer->knows_cluster) {
            continue;
        }
        size_t k = count++;
        for (; k > 0 && known[k - 1] > peer->cluster_ns + peer->best.lead_ns; k--) {
            known[k] = known[k - 1];
        }
        known[k] = peer->cluster_ns + peer->best.lead_ns;
    }
    *cluster_ns = count > 0 ? known[(count - 1) / 2] : 0;
    return count > 0;
}

int64_t clock_peers_earliest_wall(const struct clock_peers *p)
{
    int64_t earliest = p->own_wall_ns;
    for (size_t i = 0; i < p->count; i++) {
        if (p->peers[i].fresh && wall_of(&p->peers[i]) < earliest) {
            earliest = wall_of(&p->peers[i]);
        }
    }
    return earliest;
}
