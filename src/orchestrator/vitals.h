/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What reap asks of every VM, in a link beside its record: each command looks
 * at all VMs there are, and reading a record takes ten times as long as
 * looking whether its processes live.
 *
 *   state/vms/<id>/vitals -> "2 <record's inode> <time> <boot id> <pid>:<start> ..."
 *
 * A plus before a pid: not one of its own, but who it ends with.
 *
 * It is believed as long as the record is the one that it was made of; every
 * change of a record makes it worthless, as does whatever else is odd about
 * it, and then the record is read.
 */
#pragma once

#include "orchestrator/record.h"

#define VITALS_NAME "vitals"

/* Of a VM whose record says that it is ready or paused; or, with `holder`, who has its lock and sees to it as long as
 * both live. Nothing when there is more to ask (a lifetime). The caller has the VM's lock. */
void vitals_put(const char *dir, const struct record *record, const struct process_id *holder);
void vitals_drop(const char *dir);

#define VITALS_OWN 2 /* monitor, vsock */

/* Everything that it names lives. False: not so, or nothing is known. The VM's own processes are in ret_own then. */
bool vitals_good(const char *dir, struct process_id ret_own[VITALS_OWN], size_t *ret_count);
