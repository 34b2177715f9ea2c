/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/cmdline.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/macro.h"

static int parse_number(const char *value, uint32_t max, uint32_t *ret)
{
    uint64_t n = 0;

    if (!*value)
        return -EINVAL;
    for (const char *p = value; *p; p++) {
        if (*p < '0' || *p > '9')
            return -EINVAL;
        n = n * 10 + (uint64_t)(*p - '0');
        if (n > max)
            return -EINVAL;
    }
    *ret = (uint32_t)n;
    return 0;
}

static int parse_flag(const char *value, bool *ret)
{
    uint32_t n = 0;
    int r = parse_number(value, 1, &n);

    if (r == 0)
        *ret = n == 1;
    return r;
}

static int copy_path(char dst[CMDLINE_VALUE_MAX], const char *value)
{
    if (strncmp(value, "/dev/", 5) != 0 || !value[5] || strstr(value, ".."))
        return -EINVAL;
    (void)snprintf(dst, CMDLINE_VALUE_MAX, "%s", value);
    return 0;
}

static int copy_word(char dst[CMDLINE_VALUE_MAX], const char *value, const char *also)
{
    if (!*value)
        return -EINVAL;
    for (const char *p = value; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr(also, *p))
            return -EINVAL;
    }
    (void)snprintf(dst, CMDLINE_VALUE_MAX, "%s", value);
    return 0;
}

static int set_option(struct boot_options *o, const char *key, const char *value)
{
    uint32_t n = 0;
    int r;

    if (strcmp(key, "root") == 0)
        return copy_path(o->root, value);
    if (strcmp(key, "rootfstype") == 0)
        return copy_word(o->rootfstype, value, "_");
    if (strcmp(key, "overlay") == 0)
        return strcmp(value, "tmpfs") == 0 || strcmp(value, "ext4") == 0 ? copy_word(o->overlay, value, "") : -EINVAL;
    if (strcmp(key, "overlay_device") == 0)
        return copy_path(o->overlay_device, value);
    if (strcmp(key, "overlay_mib") == 0)
        return parse_number(value, OVERLAY_MIB_MAX, &o->overlay_mib);
    if (strcmp(key, "hostname") == 0)
        return copy_word(o->hostname, value, "-_.");
    if (strcmp(key, "console_level") == 0) {
        r = parse_number(value, 8, &n);
        if (r == 0)
            o->console_level = (int)n;
        return r;
    }
    if (strcmp(key, "seccomp") == 0)
        return seccomp_level_parse(value, &o->seccomp);
    if (strcmp(key, "tied") == 0)
        return parse_flag(value, &o->tied);
    if (strcmp(key, "template") == 0)
        return parse_flag(value, &o->template);
    if (strcmp(key, "test_no_reseed") == 0)
        return parse_flag(value, &o->test_no_reseed);
    return -EINVAL;
}

static int parse_word(struct boot_options *o, const char *word, size_t len)
{
    static const char prefix[] = "ironclaw.";
    char copy[32 + CMDLINE_VALUE_MAX];
    char *value;

    if (len < sizeof(prefix) - 1 || memcmp(word, prefix, sizeof(prefix) - 1) != 0)
        return 0;
    word += sizeof(prefix) - 1;
    len -= sizeof(prefix) - 1;
    if (len >= sizeof(copy))
        return -EINVAL;
    memcpy(copy, word, len);
    copy[len] = '\0';
    value = strchr(copy, '=');
    if (!value || strlen(value + 1) >= CMDLINE_VALUE_MAX)
        return -EINVAL;
    *value = '\0';
    return set_option(o, copy, value + 1);
}

int cmdline_parse(struct boot_options *ret, const char *text, char *bad, size_t bad_size)
{
    struct boot_options o = {.root = "/dev/vda",
            .rootfstype = "erofs",
            .overlay = "tmpfs",
            .overlay_device = "/dev/vdb",
            .hostname = "ironclaw",
            .console_level = -1,
            .seccomp = SECCOMP_BASIC};

    while (*text) {
        size_t len = strcspn(text, " \t\n");
        int r = parse_word(&o, text, len);

        if (r < 0) {
            (void)snprintf(bad, bad_size, "%.*s", (int)MIN(len, (size_t)CMDLINE_MAX), text);
            return r;
        }
        text += len;
        text += strspn(text, " \t\n");
    }
    *ret = o;
    return 0;
}
