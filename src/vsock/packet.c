/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock/vsock.h"

#include <assert.h>
#include <endian.h>
#include <string.h>

/* The wire form of virtio 1.2 §5.10.6. Never pointed at guest memory: both functions copy. */
struct wire_hdr {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
} __attribute__((packed));

static_assert(sizeof(struct wire_hdr) == VSOCK_HDR_SIZE, "virtio_vsock_hdr is 44 bytes");
static_assert(offsetof(struct wire_hdr, len) == 24, "len follows the addresses");
static_assert(offsetof(struct wire_hdr, fwd_cnt) == 40, "fwd_cnt is the last field");

void vsock_hdr_decode(struct vsock_hdr *ret, const uint8_t bytes[VSOCK_HDR_SIZE])
{
    struct wire_hdr wire;

    memcpy(&wire, bytes, sizeof(wire));
    *ret = (struct vsock_hdr){
            .src_cid = le64toh(wire.src_cid),
            .dst_cid = le64toh(wire.dst_cid),
            .src_port = le32toh(wire.src_port),
            .dst_port = le32toh(wire.dst_port),
            .len = le32toh(wire.len),
            .type = le16toh(wire.type),
            .op = le16toh(wire.op),
            .flags = le32toh(wire.flags),
            .buf_alloc = le32toh(wire.buf_alloc),
            .fwd_cnt = le32toh(wire.fwd_cnt),
    };
}

void vsock_hdr_encode(uint8_t bytes[VSOCK_HDR_SIZE], const struct vsock_hdr *hdr)
{
    struct wire_hdr wire = {
            .src_cid = htole64(hdr->src_cid),
            .dst_cid = htole64(hdr->dst_cid),
            .src_port = htole32(hdr->src_port),
            .dst_port = htole32(hdr->dst_port),
            .len = htole32(hdr->len),
            .type = htole16(hdr->type),
            .op = htole16(hdr->op),
            .flags = htole32(hdr->flags),
            .buf_alloc = htole32(hdr->buf_alloc),
            .fwd_cnt = htole32(hdr->fwd_cnt),
    };

    memcpy(bytes, &wire, sizeof(wire));
}
