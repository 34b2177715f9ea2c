/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A front-end for tests: a VMM that is nothing but 1 MiB of shared memory, two
 * rings and the words of the protocol. It asserts that all goes well; tests of
 * what must go wrong use fe_send() and fe_recv().
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "vhost/message.h"
#include "virtio/test-ring.h"

#define FE_RAM_SIZE   0x100000u
#define FE_GPA_BASE   0x40000000ull     /* guest address, */
#define FE_USER_BASE  0x7f0000000000ull /* and front-end's address, of the memory's first byte */
#define FE_RING_SIZE  128u
#define FE_RX_BUFFER  3776u
#define FE_REPLY      (1u | 4u)
#define FE_PLAIN      1u
#define FE_NEED_REPLY (1u | 8u)

struct frontend {
    int sock, memfd;
    uint8_t *ram;
    struct test_ring rings[2]; /* rx, tx */
    int kick[2], call[2];
    uint64_t features;
    uint16_t tx_next;             /* the next pair of tx descriptors */
    void (*pump)(void *userdata); /* moves a back-end of the same process; NULL when it moves itself */
    void *userdata;
};

void fe_init(struct frontend *fe, int sock);
void fe_deinit(struct frontend *fe);

void fe_send(struct frontend *fe, uint32_t request, uint32_t flags, const void *payload, uint32_t size, const int *fds,
        size_t nfds);
/* False when the back-end closed the socket. */
bool fe_recv(struct frontend *fe, uint32_t request, void *payload, uint32_t size);
/* Sends with need_reply and returns what the back-end acknowledges with. */
uint64_t fe_order(
        struct frontend *fe, uint32_t request, const void *payload, uint32_t size, const int *fds, size_t nfds);
uint64_t fe_order_u64(struct frontend *fe, uint32_t request, uint64_t value);
uint64_t fe_order_vring(struct frontend *fe, uint32_t request, uint32_t index, uint32_t num);
uint64_t fe_order_fd(struct frontend *fe, uint32_t request, uint32_t index, int fd);
uint64_t fe_ask_u64(struct frontend *fe, uint32_t request);
uint32_t fe_get_base(struct frontend *fe, uint32_t index);
uint64_t fe_set_memory(struct frontend *fe, const struct vu_region *regions, const int *fds, uint32_t count);
uint64_t fe_set_addr(struct frontend *fe, uint32_t index);
struct vu_region fe_region(void);

/* From GET_FEATURES to SET_MEM_TABLE. */
void fe_handshake(struct frontend *fe);
/* Size, base, addresses, kick, call, enable of both rings. The rings' memory is left as it is. */
void fe_start(struct frontend *fe, uint16_t rx_base, uint16_t tx_base);
/* Empty rings, and every rx buffer offered. */
void fe_fresh_driver(struct frontend *fe);

/* The driver: one packet (44 header bytes and a payload in its own descriptor). */
void fe_transmit(struct frontend *fe, const uint8_t *header, const void *payload, uint32_t len);
/* The next packet of the device into `packet` (FE_RX_BUFFER bytes); 0 when none came in the time. The buffer goes back.
 */
uint32_t fe_receive(struct frontend *fe, uint8_t *packet, int timeout_ms);
