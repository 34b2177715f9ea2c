/* SPDX-License-Identifier: Apache-2.0 */
#include "root.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define DRIVER "/sys/bus/platform/drivers/virtio-mmio"

struct page page_new(void)
{
    static int pagemap = -1;
    struct page page = {
            .at = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0)};
    uint64_t entry;

    if (page.at == MAP_FAILED)
        fail("no memory");
    memset(page.at, 0, PAGE);
    if (pagemap < 0)
        pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pread(pagemap, &entry, 8, (off_t)((uintptr_t)page.at / PAGE * 8)) != 8 || !(entry >> 63))
        fail("/proc/self/pagemap does not tell");
    page.gpa = (entry & ((1ull << 55) - 1)) * PAGE;
    if (page.gpa == 0)
        fail("/proc/self/pagemap hides the addresses");
    return page;
}

/* Calls for each line of /proc/iomem. */
static void each_resource(void (*take)(uint64_t start, uint64_t end, const char *name, void *to), void *to)
{
    FILE *f = fopen("/proc/iomem", "re");
    unsigned long long start, end;
    char line[256], name[200];

    if (!f)
        fail("no /proc/iomem");
    while (fgets(line, sizeof(line), f)) {
        if (sscanf(line, " %llx-%llx : %199[^\n]", &start, &end, name) == 3)
            take(start, end, name, to);
    }
    fclose(f);
}

static void take_ram(uint64_t start, uint64_t end, const char *name, void *to)
{
    uint64_t *highest = to;

    if (strcmp(name, "System RAM") == 0 && start < 1ull << 32 && end >= *highest)
        *highest = end + 1;
}

uint64_t ram_end(void)
{
    static uint64_t end;

    if (end == 0)
        each_resource(take_ram, &end);
    return end;
}

/* The kind of caching must be the one of whoever mapped it before, or the kernel refuses. */
volatile uint8_t *map_registers(uint64_t gpa)
{
    static const int ways[] = {O_RDWR | O_SYNC, O_RDWR};

    for (size_t i = 0; i < ARRAY_SIZE(ways); i++) {
        int fd = open("/dev/mem", ways[i] | O_CLOEXEC);
        void *at = fd < 0 ? MAP_FAILED
                          : mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)(gpa & ~(PAGE - 1ull)));

        close(fd);
        if (at != MAP_FAILED)
            return (volatile uint8_t *)at + gpa % PAGE;
    }
    return NULL;
}

struct windows {
    struct window *list;
    unsigned count, max;
};

/* LNRO0005 is the device's name in ACPI, virtio-mmio when the command line announced it. Each stands there twice. */
static void take_window(uint64_t start, uint64_t end, const char *name, void *to)
{
    struct windows *w = to;

    if (strncmp(name, "LNRO0005:", 9) != 0 && strncmp(name, "virtio-mmio", 11) != 0)
        return;
    for (unsigned i = 0; i < w->count; i++) {
        if (w->list[i].at == start)
            return;
    }
    if (w->count < w->max)
        w->list[w->count++] = (struct window){start, (uint32_t)(end - start + 1)};
}

/* The names first: they leave the directory as they are written. */
static void unbind_all(void)
{
    char names[16][64];
    unsigned count = 0;
    DIR *dir = opendir(DRIVER);
    struct dirent *e;

    while (dir && (e = readdir(dir)) && count < ARRAY_SIZE(names)) {
        if (strncmp(e->d_name, "LNRO", 4) == 0 || strncmp(e->d_name, "virtio-mmio.", 12) == 0)
            snprintf(names[count++], sizeof(names[0]), "%.63s", e->d_name);
    }
    if (dir)
        closedir(dir);
    for (unsigned i = 0; i < count; i++) {
        int fd = open(DRIVER "/unbind", O_WRONLY | O_CLOEXEC);

        if (fd < 0 || write(fd, names[i], strlen(names[i])) < 0)
            fail("%s stays with its driver", names[i]);
        close(fd);
    }
}

unsigned take_devices(struct window *ret, unsigned max)
{
    struct windows w = {.list = ret, .max = max};

    each_resource(take_window, &w);
    unbind_all();
    return w.count;
}
