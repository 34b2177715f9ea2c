/* SPDX-License-Identifier: Apache-2.0 */
/* A hostile bzImage: two knobs (see fuzz-boot.h), then the file from its setup header on; the two magics are put in. */
#include "fuzz-boot.h"

#define HEADER_AT 0x1f1u
#define MAX_FILE  0x40000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct fuzz_vm vm;
    static uint8_t file[MAX_FILE];
    size_t len = size + HEADER_AT - 2;

    if (!vm.halves[0])
        fuzz_vm_init(&vm);
    if (size < 2 || len > sizeof(file))
        return 0;
    memcpy(file + HEADER_AT, data + 2, size - 2);
    if (len >= 0x206) {
        memcpy(file + 0x1fe, &(uint16_t){0xaa55}, 2);
        memcpy(file + 0x202, &(uint32_t){0x53726448}, 4); /* HdrS */
    }
    fuzz_boot(&vm, data, file, len);
    return 0;
}
