/* SPDX-License-Identifier: Apache-2.0 */
/* What `template` and `snapshot` share: lists, removing, verifying. */
#pragma once

#include "cli/cli.h"

struct snapshots_kind {
    const char *word; /* "template" */
    bool named;       /* by somebody, and so with the VM that it is of */
    int (*list)(struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error);
    int (*remove)(const char *name, struct ic_error *error);
    int (*verify)(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error);
};

struct snapshots_ls_args {
    bool quiet, json;
};
extern const struct cli_option snapshots_ls_options[];
int snapshots_ls(const struct cli_call *call, const struct snapshots_kind *kind);

struct snapshots_rm_args {
    bool force;
};
extern const struct cli_option snapshots_rm_options[];
int snapshots_rm(const struct cli_call *call, const struct snapshots_kind *kind);

struct snapshots_verify_args {
    bool quiet;
};
extern const struct cli_option snapshots_verify_options[];
int snapshots_verify(const struct cli_call *call, const struct snapshots_kind *kind);

/* The ids of VMs that were made, one a line, or as JSON with `pause_us` if that is not NULL. */
void snapshots_print_vms(ic_vm *const *vms, size_t count, const uint64_t *pause_us, bool json);
