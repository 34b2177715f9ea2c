/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session's memory table: the front-end's files, mapped and checked. Each
 * region must be backed by a regular file (memfd, tmpfs, hugetlbfs) that is
 * long enough for it now; session.h says what a later shrink does.
 */
#pragma once

#include "vhost/session.h"

/*
 * Replaces the table, all or nothing. Reads fds[i] for regions[i] and keeps
 * none. Views into the old table are dead afterwards. -EINVAL: empty, wrapping
 * or overlapping regions, an offset that is not a page's; -EFAULT: a file is
 * too short; other errors from fstat and mmap.
 */
int vu_map_memory(struct vu_session *session, const struct vu_region *regions, const int *fds, size_t count);
void vu_unmap_memory(struct vu_session *session);

/* From the front-end's address to the guest's; false when no region has it. */
bool vu_translate(const struct vu_session *session, uint64_t user_addr, struct gpa *ret);
