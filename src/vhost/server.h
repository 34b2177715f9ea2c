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

enum { VSOCK_PROFILES = 1 };
extern const struct seccomp_profile *const vsock_profiles[VSOCK_PROFILES]; /* of the one thread */
extern const struct seccomp_compiled vsock_compiled; /* generated, and linked into what has a main() */

/*
 * Serves until the end; the signals in `signal_fd` (a signalfd) are an orderly
 * one. The calling thread has its filter from here on, if profiles were
 * prepared. Returns an exit status of options.h, after one log line if it is not
 * EXIT_OK. Removes the sockets that it made.
 */
int server_run(const struct options *options, int signal_fd);
