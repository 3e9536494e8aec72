/* sim_fault: the kinds of faults by name. One place for what can be switched on and off, by a seed or by
 * hand, and for what is counted. A kind counts when it took effect, not when it was planned. */
#ifndef TESTS_SIM_SIM_FAULT_H
#define TESTS_SIM_SIM_FAULT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum sim_fault {
    /* processes */
    SIM_FAULT_CRASH,      /* one process is killed */
    SIM_FAULT_POWER,      /* several at once */
    SIM_FAULT_STOP,       /* one is stopped cleanly */
    SIM_FAULT_PAUSE,      /* frozen */
    /* disks, harmless to what is durable: the process ends and comes back */
    SIM_FAULT_DISK_DEATH, /* dies in the middle of any operation, in recovery too */
    SIM_FAULT_TORN,       /* a crash leaves some sectors of the write that was under way */
    SIM_FAULT_NO_SPACE,   /* files cannot be created, checkpoints and installs fail */
    SIM_FAULT_WRITE_ERROR,
    SIM_FAULT_SYNC_ERROR,
    SIM_FAULT_READ_ERROR, /* once; a restart can read it */
    SIM_FAULT_SLOW_DISK,
    SIM_FAULT_STUCK_DISK, /* no operation ends */
    /* disks that lose or change what is durable: one node at a time (sim_faults.c) */
    SIM_FAULT_ROT,        /* bits change at rest */
    SIM_FAULT_MISDIRECT,  /* a write lands in another place of the log's files */
    SIM_FAULT_LOST_WRITE, /* a write is acknowledged, and not there or there in part */
    SIM_FAULT_BAD_SECTOR, /* cannot be read until it is written again */
    SIM_FAULT_DISK_LOSS,  /* everything is gone */
    /* network */
    SIM_FAULT_ISOLATE,
    SIM_FAULT_PARTITION,
    SIM_FAULT_ONE_WAY,
    SIM_FAULT_LOSS,
    SIM_FAULT_BREAK,
    SIM_FAULT_LATE,       /* what a broken connection still delivers */
    /* clocks */
    SIM_FAULT_CLOCK_RATE, /* of the drivers */
    SIM_FAULT_CLOCK_LEAP, /* a driver's clock leaps ahead */
    SIM_FAULT_CLOCK_JUMP, /* wall and monotonic clocks of a minority lie; all wall clocks step */
    /* what operators and peers do at the wrong moment */
    SIM_FAULT_INSTALL,
    SIM_FAULT_TRANSFER,
    SIM_FAULT_MEMBERSHIP,
    SIM_FAULTS,
};

#define SIM_FAULTS_ALL ((1ull << SIM_FAULTS) - 1)

const char *sim_fault_name(enum sim_fault fault);
/* "a,b,c", or "none", to a set of bits. false: one of them is no name. */
bool sim_fault_parse(const char *names, uint64_t *set);

#endif
