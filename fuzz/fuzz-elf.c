/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile vmlinux: two knobs (see fuzz-boot.h), then the file as it is. */
#include "fuzz-boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_vm vm;

    if (!vm.halves[0])
        fuzz_vm_init(&vm);
    if (size >= 2)
        fuzz_boot(&vm, data, data + 2, size - 2);
    return 0;
}
