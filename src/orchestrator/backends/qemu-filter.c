/* SPDX-License-Identifier: Apache-2.0 */
/* Apart from the tables, which the compiler of filters is linked with: this needs what that prints. */
#include "orchestrator/backends/qemu-seccomp.h"

#include <linux/seccomp.h>

#include "base/macro.h"

/* A SIGSYS could be caught by whoever has taken QEMU over. */
static void kill_at_once(struct sock_fprog *program)
{
    for (size_t i = 0; i < program->len; i++) {
        if (program->filter[i].code == (BPF_RET | BPF_K) && program->filter[i].k == SECCOMP_RET_TRAP)
            program->filter[i].k = SECCOMP_RET_KILL_PROCESS;
    }
}

int qemu_filter(enum seccomp_level level, bool kvm, struct sock_fprog *ret)
{
    unsigned which = level == SECCOMP_BASIC ? QEMU_ANY : kvm ? QEMU_KVM : QEMU_TCG;
    /* basic as minimal: what it adds up is a profile here. */
    int r = seccomp_get_program(
            &qemu_compiled, level == SECCOMP_PERMISSIVE ? level : SECCOMP_MINIMAL, qemu_profiles[which]->name, ret);

    if (r == 0)
        kill_at_once(ret);
    return r;
}
