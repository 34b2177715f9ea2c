/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/state.h"

#include "base/macro.h"

#define TO(state) (1u << IC_VM_##state)

static const unsigned allowed[] = {
        [IC_VM_CREATED] = TO(BOOTING) | TO(STOPPING) | TO(FAILED),
        [IC_VM_BOOTING] = TO(READY) | TO(STOPPING) | TO(FAILED),
        [IC_VM_READY] = TO(PAUSED) | TO(STOPPING) | TO(GONE) | TO(FAILED),
        [IC_VM_PAUSED] = TO(READY) | TO(STOPPING) | TO(GONE) | TO(FAILED),
        [IC_VM_STOPPING] = TO(GONE) | TO(FAILED),
        [IC_VM_FAILED] = 0,
        [IC_VM_GONE] = 0,
};

bool state_allowed(enum ic_vm_state from, enum ic_vm_state to)
{
    return (unsigned)from < ARRAY_SIZE(allowed) && (unsigned)to < ARRAY_SIZE(allowed) && (allowed[from] >> to & 1u);
}

bool state_is_final(enum ic_vm_state state)
{
    return state == IC_VM_FAILED || state == IC_VM_GONE;
}
