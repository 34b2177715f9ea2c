/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration inside libironclaw. One table of keys (config.c) drives the
 * JSON loader, ic_vm_config_set and the messages, so that the three never
 * disagree about a name, a type or a range.
 */
#pragma once

#include "orchestrator/error.h"

#define CONFIG_MAX_BYTES          (64u << 10) /* of a JSON document */
#define CONFIG_MAX_ENV            1024u       /* entries */
#define CONFIG_MAX_STRING         4096u       /* bytes of one value */
#define CONFIG_MAX_OVERLAY        (1u << 20)  /* MiB */
#define CONFIG_MAX_DISK_MIB_PER_S (1u << 20)

/* Vsock connections: those of `run` are its ready connection, its command, and one or two of other commands. */
#define CONFIG_MIN_CONNECTIONS 4u
#define CONFIG_MAX_CONNECTIONS 1023u /* what each of the backends can do */

/* Most memory that a VM may be given here: the host's, in MiB. */
uint32_t config_memory_mib_max(void);

/* NAME=value with a name of [A-Za-z_][A-Za-z0-9_]*. */
bool config_env_ok(const char *entry);

/* A deep copy with every default filled in; `config` was validated. */
int config_copy(struct ic_vm_config *ret, const struct ic_vm_config *config, struct ic_error *error);

/* Leaves out what only commands are given: their environment and user. */
void config_forget_commands(struct ic_vm_config *config);
