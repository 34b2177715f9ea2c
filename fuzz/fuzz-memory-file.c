/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is read beside a snapshot's state: the trailer of its memory file, and its working set. The first byte tells
 * which of them the rest is, and whether its checksum is to fit, so that what is behind it is reached, too.
 */
#include <errno.h>
#include <string.h>

#include "base/crc32c.h"
#include "fuzz.h"
#include "monitor/snapshot/prefetch.h"

#define INPUT_MAX (64u << 10)
#define SET       1u /* of the first byte */
#define SUM       2u

static void check_trailer(uint8_t *bytes, bool sum)
{
    struct memory_file_info info;
    uint32_t crc = crc32c(0, bytes, MEMORY_FILE_TRAILER - 4);
    int r;

    if (sum)
        memcpy(bytes + MEMORY_FILE_TRAILER - 4, &crc, sizeof(crc));
    r = memory_file_parse(&info, bytes);
    FUZZ_CHECK(r == 0 || r == -EBADMSG || r == -EPROTONOSUPPORT);
    if (r < 0)
        return;
    FUZZ_CHECK(memcmp(bytes + MEMORY_FILE_TRAILER - 4, &crc, sizeof(crc)) == 0);
    FUZZ_CHECK(info.ram_bytes > 0 && info.ram_bytes % (1u << 20) == 0 && info.ram_bytes >> 20 <= UINT32_MAX);
    FUZZ_CHECK(
            memory_file_bytes(&info) >= info.ram_bytes + MEMORY_FILE_TRAILER && memory_file_bytes(&info) < INT64_MAX);
}

/* What was taken is made again to the same bytes, but for versions. */
static void check_same(const struct prefetch *found, const uint8_t *data, size_t len)
{
    _cleanup_(buf_deinit) struct buf again = {0};
    static struct prefetch_run runs[INPUT_MAX / PREFETCH_RUN];
    struct prefetch prefetch = *found;
    uint64_t total = 0;
    size_t n = 0;

    while (prefetch_next(&prefetch, &runs[n])) {
        FUZZ_CHECK((uint64_t)runs[n].first + runs[n].count <= found->ram_bytes / 4096);
        total += runs[n++].count;
    }
    FUZZ_CHECK(n == found->run_count && total <= found->ram_bytes / 4096);
    FUZZ_CHECK(prefetch_make(&again, found->id, found->ram_bytes, runs, n) == 0);
    FUZZ_CHECK(again.len == len && memcmp(again.data + 16, data + 16, 28) == 0);
    FUZZ_CHECK(memcmp(again.data + PREFETCH_HEADER, data + PREFETCH_HEADER, len - PREFETCH_HEADER) == 0);
}

static void check_set(uint8_t *data, size_t len, bool sum)
{
    struct prefetch prefetch;
    uint32_t crc;
    int r;

    if (sum && len >= PREFETCH_HEADER) {
        crc = crc32c(crc32c(0, data, 44), data + PREFETCH_HEADER, len - PREFETCH_HEADER);
        memcpy(data + 44, &crc, sizeof(crc));
    }
    r = prefetch_parse(&prefetch, data, len);
    FUZZ_CHECK(r == 0 || r == -EBADMSG || r == -EPROTONOSUPPORT);
    if (r == 0)
        check_same(&prefetch, data, len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t bytes[INPUT_MAX];

    if (size < 1 || size - 1 > sizeof(bytes))
        return 0;
    memset(bytes, 0, MEMORY_FILE_TRAILER);
    memcpy(bytes, data + 1, size - 1);
    if (data[0] & SET)
        check_set(bytes, size - 1, data[0] & SUM);
    else
        check_trailer(bytes, data[0] & SUM);
    return 0;
}
