/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A page-fault handler for a memory file, as small as one can be: takes the
 * memory of one VM and serves its pages until the VM's end. Tests only: it
 * believes what the monitor tells it.
 */
#pragma once

#include <errno.h>
#include <jansson.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/clock.h"
#include "base/fd.h"

#define HANDLER_REGIONS 4u

struct handler {
    int socket, uffd, stop_fd; /* stop_fd: readable when it shall end; -1: none */
    const uint8_t *file;       /* what the pages are */
    uint64_t file_bytes;
    struct handler_region {
        uint64_t start, size, offset, page_size;
    } regions[HANDLER_REGIONS];
    size_t count;
    uint8_t *removed; /* a byte for each page of 4 KiB that the guest gave back */
    unsigned long faults, removals;
};

/* Takes the regions from the array that the monitor sends; 0 or a negative errno. */
static inline int handler_parse(struct handler *h, const char *text, size_t len)
{
    json_t *all = json_loadb(text, len, 0, NULL), *each;
    size_t i;

    h->count = 0;
    if (json_array_size(all) == 0 || json_array_size(all) > HANDLER_REGIONS) {
        json_decref(all);
        return -EBADMSG;
    }
    json_array_foreach(all, i, each)
    {
        json_int_t start, size, offset, page, old;

        if (json_unpack(each, "{s:I,s:I,s:I,s:I,s:I!}", "base_host_virt_addr", &start, "size", &size, "offset", &offset,
                    "page_size", &page, "page_size_kib", &old) < 0 ||
                page != old || (uint64_t)offset > h->file_bytes || (uint64_t)size > h->file_bytes - (uint64_t)offset) {
            json_decref(all);
            return -EBADMSG;
        }
        h->regions[h->count++] =
                (struct handler_region){(uint64_t)start, (uint64_t)size, (uint64_t)offset, (uint64_t)page};
    }
    json_decref(all);
    return 0;
}

/* The next monitor that connects. */
static inline int handler_accept(struct handler *h, int listen_fd)
{
    char text[4096];
    size_t fds = 0;
    ssize_t n;

    h->uffd = -1;
    h->socket = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
    if (h->socket < 0)
        return -errno;
    n = unix_recv_fds(h->socket, text, sizeof(text), &h->uffd, 1, &fds);
    if (n < 0 || fds != 1)
        return n < 0 ? (int)n : -EBADMSG;
    return handler_parse(h, text, (size_t)n);
}

static inline struct handler_region *handler_find(struct handler *h, uint64_t address)
{
    for (size_t i = 0; i < h->count; i++) {
        if (address - h->regions[i].start < h->regions[i].size)
            return &h->regions[i];
    }
    return NULL;
}

static inline int handler_fill(struct handler *h, uint64_t address)
{
    const struct handler_region *region = handler_find(h, address);
    uint64_t page, offset;
    int r;

    if (!region)
        return -EFAULT;
    page = address & ~(region->page_size - 1);
    offset = page - region->start + region->offset;
    h->faults++;
    if (h->removed[offset / 4096]) {
        struct uffdio_zeropage zero = {.range = {page, region->page_size}};

        r = ioctl(h->uffd, UFFDIO_ZEROPAGE, &zero);
    } else {
        struct uffdio_copy copy = {
                .dst = page, .src = (uint64_t)(uintptr_t)(h->file + offset), .len = region->page_size};

        r = ioctl(h->uffd, UFFDIO_COPY, &copy);
    }
    /* Somebody else had the same fault; or memory is being given back, and the fault will come again. */
    return r < 0 && errno != EEXIST && errno != EAGAIN ? -errno : 0;
}

static inline int handler_event(struct handler *h)
{
    struct uffd_msg msg;
    ssize_t n = read(h->uffd, &msg, sizeof(msg));
    int r;

    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    if (msg.event == UFFD_EVENT_REMOVE) {
        const struct handler_region *region = handler_find(h, msg.arg.remove.start);

        h->removals++;
        for (uint64_t at = msg.arg.remove.start; region && at < msg.arg.remove.end; at += 4096)
            h->removed[(at - region->start + region->offset) / 4096] = 1;
        return 0;
    }
    if (msg.event != UFFD_EVENT_PAGEFAULT)
        return -EPROTO;
    r = handler_fill(h, msg.arg.pagefault.address);
    if (r == 0 || r == -ENOENT) { /* once more after EAGAIN: whoever waits must be woken */
        struct uffdio_range all = {msg.arg.pagefault.address & ~4095ull, 4096};

        (void)ioctl(h->uffd, UFFDIO_WAKE, &all);
    }
    return r;
}

/* Until the monitor is gone, or it is told to stop. */
static inline int handler_serve(struct handler *h)
{
    struct pollfd fds[] = {{.fd = h->uffd, .events = POLLIN}, {.fd = h->socket, .events = POLLIN},
            {.fd = h->stop_fd, .events = POLLIN}};
    int r = 0;

    while (r == 0 && poll(fds, 3, -1) >= 0 && !fds[1].revents && !fds[2].revents) {
        if (fds[0].revents & POLLIN)
            r = handler_event(h);
        else if (fds[0].revents)
            break;
    }
    return r;
}
