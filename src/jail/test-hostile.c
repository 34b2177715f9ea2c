/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linked into test builds of ironclaw-vmm and ironclaw-vsock, by the linker's
 * --wrap: a thread that has just entered its filter makes one call of
 * attempts.h. No program that is installed has this. Which thread and which
 * call is written into the program's file, over `order`: no environment and no
 * argument of the test's reaches a process in its jail.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/macro.h"
#include "jail/attempts.h"
#include "jail/seccomp.h"

/* "PROFILE=NAME", or "PROFILE!NAME": without the filter, as if it had been left out. */
static volatile char order[128] = "@hostile order: none, to be replaced in the file, up to this point here.";

void __real_seccomp_enter(const struct seccomp_profile *profile);
void __wrap_seccomp_enter(const struct seccomp_profile *profile);

void __wrap_seccomp_enter(const struct seccomp_profile *profile)
{
    size_t len = strlen(profile->name);
    char text[sizeof(order)];
    bool mine;

    for (size_t i = 0; i < sizeof(order); i++)
        text[i] = order[i];
    text[sizeof(text) - 1] = '\0';
    mine = strncmp(text, profile->name, len) == 0 && (text[len] == '=' || text[len] == '!');
    if (!mine || text[len] == '=')
        __real_seccomp_enter(profile);
    for (size_t i = 0; mine && i < ARRAY_SIZE(attempts); i++) {
        const struct attempt *a = &attempts[i];
        char line[160];
        long r;

        if (strcmp(text + len + 1, a->name) != 0)
            continue;
        r = syscall(a->nr, a->args[0], a->args[1], a->args[2], a->args[3], a->args[4], a->args[5]);
        (void)snprintf(line, sizeof(line), "hostile %s: %s: %s\n", profile->name, a->name,
                r < 0 ? strerrorname_np(errno) : "done");
        (void)!write(STDERR_FILENO, line, strlen(line));
    }
}
