/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who a command runs as. The agent is a static program, so it reads
 * /etc/passwd and /etc/group itself. Both belong to the image, or to what
 * a root command made of them: every length is bounded, a line that does not
 * parse is skipped, and a file that is no regular file counts as empty.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#define USER_GROUPS_MAX   64u
#define USER_FILE_MAX     (256u << 10) /* bytes read of passwd and of group; the rest is not seen */
#define USER_HOME_MAX     256u
#define USER_NAME_MAX     64u
#define USER_SHELL_MAX    128u
#define USER_DEFAULT_NAME "agent"
#define USER_DEFAULT_UID  1000u

struct user {
    uid_t uid;
    gid_t gid;
    size_t group_count;
    gid_t groups[USER_GROUPS_MAX]; /* supplementary, with gid */
    char name[USER_NAME_MAX];      /* the number when passwd has no entry */
    char home[USER_HOME_MAX];      /* "" when passwd has no entry */
    char shell[USER_SHELL_MAX];
};

/*
 * spec: "" (the default user), a name, uid, uid:gid, or name:group; spec need
 * not be NUL-terminated. passwd and group are the files' contents. Pure.
 * 0; -ENOENT for a name without an entry; -EINVAL for a spec of another form.
 */
int user_resolve(struct user *ret, const char *spec, size_t spec_len, const char *passwd, size_t passwd_len,
        const char *group, size_t group_len);

/* The same on the system's files; home is then a directory's path, also for a user without an entry. */
int user_lookup(struct user *ret, const char *spec, size_t spec_len);
