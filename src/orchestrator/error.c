/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void one_line(char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = ' ';
    }
}

static void fill(struct ic_error *error, enum ic_error_code code, const char *fmt, va_list ap) _printf_(3, 0);
static void fill(struct ic_error *error, enum ic_error_code code, const char *fmt, va_list ap)
{
    error->code = code;
    (void)vsnprintf(error->message, sizeof(error->message), fmt, ap);
    one_line(error->message);
}

int(ic_fail)(struct ic_error *error, enum ic_error_code code, const char *fmt, ...)
{
    va_list ap;

    if (error) {
        va_start(ap, fmt);
        fill(error, code, fmt, ap);
        va_end(ap);
    }
    return -(int)code;
}

static enum ic_error_code code_of_errno(int err)
{
    switch (err) {
    case ENOENT:
    case ENOTDIR:
        return IC_ERR_NOT_FOUND;
    case EEXIST:
    case ENOTEMPTY:
        return IC_ERR_EXISTS;
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
        return IC_ERR_NO_SPACE;
    case ETIMEDOUT:
        return IC_ERR_TIMEOUT;
    case ENOMEM:
        return IC_ERR_NO_MEMORY;
    case EACCES:
    case EPERM:
    case EROFS:
        return IC_ERR_DENIED;
    case EBADMSG:
    case EPROTO:
        return IC_ERR_PROTOCOL;
    case EINVAL:
    case ENAMETOOLONG:
        return IC_ERR_INVALID;
    default:
        return IC_ERR_IO;
    }
}

int(ic_fail_errno)(struct ic_error *error, int negative_errno, const char *fmt, ...)
{
    enum ic_error_code code = code_of_errno(-negative_errno);
    size_t len;
    va_list ap;

    if (error) {
        va_start(ap, fmt);
        fill(error, code, fmt, ap);
        va_end(ap);
        len = strlen(error->message);
        (void)snprintf(error->message + len, sizeof(error->message) - len, ": %s", strerror(-negative_errno));
    }
    return -(int)code;
}
