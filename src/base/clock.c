/* SPDX-License-Identifier: Apache-2.0 */
#include "base/clock.h"

#include <limits.h>
#include <time.h>

#include "base/macro.h"

uint64_t clock_now_us(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_MONOTONIC, &ts);
    return (uint64_t)ts.tv_sec * 1000000 + (uint64_t)ts.tv_nsec / 1000;
}

uint64_t clock_now_ms(void)
{
    return clock_now_us() / 1000;
}

uint64_t clock_unix_ns(void)
{
    struct timespec ts;

    clock_gettime(CLOCK_REALTIME, &ts);
    return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t deadline_after_ms(uint64_t timeout_ms)
{
    uint64_t deadline;

    if (timeout_ms == 0 || add_overflows(clock_now_ms(), timeout_ms, &deadline))
        return DEADLINE_NEVER;
    return deadline;
}

int deadline_poll_ms(uint64_t deadline)
{
    uint64_t now;

    if (deadline == DEADLINE_NEVER)
        return -1;
    now = clock_now_ms();
    if (now >= deadline)
        return 0;
    return deadline - now > INT_MAX ? INT_MAX : (int)(deadline - now);
}
