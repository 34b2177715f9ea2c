/* SPDX-License-Identifier: Apache-2.0 */
/* The verbs, each defined in its cmd-<verb>.c. */
#pragma once

#include "cli/cli.h"

extern const struct cli_command cmd_run, cmd_exec, cmd_ps, cmd_logs, cmd_cp, cmd_stop, cmd_kill, cmd_rm, cmd_inspect,
        cmd_pause, cmd_unpause, cmd_fork, cmd_restore, cmd_stats;
extern const struct cli_command cmd_snapshot_create, cmd_snapshot_ls, cmd_snapshot_rm, cmd_snapshot_verify;
extern const struct cli_command cmd_pool_start, cmd_pool_ls, cmd_pool_stop;
extern const struct cli_command cmd_template_build, cmd_template_ls, cmd_template_rm, cmd_template_verify,
        cmd_template_prune;
extern const struct cli_command cmd_image_ls, cmd_image_build, cmd_image_import, cmd_image_inspect, cmd_image_rm,
        cmd_image_verify;
extern const struct cli_command cmd_kernel_ls, cmd_kernel_build;
extern const struct cli_command cmd_doctor, cmd_version, cmd_completion, cmd_help;
