/* SPDX-License-Identifier: Apache-2.0 */
#include "jail/test-rules.h"

#include <sys/socket.h>

#include "base/macro.h"

static const struct seccomp_rule small_rules[] = {
        SECCOMP_ALLOW(write, "the log"),
        SECCOMP_ALLOW_IF(lseek, 2, 0x6, 0x2, "two bits of an argument"),
        SECCOMP_ALLOW_IF(socket, 0, SECCOMP_ANY_BIT, AF_UNIX, "one value"),
        SECCOMP_ALLOW_IF(socket, 0, SECCOMP_ANY_BIT, AF_NETLINK, "another value"),
        SECCOMP_ALLOW_IF(tgkill, 0, SECCOMP_ANY_BIT, SECCOMP_OWN_PID, "this process"),
        SECCOMP_ALLOW(exit_group, "the end"),
};
static const struct seccomp_rule other_rules[] = {
        SECCOMP_ALLOW(getppid, "only here"),
        SECCOMP_ALLOW_IF(socket, 0, SECCOMP_ANY_BIT, AF_UNIX, "in both"),
        SECCOMP_ALLOW(write, "in both"),
        SECCOMP_ALLOW(exit_group, "in both"),
};
const struct seccomp_profile test_small = {"small", small_rules, ARRAY_SIZE(small_rules)};
const struct seccomp_profile test_other = {"other", other_rules, ARRAY_SIZE(other_rules)};
const struct seccomp_profile *const test_profiles[2] = {&test_small, &test_other};
