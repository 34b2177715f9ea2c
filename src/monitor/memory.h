/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's RAM: one private anonymous mapping, shown to the guest from 0
 * to LAYOUT_GAP_START and, when there is more, from LAYOUT_GAP_END on. Nothing
 * is touched here: a page costs memory when somebody first uses it.
 *
 * Not a memfd: nobody else maps it, and shared memory gets no transparent
 * huge pages on most hosts, while with them a booting guest takes dozens of
 * page faults in place of thousands.
 */
#pragma once

#include "monitor/vm-config.h"
#include "virtio/gmem.h"

struct memory {
    struct gmem gmem; /* the regions, in the order of KVM's slots */
    uint8_t *host;    /* the whole mapping, aligned to 2 MiB */
    uint64_t bytes;
};

/* -ENOMEM: more than the host has, or no huge pages. */
int memory_init(struct memory *memory, const struct machine_config *config, struct vm_error *error);
void memory_deinit(struct memory *memory); /* right also for a zeroed one */
