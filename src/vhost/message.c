/* SPDX-License-Identifier: Apache-2.0 */
#include "vhost/message.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "base/macro.h"

#define FLAG_VERSION_MASK 3u
#define FLAG_VERSION      1u
#define FLAG_REPLY        4u
#define FLAG_NEED_REPLY   8u

#define REGION_SIZE      32u
#define CONFIG_HEAD_SIZE 12u
#define VRING_FD_INDEX   0xffull
#define VRING_FD_NONE    0x100ull

enum shape {
    UNKNOWN,
    EMPTY,
    U64,
    VRING,
    ADDR,
    VRING_FD,
    MEMORY,
    CONFIG,
};

static const struct {
    const char *name;
    enum shape shape;
} requests[VU_REQUEST_MAX_] = {
        [VU_GET_FEATURES] = {"GET_FEATURES", EMPTY},
        [VU_SET_FEATURES] = {"SET_FEATURES", U64},
        [VU_SET_OWNER] = {"SET_OWNER", EMPTY},
        [VU_RESET_OWNER] = {"RESET_OWNER", EMPTY},
        [VU_SET_MEM_TABLE] = {"SET_MEM_TABLE", MEMORY},
        [VU_SET_VRING_NUM] = {"SET_VRING_NUM", VRING},
        [VU_SET_VRING_ADDR] = {"SET_VRING_ADDR", ADDR},
        [VU_SET_VRING_BASE] = {"SET_VRING_BASE", VRING},
        [VU_GET_VRING_BASE] = {"GET_VRING_BASE", VRING},
        [VU_SET_VRING_KICK] = {"SET_VRING_KICK", VRING_FD},
        [VU_SET_VRING_CALL] = {"SET_VRING_CALL", VRING_FD},
        [VU_SET_VRING_ERR] = {"SET_VRING_ERR", VRING_FD},
        [VU_GET_PROTOCOL_FEATURES] = {"GET_PROTOCOL_FEATURES", EMPTY},
        [VU_SET_PROTOCOL_FEATURES] = {"SET_PROTOCOL_FEATURES", U64},
        [VU_GET_QUEUE_NUM] = {"GET_QUEUE_NUM", EMPTY},
        [VU_SET_VRING_ENABLE] = {"SET_VRING_ENABLE", VRING},
        [VU_GET_CONFIG] = {"GET_CONFIG", CONFIG},
        [VU_SET_CONFIG] = {"SET_CONFIG", CONFIG},
        [VU_RESET_DEVICE] = {"RESET_DEVICE", EMPTY},
};

/* A shape's payload is `fixed` bytes, and up to `more` behind them. */
static const struct {
    uint32_t fixed, more;
} shapes[] = {
        [UNKNOWN] = {0, VU_MAX_PAYLOAD},
        [EMPTY] = {0, 0},
        [U64] = {8, 0},
        [VRING] = {8, 0},
        [ADDR] = {40, 0},
        [VRING_FD] = {8, 0},
        [MEMORY] = {8, VU_MAX_REGIONS *REGION_SIZE},
        [CONFIG] = {CONFIG_HEAD_SIZE, VU_MAX_CONFIG},
};

static uint32_t get_u32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static uint64_t get_u64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return v;
}

static void put_u32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof(v));
}

static enum shape shape_of(uint32_t request)
{
    return request < VU_REQUEST_MAX_ ? requests[request].shape : UNKNOWN;
}

const char *vu_request_name(uint32_t request)
{
    return shape_of(request) == UNKNOWN ? "unknown request" : requests[request].name;
}

int vu_header_decode(const uint8_t bytes[VU_HEADER_SIZE], struct vu_header *ret)
{
    uint32_t flags = get_u32(bytes + 4), size = get_u32(bytes + 8);

    if ((flags & FLAG_VERSION_MASK) != FLAG_VERSION || (flags & FLAG_REPLY) || size > VU_MAX_PAYLOAD)
        return -EPROTO;
    *ret = (struct vu_header){.request = get_u32(bytes), .need_reply = flags & FLAG_NEED_REPLY, .size = size};
    return 0;
}

/* QEMU sends a table of the size that its count says; all eight with the rest unused is legal, too. */
static int decode_memory(const uint8_t *payload, uint32_t size, size_t nfds, struct vu_message *ret)
{
    uint32_t count = get_u32(payload);

    if (count > VU_MAX_REGIONS || size - 8 < count * REGION_SIZE || nfds != count)
        return -EPROTO;
    ret->memory.count = count;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *p = payload + 8 + i * REGION_SIZE;

        ret->memory.regions[i] = (struct vu_region){.gpa = get_u64(p),
                .size = get_u64(p + 8),
                .user_addr = get_u64(p + 16),
                .mmap_offset = get_u64(p + 24)};
    }
    return 0;
}

static int decode_config(const uint8_t *payload, uint32_t size, struct vu_message *ret)
{
    uint32_t len = get_u32(payload + 4);

    if (len > VU_MAX_CONFIG || len != size - CONFIG_HEAD_SIZE)
        return -EPROTO;
    ret->config.offset = get_u32(payload);
    ret->config.size = len;
    ret->config.flags = get_u32(payload + 8);
    memcpy(ret->config.bytes, payload + CONFIG_HEAD_SIZE, len);
    return 0;
}

static int decode_vring_fd(const uint8_t *payload, size_t nfds, struct vu_message *ret)
{
    uint64_t v = get_u64(payload);
    bool has_fd = !(v & VRING_FD_NONE);

    if ((v & ~(VRING_FD_INDEX | VRING_FD_NONE)) || nfds != (has_fd ? 1 : 0))
        return -EPROTO;
    ret->vring_fd.index = (uint32_t)(v & VRING_FD_INDEX);
    ret->vring_fd.has_fd = has_fd;
    return 0;
}

int vu_message_decode(const struct vu_header *header, const uint8_t *payload, size_t nfds, struct vu_message *ret)
{
    enum shape shape = shape_of(header->request);
    struct vu_message message = {.request = (enum vu_request)header->request, .need_reply = header->need_reply};
    int r = 0;

    if (shape == UNKNOWN)
        return -EOPNOTSUPP;
    if (header->size < shapes[shape].fixed || header->size - shapes[shape].fixed > shapes[shape].more)
        return -EPROTO;
    if (nfds > 0 && shape != MEMORY && shape != VRING_FD)
        return -EPROTO;
    switch (shape) {
    case U64:
        message.u64 = get_u64(payload);
        break;
    case VRING:
        message.vring.index = get_u32(payload);
        message.vring.num = get_u32(payload + 4);
        break;
    case ADDR:
        message.addr.index = get_u32(payload);
        message.addr.flags = get_u32(payload + 4);
        message.addr.desc = get_u64(payload + 8);
        message.addr.used = get_u64(payload + 16);
        message.addr.avail = get_u64(payload + 24);
        break;
    case VRING_FD:
        r = decode_vring_fd(payload, nfds, &message);
        break;
    case MEMORY:
        r = decode_memory(payload, header->size, nfds, &message);
        break;
    case CONFIG:
        r = decode_config(payload, header->size, &message);
        break;
    case EMPTY:
    case UNKNOWN:
        break;
    }
    if (r == 0)
        *ret = message;
    return r;
}

static size_t put_header(uint8_t *to, uint32_t request, uint32_t size)
{
    put_u32(to, request);
    put_u32(to + 4, FLAG_VERSION | FLAG_REPLY);
    put_u32(to + 8, size);
    return VU_HEADER_SIZE + size;
}

size_t vu_reply_u64(uint8_t *to, uint32_t request, uint64_t value)
{
    memcpy(to + VU_HEADER_SIZE, &value, sizeof(value));
    return put_header(to, request, sizeof(value));
}

size_t vu_reply_vring(uint8_t *to, uint32_t request, uint32_t index, uint32_t num)
{
    put_u32(to + VU_HEADER_SIZE, index);
    put_u32(to + VU_HEADER_SIZE + 4, num);
    return put_header(to, request, 8);
}

size_t vu_reply_config(uint8_t *to, uint32_t offset, uint32_t flags, const void *bytes, uint32_t size)
{
    assert(size <= VU_MAX_CONFIG);
    if (size == 0)
        return put_header(to, VU_GET_CONFIG, 0);
    put_u32(to + VU_HEADER_SIZE, offset);
    put_u32(to + VU_HEADER_SIZE + 4, size);
    put_u32(to + VU_HEADER_SIZE + 8, flags);
    memcpy(to + VU_HEADER_SIZE + CONFIG_HEAD_SIZE, bytes, size);
    return put_header(to, VU_GET_CONFIG, CONFIG_HEAD_SIZE + size);
}
