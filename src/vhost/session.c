/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/session.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "base/fd.h"
#include "base/log.h"
#include "base/macro.h"
#include "vhost/memory.h"

#define MESSAGES_PER_TURN 32 /* then the rings get their turn */

#define BIT(n) (1ull << (n))
#define PROTOCOL_FEATURES                                                                                              \
    (BIT(VU_PROTOCOL_F_MQ) | BIT(VU_PROTOCOL_F_REPLY_ACK) | BIT(VU_PROTOCOL_F_CONFIG) | BIT(VU_PROTOCOL_F_RESET_DEVICE))

static uint64_t offered_features(const struct vu_session *s)
{
    return s->offer.features | BIT(VHOST_USER_F_PROTOCOL_FEATURES);
}

static void end(struct vu_session *s, int error)
{
    if (s->ended)
        return;
    s->ended = true;
    s->error = error;
    loop_remove(s->loop, &s->socket);
}

static int send_reply(struct vu_session *s, const uint8_t *bytes, size_t len)
{
    ssize_t n = unix_send_fds(s->socket.fd, bytes, len, NULL, 0);

    if (n < 0 && n != -EAGAIN)
        return (int)n;
    /* The socket holds some hundred replies; a front-end that lets it overflow asks without reading. */
    return n == (ssize_t)len ? 0 : -EPROTO;
}

static int reply_u64(struct vu_session *s, uint32_t request, uint64_t value)
{
    uint8_t bytes[VU_MAX_MESSAGE];

    return send_reply(s, bytes, vu_reply_u64(bytes, request, value));
}

static int drain_kick(struct loop_fd *source, uint32_t events)
{
    struct vu_ring *ring = CONTAINER_OF(source, struct vu_ring, kick);
    uint64_t count;
    ssize_t n = read(source->fd, &count, sizeof(count));

    /* An end of file or an error would wake us for ever. The rings themselves are looked at after this turn. */
    if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
        loop_remove(ring->session->loop, source);
    return 0;
}

static void drop_kick(struct vu_ring *ring)
{
    loop_remove(ring->session->loop, &ring->kick);
    fd_close(ring->kick.fd);
    ring->kick.fd = -1;
}

static int start_ring(struct vu_ring *ring, uint16_t next_avail)
{
    struct vu_session *s = ring->session;
    struct vq_config config = {.size = ring->size,
            .next_avail = next_avail,
            .indirect = s->features & BIT(VIRTIO_F_INDIRECT_DESC),
            .event_idx = s->features & BIT(VIRTIO_F_EVENT_IDX)};

    if (!ring->has_addr || !vu_translate(s, ring->desc, &config.desc) || !vu_translate(s, ring->avail, &config.avail) ||
            !vu_translate(s, ring->used, &config.used))
        return -EFAULT;
    return vq_start(&ring->queue, &s->memory, &config);
}

static void stop_ring(struct vu_ring *ring)
{
    drop_kick(ring);
    if (!ring->queue.started)
        return;
    ring->base = ring->stopped_at = ring->queue.next_avail;
    ring->has_stopped_at = true;
    vq_stop(&ring->queue);
}

/*
 * Rings that run go on in the new table, or stop when they are not in it: no
 * view into the old one may survive. A broken ring touches nothing anyway.
 */
static int set_memory(struct vu_session *s, const struct vu_message *m, const int *fds)
{
    int r = vu_map_memory(s, m->memory.regions, fds, m->memory.count);

    if (r < 0)
        return r;
    for (size_t i = 0; i < VU_RINGS; i++) {
        struct vu_ring *ring = &s->rings[i];
        int error;

        if (!ring->queue.started || ring->queue.fault != VQ_FAULT_NONE)
            continue;
        ring->base = ring->queue.next_avail;
        vq_stop(&ring->queue);
        error = start_ring(ring, ring->base);
        if (error < 0) {
            drop_kick(ring);
            r = error;
        }
    }
    return r;
}

static int set_features(struct vu_session *s, uint64_t features)
{
    if (features & ~offered_features(s))
        return -EINVAL;
    for (size_t i = 0; i < VU_RINGS; i++) {
        struct vu_ring *ring = &s->rings[i];

        /* The layout of a ring in use can't change; front-ends repeat the same bits for a live migration. */
        if (ring->queue.started && features != s->features)
            return -EBUSY;
        if (!(features & BIT(VHOST_USER_F_PROTOCOL_FEATURES)))
            ring->enabled = true;
    }
    s->features = features;
    return 0;
}

static int set_base(struct vu_session *s, struct vu_ring *ring, uint32_t base)
{
    if (ring->queue.started)
        return -EBUSY;
    if (base > UINT16_MAX)
        return -EINVAL;
    if (ring->has_stopped_at && base != ring->stopped_at)
        s->driver_reset = true;
    ring->has_stopped_at = false;
    ring->base = (uint16_t)base;
    return 0;
}

static int set_size(struct vu_ring *ring, uint32_t size)
{
    if (ring->queue.started)
        return -EBUSY;
    if (size == 0 || size > VQ_MAX_SIZE) /* a size that is no power of two is the guest's doing: start_guest_ring() */
        return -EINVAL;
    ring->size = (uint16_t)size;
    return 0;
}

static int set_addr(struct vu_ring *ring, const struct vu_message *m)
{
    if (ring->queue.started)
        return -EBUSY;
    if (m->addr.flags != 0) /* dirty logging, which is not offered */
        return -EINVAL;
    ring->desc = m->addr.desc;
    ring->avail = m->addr.avail;
    ring->used = m->addr.used;
    ring->has_addr = true;
    return 0;
}

/*
 * Where a ring is and how long, the guest's driver says, and QEMU passes some of its nonsense on. A ring that can't be
 * started is not served until the driver resets the device; ending the session would end the whole VM for it.
 */
static int start_guest_ring(struct vu_ring *ring)
{
    struct vu_session *s = ring->session;
    int r;

    if (!ring->has_addr)
        return -EINVAL;
    r = start_ring(ring, ring->base);
    if (r < 0 && log_allowed(&s->log_limit))
        log_msg(LOG_WARN,
                "guest put its %s queue where it can't be: %s; it is not served until the driver resets the "
                "device",
                ring == &s->rings[0] ? "rx" : "tx", strerror(-r));
    return 0;
}

/* Takes *fd. The flag is shared with the front-end, whose eventfds are non-blocking, too. */
static int set_kick(struct vu_ring *ring, int *fd)
{
    int r = 0;

    if (*fd < 0) /* polled rings would cost a CPU per VM */
        return -EOPNOTSUPP;
    r = fd_set_nonblock(*fd, true);
    if (r < 0)
        return r;
    drop_kick(ring);
    ring->kick = (struct loop_fd){.fd = TAKE_FD(*fd), .events = EPOLLIN, .ready = drain_kick};
    r = loop_add(ring->session->loop, &ring->kick);
    if (r == 0 && !ring->queue.started)
        r = start_guest_ring(ring);
    if (r < 0)
        drop_kick(ring);
    return r;
}

static int set_event_fd(int *slot, int *fd)
{
    int r = *fd < 0 ? 0 : fd_set_nonblock(*fd, true);

    if (r < 0)
        return r;
    fd_close(*slot);
    *slot = TAKE_FD(*fd);
    return 0;
}

static void notify(int fd)
{
    static const uint64_t one = 1;

    /* A full eventfd already says what we want to say; a front-end that closed its end hears nothing. */
    if (fd >= 0 && write(fd, &one, sizeof(one)) < 0)
        return;
}

static int set_call(struct vu_ring *ring, int *fd)
{
    int r = set_event_fd(&ring->call_fd, fd);

    /* What was signalled to the old one may be lost; one interrupt too many harms nobody. */
    if (r == 0 && ring->queue.started)
        notify(ring->call_fd);
    return r;
}

static void reset_device(struct vu_session *s)
{
    for (size_t i = 0; i < VU_RINGS; i++) {
        stop_ring(&s->rings[i]);
        s->rings[i].has_stopped_at = false;
        s->rings[i].base = 0;
        s->rings[i].enabled = !(s->features & BIT(VHOST_USER_F_PROTOCOL_FEATURES));
    }
    s->driver_reset = true;
}

static int get_config(struct vu_session *s, const struct vu_message *m)
{
    uint8_t bytes[VU_MAX_MESSAGE];
    uint32_t offset = m->config.offset, size = m->config.size;
    bool inside = offset <= s->offer.config_size && size <= s->offer.config_size - offset;
    size_t len = vu_reply_config(
            bytes, offset, m->config.flags, inside ? s->offer.config + offset : NULL, inside ? size : 0);

    return send_reply(s, bytes, len);
}

static int get_base(struct vu_session *s, struct vu_ring *ring, uint32_t index)
{
    uint8_t bytes[VU_MAX_MESSAGE];

    stop_ring(ring);
    return send_reply(s, bytes, vu_reply_vring(bytes, VU_GET_VRING_BASE, index, ring->base));
}

/* The ring that a message names, NULL when it names one that is not there; *ret_any: the message names a ring at all.
 */
static struct vu_ring *ring_of(struct vu_session *s, const struct vu_message *m, bool *ret_any)
{
    uint32_t index;

    *ret_any = true;
    switch (m->request) {
    case VU_SET_VRING_NUM:
    case VU_SET_VRING_BASE:
    case VU_GET_VRING_BASE:
    case VU_SET_VRING_ENABLE:
        index = m->vring.index;
        break;
    case VU_SET_VRING_ADDR:
        index = m->addr.index;
        break;
    case VU_SET_VRING_KICK:
    case VU_SET_VRING_CALL:
    case VU_SET_VRING_ERR:
        index = m->vring_fd.index;
        break;
    default:
        *ret_any = false;
        return NULL;
    }
    return index < VU_RINGS ? &s->rings[index] : NULL;
}

/* Questions. True when the message was one; its answer is also its acknowledgement. */
static bool answer(struct vu_session *s, const struct vu_message *m, struct vu_ring *ring, int *ret_error)
{
    switch (m->request) {
    case VU_GET_FEATURES:
        *ret_error = reply_u64(s, m->request, offered_features(s));
        return true;
    case VU_GET_PROTOCOL_FEATURES:
        *ret_error = reply_u64(s, m->request, PROTOCOL_FEATURES);
        return true;
    case VU_GET_QUEUE_NUM:
        *ret_error = reply_u64(s, m->request, VU_RINGS);
        return true;
    case VU_GET_CONFIG:
        *ret_error = get_config(s, m);
        return true;
    case VU_GET_VRING_BASE:
        *ret_error = ring ? get_base(s, ring, m->vring.index) : -EINVAL;
        return true;
    default:
        return false;
    }
}

/* Orders. `fd` is the ring message's descriptor, or where -1 is. */
static int obey(struct vu_session *s, const struct vu_message *m, struct vu_ring *ring, int *fds, int *fd)
{
    switch (m->request) {
    case VU_SET_OWNER:
        return 0;
    case VU_RESET_OWNER:
    case VU_RESET_DEVICE:
        reset_device(s);
        return 0;
    case VU_SET_FEATURES:
        return set_features(s, m->u64);
    case VU_SET_PROTOCOL_FEATURES:
        if (m->u64 & ~PROTOCOL_FEATURES)
            return -EINVAL;
        s->protocol_features = m->u64;
        return 0;
    case VU_SET_MEM_TABLE:
        return set_memory(s, m, fds);
    case VU_SET_VRING_NUM:
        return set_size(ring, m->vring.num);
    case VU_SET_VRING_BASE:
        return set_base(s, ring, m->vring.num);
    case VU_SET_VRING_ADDR:
        return set_addr(ring, m);
    case VU_SET_VRING_ENABLE:
        if (m->vring.num > 1)
            return -EINVAL;
        ring->enabled = m->vring.num == 1;
        return 0;
    case VU_SET_VRING_KICK:
        return set_kick(ring, fd);
    case VU_SET_VRING_CALL:
        return set_call(ring, fd);
    case VU_SET_VRING_ERR:
        return set_event_fd(&ring->err_fd, fd);
    case VU_SET_CONFIG: /* nothing in vsock's configuration can be written */
    default:
        return -EOPNOTSUPP;
    }
}

int vu_session_handle(
        struct vu_session *session, const struct vu_header *header, const uint8_t *payload, int *fds, size_t nfds)
{
    bool ack = header->need_reply && (session->protocol_features & BIT(VU_PROTOCOL_F_REPLY_ACK));
    struct vu_message message;
    struct vu_ring *ring = NULL;
    bool names_ring = false;
    int none = -1, r;

    r = vu_message_decode(header, payload, nfds, &message);
    if (r == -EPROTO)
        return r;
    if (r == 0) {
        ring = ring_of(session, &message, &names_ring);
        if (answer(session, &message, ring, &r))
            return r;
        r = names_ring && !ring ? -EINVAL : obey(session, &message, ring, fds, nfds > 0 ? &fds[0] : &none);
    }
    if (r < 0 && log_allowed(&session->log_limit))
        log_msg(LOG_WARN, "front-end: %s refused: %s", vu_request_name(header->request), strerror(-r));
    /* Without acknowledgements the front-end would go on as if we had obeyed. */
    return ack ? reply_u64(session, header->request, r < 0 ? 1 : 0) : r;
}

static void close_fds(struct vu_session *s)
{
    while (s->nfds > 0)
        fd_close(s->fds[--s->nfds]);
}

/* Reads towards `want` bytes of the message. 0: complete; -EAGAIN: not yet; -ENODATA: the front-end left. */
static int fill(struct vu_session *s, size_t want)
{
    while (s->input_len < want) {
        int fds[VU_MAX_FDS];
        size_t nfds = 0;
        ssize_t n = unix_recv_fds(
                s->socket.fd, s->input + s->input_len, want - s->input_len, fds, VU_MAX_FDS - s->nfds, &nfds);

        if (n < 0)
            return n == -EWOULDBLOCK ? -EAGAIN : (int)n;
        for (size_t i = 0; i < nfds; i++)
            s->fds[s->nfds++] = fds[i];
        if (n == 0)
            return s->input_len == 0 ? -ENODATA : -ECONNRESET;
        s->input_len += (size_t)n;
    }
    return 0;
}

static int read_message(struct vu_session *s)
{
    struct vu_header header = {0};
    int r = fill(s, VU_HEADER_SIZE);

    if (r == 0)
        r = vu_header_decode(s->input, &header);
    if (r == 0)
        r = fill(s, VU_HEADER_SIZE + header.size);
    if (r < 0)
        return r;
    r = vu_session_handle(s, &header, s->input + VU_HEADER_SIZE, s->fds, s->nfds);
    close_fds(s);
    s->input_len = 0;
    return r;
}

static int socket_ready(struct loop_fd *source, uint32_t events)
{
    struct vu_session *s = CONTAINER_OF(source, struct vu_session, socket);
    int r = 0;

    for (int i = 0; i < MESSAGES_PER_TURN && r == 0; i++)
        r = read_message(s);
    if (r == -ENODATA || r == -ECONNRESET || r == -EPIPE)
        end(s, 0);
    else if (r < 0 && r != -EAGAIN)
        end(s, r);
    return 0;
}

int vu_session_init(struct vu_session *session, struct loop *loop, int fd, const struct vu_offer *offer)
{
    int r;

    assert(offer->size == sizeof(*offer) && offer->config_size <= VU_MAX_CONFIG);
    *session = (struct vu_session){.loop = loop,
            .offer = *offer,
            .log_limit = {.burst = 5},
            .socket = {.fd = fd, .events = EPOLLIN, .ready = socket_ready}};
    for (size_t i = 0; i < VU_RINGS; i++) {
        struct vu_ring *ring = &session->rings[i];

        ring->session = session;
        ring->kick.fd = ring->call_fd = ring->err_fd = -1;
    }
    r = fd_set_nonblock(fd, true);
    if (r == 0)
        r = loop_add(loop, &session->socket);
    if (r < 0)
        vu_session_deinit(session);
    return r;
}

void vu_session_deinit(struct vu_session *session)
{
    if (!session->loop)
        return;
    end(session, 0);
    for (size_t i = 0; i < VU_RINGS; i++) {
        struct vu_ring *ring = &session->rings[i];

        stop_ring(ring);
        (void)set_event_fd(&ring->call_fd, &(int){-1});
        (void)set_event_fd(&ring->err_fd, &(int){-1});
    }
    vu_unmap_memory(session);
    close_fds(session);
    fd_close(session->socket.fd);
    session->socket.fd = -1;
    session->loop = NULL;
}

struct virtqueue *vu_ring_queue(struct vu_session *session, unsigned index)
{
    struct vu_ring *ring = &session->rings[index];

    return ring->enabled && ring->queue.started && ring->queue.fault == VQ_FAULT_NONE ? &ring->queue : NULL;
}

void vu_ring_signal(struct vu_session *session, unsigned index)
{
    notify(session->rings[index].call_fd);
}

void vu_ring_broken(struct vu_session *session, unsigned index)
{
    struct vu_ring *ring = &session->rings[index];

    loop_remove(session->loop, &ring->kick);
    notify(ring->err_fd);
}
