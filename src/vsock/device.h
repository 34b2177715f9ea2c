/* SPDX-License-Identifier: Apache-2.0 */
/* The device behind `struct vsock`, and what its connections ask of it. Internal to this folder. */
#pragma once

#include "vsock/table.h"

#define VSOCK_REPLIES_MAX                                                                                              \
    256u /* RSTs for pairs of ports that have no connection; vsock_can_take() is false when full */

struct reply {
    uint32_t local_port, guest_port;
    uint16_t type;
};

struct vsock {
    struct loop *loop;
    uint64_t guest_cid;
    char *uds_path;
    uint32_t connect_timeout_ms;
    void (*rx_ready)(void *userdata);
    void *userdata;

    struct table table;
    struct reply replies[VSOCK_REPLIES_MAX]; /* a ring */
    uint32_t replies_first, replies_count;
    struct loop_fd listener;
    struct loop_timer deadlines;    /* armed no later than the earliest deadline of a connection */
    struct loop_timer accept_again; /* after accept4(2) found the process or the system short of something */
    bool announced;                 /* rx_ready was called, and what it was called for is not all taken */
    struct vsock_stats stats;
};

/* Sets c's deadline `ms` from now. */
void device_set_deadline(struct vsock *v, struct conn *c, uint32_t ms);
/* Tells the transport when there is something new for it: the last act of every entry into the core, as the transport
 * may call back at once. */
void device_announce(struct vsock *v);
/* Frees the slot, and accepts again when the table was full. */
void device_release(struct vsock *v, struct conn *c);
