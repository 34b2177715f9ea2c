/* SPDX-License-Identifier: Apache-2.0 */
#include "virtio/gmem.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"

int gmem_add(struct gmem *mem, struct gpa start, uint64_t size, void *host)
{
    uint64_t last;
    uintptr_t host_last;

    if (size == 0 || !host || add_overflows(start.v, size - 1, &last) ||
            add_overflows((uintptr_t)host, size - 1, &host_last))
        return -EINVAL;
    for (size_t i = 0; i < mem->count; i++) {
        const struct gmem_region *other = &mem->regions[i];

        if (start.v <= other->start.v + (other->size - 1) && other->start.v <= last)
            return -EEXIST;
    }
    if (mem->count == GMEM_MAX_REGIONS)
        return -ENOSPC;
    mem->regions[mem->count++] = (struct gmem_region){.start = start, .size = size, .host = host};
    return 0;
}

int gmem_remove(struct gmem *mem, struct gpa start)
{
    for (size_t i = 0; i < mem->count; i++) {
        if (mem->regions[i].start.v != start.v)
            continue;
        mem->regions[i] = mem->regions[--mem->count];
        return 0;
    }
    return -ENOENT;
}

/* The view at `at` and in *ret_left the bytes from there to its region's end, at least 1; NULL outside of every region.
 */
static uint8_t *find(const struct gmem *mem, struct gpa at, uint64_t *ret_left)
{
    for (size_t i = 0; i < mem->count; i++) {
        const struct gmem_region *region = &mem->regions[i];
        uint64_t offset = at.v - region->start.v; /* wraps to a huge value when `at` is below */

        if (offset >= region->size)
            continue;
        *ret_left = region->size - offset;
        return region->host + offset;
    }
    return NULL;
}

void *gmem_slice(const struct gmem *mem, struct gpa at, uint64_t len)
{
    uint64_t left;
    uint8_t *view = find(mem, at, &left);

    return view && len > 0 && len <= left ? view : NULL;
}

int gmem_iovec(const struct gmem *mem, struct gpa at, uint64_t len, struct iovec *iov, size_t max)
{
    size_t used = 0;

    while (len > 0) {
        uint64_t left, part;
        uint8_t *view = find(mem, at, &left);

        if (!view)
            return -EFAULT;
        if (used == max)
            return -EMSGSIZE;
        part = MIN(len, left);
        iov[used++] = (struct iovec){.iov_base = view, .iov_len = part};
        len -= part;
        if (len > 0 && add_overflows(at.v, part, &at.v))
            return -EFAULT;
    }
    return (int)used;
}

void gmem_copy_once(void *dst, const void *view, size_t len)
{
    memcpy(dst, view, len);
    __asm__ volatile("" ::: "memory");
}

int gmem_read(const struct gmem *mem, struct gpa at, void *dst, size_t len)
{
    struct iovec iov[GMEM_MAX_REGIONS];
    int n = gmem_iovec(mem, at, len, iov, ARRAY_SIZE(iov));
    uint8_t *to = dst;

    if (n < 0)
        return -EFAULT;
    for (int i = 0; i < n; i++) {
        gmem_copy_once(to, iov[i].iov_base, iov[i].iov_len);
        to += iov[i].iov_len;
    }
    return 0;
}

int gmem_write(const struct gmem *mem, struct gpa at, const void *src, size_t len)
{
    struct iovec iov[GMEM_MAX_REGIONS];
    int n = gmem_iovec(mem, at, len, iov, ARRAY_SIZE(iov));
    const uint8_t *from = src;

    if (n < 0)
        return -EFAULT;
    for (int i = 0; i < n; i++) {
        memcpy(iov[i].iov_base, from, iov[i].iov_len);
        gmem_wrote(mem, iov[i].iov_base, iov[i].iov_len);
        from += iov[i].iov_len;
    }
    return 0;
}
