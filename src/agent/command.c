/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/command.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/macro.h"

#define BASE_ENV_MAX   7u
#define BASE_ENTRY_MAX (16u + USER_HOME_MAX)

struct base_env {
    char entry[BASE_ENV_MAX][BASE_ENTRY_MAX];
    size_t count;
};

static void add_base(struct base_env *base, const char *name, const char *value)
{
    (void)snprintf(base->entry[base->count++], BASE_ENTRY_MAX, "%s=%s", name, value);
}

static void make_base(struct base_env *base, const struct user *user, bool tty)
{
    base->count = 0;
    add_base(base, "PATH", COMMAND_PATH);
    add_base(base, "HOME", user->home);
    add_base(base, "USER", user->name);
    add_base(base, "LOGNAME", user->name);
    add_base(base, "SHELL", user->shell);
    add_base(base, "LANG", "C.UTF-8");
    if (tty)
        add_base(base, "TERM", "xterm-256color");
}

/* Length of NAME in NAME=value; 0 for anything else. */
static size_t name_length(const struct wire_str *s)
{
    const char *equals = s->len > 0 ? memchr(s->s, '=', s->len) : NULL;

    return equals ? (size_t)(equals - s->s) : 0;
}

static bool same_name(const struct wire_str *s, const char *name, size_t len)
{
    return s->len > len && s->s[len] == '=' && memcmp(s->s, name, len) == 0;
}

static bool is_set_after(const struct wire_exec *exec, uint32_t from, const char *name, size_t len)
{
    for (uint32_t i = from; i < exec->envc; i++) {
        if (same_name(&exec->env[i], name, len))
            return true;
    }
    return false;
}

static int check(const struct wire_exec *exec)
{
    if (exec->argc == 0 || exec->argc > WIRE_MAX_ARGS || exec->envc > WIRE_MAX_ARGS)
        return -EINVAL;
    if (exec->cwd.len > 0 && exec->cwd.s[0] != '/')
        return -EINVAL;
    for (uint32_t i = 0; i < exec->envc; i++) {
        if (name_length(&exec->env[i]) == 0)
            return -EINVAL;
    }
    return 0;
}

static size_t block_size(const struct wire_exec *exec)
{
    /* The decoder bounds each count and the sum of all lengths by one frame, so this can't overflow. */
    size_t size = ((size_t)exec->argc + exec->envc + BASE_ENV_MAX + 2) * sizeof(char *);

    size += BASE_ENV_MAX * BASE_ENTRY_MAX + exec->cwd.len + USER_HOME_MAX + 2;
    for (uint32_t i = 0; i < exec->argc; i++)
        size += exec->argv[i].len + 1;
    for (uint32_t i = 0; i < exec->envc; i++)
        size += exec->env[i].len + 1;
    return size;
}

static char *copy(char **at, const char *s, size_t len)
{
    char *start = *at;

    if (len > 0)
        memcpy(start, s, len);
    start[len] = '\0';
    *at += len + 1;
    return start;
}

static void copy_env(char **env, char **at, const struct wire_exec *exec, const struct base_env *base)
{
    for (size_t i = 0; i < base->count; i++) {
        const char *entry = base->entry[i];

        if (!is_set_after(exec, 0, entry, strcspn(entry, "=")))
            *env++ = copy(at, entry, strlen(entry));
    }
    for (uint32_t i = 0; i < exec->envc; i++) {
        if (!is_set_after(exec, i + 1, exec->env[i].s, name_length(&exec->env[i])))
            *env++ = copy(at, exec->env[i].s, exec->env[i].len);
    }
    *env = NULL;
}

int command_build(struct command *ret, const struct wire_exec *exec, const struct user *user)
{
    struct command c = {0};
    struct base_env base;
    char *at;
    int r = check(exec);

    if (r < 0)
        return r;
    c.block = malloc(block_size(exec));
    if (!c.block)
        return -ENOMEM;
    make_base(&base, user, exec->flags & WIRE_EXEC_TTY);
    c.argv = c.block;
    c.env = c.argv + exec->argc + 1;
    at = (char *)(c.env + exec->envc + BASE_ENV_MAX + 1);
    for (uint32_t i = 0; i < exec->argc; i++)
        c.argv[i] = copy(&at, exec->argv[i].s, exec->argv[i].len);
    c.argv[exec->argc] = NULL;
    copy_env(c.env, &at, exec, &base);
    c.cwd_optional = exec->cwd.len == 0;
    c.cwd = c.cwd_optional ? copy(&at, user->home, strlen(user->home)) : copy(&at, exec->cwd.s, exec->cwd.len);
    c.path = COMMAND_PATH;
    for (char **env = c.env; *env; env++) {
        if (strncmp(*env, "PATH=", 5) == 0)
            c.path = *env + 5;
    }
    *ret = c;
    return 0;
}

void command_deinit(struct command *command)
{
    free(command->block);
    *command = (struct command){0};
}
