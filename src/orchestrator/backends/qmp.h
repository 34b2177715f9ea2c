/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of QEMU's Machine Protocol as is needed: connect, one command, its
 * answer. One JSON object per line; events may come at any time and are
 * skipped. QEMU is attacked by its guest, so its words are bounded and parsed
 * like any foreign input.
 */
#pragma once

#include "orchestrator/error.h"

#define QMP_MAX_LINE (64u << 10)

enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

/* 0, or -EBADMSG. For QMP_ERROR `text` gets the description, escaped; else it is "". */
int qmp_parse(const char *line, size_t len, enum qmp_kind *ret_kind, char *text, size_t text_size);

/* Runs one command without arguments ("stop", "cont"). */
int qmp_command(const char *socket_path, const char *command, uint64_t deadline, struct ic_error *error);
