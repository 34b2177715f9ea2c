#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds of fuzz-http: fuzz/seeds-http.py fuzz/corpus/http"""

import json
import sys
from pathlib import Path

KERNEL = ("PUT", "boot-source", {"kernel_image_path": "/k", "initrd_path": "/i", "boot_args": "console=ttyS0"})
START = ("PUT", "actions", {"action_type": "InstanceStart"})
DRIVE = {"drive_id": "root", "path_on_host": "/r", "is_root_device": True, "is_read_only": True,
         "cache_type": "Unsafe", "io_engine": "Sync", "partuuid": None, "rate_limiter": {}, "socket": None}
SEEDS = {
    "questions": [("GET", p, None) for p in ("", "version", "vm/config", "machine-config", "balloon")],
    "machine": [("PUT", "machine-config", {"vcpu_count": 2, "mem_size_mib": 256, "smt": False, "cpu_template": "None",
                                           "track_dirty_pages": True, "huge_pages": "2M"}),
                ("PATCH", "machine-config", {"mem_size_mib": 255, "huge_pages": "None"})],
    "session": [KERNEL, ("PUT", "drives/root", DRIVE),
                ("PUT", "drives/b", {**DRIVE, "drive_id": "b", "is_root_device": False, "cache_type": "Writeback"}),
                ("PUT", "vsock", {"guest_cid": 3, "uds_path": "v", "vsock_id": "v"}), ("PUT", "entropy", {}),
                ("PUT", "serial", {"serial_out_path": "/s"}), START, ("GET", "vm/config", None),
                ("PATCH", "drives/root", {"drive_id": "root", "path_on_host": "/n"}),
                ("PATCH", "vm", {"state": "Paused"}), ("PATCH", "vm", {"state": "Resumed"}),
                ("PUT", "actions", {"action_type": "SendCtrlAltDel"}),
                ("PUT", "actions", {"action_type": "FlushMetrics"}),
                ("PUT", "snapshot/create", {"snapshot_path": "s", "mem_file_path": "m", "snapshot_type": "Full"})],
    "balloon": [KERNEL, ("PUT", "balloon", {"amount_mib": 64, "deflate_on_oom": True, "stats_polling_interval_s": 1}),
                START, ("GET", "balloon/statistics", None), ("PATCH", "balloon", {"amount_mib": 1}),
                ("PATCH", "balloon/statistics", {"stats_polling_interval_s": 2})],
    "logs": [("PUT", "logger", {"log_path": "/l", "level": "Info", "show_level": True, "show_log_origin": False}),
             ("PUT", "metrics", {"metrics_path": "/m"})],
    "load": [("PUT", "snapshot/load", {"snapshot_path": "s", "mem_backend": {"backend_type": "File",
                                       "backend_path": "m"}, "resume_vm": True, "network_overrides": []})],
    "refused": [("PUT", "network-interfaces/eth0", {}), ("GET", "mmds", None), ("PUT", "cpu-config", {}),
                ("DELETE", "drives/a", None), ("PUT", "drives/a-b", {}), ("PUT", "actions", None)],
}
RAW = {
    "absolute": b"GET http://localhost/version HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "expect": b"PUT /entropy HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n{}",
    "chunked": b"PUT /entropy HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "twice": b"PUT /entropy HTTP/1.1\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "deep": b"PUT /entropy HTTP/1.1\r\nContent-Length: 40\r\n\r\n" + b"[" * 40,
    "long-line": b"GET /" + b"a" * 1100 + b" HTTP/1.1\r\n\r\n",
}


def request(method, path, body):
    text = b"" if body is None else json.dumps(body).encode()
    head = f"{method} /{path} HTTP/1.1\r\n" + (f"Content-Length: {len(text)}\r\n" if text else "") + "\r\n"
    return head.encode() + text


def main():
    out = Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for name, requests in SEEDS.items():
        (out / name).write_bytes(b"\x06" + b"".join(request(*r) for r in requests))
    for name, text in RAW.items():
        (out / name).write_bytes(b"\x00" + text)
    (out / "fails").write_bytes(b"\x86" + b"".join(request(*r) for r in SEEDS["session"]))


if __name__ == "__main__":
    main()
