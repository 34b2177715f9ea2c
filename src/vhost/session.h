/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One vhost-user session: a front-end (the VMM) on a unix socket, its shared
 * memory and its rings.
 *
 * The front-end is trusted as much as the VM is: it may be a VMM that a guest
 * took over. What it says is checked like a guest's words; what it breaks is
 * its own session. Two things it can do to us by design: end the session, and
 * shrink a file that we mapped, so that the next access is a SIGBUS, which
 * ends this process and so this VM's vsock, nothing else. A memfd sealed with
 * F_SEAL_SHRINK, as QEMU's memory-backend-memfd makes it, can't be shrunk.
 *
 * A ring is *started* from SET_VRING_KICK to GET_VRING_BASE and *enabled* by
 * SET_VRING_ENABLE, or at once if the front-end does not know protocol
 * features. It is served only while both hold. Its addresses are the
 * front-end's virtual addresses and are translated through the memory table.
 *
 * Whether connections survive: a front-end that pauses the VM stops the rings
 * and starts them where they stopped. A ring that starts elsewhere has a fresh
 * driver (the guest rebooted): `driver_reset` becomes true.
 *
 * The session has no callbacks. The loop moves it, and its owner looks after
 * every turn of the loop at `ended`, `driver_reset` and the rings.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/log.h"
#include "base/loop.h"
#include "vhost/message.h"
#include "virtio/virtqueue.h"

#define VU_RINGS 2u

struct vu_session;

struct vu_ring {
    struct vu_session *session;
    struct virtqueue queue;
    struct loop_fd kick; /* fd -1: none */
    int call_fd, err_fd;
    uint16_t size, base;
    uint64_t desc, avail, used; /* the front-end's addresses */
    bool has_addr, enabled;
    bool has_stopped_at;
    uint16_t stopped_at;
};

struct vu_mapping {
    void *host;
    size_t size;
    uint64_t gpa, user_addr;
};

struct vu_offer {
    size_t size;           /* sizeof(struct vu_offer) */
    uint64_t features;     /* of the device; the session adds its own */
    const uint8_t *config; /* the device's configuration space, read-only; outlives the session */
    uint32_t config_size;  /* at most VU_MAX_CONFIG */
};

struct vu_session {
    struct loop *loop;
    struct vu_offer offer;
    struct loop_fd socket;
    uint8_t input[VU_MAX_MESSAGE];
    size_t input_len;
    int fds[VU_MAX_FDS];
    size_t nfds;
    uint64_t features, protocol_features; /* negotiated */
    struct gmem memory;
    struct vu_mapping mappings[VU_MAX_REGIONS];
    size_t mapping_count;
    struct vu_ring rings[VU_RINGS];
    struct log_limit log_limit;
    bool ended;        /* nothing moves any more; call vu_session_deinit() */
    int error;         /* why: 0 for an orderly end, else a negative errno */
    bool driver_reset; /* the owner clears it */
};

/* Takes the connected socket, also when it fails. The session must not move in memory afterwards. */
int vu_session_init(struct vu_session *session, struct loop *loop, int fd, const struct vu_offer *offer);
/* Closes and unmaps everything; idempotent. Views into guest memory are dead afterwards. */
void vu_session_deinit(struct vu_session *session);

/* The ring's queue while it may be served, else NULL. */
struct virtqueue *vu_ring_queue(struct vu_session *session, unsigned index);
/* Interrupts the guest. */
void vu_ring_signal(struct vu_session *session, unsigned index);
/* The ring broke: tells the front-end if it asked for that, and stops listening to kicks. */
void vu_ring_broken(struct vu_session *session, unsigned index);

/*
 * What the socket's reader does with one whole message, for it and for tests.
 * Descriptors that the message keeps are replaced by -1 in fds; the caller
 * closes the others. A negative errno ends the session.
 */
int vu_session_handle(
        struct vu_session *session, const struct vu_header *header, const uint8_t *payload, int *fds, size_t nfds);
