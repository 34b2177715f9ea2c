/* SPDX-License-Identifier: Apache-2.0 */
/* The machine's end. */
#pragma once

#include "base/macro.h"

#define POWER_GRACE_MS 250u /* for the commands between TERM and KILL */

/* TERM to every process, KILL after the grace or once all are gone, sync, end. */
_noreturn_ void power_off(void);
/* At once. */
_noreturn_ void power_cut(void);
