/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The name of a system call of this architecture, or "unknown". */
const char *syscall_name(int nr);
