/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest's RAM: one private mapping, shown to the guest from 0 to
 * LAYOUT_GAP_START and, when there is more, from LAYOUT_GAP_END on. Nothing
 * is touched here: a page costs memory when somebody first uses it.
 *
 * Of a VM that boots it is anonymous. Not a memfd: nobody else maps it, and
 * shared memory gets no transparent huge pages on most hosts, while with them
 * a booting guest takes dozens of page faults in place of thousands.
 *
 * Of a VM that comes from a snapshot it is the memory file, privately: all
 * that come from it share its pages in the page cache until they write them.
 * Or it is anonymous again and another process fills it (snapshot/uffd.h).
 *
 * With track_dirty_pages the monitor notes which pages it wrote itself, as
 * KVM logs only the guest's writes; kvm_take_dirty() unites both.
 */
#pragma once

#include "monitor/vm-config.h"
#include "virtio/gmem.h"

struct uffd;

struct memory {
    struct gmem gmem; /* the regions, in the order of KVM's slots */
    uint8_t *host;    /* the whole mapping, aligned to 2 MiB */
    uint64_t bytes;
    struct uffd *uffd;          /* snapshot/uffd.h; NULL: no other process fills it */
    struct dirty_pages written; /* by the monitor, since the marks were last taken; gmem.dirty when tracked */
};

/* The structure stays where it is: it points into itself. -ENOMEM: more than the host has, or no huge pages. */
int memory_init(struct memory *memory, const struct machine_config *config, struct vm_error *error);
/* The first bytes of the file, which has that many, privately. It may be closed afterwards, but is not to be cut while
 * it is mapped: the guest would find no memory there, and neither would we (SIGBUS). -ENOTSUP: huge pages. */
int memory_init_file(struct memory *memory, const struct machine_config *config, int fd, struct vm_error *error);
/* Marks that were taken by kvm_take_dirty() and led to no snapshot: they count for the next one. *taken is clean then.
 */
void memory_put_dirty(struct memory *memory, struct dirty_pages *taken);
void memory_deinit(struct memory *memory); /* right also for a zeroed one */
