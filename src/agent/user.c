/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/user.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macro.h"

#define FIELDS_MAX 7u

struct field {
    const char *s;
    size_t len;
};

/* Cuts the next line off *text and splits it at ':'. Returns the number of fields (at most max), -1 at the end. */
static int next_line(const char **text, size_t *left, struct field *fields, unsigned max)
{
    const char *line = *text, *end;
    unsigned n = 0;
    size_t len;

    if (*left == 0)
        return -1;
    end = memchr(line, '\n', *left);
    len = end ? (size_t)(end - line) : *left;
    *text += end ? len + 1 : len;
    *left -= end ? len + 1 : len;
    while (n < max) {
        const char *colon = n + 1 < max ? memchr(line, ':', len) : NULL;
        size_t field_len = colon ? (size_t)(colon - line) : len;

        fields[n++] = (struct field){line, field_len};
        if (!colon)
            break;
        line += field_len + 1;
        len -= field_len + 1;
    }
    return (int)n;
}

static bool field_is(const struct field *f, const char *s, size_t len)
{
    return f->len == len && memcmp(f->s, s, len) == 0;
}

/* (uid_t)-1 means "no change" to the kernel, so it is never an id. */
static bool parse_id(const char *s, size_t len, uint32_t *ret)
{
    uint64_t n = 0;

    if (len == 0 || len > 10)
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        n = n * 10 + (uint64_t)(s[i] - '0');
    }
    if (n >= UINT32_MAX)
        return false;
    *ret = (uint32_t)n;
    return true;
}

static void copy_field(char *dst, size_t size, const struct field *f)
{
    size_t len = f->len < size ? f->len : 0; /* a value that does not fit is not used cut */

    memcpy(dst, f->s, len);
    dst[len] = '\0';
}

/* By name, or by number when name is NULL. */
static bool find_passwd(
        struct user *u, const char *name, size_t name_len, uint32_t number, const char *text, size_t len)
{
    struct field f[FIELDS_MAX];
    uint32_t uid, gid;
    int n;

    while ((n = next_line(&text, &len, f, FIELDS_MAX)) >= 0) {
        if (n != (int)FIELDS_MAX || f[0].len == 0 || f[0].len >= USER_NAME_MAX)
            continue;
        if (!parse_id(f[2].s, f[2].len, &uid) || !parse_id(f[3].s, f[3].len, &gid))
            continue;
        if (name ? !field_is(&f[0], name, name_len) : uid != number)
            continue;
        u->uid = uid;
        u->gid = gid;
        copy_field(u->name, sizeof(u->name), &f[0]);
        copy_field(u->home, sizeof(u->home), &f[5]);
        copy_field(u->shell, sizeof(u->shell), &f[6]);
        return true;
    }
    return false;
}

static bool find_group(gid_t *ret, const char *name, size_t name_len, const char *text, size_t len)
{
    struct field f[4];
    uint32_t gid;
    int n;

    while ((n = next_line(&text, &len, f, ARRAY_SIZE(f))) >= 0) {
        if (n >= 3 && field_is(&f[0], name, name_len) && parse_id(f[2].s, f[2].len, &gid)) {
            *ret = gid;
            return true;
        }
    }
    return false;
}

static bool is_member(const struct field *members, const char *name, size_t name_len)
{
    const char *p = members->s;
    size_t left = members->len;

    while (left > 0) {
        const char *comma = memchr(p, ',', left);
        size_t len = comma ? (size_t)(comma - p) : left;

        if (len == name_len && memcmp(p, name, len) == 0)
            return true;
        if (!comma)
            break;
        p += len + 1;
        left -= len + 1;
    }
    return false;
}

static void collect_groups(struct user *u, const char *text, size_t len)
{
    size_t name_len = strlen(u->name);
    struct field f[4];
    uint32_t gid;
    int n;

    u->groups[0] = u->gid;
    u->group_count = 1;
    while ((n = next_line(&text, &len, f, ARRAY_SIZE(f))) >= 0 && u->group_count < USER_GROUPS_MAX) {
        if (n == 4 && is_member(&f[3], u->name, name_len) && parse_id(f[2].s, f[2].len, &gid) && gid != u->gid)
            u->groups[u->group_count++] = gid;
    }
}

static int resolve_name(struct user *u, const char *name, size_t len, const char *passwd, size_t passwd_len)
{
    uint32_t number;

    if (find_passwd(u, name, len, 0, passwd, passwd_len))
        return 0;
    if (!parse_id(name, len, &number)) {
        if (!field_is(&(struct field){name, len}, USER_DEFAULT_NAME, strlen(USER_DEFAULT_NAME)))
            return -ENOENT;
        number = USER_DEFAULT_UID;
    }
    if (!find_passwd(u, NULL, 0, number, passwd, passwd_len)) {
        u->uid = number;
        u->gid = number;
        (void)snprintf(u->name, sizeof(u->name), "%u", number);
    }
    return 0;
}

int user_resolve(struct user *ret, const char *spec, size_t spec_len, const char *passwd, size_t passwd_len,
        const char *group, size_t group_len)
{
    struct user u = {0};
    const char *colon = spec_len > 0 ? memchr(spec, ':', spec_len) : NULL;
    size_t name_len = colon ? (size_t)(colon - spec) : spec_len;
    int r;

    if (spec_len == 0) {
        spec = USER_DEFAULT_NAME;
        name_len = strlen(spec);
    }
    if (name_len == 0 || name_len >= USER_NAME_MAX)
        return -EINVAL;
    r = resolve_name(&u, spec, name_len, passwd, passwd_len);
    if (r < 0)
        return r;
    if (colon) {
        const char *name = colon + 1;
        size_t len = spec_len - name_len - 1;

        if (len == 0)
            return -EINVAL;
        if (!find_group(&u.gid, name, len, group, group_len) && !parse_id(name, len, &u.gid))
            return -ENOENT;
    }
    if (!u.shell[0])
        memcpy(u.shell, "/bin/sh", sizeof("/bin/sh"));
    collect_groups(&u, group, group_len);
    *ret = u;
    return 0;
}

/* Returns the bytes read; anything but a regular file is empty, so that a FIFO can't hold the agent. */
static size_t read_file(const char *path, char *dst, size_t size)
{
    _cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    size_t len = 0;

    if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        return 0;
    while (len < size) {
        ssize_t n = read(fd, dst + len, size - len);

        if (n <= 0)
            break;
        len += (size_t)n;
        if ((off_t)len >= st.st_size)
            break;
    }
    return len;
}

int user_lookup(struct user *ret, const char *spec, size_t spec_len)
{
    static char text[2 * USER_FILE_MAX]; /* too large for the stack; untouched pages cost nothing */
    size_t passwd_len, group_len;
    struct stat st;
    int r;

    passwd_len = read_file("/etc/passwd", text, USER_FILE_MAX);
    group_len = read_file("/etc/group", text + USER_FILE_MAX, USER_FILE_MAX);
    r = user_resolve(ret, spec, spec_len, text, passwd_len, text + USER_FILE_MAX, group_len);
    if (r < 0 || ret->home[0])
        return r;
    if (stat("/home/" USER_DEFAULT_NAME, &st) == 0 && S_ISDIR(st.st_mode) && st.st_uid == ret->uid)
        memcpy(ret->home, "/home/" USER_DEFAULT_NAME, sizeof("/home/" USER_DEFAULT_NAME));
    else
        memcpy(ret->home, "/tmp", sizeof("/tmp"));
    return 0;
}
