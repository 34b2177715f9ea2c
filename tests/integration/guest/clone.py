# SPDX-License-Identifier: Apache-2.0
"""In a clone: says, as one line of JSON, all that no other clone may have; then its clock, once for each line it reads."""

import os

# Before anything else draws random numbers: a clone whose generator was not reseeded reseeds itself after some seconds.
first = os.getrandom(64).hex()

import json  # noqa: E402
import secrets  # noqa: E402
import ssl  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import uuid  # noqa: E402


def read(path, count=-1):
    with open(path, "rb") as f:
        return f.read(count)


def text(path):
    return read(path).decode().strip()


def client_random():
    """Of the ClientHello that OpenSSL makes: after 5 bytes of record, 4 of handshake and 2 of version."""
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).wrap_bio(into, out, server_hostname="clone.test")
    try:
        client.do_handshake()
    except ssl.SSLWantReadError:
        pass
    hello = out.read()
    assert hello[0] == 22 and hello[5] == 1, hello[:16].hex()
    return hello[11:43].hex()


def layout():
    """Where the kernel put the stack, the heap and the vdso of this process; nothing where it was told to do so always."""
    if text("/proc/sys/kernel/randomize_va_space") == "0":
        return None
    maps = text("/proc/self/maps").splitlines()
    return " ".join(line.partition("-")[0] for line in maps if line.endswith(("[stack]", "[heap]", "[vdso]")))


facts = {
    "getrandom": first,
    "urandom": read("/dev/urandom", 64).hex(),
    "boot_id": text("/proc/sys/kernel/random/boot_id"),
    "layout": layout(),
    "secrets": secrets.token_hex(32),
    "uuid4": str(uuid.uuid4()),
    "mktemp": subprocess.run(["mktemp", "-u"], check=True, stdout=subprocess.PIPE).stdout.decode().strip() + " "
    + os.path.basename(tempfile.mktemp()),
    "tls_random": client_random(),
    "machine_id": text("/etc/machine-id"),
    "generation": text("/run/ironclaw/generation"),
    "hostname": os.uname().nodename,
}
print(json.dumps({kind: fact for kind, fact in facts.items() if fact}), flush=True)
for _ in sys.stdin:
    print(time.time_ns(), flush=True)
