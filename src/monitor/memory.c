/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>

#include "base/macro.h"
#include "monitor/layout.h"
#include "monitor/snapshot/uffd.h"

#define HUGE_PAGE_BYTES (2ull << 20)

static int check_size(const struct machine_config *config, struct vm_error *error)
{
    struct sysinfo info;
    uint64_t host_mib;

    if (config->mem_size_mib < VM_MIN_MEMORY_MIB)
        return vm_fail(error, -EINVAL, "mem_size_mib 0: a VM has at least %u MiB", VM_MIN_MEMORY_MIB);
    if (config->huge_pages == HUGE_PAGES_2M && config->mem_size_mib % 2 != 0)
        return vm_fail(error, -EINVAL, "mem_size_mib %u: with huge_pages 2M it must be even", config->mem_size_mib);
    if (sysinfo(&info) < 0)
        return vm_fail(error, -errno, "sysinfo: %s", strerror(errno));
    host_mib = ((uint64_t)info.totalram * info.mem_unit) >> 20;
    if (config->mem_size_mib > host_mib)
        return vm_fail(error, -ENOMEM, "mem_size_mib %u: this host has %llu MiB; ask for less", config->mem_size_mib,
                (unsigned long long)host_mib);
    return 0;
}

static int add_regions(struct memory *memory)
{
    uint64_t low = MIN(memory->bytes, (uint64_t)LAYOUT_GAP_START);
    int r = gmem_add(&memory->gmem, (struct gpa){0}, low, memory->host);

    if (r == 0 && memory->bytes > low)
        r = gmem_add(&memory->gmem, (struct gpa){LAYOUT_GAP_END}, memory->bytes - low, memory->host + low);
    return r;
}

/* Aligned as the guest's addresses are, else no huge page could back it. */
static void *map_aligned(uint64_t bytes)
{
    uint8_t *raw = mmap(
            NULL, bytes + HUGE_PAGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    size_t before, behind;

    if (raw == MAP_FAILED)
        return NULL;
    before = -(uintptr_t)raw & (HUGE_PAGE_BYTES - 1);
    behind = HUGE_PAGE_BYTES - before;
    if (before > 0)
        (void)munmap(raw, before);
    (void)munmap(raw + before + bytes, behind);
    return raw + before;
}

static int map_anonymous(struct memory *memory, enum huge_pages pages, struct vm_error *error)
{
    /* Reserved now, so that a host without enough of them is an error here and not a SIGBUS later. */
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | (21 << MAP_HUGE_SHIFT);
    void *host = pages == HUGE_PAGES_2M ? mmap(NULL, memory->bytes, PROT_READ | PROT_WRITE, flags, -1, 0)
                                        : map_aligned(memory->bytes);

    if (!host || host == MAP_FAILED)
        return vm_fail(error, -errno, "guest memory of %llu MiB: %s%s", (unsigned long long)memory->bytes >> 20,
                strerror(errno), pages ? "; reserve huge pages in /proc/sys/vm/nr_hugepages" : "");
    memory->host = host;
    (void)madvise(host, memory->bytes, MADV_HUGEPAGE);
    return 0;
}

/* No huge pages are asked for: what a guest writes in a private mapping of a file becomes its own in small pages. */
static int map_file(struct memory *memory, enum huge_pages pages, int fd, struct vm_error *error)
{
    void *host;

    if (pages == HUGE_PAGES_2M)
        return vm_fail(error, -ENOTSUP,
                "huge_pages 2M: a memory file can't be mapped in them; load the snapshot with a Uffd backend");
    host = map_aligned(memory->bytes);
    if (!host)
        return vm_fail(error, -errno, "guest memory of %llu MiB: %s", (unsigned long long)memory->bytes >> 20,
                strerror(errno));
    memory->host = host;
    if (mmap(host, memory->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED, fd, 0) == MAP_FAILED)
        return vm_fail(error, -errno, "mapping %llu MiB of a memory file: %s", (unsigned long long)memory->bytes >> 20,
                strerror(errno));
    return 0;
}

static int show(struct memory *memory, bool track, struct vm_error *error)
{
    int r = add_regions(memory);

    if (r == 0 && track) {
        r = dirty_pages_init(&memory->written, memory->host, memory->bytes);
        memory->gmem.dirty = r == 0 ? &memory->written : NULL;
    }
    if (r < 0)
        return vm_fail(error, r, "guest memory: %s", strerror(-r));
    /* A core dump or a child must not carry a guest's memory. */
    (void)madvise(memory->host, memory->bytes, MADV_DONTDUMP);
    (void)madvise(memory->host, memory->bytes, MADV_DONTFORK);
    return 0;
}

/* file_fd -1: no file. */
static int make(struct memory *memory, const struct machine_config *config, int file_fd, struct vm_error *error)
{
    int r = check_size(config, error);

    *memory = (struct memory){0};
    if (r < 0)
        return r;
    memory->bytes = (uint64_t)config->mem_size_mib << 20;
    r = file_fd < 0 ? map_anonymous(memory, config->huge_pages, error)
                    : map_file(memory, config->huge_pages, file_fd, error);
    if (r == 0)
        r = show(memory, config->track_dirty_pages, error);
    if (r < 0)
        memory_deinit(memory);
    return r;
}

int memory_init(struct memory *memory, const struct machine_config *config, struct vm_error *error)
{
    return make(memory, config, -1, error);
}

int memory_init_file(struct memory *memory, const struct machine_config *config, int fd, struct vm_error *error)
{
    return make(memory, config, fd, error);
}

void memory_put_dirty(struct memory *memory, struct dirty_pages *taken)
{
    if (memory->gmem.dirty)
        dirty_pages_move(taken, &memory->written);
}

void memory_deinit(struct memory *memory)
{
    uffd_free(memory->uffd);
    if (memory->host)
        (void)munmap(memory->host, memory->bytes);
    dirty_pages_deinit(&memory->written);
    *memory = (struct memory){0};
}
