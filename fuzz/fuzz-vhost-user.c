/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vhost-user session with a hostile front-end. The input is a sequence of
 * messages: one byte that says which descriptors come along, header, payload.
 * After each message both rings are served, so that what the messages set up
 * (addresses, tables, indices) is also used.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"
#include "fuzz.h"
#include "vhost/session.h"

#define MAX_MESSAGES 64
#define RAM_SIZE     0x10000
#define CHAINS       8

static const uint8_t config[8] = {3};
static struct vq_chain chain;

/* Descriptors of every kind that matters: memory, event, a file without pages, one that can't be polled. */
static int make_fd(unsigned kind)
{
    static int ram = -1;

    if (ram < 0) {
        ram = memfd_create("ram", MFD_CLOEXEC);
        if (ram < 0 || ftruncate(ram, RAM_SIZE) < 0)
            abort();
    }
    switch (kind % 4) {
    case 0:
        return eventfd(0, EFD_CLOEXEC);
    case 1:
        return fcntl(ram, F_DUPFD_CLOEXEC, 0);
    case 2:
        return open("/dev/null", O_RDWR | O_CLOEXEC);
    default:
        return open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    }
}

static void serve(struct vu_session *session)
{
    for (unsigned i = 0; i < VU_RINGS; i++) {
        struct virtqueue *vq = vu_ring_queue(session, i);

        for (int n = 0; vq && n < CHAINS && vq_pop(vq, &chain) == VQ_CHAIN; n++) {
            for (size_t j = 0; j < chain.writable_count; j++)
                ((uint8_t *)chain.writable[j].iov_base)[chain.writable[j].iov_len - 1] = 1;
            vq_push(vq, chain.head, chain.writable_bytes);
        }
        if (vq && vq_should_signal(vq))
            vu_ring_signal(session, i);
        if (vq && vq->fault != VQ_FAULT_NONE)
            vu_ring_broken(session, i);
    }
    session->driver_reset = false;
}

/* Returns the bytes used, or 0 when the session is over. */
static size_t one_message(struct vu_session *session, int peer, const uint8_t *data, size_t size)
{
    uint8_t drain[1024];
    int fds[VU_MAX_FDS];
    struct vu_header header;
    size_t nfds;
    int r;

    if (size < 1 + VU_HEADER_SIZE || vu_header_decode(data + 1, &header) < 0 || header.size > size - 1 - VU_HEADER_SIZE)
        return 0;
    nfds = (data[0] & 15u) % (VU_MAX_FDS + 1);
    for (size_t i = 0; i < nfds; i++)
        fds[i] = make_fd(data[0] >> 4);
    r = vu_session_handle(session, &header, data + 1 + VU_HEADER_SIZE, fds, nfds);
    for (size_t i = 0; i < nfds; i++)
        fd_close(fds[i]);
    while (recv(peer, drain, sizeof(drain), MSG_DONTWAIT) > 0)
        ;
    return r < 0 ? 0 : 1 + VU_HEADER_SIZE + header.size;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct loop loop = {.epoll_fd = -1};
    static struct vu_session session;
    const struct vu_offer offer = {
            .size = sizeof(offer),
            .features = 1ull << VIRTIO_F_VERSION_1 | 1ull << VIRTIO_F_INDIRECT_DESC | 1ull << VIRTIO_F_EVENT_IDX,
            .config = config,
            .config_size = sizeof(config),
    };
    int pair[2];
    size_t used;

    log_init("fuzz", LOG_ERROR, STDERR_FILENO);
    if ((loop.epoll_fd < 0 && loop_init(&loop) < 0) || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0 ||
            vu_session_init(&session, &loop, pair[0], &offer) < 0)
        abort();
    for (int i = 0; i < MAX_MESSAGES; i++) {
        used = one_message(&session, pair[1], data, size);
        if (used == 0)
            break;
        data += used;
        size -= used;
        serve(&session);
        (void)loop_once(&loop, 0);
    }
    vu_session_deinit(&session);
    fd_close(pair[1]);
    return 0;
}
