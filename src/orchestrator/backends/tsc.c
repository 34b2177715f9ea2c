/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/backends/tsc.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <x86intrin.h>
#endif

#include "base/fd.h"
#include "orchestrator/paths.h"
#include "orchestrator/process.h"

#define MEASURE_NS 10000000
#define KHZ_MIN    100000u
#define KHZ_MAX    20000000u
#define PAIR_TRIES 8

#if defined(__x86_64__)

struct pair {
    uint64_t ticks;
    int64_t ns;
};

/* The clock and the counter at the same moment: the try whose two counter reads are closest together is the best. */
static struct pair read_pair(void)
{
    struct pair best = {0};
    uint64_t narrowest = UINT64_MAX;

    for (int i = 0; i < PAIR_TRIES; i++) {
        struct timespec ts;
        uint64_t before = __rdtsc(), after;

        clock_gettime(CLOCK_MONOTONIC_RAW, &ts);
        after = __rdtsc();
        if (after - before < narrowest) {
            narrowest = after - before;
            best.ticks = before + narrowest / 2;
            best.ns = (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
        }
    }
    return best;
}

static uint32_t from_cpuid(void)
{
    unsigned a = 0, b = 0, c = 0, d = 0;

    /* TSC = crystal (ecx, Hz) * ebx / eax (Intel SDM volume 2, CPUID leaf 15H). */
    if (!__get_cpuid_count(0x15, 0, &a, &b, &c, &d) || a == 0 || b == 0 || c == 0)
        return 0;
    return (uint32_t)((uint64_t)c * b / a / 1000);
}

uint32_t tsc_khz_measure(void)
{
    const struct timespec pause = {.tv_nsec = MEASURE_NS};
    uint32_t khz = from_cpuid();
    struct pair first, second;

    if (khz >= KHZ_MIN && khz <= KHZ_MAX)
        return khz;
    first = read_pair();
    (void)nanosleep(&pause, NULL);
    second = read_pair();
    if (second.ns - first.ns < MEASURE_NS / 2)
        return 0;
    khz = (uint32_t)((second.ticks - first.ticks) * 1000000 / (uint64_t)(second.ns - first.ns));
    return khz >= KHZ_MIN && khz <= KHZ_MAX ? khz : 0;
}

#else

uint32_t tsc_khz_measure(void)
{
    return 0;
}

#endif

uint32_t tsc_khz(void)
{
    _cleanup_(freep) char *path = NULL, *text = NULL, *dir = NULL;
    char boot_id[BOOT_ID_SIZE], line[128];
    unsigned long kept;
    uint32_t khz;
    int n;

    if (process_boot_id(boot_id) < 0 || path_of(IC_PATH_DATA, &dir, NULL) < 0 ||
            path_in(&path, NULL, IC_PATH_DATA, "tsc") < 0)
        return tsc_khz_measure();
    if (fd_read_file(AT_FDCWD, path, sizeof(line), &text, NULL) == 0 && strncmp(text, boot_id, BOOT_ID_SIZE - 1) == 0) {
        kept = strtoul(text + BOOT_ID_SIZE - 1, NULL, 10);
        if (kept >= KHZ_MIN && kept <= KHZ_MAX)
            return (uint32_t)kept;
    }
    khz = tsc_khz_measure();
    n = snprintf(line, sizeof(line), "%s %" PRIu32 "\n", boot_id, khz);
    if (khz > 0 && path_make_dir(dir, NULL) == 0)
        (void)fd_write_file_atomic(AT_FDCWD, path, line, (size_t)n, 0600); /* only saves the next run its 10 ms */
    return khz;
}
