/* SPDX-License-Identifier: Apache-2.0 */
#include "vsock/connect-line.h"

#include <errno.h>
#include <string.h>

#include "base/macro.h"

static const char verb[] = "CONNECT ";
#define VERB_LEN (sizeof(verb) - 1)

int connect_line_parse(const void *data, size_t len, uint32_t *ret_port)
{
    const char *p = data;
    size_t n = MIN(len, (size_t)CONNECT_LINE_MAX), i;
    uint32_t port = 0;

    if (memcmp(p, verb, MIN(n, VERB_LEN)) != 0)
        return -EBADMSG;
    for (i = VERB_LEN; i < n && p[i] >= '0' && p[i] <= '9'; i++) {
        if (i > VERB_LEN && port == 0)
            return -EBADMSG;
        if (mul_overflows(port, 10u, &port) || add_overflows(port, (uint32_t)(p[i] - '0'), &port))
            return -EBADMSG;
    }
    if (i >= n)
        return n == CONNECT_LINE_MAX ? -EBADMSG : 0;
    if (p[i] != '\n' || i == VERB_LEN)
        return -EBADMSG;
    *ret_port = port;
    return (int)(i + 1);
}
