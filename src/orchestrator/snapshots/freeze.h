/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Saving a VM that runs. Its agent first freezes all that it has started, so
 * that nothing goes on in a copy before the copy has an identity; then the
 * backend saves and the VM goes on. Whatever fails in between, the VM goes on.
 */
#pragma once

#include "orchestrator/snapshots/saving.h"
#include "orchestrator/vm.h"

/* For whoever gives it an identity next: it has none of anybody's, and serves nobody until then. */
int freeze_until_cloned(const struct record *record, struct ic_error *error);

/* What save() made is in the VM's run directory then. The caller holds its lock. *ret_pause_us: how long its commands
 * did not run. */
int freeze_and_save(const struct record *record, struct saving *saving, uint64_t *ret_pause_us, struct ic_error *error);

/* After one that died in the middle of that: the VM goes on. Does nothing to one that does. The caller holds its lock.
 */
int freeze_undo(const struct record *record, struct ic_error *error);
