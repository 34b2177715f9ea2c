/* SPDX-License-Identifier: Apache-2.0 */
/* Systems without POSIX terminals. There every call that needs a VM is refused, so raw mode and capture are never used.
 */
#include "cli/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <io.h>
#include <windows.h>

bool tty_is(int fd)
{
    return _isatty(fd) != 0;
}

void tty_size(int fd, uint16_t *ret_rows, uint16_t *ret_cols)
{
    (void)fd;
    *ret_rows = 24;
    *ret_cols = 80;
}

int tty_raw(int fd)
{
    (void)fd;
    return -1;
}

void tty_restore(void)
{
}

void tty_follow_size(int fd, ic_exec *exec)
{
    (void)fd;
    (void)exec;
}

void tty_unfollow_size(void)
{
}

void tty_init(void)
{
    (void)_setmode(1, _O_BINARY);
    (void)_setmode(2, _O_BINARY);
}

uint64_t tty_now_ms(void)
{
    return GetTickCount64();
}

int64_t tty_unix_ms(void)
{
    FILETIME now;
    uint64_t ticks; /* of 100 ns, since 1601 */

    GetSystemTimeAsFileTime(&now);
    ticks = (uint64_t)now.dwHighDateTime << 32 | now.dwLowDateTime;
    return (int64_t)(ticks / 10000) - INT64_C(11644473600000);
}

void tty_sleep_ms(unsigned ms)
{
    Sleep(ms);
}

int capture_start(struct capture **ret, size_t max, int *ret_write_fd)
{
    (void)ret;
    (void)max;
    (void)ret_write_fd;
    return -ENOSYS;
}

void capture_finish(struct capture *c, char **ret_data, size_t *ret_len, bool *ret_truncated)
{
    (void)c;
    *ret_data = NULL;
    *ret_len = 0;
    *ret_truncated = false;
}
