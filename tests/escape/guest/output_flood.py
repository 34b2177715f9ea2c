# SPDX-License-Identifier: Apache-2.0
# Output without end that nobody reads on the other side.
import os

while True:
    os.write(1, b"y" * 65536)
