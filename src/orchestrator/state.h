/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A VM's life: created -> booting -> ready <-> paused -> stopping -> gone, and
 * failed from any of them. One table says what may follow what; every change
 * goes through table_change() (table.h), which asks here first.
 *
 *   created   the record is there, no process yet
 *   booting   processes are being started; the creator holds the record's lock all the time
 *   ready     the agent said READY; commands are served
 *   paused    the vCPUs stand still
 *   stopping  somebody who holds the lock is ending it
 *   gone      ended as asked, or by itself; what a `keep` VM leaves until rm
 *   failed    ended otherwise; the record says why
 */
#pragma once

#include <ironclaw/ironclaw.h>

bool state_allowed(enum ic_vm_state from, enum ic_vm_state to);

/* No process should live in this state. */
bool state_is_final(enum ic_vm_state state);
