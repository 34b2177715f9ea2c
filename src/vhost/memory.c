/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/log.h"
#include "base/macro.h"

static int check_file(const struct vu_region *region, int fd)
{
    uint64_t end;
    struct stat st;
    int seals;

    if (region->size == 0 || add_overflows(region->mmap_offset, region->size, &end) || end > INT64_MAX)
        return -EINVAL;
    if (fstat(fd, &st) < 0)
        return -errno;
    if (!S_ISREG(st.st_mode))
        return -EINVAL;
    if ((uint64_t)st.st_size < end)
        return -EFAULT;
    seals = fcntl(fd, F_GET_SEALS);
    if (seals < 0 || !(seals & F_SEAL_SHRINK))
        log_msg(LOG_DEBUG, "guest memory at 0x%llx is not sealed against shrinking", (unsigned long long)region->gpa);
    return 0;
}

static int map_region(const struct vu_region *region, int fd, struct vu_mapping *ret)
{
    uint64_t last;
    void *host;
    int r = check_file(region, fd);

    if (r < 0)
        return r;
    if (add_overflows(region->user_addr, region->size - 1, &last))
        return -EINVAL;
    host = mmap(NULL, region->size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, (off_t)region->mmap_offset);
    if (host == MAP_FAILED)
        return -errno;
    /* A core dump of ours must not carry the guest's memory. Not vital, so a refusal is ignored. */
    (void)madvise(host, region->size, MADV_DONTDUMP);
    *ret = (struct vu_mapping){.host = host, .size = region->size, .gpa = region->gpa, .user_addr = region->user_addr};
    return 0;
}

static void unmap_all(struct vu_mapping *mappings, size_t count)
{
    for (size_t i = 0; i < count; i++)
        (void)munmap(mappings[i].host, mappings[i].size);
}

int vu_map_memory(struct vu_session *session, const struct vu_region *regions, const int *fds, size_t count)
{
    struct vu_mapping mappings[VU_MAX_REGIONS] = {0};
    struct gmem memory = {0};
    size_t mapped = 0;
    int r = 0;

    for (size_t i = 0; i < count && r == 0; i++) {
        r = map_region(&regions[i], fds[i], &mappings[i]);
        if (r < 0)
            break;
        mapped++;
        r = gmem_add(&memory, (struct gpa){regions[i].gpa}, regions[i].size, mappings[i].host);
    }
    if (r < 0) {
        unmap_all(mappings, mapped);
        return r == -EEXIST ? -EINVAL : r;
    }
    vu_unmap_memory(session);
    for (size_t i = 0; i < mapped; i++)
        session->mappings[i] = mappings[i];
    session->mapping_count = mapped;
    session->memory = memory;
    return 0;
}

void vu_unmap_memory(struct vu_session *session)
{
    unmap_all(session->mappings, session->mapping_count);
    session->mapping_count = 0;
    session->memory = (struct gmem){0};
}

bool vu_translate(const struct vu_session *session, uint64_t user_addr, struct gpa *ret)
{
    for (size_t i = 0; i < session->mapping_count; i++) {
        const struct vu_mapping *m = &session->mappings[i];
        uint64_t offset = user_addr - m->user_addr; /* wraps to a huge value when the address is below */

        if (offset >= m->size)
            continue;
        ret->v = m->gpa + offset;
        return true;
    }
    return false;
}
