/* SPDX-License-Identifier: Apache-2.0 */
/*
 * On the host, with libironclaw: one VM from the request to the first byte of its command's output.
 *
 *   clone-run BACKEND IMAGE cold|template
 *
 * template: as `ironclaw run`, so one that waits in a pool is taken, if there is a pool. Prints one line of JSON, times
 * in microseconds:
 *
 *   start       ic_spawn_vm_with_config()
 *   exec        ic_vm_exec_start(): the agent has the command
 *   first_byte  from there to the first byte of /bin/echo
 *   total       all three, from the request to the first byte
 *   destroy     ic_destroy_vm()
 *   vm          the VM's record: "origin", and "phases_us" of start
 */
#include <ironclaw/ironclaw.h>

#include <err.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct reader {
    int fd;
    double first_us;
};

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static void *read_all(void *arg)
{
    struct reader *reader = arg;
    char data[256];

    while (read(reader->fd, data, sizeof(data)) > 0) {
        if (reader->first_us == 0)
            reader->first_us = now_us();
    }
    return NULL;
}

static void check(int r, const char *what, const struct ic_error *error)
{
    if (r < 0)
        errx(1, "%s: %s", what, error->message);
}

static ic_vm *start_vm(const char *backend, const char *image, bool cold)
{
    struct ic_vm_config config;
    struct ic_error error = {0};
    ic_vm *vm = NULL;

    ic_vm_config_init(&config);
    check(ic_vm_config_set(&config, "backend", backend, &error), "backend", &error);
    check(ic_vm_config_set(&config, "image", image, &error), "image", &error);
    check(ic_vm_config_set(&config, "boot_timeout_ms", "120000", &error), "boot_timeout_ms", &error);
    if (cold)
        check(ic_vm_config_set(&config, "cold_start", "true", &error), "cold_start", &error);
    config.tied_to_caller = true;
    check(ic_spawn_vm_with_config(&config, &vm, &error), "start", &error);
    ic_vm_config_deinit(&config);
    return vm;
}

int main(int argc, char **argv)
{
    static const char *const command[] = {"/bin/echo", "x", NULL};
    struct ic_exec_result result = {.size = sizeof(result)};
    struct ic_exec_options options;
    struct reader reader = {0};
    struct ic_error error = {0};
    double at[5];
    pthread_t thread;
    char *record;
    ic_exec *exec;
    ic_vm *vm;
    int out[2];

    if (argc != 4 || (strcmp(argv[3], "cold") != 0 && strcmp(argv[3], "template") != 0))
        errx(2, "usage: clone-run BACKEND IMAGE cold|template");
    if (pipe(out) < 0)
        err(1, "pipe");
    reader.fd = out[0];
    if (pthread_create(&thread, NULL, read_all, &reader) != 0)
        errx(1, "no thread");
    ic_exec_options_init(&options);
    options.argv = command;
    options.stdout_fd = out[1];

    at[0] = now_us();
    vm = start_vm(argv[1], argv[2], strcmp(argv[3], "cold") == 0);
    at[1] = now_us();
    check(ic_vm_exec_start(vm, &options, &exec, &error), "exec", &error);
    at[2] = now_us();
    check(ic_exec_wait(exec, &result, &error), "wait", &error);
    close(out[1]);
    (void)pthread_join(thread, NULL);
    if (result.status != 0 || reader.first_us == 0)
        errx(1, "echo: status %d", result.status);
    check(ic_vm_inspect_json(vm, &record, &error), "record", &error);
    at[3] = now_us();
    check(ic_destroy_vm(vm, &error), "destroy", &error);
    at[4] = now_us();
    printf("{\"start\": %.0f, \"exec\": %.0f, \"first_byte\": %.0f, \"total\": %.0f, \"destroy\": %.0f, \"vm\": %s}\n",
            at[1] - at[0], at[2] - at[1], reader.first_us - at[2], reader.first_us - at[0], at[4] - at[3], record);
    free(record);
    ic_vm_free(vm);
    return 0;
}
