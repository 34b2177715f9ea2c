/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tools that handle a tree with many owners (a root file system) run as root,
 * or for an ordinary user as root of a user namespace with the subordinate
 * ids of /etc/subuid and /etc/subgid.
 */
#pragma once

#include "orchestrator/images/subprocess.h"

/* subprocess_run, in such a namespace unless we are root already. */
int userns_run(const struct subprocess *process, struct ic_error *error);
