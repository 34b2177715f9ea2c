/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The initramfs: the agent as /init, the kernel's modules with /modules/order
 * (one file name a line, in the order to load them), the directories that the
 * agent mounts on, and /dev/console so that the kernel can give it a stdio.
 */
#pragma once

#include "orchestrator/images/kernel.h"

/* Writes the file at path; the same agent and kernel give the same bytes. */
int initramfs_build(const char *agent_path, const struct kernel *kernel, const char *path, struct ic_error *error);
