/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who used much of the processors lately comes after who did not, while more
 * wants to run than there are processors: so that a command in a quiet VM
 * takes about as long beside VMs that compute all day as it does alone.
 *
 * No daemon looks after that. Each command looks at all VMs in any case (reap),
 * and then takes down how much processor time each has used, in one file of the
 * state directory. A VM that used what each would have if those that use any
 * shared alike what all of them got (others may run on the machine) is late from
 * then on, until for ten to twenty seconds it used less than half of that. Late
 * is: its group has a tenth of the weight of other VMs' (cpu.weight); where it
 * has no such group, its processes' sessions get a nice value that weighs a
 * fifth (sched(7), "The autogroup feature"), which counts beside all that runs
 * on the machine. That is a preference and no limit: what nobody else wants it
 * still gets, and VMs that are all late share alike. On a machine with time to
 * spare nothing is looked at or changed, and never more than once in two seconds.
 */
#pragma once

#include "orchestrator/process.h"

/* One VM, as it was seen. */
struct share_vm {
    char vm_id[IC_VM_ID_MAX + 1];
    struct process_id own[2];
    size_t own_count;
    uint64_t at_ms;       /* when, of CLOCK_BOOTTIME, */
    uint64_t ticks;       /* and its processes' processor time until then, in sysconf(_SC_CLK_TCK) per second */
    unsigned used, usual; /* thousandths of a processor: since the last look; in about the last seconds */
    bool known, late;     /* as of the last look */
};

struct share {
    unsigned processors; /* 0: nothing is to be done */
    uint64_t now_ms;     /* of CLOCK_BOOTTIME */
    int fd;              /* of the file, locked */
    char *before;        /* what was in it */
    struct share_vm *vms;
    size_t count, active; /* active: those that share */
    uint64_t got;         /* what all have used since the last look, in thousandths of a processor */
};

/* More wants to run now than there are processors. */
bool share_is_contended(void);

void share_begin_here(struct share *ret);
/* One VM and its own processes, at most two. */
void share_look(struct share *share, const char *vm_id, const struct process_id *own, size_t count);
/* Decides on all that were looked at, and frees what they took. */
void share_end(struct share *share);

/* The same on any machine at any time. `processors` 0: it has time to spare. */
void share_begin(struct share *ret, unsigned processors, uint64_t now_ms);
void share_look_at(struct share *share, const char *vm_id, const struct process_id *own, size_t count, uint64_t now_ms);

/* In thousandths of a processor: from there on a VM is late. */
unsigned share_threshold(unsigned processors, uint64_t got, size_t active);
#define SHARE_ACTIVE 10u /* who usually uses as much is one that shares */
