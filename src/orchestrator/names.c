/* SPDX-License-Identifier: Apache-2.0 */
/* Words for the public enums, on every system. */
#include <ironclaw/ironclaw.h>

#include "base/macro.h"
#include "orchestrator/names.h"

const char *const state_words[] = {
        [IC_VM_CREATED] = "created",
        [IC_VM_BOOTING] = "booting",
        [IC_VM_READY] = "ready",
        [IC_VM_PAUSED] = "paused",
        [IC_VM_STOPPING] = "stopping",
        [IC_VM_FAILED] = "failed",
        [IC_VM_GONE] = "gone",
        NULL,
};
const char *const backend_words[] = {
        [IC_BACKEND_AUTO] = "auto",
        [IC_BACKEND_IRONCLAW] = "ironclaw",
        [IC_BACKEND_FIRECRACKER] = "firecracker",
        [IC_BACKEND_QEMU] = "qemu",
        NULL,
};
const char *const isolation_words[] = {
        [IC_ISOLATION_NONE] = "none",
        [IC_ISOLATION_SOFTWARE_EMULATION] = "software emulation",
        [IC_ISOLATION_HARDWARE] = "hardware",
        NULL,
};
const char *const overlay_words[] = {[IC_OVERLAY_TMPFS] = "tmpfs", [IC_OVERLAY_EXT4] = "ext4", NULL};
const char *const seccomp_words[] = {
        [IC_SECCOMP_MINIMAL] = "minimal",
        [IC_SECCOMP_BASIC] = "basic",
        [IC_SECCOMP_PERMISSIVE] = "permissive",
        NULL,
};
const char *const jail_words[] = {[IC_JAIL_AUTO] = "auto", [IC_JAIL_STRICT] = "strict", [IC_JAIL_OFF] = "off", NULL};

static const char *word(const char *const *words, size_t count, unsigned value)
{
    return value < count && words[value] ? words[value] : "unknown";
}

const char *ic_vm_state_name(enum ic_vm_state state)
{
    return word(state_words, ARRAY_SIZE(state_words), (unsigned)state);
}

const char *ic_backend_name(enum ic_backend backend)
{
    return word(backend_words, ARRAY_SIZE(backend_words), (unsigned)backend);
}

const char *ic_isolation_name(enum ic_isolation isolation)
{
    return word(isolation_words, ARRAY_SIZE(isolation_words), (unsigned)isolation);
}

const char *ic_audit_action_name(enum ic_audit_action action)
{
    static const char *const names[] = {
            [IC_AUDIT_KILLED] = "killed",
            [IC_AUDIT_ALLOWED] = "allowed",
            [IC_AUDIT_REFUSED] = "refused",
            [IC_AUDIT_ENDED] = "ended",
            [IC_AUDIT_LOST] = "lost",
    };
    return word(names, ARRAY_SIZE(names), (unsigned)action);
}

const char *ic_version(void)
{
    return IRONCLAW_VERSION;
}

const char *ic_error_name(enum ic_error_code code)
{
    static const char *const names[] = {
            [IC_ERR_INVALID] = "IC_ERR_INVALID",
            [IC_ERR_NOT_FOUND] = "IC_ERR_NOT_FOUND",
            [IC_ERR_EXISTS] = "IC_ERR_EXISTS",
            [IC_ERR_UNSUPPORTED] = "IC_ERR_UNSUPPORTED",
            [IC_ERR_IO] = "IC_ERR_IO",
            [IC_ERR_NO_SPACE] = "IC_ERR_NO_SPACE",
            [IC_ERR_TIMEOUT] = "IC_ERR_TIMEOUT",
            [IC_ERR_STATE] = "IC_ERR_STATE",
            [IC_ERR_BACKEND] = "IC_ERR_BACKEND",
            [IC_ERR_GUEST] = "IC_ERR_GUEST",
            [IC_ERR_PROTOCOL] = "IC_ERR_PROTOCOL",
            [IC_ERR_CORRUPT] = "IC_ERR_CORRUPT",
            [IC_ERR_CANCELLED] = "IC_ERR_CANCELLED",
            [IC_ERR_NO_MEMORY] = "IC_ERR_NO_MEMORY",
            [IC_ERR_DENIED] = "IC_ERR_DENIED",
            [IC_ERR_LIMIT] = "IC_ERR_LIMIT",
    };
    return word(names, ARRAY_SIZE(names), (unsigned)code);
}
