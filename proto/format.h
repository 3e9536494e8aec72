/* format: the one number that says what the nodes of a cluster may send each other and write down.
 *
 * Every container has a version of its own (link, log segment, batch, checkpoint, snapshot, identity:
 * docs/adr/0019 lists them). The format bundles what all members must understand alike: kinds of
 * commands and their meaning, record types, kinds of Raft messages, layout of the state. A program reads
 * FORMAT_OLDEST to FORMAT_NEWEST; it may propose, and send to other nodes, only what belongs to the
 * format in force, which stands in the replicated state (engine_format) and is raised only when every
 * member can read the new one. So a new format is read one release before it is written, and a node can
 * go back to the release before as long as the format was not raised.
 *
 * A member that cannot read the format in force is refused by the others when they connect
 * (raft/transport.h), and refuses its own data when it starts. */
#ifndef PROTO_FORMAT_H
#define PROTO_FORMAT_H

#include <stdbool.h>
#include <stdint.h>

#define FORMAT_INITIAL 1u /* what COMMAND_INIT makes, on every program for ever */
#define FORMAT_OLDEST  1u /* this program reads these, both included */
#define FORMAT_NEWEST  1u
_Static_assert(FORMAT_OLDEST <= FORMAT_NEWEST, "a range");
_Static_assert(FORMAT_OLDEST == FORMAT_INITIAL,
               "a program that drops format 1 must know what a new cluster begins with");

/* What a node can do: needs `oldest`, the format in force where it has a state; reads up to `newest`. */
struct format_range {
    uint32_t oldest, newest;
};

static inline bool format_ranges_meet(struct format_range a, struct format_range b)
{
    return a.oldest <= b.newest && b.oldest <= a.newest;
}

#endif
