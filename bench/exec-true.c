/* SPDX-License-Identifier: Apache-2.0 */
/* On the host, with libironclaw: N times ic_vm_exec of /bin/true in a running VM; one line of microseconds each. */
#include <ironclaw/ironclaw.h>

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    static const char *const command[] = {"/bin/true", NULL};
    struct ic_exec_options options;
    struct ic_error error = {0};
    ic_vm *vm = NULL;

    if (argc != 3) {
        fprintf(stderr, "usage: exec-true VM COUNT\n");
        return 2;
    }
    ic_exec_options_init(&options);
    options.argv = command;
    if (ic_open_vm(argv[1], &vm, &error) < 0) {
        fprintf(stderr, "%s\n", error.message);
        return 1;
    }
    for (int i = 0; i < atoi(argv[2]); i++) {
        struct ic_exec_result result = {.size = sizeof(result)};
        struct timespec a, b;

        clock_gettime(CLOCK_MONOTONIC, &a);
        if (ic_vm_exec(vm, &options, &result, &error) < 0 || result.status != 0) {
            fprintf(stderr, "exec: status %d: %s\n", result.status, error.message);
            return 1;
        }
        clock_gettime(CLOCK_MONOTONIC, &b);
        printf("%.1f\n", (double)(b.tv_sec - a.tv_sec) * 1e6 + (double)(b.tv_nsec - a.tv_nsec) / 1e3);
    }
    ic_vm_free(vm);
    return 0;
}
