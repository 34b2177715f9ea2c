#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# The names of the target's system calls, as initializers of an array: syscall-names.sh CC...
printf '#include <sys/syscall.h>\n' | "$@" -E -dM - |
    sed -n 's/^#define __NR_\([a-z0-9_]*\) \([0-9]*\)$/[\2] = "\1",/p'
