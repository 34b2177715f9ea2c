/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The service of ironclaw-vsock: one vsock core for the life of the process,
 * one front-end at a time, one loop.
 *
 * When a front-end leaves, its memory and rings are dropped and every
 * connection ends. Then either the process ends, too, or (--linger-ms) it
 * waits so long for the next front-end. While a front-end is there, no other
 * is accepted.
 */
#pragma once

#include "vhost/options.h"

/*
 * Serves until the end; the signals in `signal_fd` (a signalfd) are an orderly
 * one. Returns an exit status of options.h, after one log line if it is not
 * EXIT_OK. Removes the sockets that it made.
 */
int server_run(const struct options *options, int signal_fd);
