/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Input: the kernel's command line, a user specification, passwd and group,
 * separated by NUL. Whatever they hold, what comes out is bounded and printable
 * as a string.
 */
#include <string.h>

#include "agent/cmdline.h"
#include "agent/user.h"
#include "fuzz.h"

struct part {
    const char *s;
    size_t len;
};

static struct part cut(const char **at, size_t *left)
{
    struct part part = {.s = *at, .len = *left};
    const char *nul = *left > 0 ? memchr(*at, 0, *left) : NULL;

    if (nul)
        part.len = (size_t)(nul - *at);
    *at += part.len + (nul ? 1 : 0);
    *left -= part.len + (nul ? 1 : 0);
    return part;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const char *at = (const char *)data;
    struct part line = cut(&at, &size), spec = cut(&at, &size), passwd = cut(&at, &size), group = cut(&at, &size);
    struct boot_options options;
    char text[CMDLINE_MAX], bad[64];
    struct user user;

    if (line.len < sizeof(text)) {
        memcpy(text, line.s, line.len);
        text[line.len] = '\0';
        if (cmdline_parse(&options, text, bad, sizeof(bad)) == 0)
            FUZZ_CHECK(options.overlay_mib <= OVERLAY_MIB_MAX && options.console_level <= 8 &&
                       strncmp(options.root, "/dev/", 5) == 0 && strlen(options.hostname) > 0);
        else
            FUZZ_CHECK(strlen(bad) < sizeof(bad));
    }
    if (user_resolve(&user, spec.s, spec.len, passwd.s, passwd.len, group.s, group.len) == 0)
        FUZZ_CHECK(user.uid != (uid_t)-1 && user.gid != (gid_t)-1 && user.group_count >= 1 &&
                   user.group_count <= USER_GROUPS_MAX && strlen(user.name) > 0 && strlen(user.home) < USER_HOME_MAX &&
                   user.shell[0]);
    return 0;
}
