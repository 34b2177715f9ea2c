/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the host tells the agent through the kernel command line. Only keys
 * that begin with "ironclaw." are ours; the kernel's own are skipped. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "jail/seccomp.h"

#define CMDLINE_MAX       4096u /* bytes; x86's COMMAND_LINE_SIZE is 2,048 */
#define CMDLINE_VALUE_MAX 65u   /* bytes of a value, with its NUL */
#define OVERLAY_MIB_MAX   (1u << 20)

struct boot_options {
    char root[CMDLINE_VALUE_MAX];           /* ironclaw.root=/dev/vda */
    char rootfstype[CMDLINE_VALUE_MAX];     /* ironclaw.rootfstype=erofs */
    char overlay[CMDLINE_VALUE_MAX];        /* ironclaw.overlay=tmpfs or ext4 */
    char overlay_device[CMDLINE_VALUE_MAX]; /* ironclaw.overlay_device=/dev/vdb, of ext4 */
    uint32_t overlay_mib;                   /* ironclaw.overlay_mib=N; 0 means half of the RAM */
    char hostname[CMDLINE_VALUE_MAX];       /* ironclaw.hostname=NAME */
    int console_level;                      /* ironclaw.console_level=0..8, the kernel's; -1 leaves it */
    enum seccomp_level seccomp;             /* ironclaw.seccomp=basic, of commands: filter.h */
    bool tied;                              /* ironclaw.tied=1: power off when the ready connection ends */
    bool template;                          /* ironclaw.template=1: freeze.h */
    bool test_no_reseed;                    /* ironclaw.test_no_reseed=1, for tests only: identity.h */
};

/* Fills *ret with the defaults, then with what `text` says. 0; or -EINVAL, and the offending word in bad[0..bad_size).
 */
int cmdline_parse(struct boot_options *ret, const char *text, char *bad, size_t bad_size);
