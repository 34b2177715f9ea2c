/* SPDX-License-Identifier: Apache-2.0 */
/* Starts the program NAME.real beside itself with one more option: its side of the comparison is without filters. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    char path[4096], **copy = calloc((size_t)argc + 2, sizeof(*copy));

    if (!copy || (size_t)snprintf(path, sizeof(path), "%s.real", argv[0]) >= sizeof(path))
        return 1;
    memcpy(copy, argv, (size_t)argc * sizeof(*copy));
    copy[argc] = "--no-seccomp";
    execv(path, copy);
    return 1;
}
