/* SPDX-License-Identifier: Apache-2.0 */
/* A system without VMs has nothing to keep waiting. */
#include "cli/detach.h"

#include "cli/cli.h"

int detach_again(char *const *argv, size_t verb, char *ret_word, size_t size)
{
    struct ic_error error = {0};

    (void)argv;
    (void)ret_word;
    (void)size;
    return cli_fail(ic_pool_stop("", &error), &error); /* which says why, and what to do */
}

bool detach_can_say(int fd)
{
    (void)fd;
    return false;
}

void detach_say(int fd, const char *word)
{
    (void)fd;
    (void)word;
}
