/* SPDX-License-Identifier: Apache-2.0 */
/* A VM that isn't there: counts what the controller asks of it, and fails when told. Tests and fuzzing only. */
#pragma once

#include "monitor/api/controller.h"

struct fake_vm {
    unsigned starts, pauses, resumes, ctrl_alt_dels, drive_updates, targets, intervals, loggers, metrics, flushes;
    unsigned creates, loads;
    int level; /* of the last logger */
    char path[128];
    struct balloon_stats stats;
    bool fail; /* every operation, with "as told" */
};

extern const struct controller_ops fake_ops;
