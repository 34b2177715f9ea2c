/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From the kernel's hand-over to a running system, as PID 1 in the initramfs:
 *
 *     /init            this program        /modules/order, /modules/NAME.ko
 *
 *     1. proc, devtmpfs, the command line, the modules in their order
 *     2. the root block device read-only, a tmpfs or a writable disk, an overlay of the two
 *     3. the file systems inside it; /tmp, /run and /dev/shm share the
 *        overlay's tmpfs, so that one size limits all that can be written
 *     4. the initramfs's files are deleted (they are RAM), the overlay becomes /
 *     5. loopback, host name, limits, a few sysctls
 *
 * What is essential and fails ends the machine with one line on the console.
 */
#pragma once

#include <stdint.h>

#include "agent/cmdline.h"
#include "base/macro.h"

#define BOOT_ROOT_WAIT_MS 10000u

/* syslog(2)'s action, and what of the kernel's messages goes to the console then. */
#define BOOT_CONSOLE_LEVEL    8
#define BOOT_CONSOLE_WARNINGS 5
#define BOOT_CONSOLE_ALL      7 /* but debugging */

/* Returns only when the system is up. init_us: when main() began. */
void boot_system(struct boot_options *ret_options, uint64_t init_us);

/* "ironclaw-agent: ..." on the console, then the machine ends. */
_noreturn_ void boot_fatal(const char *fmt, ...) _printf_(1, 2);
