/* SPDX-License-Identifier: Apache-2.0 */
/*
 * As much of QEMU's Machine Protocol as is needed: connect, commands one
 * after the other, their answers. One JSON object per line; events may come
 * at any time, and only those about a migration are kept. QEMU is attacked by
 * its guest, so its words are bounded and parsed like any foreign input.
 */
#pragma once

#include "orchestrator/error.h"

#define QMP_MAX_LINE (64u << 10)

enum qmp_kind { QMP_GREETING, QMP_RETURN, QMP_ERROR, QMP_EVENT };

/* 0, or -EBADMSG. `text`, escaped: of QMP_ERROR the description, of QMP_EVENT its name and after a space the status if
 * it has one, of QMP_RETURN the "error-desc" if it has one (query-migrate); else "". */
int qmp_parse(const char *line, size_t len, enum qmp_kind *ret_kind, char *text, size_t text_size);

/* A connection whose greeting is over. QEMU serves one at a time. Everything on it has to be over by `deadline`. */
struct qmp;
int qmp_open(const char *socket_path, uint64_t deadline, struct qmp **ret, struct ic_error *error);
void qmp_free(struct qmp *q);
static inline void qmp_freep(struct qmp **q)
{
    qmp_free(*q);
}

/* arguments: a JSON object as text; NULL: none. fd: goes with the command, -1: none. -IC_ERR_BACKEND: refused. */
int qmp_run(struct qmp *q, const char *command, const char *arguments, int fd, struct ic_error *error);

/* The end of the migration that was started on this connection, with the capability "events" on. -IC_ERR_BACKEND: it
 * failed, with what QEMU says of the cause. */
int qmp_wait_migrated(struct qmp *q, struct ic_error *error);

/* Connects and runs one command without arguments ("stop", "cont"). */
int qmp_command(const char *socket_path, const char *command, uint64_t deadline, struct ic_error *error);
