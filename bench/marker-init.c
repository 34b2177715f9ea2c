/* SPDX-License-Identifier: Apache-2.0 */
/* PID 1 of the bare boot that `ironclaw run` is compared with: says that it runs, and powers the machine off. */
#include <sys/reboot.h>
#include <unistd.h>

int main(void)
{
    if (write(1, "IRONCLAW-BENCH-PID1\n", 20) < 0)
        return 1;
    reboot(RB_AUTOBOOT);
    for (;;)
        pause();
}
