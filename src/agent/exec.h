/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A command: one child with pipes or a terminal, between WIRE_EXEC and
 * WIRE_EXIT.
 *
 *     start    the child reports through its pipe: STARTED, or ERROR
 *     run      output is read while the session has room to hold it; input
 *              that the command does not take yet is kept up to a limit
 *              A command that writes often and little is read once per
 *              EXEC_COALESCE_MS, so that each write does not become a packet
 *     timeout  TERM to all processes of the command, KILL after the grace
 *     end      the main process was reaped. What was in the pipes at that
 *              moment is still sent, however slow the host reads; after that
 *              a process in the background gets EXEC_DRAIN_MS to close its
 *              end. Then EXIT.
 *
 * As with docker exec, processes in the background outlive the command,
 * without its output. They do not outlive a connection that is lost while the
 * command runs, nor a timeout: both kill all of it.
 */
#pragma once

#include <stdint.h>
#include <sys/resource.h>
#include <sys/types.h>

#include "agent/session.h"

#define EXEC_STDIN_MAX     (256u << 10) /* bytes kept for a command that does not read */
#define EXEC_COALESCE_MS   1u
#define EXEC_OFTEN_US      4000u       /* writes closer together than this ... */
#define EXEC_LITTLE        (16u << 10) /* ... and smaller than this are collected */
#define EXEC_DRAIN_MS      100u
#define EXEC_KILL_GRACE_MS 2000u
#define EXEC_PIPE_SIZE     (1u << 20) /* of a pipe that was once full */

/* Answers the EXEC frame, at once or later. Failures are answered with ERROR. */
void exec_start(struct session *session, const uint8_t *payload, size_t len);
/* STDIN, CLOSE_STDIN, RESIZE, SIGNAL of a running command. 0, or -EBADMSG. */
int exec_frame(struct exec *exec, enum wire_type type, const uint8_t *payload, size_t len);
/* No more frames, please: stdin is full. */
bool exec_is_full(const struct exec *exec);
/* The session has room again. */
void exec_resume_output(struct exec *exec);
/* The main process was reaped. */
void exec_reaped(struct exec *exec, int status, const struct rusage *usage);
/* Some process was reaped: a timed-out command may be gone completely now. */
void exec_check_end(struct exec *exec);
pid_t exec_pid(const struct exec *exec);
/* The connection is gone, or EXIT was sent: kills what still runs of a command that has not ended. Accepts NULL. */
void exec_free(struct exec *exec);
