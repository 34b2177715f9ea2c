/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock/credit.h"

void credit_heard(struct credit *c, uint32_t guest_alloc, uint32_t guest_fwd)
{
    c->guest_alloc = guest_alloc;
    c->guest_fwd = guest_fwd;
}

uint32_t credit_room(const struct credit *c)
{
    uint32_t in_flight = c->sent - c->guest_fwd;

    return in_flight < c->guest_alloc ? c->guest_alloc - in_flight : 0;
}

void credit_sent(struct credit *c, uint32_t len)
{
    c->sent += len;
}

bool credit_receive(struct credit *c, uint32_t len, uint32_t alloc)
{
    uint32_t held = c->received - c->forwarded; /* both are ours: held <= alloc always */

    if (len > alloc - held)
        return false;
    c->received += len;
    return true;
}

void credit_forward(struct credit *c, uint32_t len)
{
    c->forwarded += len;
}

bool credit_update_due(const struct credit *c, uint32_t alloc)
{
    /* At half the buffer the guest still has up to the other half to send while the update travels, and no more than
     * one update is sent for each alloc/2 bytes of data, however small the reads on the unix side are. */
    return c->forwarded - c->told >= alloc / 2;
}

uint32_t credit_tell(struct credit *c)
{
    c->told = c->forwarded;
    return c->told;
}
