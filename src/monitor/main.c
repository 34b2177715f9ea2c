/* SPDX-License-Identifier: Apache-2.0 */
/* ironclaw-vmm: one virtual machine per process. */
#include <fcntl.h>
#include <malloc.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "monitor/options.h"
#include "monitor/snapshot/prefetch.h"
#include "monitor/vmm.h"
#include "vsock/vsock.h"

/* Started with one of 0 to 2 closed, a file of ours would get that number, and the log or the guest would write to it.
 */
static int open_standard_fds(void)
{
    for (int fd = 0; fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return -1;
    }
    return 0;
}

/* Two for each vsock connection while it is made, as a client waits on its own, and some for all the rest. */
static void raise_fd_limit(void)
{
    const rlim_t want = 2 * VSOCK_MAX_CONNECTIONS + 256;
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= want)
        return;
    limit.rlim_cur = want < limit.rlim_max ? want : limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

/* What has to do with a snapshot's files and with no VM. */
static int do_files(const struct options *o)
{
    struct vm_error error;
    int r = o->merge_full ? memory_file_merge_paths(o->merge_full, o->merge_diff, &error)
                          : prefetch_measure((pid_t)o->set_pid, o->set_memory, o->set_path, &error);

    log_init("ironclaw-vmm", o->level, STDERR_FILENO);
    if (r < 0)
        log_msg(LOG_ERROR, "%s", error.text);
    return r < 0 ? EXIT_ERROR : EXIT_OK;
}

int main(int argc, char **argv)
{
    struct options options;
    int r;

    if (open_standard_fds() < 0)
        return EXIT_ERROR;
    r = options_parse(&options, argc, argv);
    if (r != 0)
        return r == OPTIONS_DONE ? EXIT_OK : EXIT_BAD_USAGE;
    if (options.seccomp_report) {
        seccomp_report(stdout, vmm_profiles, VMM_PROFILES);
        return EXIT_OK;
    }
    if (options.merge_full || options.set_pid > 0)
        return do_files(&options);
    (void)mallopt(M_ARENA_MAX,
            1); /* an arena per thread would cost memory and buy nothing: the data path does not allocate */
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return EXIT_ERROR;
    raise_fd_limit();
    return vmm_run(&options, &vmm_compiled);
}
