/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/copy-path.h"

#include <stdlib.h>
#include <string.h>

static bool is_drive(const char *operand)
{
#if defined(_WIN32)
    return ((operand[0] | 0x20) >= 'a' && (operand[0] | 0x20) <= 'z') && operand[1] == ':' &&
           (operand[2] == '\\' || operand[2] == '/');
#else
    (void)operand;
    return false;
#endif
}

void copy_path_parse(const char *operand, struct copy_path *ret)
{
    size_t n = strcspn(operand, ":/");
    const char *path = operand + n + 1;
    struct text absolute = {0};

    if (n == 0 || operand[n] != ':' || is_drive(operand)) {
        *ret = (struct copy_path){.path = text_dup(operand, strlen(operand))};
        return;
    }
    if (path[0] != '/')
        text_putc(&absolute, '/');
    text_puts(&absolute, path);
    *ret = (struct copy_path){.vm = text_dup(operand, n), .path = absolute.data, .bare = !path[0]};
}

void copy_path_deinit(struct copy_path *p)
{
    free(p->vm);
    free(p->path);
    *p = (struct copy_path){0};
}
