/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "base/macro.h"
#include "tar/confine.h"

static const struct seccomp_rule calls[] = {
        SECCOMP_ALLOW(read, "the archive"),
        SECCOMP_ALLOW(write, "the clean tar; progress and errors"),
        SECCOMP_ALLOW(lseek, "the archive: what is skipped"),
        SECCOMP_ALLOW(fstatfs, "how full the disk is"),
        SECCOMP_ALLOW(fstat, "kinds of the standard descriptors"),
        SECCOMP_ALLOW(newfstatat, "the same, by a newer libc"),
        SECCOMP_ALLOW(brk, "malloc"),
        SECCOMP_ALLOW_IF(mmap, 2, PROT_EXEC, 0, "malloc"),
        SECCOMP_ALLOW(mremap, "realloc"),
        SECCOMP_ALLOW(munmap, "free"),
        SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTNEED, "free"),
        SECCOMP_REFUSE_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_HUGEPAGE, EINVAL, "malloc, by GLIBC_TUNABLES"),
        SECCOMP_ALLOW(futex, "libraries' locks"),
        SECCOMP_REFUSE(openat, ENOENT, "libc's tables for other character sets: names stay bytes without them"),
        SECCOMP_REFUSE_IF(ioctl, 1, SECCOMP_ANY_BIT, TCGETS, ENOTTY, "stdio: whether that is a terminal"),
        SECCOMP_ALLOW(rt_sigprocmask, "abort()"),
        SECCOMP_ALLOW(getpid, "the same"),
        SECCOMP_ALLOW(gettid, "the same"),
        SECCOMP_ALLOW_IF(tgkill, 0, SECCOMP_ANY_BIT, SECCOMP_OWN_PID, "the same"),
        SECCOMP_ALLOW(exit_group, "the end"),
};
static const struct seccomp_profile profile = {"tar", calls, ARRAY_SIZE(calls)};
const struct seccomp_profile *const tar_profiles[TAR_PROFILES] = {&profile};
