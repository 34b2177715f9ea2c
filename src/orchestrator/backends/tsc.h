/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rate of this host's time stamp counter. QEMU's TCG shows it to the
 * guest as it is, and a guest that has to find the rate out by itself against
 * an emulated timer gets it wrong or hangs; so it is told on its command line.
 */
#pragma once

#include <stdint.h>

/* kHz, or 0 when it can't be known. Measured once per boot of the host (10 ms), then kept in the data directory. */
uint32_t tsc_khz(void);

/* From CPUID leaves 0x15 and 0x16 if the processor has them, else measured against CLOCK_MONOTONIC_RAW. */
uint32_t tsc_khz_measure(void);
