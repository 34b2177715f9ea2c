/* SPDX-License-Identifier: Apache-2.0 */
/*
 * vhost-user messages, as the back-end reads and answers them (QEMU's
 * docs/interop/vhost-user.rst). Pure functions: bytes in, a checked struct
 * out; one table says how large each request is and how many descriptors come
 * with it.
 *
 * Both ends run on one machine, so integers have the machine's byte order.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define VU_HEADER_SIZE 12u
#define VU_MAX_REGIONS 8u
#define VU_MAX_CONFIG  256u
#define VU_MAX_PAYLOAD (12u + VU_MAX_CONFIG) /* SET_CONFIG; a memory table of 8 regions has 264 */
#define VU_MAX_MESSAGE (VU_HEADER_SIZE + VU_MAX_PAYLOAD)
#define VU_MAX_FDS     VU_MAX_REGIONS

#define VHOST_USER_F_PROTOCOL_FEATURES 30u /* feature bit */
enum vu_protocol_feature {
    VU_PROTOCOL_F_MQ = 0,
    VU_PROTOCOL_F_REPLY_ACK = 3,
    VU_PROTOCOL_F_CONFIG = 9,
    VU_PROTOCOL_F_RESET_DEVICE = 13,
};

enum vu_request {
    VU_GET_FEATURES = 1,
    VU_SET_FEATURES = 2,
    VU_SET_OWNER = 3,
    VU_RESET_OWNER = 4,
    VU_SET_MEM_TABLE = 5,
    VU_SET_VRING_NUM = 8,
    VU_SET_VRING_ADDR = 9,
    VU_SET_VRING_BASE = 10,
    VU_GET_VRING_BASE = 11,
    VU_SET_VRING_KICK = 12,
    VU_SET_VRING_CALL = 13,
    VU_SET_VRING_ERR = 14,
    VU_GET_PROTOCOL_FEATURES = 15,
    VU_SET_PROTOCOL_FEATURES = 16,
    VU_GET_QUEUE_NUM = 17,
    VU_SET_VRING_ENABLE = 18,
    VU_GET_CONFIG = 24,
    VU_SET_CONFIG = 25,
    VU_RESET_DEVICE = 34,
    VU_REQUEST_MAX_,
};

struct vu_header {
    uint32_t request; /* may be one that we don't know */
    bool need_reply;
    uint32_t size;
};

struct vu_region {
    uint64_t gpa, size, user_addr, mmap_offset;
};

struct vu_message {
    enum vu_request request;
    bool need_reply;
    union {
        uint64_t u64;
        struct {
            uint32_t index, num;
        } vring; /* NUM, BASE, GET_VRING_BASE, ENABLE */
        struct {
            uint32_t index, flags;
            uint64_t desc, used, avail; /* user addresses */
        } addr;
        struct {
            uint32_t index;
            bool has_fd;
        } vring_fd; /* KICK, CALL, ERR */
        struct {
            uint32_t count;
            struct vu_region regions[VU_MAX_REGIONS];
        } memory;
        struct {
            uint32_t offset, size, flags;
            uint8_t bytes[VU_MAX_CONFIG]; /* size of them are set in SET_CONFIG */
        } config;
    };
};

/* -EPROTO: wrong version, a reply, or a payload over VU_MAX_PAYLOAD. */
int vu_header_decode(const uint8_t bytes[VU_HEADER_SIZE], struct vu_header *ret);

/*
 * `payload` has header->size bytes; nfds descriptors came with it.
 * -EOPNOTSUPP: unknown request; -EPROTO: size, count or descriptors don't fit
 * the request.
 */
int vu_message_decode(const struct vu_header *header, const uint8_t *payload, size_t nfds, struct vu_message *ret);

/* Header and payload of an answer into `to` (VU_MAX_MESSAGE bytes). Returns the length. */
size_t vu_reply_u64(uint8_t *to, uint32_t request, uint64_t value);
size_t vu_reply_vring(uint8_t *to, uint32_t request, uint32_t index, uint32_t num);
/* size may be 0: that says "no such range". At most VU_MAX_CONFIG. */
size_t vu_reply_config(uint8_t *to, uint32_t offset, uint32_t flags, const void *bytes, uint32_t size);

const char *vu_request_name(uint32_t request);
