/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The audit ring: what a filter or a limit refused, in a file of fixed size.
 * The oldest entry makes room for the newest, and is counted.
 *
 *   a user's    state/audit.ring, AUDIT_ENTRIES entries. Only libironclaw writes it, under its lock.
 *   a process's state/vms/<id>/audit-<process>.ring, AUDIT_PROCESS_ENTRIES entries, made in its full size by
 *               libironclaw. A filtered process of a VM inherits a descriptor, maps the file and closes the
 *               descriptor before there is a guest: whoever takes the process over can write nonsense into these 16
 *               KiB, and nothing more or elsewhere.
 *
 * When a VM's processes have ended, libironclaw takes over what the second
 * kind says into the first. It believes nothing of it but the call, the
 * arguments and the thread's name: the VM, the process and the bounds of the
 * time are its own. So a monitor in foreign hands can lie about its own VM, and
 * each VM can push out no more than AUDIT_PROCESS_ENTRIES others per process.
 *
 * On disk: a header of AUDIT_HEADER_SIZE bytes, then the slots, little endian.
 * Entry number n (from 0) is in slot n mod capacity; `total` of the header
 * counts all that ever were. So the next slot and how many were dropped follow
 * from it, and a write that is cut short loses one entry, not the order.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AUDIT_ENTRIES         10000u
#define AUDIT_PROCESS_ENTRIES 63u /* with the header just below four pages */
#define AUDIT_HEADER_SIZE     64u
#define AUDIT_ENTRY_SIZE      320u
#define AUDIT_VM_ID_MAX       64u /* IC_VM_ID_MAX */
#define AUDIT_NO_CALL         (-1)

enum audit_action {
    AUDIT_KILLED = 1, /* a filter refused the call: it was not made, and the process ended */
    AUDIT_ALLOWED,    /* made, under seccomp_level permissive; minimal would refuse it */
    AUDIT_REFUSED,    /* a limit refused what somebody asked for */
    AUDIT_ENDED,      /* a limit ended a VM or a command */
    AUDIT_LOST,       /* `count` entries of this VM are lost, as its process had more than its ring takes */
    AUDIT_ACTIONS,
};

struct audit_entry {
    int64_t time_unix_ms; /* of the first, where count is more than 1; 0 when it is filled in */
    enum audit_action action;
    int32_t call; /* number, or AUDIT_NO_CALL */
    uint64_t args[6];
    uint64_t count; /* the same call of the same thread again and again is one entry */
    uint32_t pid;
    char vm_id[AUDIT_VM_ID_MAX + 1];
    char process[20], thread[16]; /* "ironclaw-vmm", "fc_vcpu 0" */
    char text[108];               /* of a limit: which, its value, what was asked for */
};

/* For time_unix_ms: to about 10 ms, and by the vDSO alone. */
int64_t audit_now(void);

/* The bytes of one slot, and back: -EBADMSG when they are none of an entry. Text is cut and made printable. */
void audit_encode(const struct audit_entry *entry, uint8_t dst[static AUDIT_ENTRY_SIZE]);
int audit_decode(const uint8_t src[static AUDIT_ENTRY_SIZE], struct audit_entry *ret);

struct audit_log {
    struct audit_entry *entries; /* oldest first */
    size_t count;
    uint64_t dropped; /* those before, and those that can't be read */
};
void audit_log_deinit(struct audit_log *log);

/* Any bytes as a ring of this capacity. -EBADMSG, -EPROTONOSUPPORT (a later version), -ENOMEM. */
int audit_parse(const void *data, size_t len, uint32_t capacity, struct audit_log *ret);

/* Reads the file: all of it, but never more than a ring of this capacity has. -ENOENT when there is none. */
int audit_read(const char *path, uint32_t capacity, struct audit_log *ret);

/*
 * Adds to a user's ring; makes the file if need be, waits a moment for its
 * lock. Time, and a count of 0, are filled in. What is no ring at all is
 * started anew; one of a later version is left alone (-EPROTONOSUPPORT).
 * libironclaw calls it through audit_note() (orchestrator/audit-log.h), which
 * knows the path.
 */
int audit_append(const char *path, const struct audit_entry *entries, size_t count);

/* ---- a process's ring ---- */

/* Makes the empty file in its full size; -EEXIST. */
int audit_ring_create(const char *path, int *ret_fd);

struct audit_ring {
    uint8_t *map; /* NULL: none, and adding does nothing */
};

/* Maps what audit_ring_create() made. The descriptor can be closed then. */
int audit_ring_map(int fd, struct audit_ring *ret);

/* Adds, and returns the slot. Only stores to memory and a vDSO call, so that also a handler of SIGSYS may do it; from
 * any thread. */
uint32_t audit_ring_add(const struct audit_ring *ring, const struct audit_entry *entry);

/* Writes one anew, for its count. */
void audit_ring_update(const struct audit_ring *ring, uint32_t slot, const struct audit_entry *entry);
