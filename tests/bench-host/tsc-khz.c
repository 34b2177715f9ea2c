/* SPDX-License-Identifier: Apache-2.0 */
/* Prints how fast this machine's time-stamp counter is; under TCG the test host sees the same one. */
#include <stdio.h>

#include "orchestrator/backends/tsc.h"

int main(void)
{
    return printf("%u\n", tsc_khz_measure()) < 0;
}
