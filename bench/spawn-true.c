/* SPDX-License-Identifier: Apache-2.0 */
/* In the guest: N times fork, exec of /bin/true, wait; one line of microseconds each. */
#define _GNU_SOURCE
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    int count = argc > 1 ? atoi(argv[1]) : 20;

    for (int i = 0; i < count; i++) {
        struct timespec a, b;
        int status;
        pid_t pid;

        clock_gettime(CLOCK_MONOTONIC, &a);
        pid = fork();
        if (pid < 0)
            err(1, "fork");
        if (pid == 0) {
            execl("/bin/true", "true", (char *)NULL);
            _exit(127);
        }
        if (waitpid(pid, &status, 0) < 0 || status != 0)
            err(1, "true");
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("%.1f\n", (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3);
    }
    return 0;
}
