# SPDX-License-Identifier: Apache-2.0
"""In a guest that is saved meanwhile: `write` makes files for ever whose names are their digests, `listen` answers on a
socket, `check` says what became of both as one line of JSON."""

import hashlib
import json
import os
import socket
import sys
import time

TOP, PORT = "/var/tmp/files", 4711


def write():
    os.makedirs(TOP, exist_ok=True)
    i = 0
    while True:
        data = hashlib.sha256(b"%d" % i).digest() * (1 + i % 700)
        new = f"{TOP}/new"
        with open(new, "wb") as f:
            f.write(data)
            f.flush()
            os.fsync(f.fileno())
        os.rename(new, f"{TOP}/{i}-{hashlib.sha256(data).hexdigest()}")
        for old in [n for n in os.listdir(TOP) if n.startswith(f"{i - 100}-")]:
            os.unlink(f"{TOP}/{old}")
        i += 1
        time.sleep(0.02)


def listen():
    server = socket.create_server(("127.0.0.1", PORT))
    while True:
        client = server.accept()[0]
        client.sendall(b"hello")
        client.close()


def hello():
    try:
        with socket.create_connection(("127.0.0.1", PORT), 10) as client:
            return client.recv(16).decode()
    except OSError as e:
        return str(e)


def check():
    os.makedirs(TOP, exist_ok=True)
    names = [n for n in os.listdir(TOP) if n != "new"]
    wrong = []
    for name in names:
        try:
            with open(f"{TOP}/{name}", "rb") as f:
                if hashlib.sha256(f.read()).hexdigest() != name.partition("-")[2]:
                    wrong.append(name)
        except FileNotFoundError:
            continue
    newest = max((int(n.partition("-")[0]) for n in names), default=0)
    print(json.dumps({"files": len(names), "wrong": wrong, "listener": hello(), "newest": newest}))


{"write": write, "listen": listen, "check": check}[sys.argv[1]]()
