/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes this machine differ from every other one: its random numbers, its
 * clock and its names.
 *
 * A machine that was copied shares all of them with its siblings until
 * identity_renew() has run in it, so nothing else may run before that. One
 * that was booted gets its machine id with the first entropy from the host;
 * the kernel makes the boot id by itself.
 *
 *     /etc/machine-id                       32 hexadecimal digits, made from the generation
 *     /proc/sys/kernel/random/boot_id       a file in the kernel's place, which no command can write
 *     /run/ironclaw/generation              the generation as a UUID; not there in a machine that was booted
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "wire/wire.h"

struct identity {
    int random_fd;
    int boot_id_fd;                   /* of the file over the kernel's; -1: not there yet */
    int generation_fd, machine_id_fd; /* of the files as we left them, or -1 */
    bool has_machine_id;
    bool skip_reseed; /* for the test of the test: a suite that does not fail with this set proves nothing */
};

/* 0 or a negative errno. */
int identity_init(struct identity *identity, bool skip_reseed);
void identity_deinit(struct identity *identity);

/* Credited and mixed in at once: two machines from one snapshot share the pool's state until this has run in each. */
int identity_add_entropy(struct identity *identity, const void *entropy, size_t len);
int identity_set_clock(uint64_t epoch_ns);
/* Fills an empty /etc/machine-id, once and after the first entropy. Only for PID 1. */
void identity_first(struct identity *identity);
/* Makes the three files, so that a clone only writes into them: by far the most of identity_renew() in an emulated
 * guest. For templates, whose own names nobody sees. */
void identity_prepare(struct identity *identity);
/* All of the above. On failure *ret_what says what could not be done; then no part of it may be relied on. */
int identity_renew(struct identity *identity, const struct wire_clone *clone, const char **ret_what);

#define IDENTITY_UUID_SIZE 37u /* with its NUL */

/* Lower-case text of 16 bytes. Pure. */
void identity_uuid(char ret[IDENTITY_UUID_SIZE], const uint8_t bytes[16]);
/* systemd's machine-id(5) for a generation, with a newline. Pure. */
void identity_machine_id(char ret[34], const uint8_t generation[16]);
