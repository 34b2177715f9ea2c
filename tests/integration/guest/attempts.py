# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: makes calls that a filter has to refuse, and says how each one ended: NAME ERRNO a line, 0 when it
did not fail, "killed N" when a signal ended it. The arguments do no harm where nothing refuses them. Python itself and
the calls that end a process run as children, so that one attempt is not the next one's."""

import ctypes
import errno
import mmap
import os
import socket
import sys

libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long

SIGCHLD = 17
CLONE, PTRACE = 56, 101
X32 = 0x40000000

CALLS = {  # number, arguments; of x86-64
    "mount": (165, 0, 0, 0, 0, 0), "umount2": (166, 0, 0), "pivot_root": (155, 0, 0), "fsopen": (430, 0, 0),
    "unshare": (272, 0x04000000), "setns": (308, -1, 0), "clone_newuser": (CLONE, 0x10000000 | SIGCHLD, 0, 0, 0, 0),
    "clone_newnet": (CLONE, 0x40000000 | SIGCHLD, 0, 0, 0, 0), "clone3": (435, 0, 0),
    "init_module": (175, 0, 0, 0), "finit_module": (313, -1, 0, 0), "kexec_load": (246, 0, 0, 0, 0),
    "bpf": (321, 0, 0, 0), "perf_event_open": (298, 0, 0, -1, -1, 0), "userfaultfd": (323, 0),
    "io_uring_setup": (425, 1, 0), "keyctl": (250, 0, -3, 0), "add_key": (248, 0, 0, 0, 0, 0),
    "fanotify_init": (300, 0, 0), "pidfd_getfd": (438, -1, 0, 0), "open_by_handle_at": (304, -1, 0, 0),
    "iopl": (172, 3), "ioperm": (173, 0x80, 1, 1), "settimeofday": (164, 0, 0), "clock_settime": (227, 0, 0),
    "adjtimex": (159, 0), "swapon": (167, 0, 0), "reboot": (169, 0, 0, 0, 0), "acct": (163, 1),
    "quotactl": (179, 0, 0, 0, 0), "tomorrow": (700,),
    "ptrace": (PTRACE, 0, 0, 0, 0), "process_vm_readv": (310, 0, 0, 0, 0, 0, 0), "setuid": (105, -1),
    "chroot": (161, 0), "shmget": (29, 0, 0, 0), "personality": (135, -1),
    "x32": (X32 + 39,),
}
SOCKETS = {"vsock": (40, 1), "alg": (38, 5), "xdp": (44, 3), "rds": (21, 5), "inet6": (10, 1), "netlink": (16, 3),
           "inet": (2, 1), "unix": (1, 1)}


def call(*args):
    ctypes.set_errno(0)
    result = libc.syscall(*(ctypes.c_long(a) for a in args))
    if result == 0 and args[0] == CLONE:
        os._exit(0)
    return 0 if result >= 0 else ctypes.get_errno()


def old_call():
    """getpid by the interrupt of 32-bit programs."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(b"\xb8\x14\x00\x00\x00\xcd\x80\xc3")
    address = ctypes.addressof(ctypes.c_char.from_buffer(code))
    return 0 if ctypes.CFUNCTYPE(ctypes.c_int)(address)() > 0 else errno.ENOSYS


def open_socket(family, kind):
    try:
        socket.socket(family, kind).close()
    except OSError as e:
        return e.errno
    return 0


def in_child(name, function, *args):
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(function(*args))
    status = os.waitpid(pid, 0)[1]
    print(name, f"killed {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else os.WEXITSTATUS(status))


for key, arguments in CALLS.items():
    in_child(key, call, *arguments)
for key, arguments in SOCKETS.items():
    in_child(key, open_socket, *arguments)
in_child("int80", old_call)
