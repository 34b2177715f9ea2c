/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The caller's terminal: raw mode that is undone on every way out (return,
 * exit(), a fatal signal, a stop with SIGTSTP), its size, and what else
 * differs between systems: the clock and pipes that capture output.
 */
#pragma once

#include <ironclaw/ironclaw.h>

#include "cli/text.h"

bool tty_is(int fd);
/* The terminal's size; 24 by 80 when it is not known. */
void tty_size(int fd, uint16_t *ret_rows, uint16_t *ret_cols);
/* Raw mode on fd until tty_restore(); 0 or -1. */
int tty_raw(int fd);
void tty_restore(void); /* harmless when not in raw mode */
/* From now on a changed size of the terminal goes to the command. */
void tty_follow_size(int fd, ic_exec *exec);
void tty_unfollow_size(void);

/* Once, first of all: standard descriptors that are closed become /dev/null, and output is bytes, not text, where a
 * system makes these differences. */
void tty_init(void);
uint64_t tty_now_ms(void); /* monotonic */
int64_t tty_unix_ms(void);
void tty_sleep_ms(unsigned ms);

/*
 * Capture of one output of a command: a pipe, and a thread that reads it until
 * its end, keeps the first `max` bytes and drops the rest (so that the command
 * never blocks on us).
 */
struct capture;
int capture_start(struct capture **ret, size_t max, int *ret_write_fd); /* 0 or a negative errno */
/* Closes the writing end, waits for the reader, hands out what was kept (the caller frees *ret_data). */
void capture_finish(struct capture *c, char **ret_data, size_t *ret_len, bool *ret_truncated);
