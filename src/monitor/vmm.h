/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VMM thread: the process's main thread. It owns the loop, the controller
 * and the VM; requests of the API thread come through a mailbox of one letter,
 * signals through a signalfd, the guest's end through vm.h.
 */
#pragma once

#include "monitor/options.h"

/* Returns the exit status. */
int vmm_run(const struct options *options);
