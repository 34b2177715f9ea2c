/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Linked into test builds of ironclaw-vsock and ironclaw-vmm, by the linker's
 * --wrap: a host's line "CONNECT 4242" makes the thread that serves it call
 * what its filter refuses. No program that is installed has this.
 */
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "vsock/connect-line.h"

#define MAGIC_PORT 4242u

int __real_connect_line_parse(const void *data, size_t len, uint32_t *ret_port);
int __wrap_connect_line_parse(const void *data, size_t len, uint32_t *ret_port);

int __wrap_connect_line_parse(const void *data, size_t len, uint32_t *ret_port)
{
    int r = __real_connect_line_parse(data, len, ret_port);

    if (r > 0 && *ret_port == MAGIC_PORT)
        (void)syscall(SYS_execve, "/nonexistent", 0x42, 0);
    return r;
}
