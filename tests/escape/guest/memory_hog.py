# SPDX-License-Identifier: Apache-2.0
# Several processes that take all memory, and start again when the kernel ended them.
import os
import time

while True:
    if os.fork() == 0:
        held = []
        try:
            while True:
                held.append(bytearray(os.urandom(4096)) * 256)
        except MemoryError:
            time.sleep(1000)
    time.sleep(0.2)
