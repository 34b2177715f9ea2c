/* SPDX-License-Identifier: Apache-2.0 */
/* The end of a VM's log, made safe to print: the guest writes what it likes there. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#define TAIL_BYTES 4096u

/* Last line that is not blank, escaped, or "". A kernel panic's line wins over what came after it, and the one before
 * over the kernel's word that it restarts. Returns dst. */
const char *tail_line(char *dst, size_t size, const char *dir, const char *log);

/* Last line of monitor.log that the VM's processes wrote; our own lines about its state are skipped. As tail_line. */
const char *tail_monitor(char *dst, size_t size, const char *dir);

/* The VM's processes said that they end because the VM's time is over. */
bool tail_lifetime_over(const char *dir);

/* The kernel log ends with a power-off or restart. Only a hint: a guest can write the same words. */
bool tail_powered_off(const char *dir);
