/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of compiled programs when they are loaded. Apart from seccomp.c for those who only need this. */
#include <errno.h>
#include <linux/seccomp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/macro.h"
#include "jail/seccomp.h"

int seccomp_level_parse(const char *text, enum seccomp_level *ret)
{
    static const char *const levels[] = {"minimal", "basic", "permissive"};

    for (unsigned i = 0; i < ARRAY_SIZE(levels); i++) {
        if (strcmp(text, levels[i]) == 0) {
            *ret = (enum seccomp_level)i;
            return 0;
        }
    }
    return -EINVAL;
}

static void patch(struct sock_filter *code, enum seccomp_level level)
{
    if (level == SECCOMP_PERMISSIVE && code->code == (BPF_RET | BPF_K) &&
            (code->k == SECCOMP_RET_TRAP || (code->k & SECCOMP_RET_ACTION_FULL) == SECCOMP_RET_ERRNO))
        code->k = SECCOMP_RET_LOG;
}

void seccomp_set_own_pid(struct sock_fprog *program)
{
    for (size_t i = 0; i < program->len; i++) {
        if (program->filter[i].code == (BPF_JMP | BPF_JEQ | BPF_K) && program->filter[i].k == SECCOMP_OWN_PID)
            program->filter[i].k = (uint32_t)getpid();
    }
}

int seccomp_get_program(
        const struct seccomp_compiled *compiled, enum seccomp_level level, const char *profile, struct sock_fprog *ret)
{
    const struct seccomp_program *found = NULL;
    struct sock_filter *code;

    for (size_t i = 0; i < compiled->count; i++) {
        if (strcmp(compiled->programs[i].name, profile) == 0)
            found = &compiled->programs[level == SECCOMP_BASIC ? compiled->count - 1 : i];
    }
    if (!found)
        return -ENOENT;
    code = malloc(found->count * sizeof(*code));
    if (!code)
        return -ENOMEM;
    memcpy(code, compiled->code + found->first, found->count * sizeof(*code));
    for (size_t i = 0; i < found->count; i++)
        patch(&code[i], level);
    *ret = (struct sock_fprog){.len = found->count, .filter = code};
    return 0;
}
