# SPDX-License-Identifier: Apache-2.0
"""Runs in the guest: what ordinary programs do, each of which has to work under a filter. Prints a line for each one
that does not, and how many were tried. With "basic" also what only that level has to allow; with
"root" only what root needs there."""

import asyncio
import concurrent.futures
import contextlib
import ctypes
import fcntl
import functools
import hashlib
import http.server
import lzma
import mmap
import multiprocessing
import multiprocessing.shared_memory
import os
import pathlib
import pty
import resource
import select
import shutil
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import urllib.request

SHELL = {  # each has to end with 0
    "pipeline": "test $(seq 1000 | sort -rn | head -3 | tr '\\n' ' ' | wc -w) = 3",
    "find": "test $(find /usr/bin -type f | xargs -n 50 ls -ld | wc -l) -gt 100",
    "copies": "mkdir a && echo x >a/f && ln a/f a/g && ln -s f a/h && cp -a a b && diff -r a b && mv b c && rm -r c",
    "owners": "touch -d 2001-01-01 t && chmod 640 t && chown $(id -u):$(id -g) t && stat t | grep -q 2001",
    "tar": "mkdir s && echo x >s/f && tar cf - s | gzip | (mkdir d && cd d && gunzip | tar xf -) && cmp s/f d/s/f",
    "texts": "printf 'b 2\\na 1\\n' | sort | awk '{s += $2} END {print s}' | sed s/3/three/ | grep -q three",
    "dd": "dd if=/dev/zero of=z bs=64k count=4 conv=fsync 2>/dev/null && truncate -s 10 z && split -b 5 z && sync z",
    "digests": "head -c 1000000 /dev/urandom | tee r | sha256sum >r.sum && test $(wc -c <r) = 1000000 && shred -u r",
    "fifo": "mkfifo p && { echo through >p & test \"$(cat p)\" = through; }",
    "timeout": "timeout 0.2 sleep 10 || test $? = 124",
    "nice": "nice -n 5 nohup true && taskset 1 true && test $(nproc) -ge 1 && ulimit -n 100",
    "watch": "echo one >w && (timeout 3 tail -f w & sleep 0.3; echo two >>w; wait) | grep -q two",
    "bash": "bash -c 'set -m; diff <(echo a) <(echo a) && sleep 5 & kill %1; wait; trap \"exit 0\" USR1; "
            "kill -USR1 $$; sleep 5'",
    "information": "df . && du -s . && date && uname -a && id && env && ls -la /proc/self/fd",
    "perl": "perl -e 'use POSIX; my $p = fork; exit 0 unless $p; waitpid $p, 0; exit $? >> 8'",
    "dpkg": "dpkg -l | grep -q python3 && dpkg-deb --version >/dev/null && apt-cache stats >/dev/null",
    "terminal": "script -qec 'stty -a >/dev/null; tty >/dev/null && echo good' /dev/null </dev/null | grep -q good",
}
SHELL_OF_BASIC = {
    "setarch": "setarch -R true",
    "ipc": "ipcs >/dev/null && q=$(ipcmk -Q | tr -dc 0-9) && ipcrm -q $q",
    "ip": "ip addr show lo | grep -q LOOPBACK",
    "chrt": "chrt --batch 0 true",
}
SHELL_OF_ROOT = {
    "su": "test \"$(su agent -s /bin/sh -c 'id -u')\" = 1000 && setpriv --reuid 1000 --clear-groups true",
    "users": "useradd -m other && userdel -r other 2>/dev/null",
    "chroot": "chroot / true",
    "device": "mknod n c 1 3",
    "package": "mkdir -p k/DEBIAN && printf 'Package: k\\nVersion: 1\\nArchitecture: all\\nMaintainer: x <x@y>\\n"
               "Description: x\\n' >k/DEBIAN/control && dpkg-deb -b k k.deb && dpkg -i k.deb && dpkg -P k",
}


def subprocesses():
    assert subprocess.run(["cat"], input=b"x", capture_output=True, check=True).stdout == b"x"
    assert subprocess.check_output("echo $0 | cat", shell=True, cwd="/", preexec_fn=os.setsid).strip()
    with subprocess.Popen(["sleep", "100"], start_new_session=True) as child:
        child.send_signal(signal.SIGTERM)
        assert child.wait(20) == -signal.SIGTERM


def threads():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(lambda n: n * n, range(100))) == 328350
    lock = threading.Condition()
    with lock:
        assert not lock.wait(0.01)


def square(n):
    return n * n


def processes():
    for method in ("fork", "spawn", "forkserver"):
        with multiprocessing.get_context(method).Pool(2) as pool:
            assert pool.map(square, range(4)) == [0, 1, 4, 9], method
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        assert list(pool.map(square, range(3))) == [0, 1, 4]
    memory = multiprocessing.shared_memory.SharedMemory(create=True, size=4096)
    memory.buf[0] = 7
    memory.close()
    memory.unlink()


def database():
    with contextlib.closing(sqlite3.connect("db")) as db:
        db.execute("pragma journal_mode=wal")
        db.execute("create table t(x)")
        db.executemany("insert into t values(?)", ((i,) for i in range(100)))
        db.commit()
        assert db.execute("select sum(x) from t").fetchone() == (4950,)


def files():
    with tempfile.TemporaryDirectory() as d:
        path = pathlib.Path(d)
        (path / "f").write_bytes(os.urandom(100000))
        shutil.copytree(d, "tree")
        with tarfile.open("t.tar.xz", "w:xz") as tar:
            tar.add(d)
        with open(path / "f", "r+b") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            fcntl.lockf(f, fcntl.LOCK_SH)
            with mmap.mmap(f.fileno(), 0) as m:
                m[0:4] = b"abcd"
                m.flush()
            os.posix_fallocate(f.fileno(), 0, 200000)
            os.copy_file_range(f.fileno(), os.open(path / "g", os.O_CREAT | os.O_WRONLY), 100)
        assert os.listxattr(path / "f") == []
    with tempfile.NamedTemporaryFile() as f, tempfile.SpooledTemporaryFile() as g:
        shutil.copyfileobj(f, g)
    assert lzma.decompress(lzma.compress(b"x" * 1000)) == b"x" * 1000


def cryptography():
    ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname="x")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    assert len(hashlib.scrypt(b"x", salt=b"y", n=16, r=8, p=1)) == 64


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass


def network():
    handler = functools.partial(Quiet, directory="/etc")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with urllib.request.urlopen(f"http://localhost:{server.server_port}/hostname", timeout=20) as answer:
            assert answer.status == 200
        server.shutdown()
    a, b = socket.socketpair()
    socket.send_fds(a, [b"x"], [0])
    assert socket.recv_fds(b, 1, 1)[0] == b"x"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("\0ironclaw-test")
        listener.listen()


async def talk():
    child = await asyncio.create_subprocess_exec("cat", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE)
    assert (await child.communicate(b"x"))[0] == b"x"
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    assert await reader.read() == b""
    writer.close()
    server.close()


def waiting():
    asyncio.run(talk())
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    time.sleep(0.05)
    poll = select.epoll()
    poll.register(os.eventfd(1), select.EPOLLIN)
    assert poll.poll(1)
    resource.getrusage(resource.RUSAGE_SELF)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.close(os.pidfd_open(os.getpid()))
    os.close(os.memfd_create("x"))


def terminal():
    pid, fd = pty.fork()
    if pid == 0:
        os._exit(0 if os.isatty(0) else 1)
    assert os.waitpid(pid, 0)[1] == 0
    os.close(fd)


def trace():
    """As strace and gdb do it; of basic."""
    libc = ctypes.CDLL(None, use_errno=True)
    pid = os.fork()
    if pid == 0:
        os._exit(0 if libc.ptrace(0, 0, None, None) == 0 and os.kill(os.getpid(), signal.SIGSTOP) is None else 1)
    assert os.WIFSTOPPED(os.waitpid(pid, 0)[1])
    assert libc.ptrace(7, pid, None, None) == 0  # PTRACE_CONT
    assert os.waitpid(pid, 0)[1] == 0


def shell(script):
    result = subprocess.run(["sh", "-ec", script], stdin=subprocess.DEVNULL, capture_output=True, timeout=100,
                            check=False)
    assert result.returncode == 0, f"status {result.returncode}: {(result.stdout + result.stderr)[-300:]}"


def main():
    basic, root = sys.argv[1:] == ["basic"], sys.argv[1:] == ["root"]
    scripts = SHELL_OF_ROOT if root else dict(SHELL, **(SHELL_OF_BASIC if basic else {}))
    tasks = {name: functools.partial(shell, text) for name, text in scripts.items()}
    for task in (subprocesses, threads, processes, database, files, cryptography, network, waiting, terminal):
        if not root:
            tasks[task.__name__] = task
    if basic:
        tasks["trace"] = trace
    for name, task in tasks.items():
        with tempfile.TemporaryDirectory() as d:
            os.chdir(d)
            try:
                task()
            except Exception:
                print(f"{name}: {traceback.format_exc()[-600:]}")
            os.chdir("/")
    print("tried", len(tasks))


if __name__ == "__main__":
    main()
