/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of a VM, as the verbs that start one have it: config.json, then what was asked for. */
#pragma once

#include "cli/cli.h"

/* A value that can't be is the caller's mistake; a file that can't be read is not. Returns the exit status. */
int cli_config_fail(int r, const struct ic_error *error);
/* From the user's config.json, if there is one. CLI_OK, or the exit status. */
int cli_config_load(struct ic_vm_config *config);
/* NULL, or a number that was not given, changes nothing. */
int cli_config_set(struct ic_vm_config *config, const char *key, const char *value);
int cli_config_set_number(struct ic_vm_config *config, const char *key, const struct cli_number *number);

/* What a VM is that is prepared before somebody wants one: of config.json, then of the file `config`, then of these. */
struct cli_machine {
    struct cli_number memory, max_connections, max_disk, max_disk_ops;
    const char *cpus, *image, *backend, *jail, *guest_seccomp, *config;
};
int cli_config_machine(struct ic_vm_config *config, const struct cli_machine *machine);
