/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/vmm.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <time.h>

#include "base/clock.h"
#include "base/fd.h"
#include "jail/start.h"
#include "monitor/api/api.h"
#include "monitor/api/controller.h"
#include "monitor/api/metrics.h"
#include "monitor/devices/devices.h"
#include "monitor/devices/serial-output.h"
#include "monitor/kvm.h"
#include "monitor/snapshot/files.h"
#include "monitor/snapshot/uffd.h"
#include "monitor/vcpu.h"
#include "monitor/vm.h"

#define METRICS_INTERVAL_MS 60000u

struct vmm {
    const struct options *options;
    struct loop loop;
    struct loop_fd signals;
    struct controller controller;
    struct api_server *server;
    struct kvm_early early;
    struct vm *vm;
    int status; /* the exit status, once the loop ended */
    uint64_t start_us, start_cpu_us, ready_us, ready_cpu_us;
    int metrics_fd;
    struct loop_timer metrics_timer, lifetime;

    /* The mailbox: the API thread waits until its letter is answered or the box is closed. */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    struct loop_fd mail;
    struct api_request *request;
    struct api_response *response;
    bool closed;

    bool raw_terminal;
    struct termios terminal; /* as it was */
};

/* ---- the mailbox ---- */

/* On the API thread. */
static void post(void *userdata, struct api_request *request, struct api_response *response)
{
    struct vmm *vmm = userdata;
    uint64_t one = 1;

    pthread_mutex_lock(&vmm->lock);
    if (!vmm->closed) {
        vmm->request = request;
        vmm->response = response;
        (void)!write(vmm->mail.fd, &one, sizeof(one));
    }
    while (!vmm->closed && vmm->request)
        pthread_cond_wait(&vmm->answered, &vmm->lock);
    if (vmm->request) {
        vmm->request = NULL;
        api_fault(response, "The microVM has ended.");
    } else if (response->status == 0) {
        api_fault(response, "The microVM has ended.");
    }
    pthread_mutex_unlock(&vmm->lock);
}

static int on_mail(struct loop_fd *source, uint32_t events)
{
    struct vmm *vmm = CONTAINER_OF(source, struct vmm, mail);
    uint64_t count;

    (void)!read(source->fd, &count, sizeof(count));
    pthread_mutex_lock(&vmm->lock);
    if (vmm->request) {
        controller_handle(&vmm->controller, vmm->request, vmm->response);
        vmm->request = NULL;
        pthread_cond_signal(&vmm->answered);
    }
    pthread_mutex_unlock(&vmm->lock);
    return 0;
}

static void close_mailbox(struct vmm *vmm)
{
    pthread_mutex_lock(&vmm->lock);
    vmm->closed = true;
    pthread_cond_signal(&vmm->answered);
    pthread_mutex_unlock(&vmm->lock);
}

/* ---- what its threads may ask the kernel for ---- */

#define READ_KVM(request, why) SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, (uint32_t)(request), why)

/* This thread's once the VM is there: vsock, serial port, balloon and rng live on it, and the VM's end. It makes no
 * thread and no listener any more, and no file but the new ones of a snapshot. Paths are checked by no filter. Of KVM
 * it reads what a snapshot has, and changes nothing but interrupts. */
static const struct seccomp_rule calls[] = {
        SECCOMP_ALLOW(epoll_wait, "the loop"),
        SECCOMP_ALLOW(epoll_ctl, "sources of the loop come, go, and wait for room"),
        SECCOMP_ALLOW(read, "eventfds, signals, the console's input"),
        SECCOMP_ALLOW(write, "eventfds: kicks, the API's thread; log, metrics"),
        SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, (uint32_t)KVM_SIGNAL_MSI, "interrupts"),
        SECCOMP_ALLOW(recvfrom, "vsock: a host's first line"),
        SECCOMP_ALLOW(readv, "vsock: host to guest"),
        SECCOMP_ALLOW(sendmsg, "vsock: guest to host"),
        SECCOMP_ALLOW(sendto, "vsock: OK to a host"),
        SECCOMP_ALLOW(futex, "locks, waiting for vCPUs and for the ends of threads"),
        SECCOMP_ALLOW(clock_gettime, "timers of the loop, CPU time for metrics; no vDSO without a stable TSC"),
        SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTNEED, "balloon; vsock: buffers of what is closed"),
        SECCOMP_ALLOW(getrandom, "rng"),
        SECCOMP_ALLOW(accept4, "vsock: hosts"),
        SECCOMP_ALLOW_IF(socket, 0, SECCOMP_ANY_BIT, AF_UNIX, "vsock: the guest connects to a host"),
        SECCOMP_ALLOW(connect, "vsock: the same"),
        SECCOMP_ALLOW(shutdown, "vsock"),
        SECCOMP_ALLOW(close, "vsock; the file of a drive that is replaced; the end"),
        SECCOMP_ALLOW(writev, "serial port"),
        SECCOMP_ALLOW(poll, "serial port: an output that may block"),
        SECCOMP_ALLOW(fstat, "serial port: size of the log; a drive's file"),
        SECCOMP_ALLOW(newfstatat, "the same; the end: whether a socket is still ours"),
        SECCOMP_ALLOW(pread64, "serial port: the log is cut"),
        SECCOMP_ALLOW(pwrite64, "serial port: the log is cut; a snapshot's memory"),
        SECCOMP_ALLOW(ftruncate, "the same"),
        SECCOMP_ALLOW(lseek, "serial port: the log is cut; a drive's size"),
        SECCOMP_ALLOW_IF(openat, 2, O_CREAT | O_TRUNC | O_TMPFILE, 0, "PATCH /drives: what is there already"),
        SECCOMP_ALLOW_IF(openat, 2, O_CREAT | O_EXCL | O_TRUNC | O_TMPFILE, O_CREAT | O_EXCL, "snapshot: new files"),
        SECCOMP_ALLOW(fsync, "snapshot: on the disk before it has its name"),
        SECCOMP_ALLOW(rename, "snapshot: the files' names, when they are whole"),
        READ_KVM(KVM_GET_MSR_INDEX_LIST, "snapshot: the state of the vCPUs"),
        READ_KVM(KVM_GET_MP_STATE, "the same"),
        READ_KVM(KVM_GET_SREGS, "the same"),
        READ_KVM(KVM_GET_REGS, "the same"),
        READ_KVM(KVM_GET_XCRS, "the same"),
        READ_KVM(KVM_GET_DEBUGREGS, "the same"),
        READ_KVM(KVM_GET_LAPIC, "the same"),
        READ_KVM(KVM_GET_VCPU_EVENTS, "the same"),
        READ_KVM(KVM_GET_TSC_KHZ, "the same"),
        READ_KVM(KVM_GET_MSRS, "the same"),
        READ_KVM(KVM_CHECK_EXTENSION, "the same: how large the FPU's is"),
        READ_KVM(KVM_GET_XSAVE, "the same"),
        READ_KVM(KVM_GET_XSAVE2, "the same"),
        READ_KVM(KVM_GET_CLOCK, "snapshot: the clock"),
        READ_KVM(KVM_GET_DIRTY_LOG, "snapshot: what changed"),
        SECCOMP_ALLOW(brk, "malloc"),
        SECCOMP_ALLOW_IF(mmap, 2, PROT_EXEC, 0, "malloc"),
        SECCOMP_ALLOW(mremap, "realloc"),
        SECCOMP_ALLOW(munmap, "free; the end: guest memory"),
        SECCOMP_ALLOW_IF(tgkill, 0, SECCOMP_ANY_BIT, SECCOMP_OWN_PID, "pause, the end: out of KVM_RUN; abort()"),
        SECCOMP_ALLOW(getpid, "the same"),
        SECCOMP_ALLOW(gettid, "abort()"),
        SECCOMP_ALLOW(rt_sigprocmask, "around tgkill"),
        SECCOMP_ALLOW(unlink, "the end: sockets; snapshot: what was not finished"),
        SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, TCSETS, "the end: the terminal"),
        SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, TCGETS, "the same: tcsetattr() looks whether it was done"),
        SECCOMP_ALLOW(exit_group, "the end"),
};
const struct seccomp_profile vmm_seccomp = {"vmm", calls, ARRAY_SIZE(calls)};
const struct seccomp_profile *const vmm_profiles[VMM_PROFILES] = {
        &vmm_seccomp, &api_seccomp, &vcpu_seccomp, &block_seccomp, &uffd_seccomp};

/* ---- what the controller asks for ---- */

static void on_end(void *userdata, const struct vm_end *end)
{
    struct vmm *vmm = userdata;
    bool good = end->cause == VM_END_RESET || end->cause == VM_END_SHUTDOWN || end->cause == VM_END_SYSTEM_EVENT;

    log_msg(good ? LOG_INFO : LOG_ERROR, "the VM has ended: %s", end->text);
    vmm->status = good ? EXIT_OK : EXIT_ERROR;
    loop_stop(&vmm->loop);
}

/* The guest's console on the terminal we were started from: keys go to the guest as they are. Not before there is one,
 * as Ctrl-C would end nothing then. */
static void set_terminal(struct vmm *vmm)
{
    struct termios raw;

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &vmm->terminal) < 0)
        return;
    raw = vmm->terminal;
    cfmakeraw(&raw);
    raw.c_oflag |= OPOST; /* our own lines still end in a new line */
    vmm->raw_terminal = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

static void restore_terminal(struct vmm *vmm)
{
    if (vmm->raw_terminal)
        (void)tcsetattr(STDIN_FILENO, TCSANOW, &vmm->terminal);
    vmm->raw_terminal = false;
}

/* From its kernel, or from a snapshot. From here on this thread has its filter. */
static int make_vm(
        struct vmm *vmm, const struct vm_config *config, const struct vm_source *from, bool run, struct vm_error *error)
{
    struct vm_options options = {
            .config = config,
            .from = from,
            .loop = &vmm->loop,
            .early = &vmm->early,
            .on_end = on_end,
            .userdata = vmm,
            .boot_timer = vmm->options->boot_timer,
            .vsock_max_connections = vmm->options->vsock_max_connections,
            .start_us = vmm->start_us,
            .start_cpu_us = vmm->start_cpu_us,
    };
    int r = vm_new(&vmm->vm, &options, error);

    if (r == 0 && !config->serial.output_path)
        set_terminal(vmm);
    if (r == 0) {
        seccomp_enter(&vmm_seccomp);
        if (run)
            r = from ? vm_resume(vmm->vm, error) : vm_start(vmm->vm, error);
    }
    if (r < 0) {
        vm_free(vmm->vm);
        vmm->vm = NULL;
        restore_terminal(vmm);
    }
    return r;
}

static int start(void *userdata, const struct vm_config *config, struct vm_error *error)
{
    return make_vm(userdata, config, NULL, true, error);
}

static int create_snapshot(void *userdata, const struct vm_config *config, const struct snapshot_create_config *request,
        struct vm_error *error)
{
    uint64_t start = clock_now_us();
    int r = snapshot_create(((struct vmm *)userdata)->vm, config, request, error);

    if (r == 0)
        log_msg(LOG_INFO, "snapshot %s: made in %llu us", request->snapshot_path,
                (unsigned long long)(clock_now_us() - start));
    return r;
}

static int load_snapshot(
        void *userdata, const struct snapshot_load_config *request, struct vm_config *config, struct vm_error *error)
{
    struct vm_source from = {
            .backend = request->backend, .memory_path = request->backend_path, .prefetch_path = request->prefetch_path};
    _cleanup_(vm_config_deinit) struct vm_config loaded = {0};
    _cleanup_(freep) void *bytes = NULL;
    uint64_t start = clock_now_us();
    struct snapshot state;
    int r = snapshot_read(request->snapshot_path, &state, &bytes, error);

    from.state = &state;
    if (r == 0)
        r = snapshot_configure(&state, request, config, &loaded, error);
    if (r == 0)
        r = make_vm(userdata, &loaded, &from, request->resume, error);
    if (r < 0)
        return r;
    vm_config_deinit(config);
    *config = loaded;
    loaded = (struct vm_config){0};
    log_msg(LOG_INFO, "snapshot %s: %s after %llu us", request->snapshot_path, request->resume ? "goes on" : "loaded",
            (unsigned long long)(clock_now_us() - start));
    return 0;
}

static int do_pause(void *userdata, struct vm_error *error)
{
    return vm_pause(((struct vmm *)userdata)->vm, error);
}

static int do_resume(void *userdata, struct vm_error *error)
{
    return vm_resume(((struct vmm *)userdata)->vm, error);
}

static int ctrl_alt_del(void *userdata, struct vm_error *error)
{
    return vm_send_ctrl_alt_del(((struct vmm *)userdata)->vm, error);
}

static int update_drive(void *userdata, const char *id, const char *path, struct vm_error *error)
{
    return vm_update_drive(((struct vmm *)userdata)->vm, id, path, error);
}

static int balloon_target(void *userdata, uint32_t mib, struct vm_error *error)
{
    return vm_balloon_set_target(((struct vmm *)userdata)->vm, mib, error);
}

static int balloon_interval(void *userdata, uint32_t seconds, struct vm_error *error)
{
    return vm_balloon_set_interval(((struct vmm *)userdata)->vm, seconds, error);
}

static int get_balloon_stats(void *userdata, struct balloon_stats *ret, struct vm_error *error)
{
    return vm_balloon_stats(((struct vmm *)userdata)->vm, ret, error);
}

/*
 * Nothing that reads the log, or has stopped to, may stop us: pipes are opened so that they lose lines, not wait. The
 * descriptor lives until the end of the process, as other threads may be writing to it; a later log takes its number.
 */
static int open_log(const char *path, enum log_level level, struct vm_error *error)
{
    const int flags = O_CREAT | O_APPEND | O_NONBLOCK | O_CLOEXEC | O_NOCTTY;
    static int log_fd = -1;
    struct stat st;
    bool own;
    int fd = STDERR_FILENO;

    if (path) {
        fd = open(path, O_WRONLY | flags, 0600);
        if (fd < 0 && errno == ENXIO) /* a pipe without a reader yet */
            fd = open(path, O_RDWR | flags, 0600);
    } else if (fstat(fd, &st) == 0 && S_ISFIFO(st.st_mode)) {
        fd = serial_own_fd(fd, O_WRONLY, &own);
    }
    if (fd < 0)
        return vm_fail(error, -errno, "log %s: %s", path ? path : "to standard error", strerror(errno));
    if (log_fd >= 0 && fd != STDERR_FILENO) {
        (void)dup3(fd, log_fd, O_CLOEXEC);
        fd_close(fd);
        fd = log_fd;
    } else if (fd != STDERR_FILENO) {
        log_fd = fd;
    }
    log_init("ironclaw-vmm", level, fd);
    return 0;
}

static int set_logger(void *userdata, const struct api_request *request, struct vm_error *error)
{
    const struct options *options = ((struct vmm *)userdata)->options;
    enum log_level level = request->has & API_HAS_LEVEL ? (enum log_level)request->logger.level : options->level;

    return open_log(request->logger.path ? request->logger.path : options->log_path, level, error);
}

static int flush_metrics(void *userdata, struct vm_error *error)
{
    struct vmm *vmm = userdata;
    struct metrics metrics = {
            .api_server = {vmm->ready_us - vmm->start_us, vmm->ready_cpu_us - vmm->start_cpu_us},
    };
    struct vm_stats vm = {0};

    if (vmm->metrics_fd < 0)
        return vm_fail(error, -ENOENT, "there is no metrics file; PUT /metrics names one");
    if (vmm->vm)
        vm_get_stats(vmm->vm, &vm);
    metrics.vcpu.exit_io_in = vm.exit_io_in;
    metrics.vcpu.exit_io_out = vm.exit_io_out;
    metrics.vcpu.exit_mmio_read = vm.exit_mmio_read;
    metrics.vcpu.exit_mmio_write = vm.exit_mmio_write;
    metrics.block.read_count = vm.block_reads;
    metrics.block.read_bytes = vm.block_read_bytes;
    metrics.block.write_count = vm.block_writes;
    metrics.block.write_bytes = vm.block_write_bytes;
    metrics.block.flush_count = vm.block_flushes;
    metrics.block.failures = vm.block_failures;
    metrics.vsock.rx_bytes_count = vm.vsock_bytes_to_guest;
    metrics.vsock.tx_bytes_count = vm.vsock_bytes_from_guest;
    metrics.vsock.connections = vm.vsock_connections;
    return metrics_write(&metrics, vmm->metrics_fd, error);
}

/* Once a minute, as Firecracker, and at the end. */
static int on_metrics_timer(struct loop_timer *timer)
{
    struct vmm *vmm = CONTAINER_OF(timer, struct vmm, metrics_timer);

    (void)flush_metrics(vmm, NULL);
    loop_arm(&vmm->loop, timer, deadline_after_ms(METRICS_INTERVAL_MS));
    return 0;
}

static int set_metrics(void *userdata, const char *path, struct vm_error *error)
{
    struct vmm *vmm = userdata;

    int r = metrics_open(path, &vmm->metrics_fd, error);

    if (r == 0) {
        vmm->metrics_timer.expired = on_metrics_timer;
        loop_arm(&vmm->loop, &vmm->metrics_timer, deadline_after_ms(METRICS_INTERVAL_MS));
    }
    return r;
}

static const struct controller_ops controller_ops = {
        .start = start,
        .create_snapshot = create_snapshot,
        .load_snapshot = load_snapshot,
        .pause = do_pause,
        .resume = do_resume,
        .ctrl_alt_del = ctrl_alt_del,
        .update_drive = update_drive,
        .balloon_target = balloon_target,
        .balloon_interval = balloon_interval,
        .balloon_stats = get_balloon_stats,
        .set_logger = set_logger,
        .set_metrics = set_metrics,
        .flush_metrics = flush_metrics,
};

/* ---- signals ---- */

static int on_signal(struct loop_fd *source, uint32_t events)
{
    struct vmm *vmm = CONTAINER_OF(source, struct vmm, signals);
    struct signalfd_siginfo info;

    if (read(source->fd, &info, sizeof(info)) != (ssize_t)sizeof(info))
        return 0;
    log_msg(LOG_INFO, "ended by signal %u", info.ssi_signo);
    vmm->status = EXIT_SIGNAL_BASE + (int)info.ssi_signo;
    loop_stop(&vmm->loop);
    return 0;
}

static int on_lifetime_over(struct loop_timer *timer)
{
    struct vmm *vmm = CONTAINER_OF(timer, struct vmm, lifetime);

    log_msg(LOG_WARN, "the lifetime of %u ms is over (--max-lifetime-ms)", vmm->options->max_lifetime_ms);
    vmm->status = EXIT_LIFETIME;
    loop_stop(&vmm->loop);
    return 0;
}

/* Blocked here, before any thread is made, so that none of them is ever interrupted. */
static int watch_signals(struct vmm *vmm)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0 || signal(SIGPIPE, SIG_IGN) == SIG_ERR ||
            signal(SIGXFSZ, SIG_IGN) == SIG_ERR) /* a file that may not grow fails its write, not the VM */
        return -errno;
    vmm->signals = (struct loop_fd){
            .fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), .events = EPOLLIN, .ready = on_signal};
    return vmm->signals.fd < 0 ? -errno : loop_add(&vmm->loop, &vmm->signals);
}

/* ---- the run ---- */

static void get_times(uint64_t *ret_us, uint64_t *ret_cpu_us)
{
    struct timespec cpu;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    *ret_us = clock_now_us();
    *ret_cpu_us = (uint64_t)cpu.tv_sec * 1000000 + (uint64_t)cpu.tv_nsec / 1000;
}

static int listen_for_api(struct vmm *vmm)
{
    const char *path = vmm->options->api_sock;
    int fd, r = unix_listen(path, (int)API_MAX_CONNECTIONS, &fd);

    if (r == -EADDRINUSE)
        log_msg(LOG_ERROR, "--api-sock %s: in use; remove it if no other monitor listens there, or name another", path);
    else if (r == -ENAMETOOLONG)
        log_msg(LOG_ERROR, "--api-sock %s: longer than the 107 bytes of a unix socket's path; name a shorter one",
                path);
    else if (r < 0)
        log_msg(LOG_ERROR, "--api-sock %s: %s", path, strerror(-r));
    if (r < 0)
        return r;
    r = api_server_new(&vmm->server, fd, post, vmm);
    if (r < 0) {
        fd_close(fd);
        (void)unlink(path);
        log_msg(LOG_ERROR, "API server: %s", strerror(-r));
    }
    return r;
}

static int start_from_file(struct vmm *vmm)
{
    struct vm_error error;
    int r = controller_load_file(&vmm->controller, vmm->options->config_file, &error);

    if (r == 0)
        r = controller_start(&vmm->controller, &error);
    if (r < 0)
        log_msg(LOG_ERROR, "%s", error.text);
    return r;
}

static int set_up(struct vmm *vmm)
{
    struct vm_error error;
    int r = loop_init(&vmm->loop);

    if (r == 0)
        r = watch_signals(vmm);
    if (r == 0)
        kvm_begin(&vmm->early);
    vmm->lifetime.expired = on_lifetime_over;
    if (r == 0 && vmm->options->max_lifetime_ms > 0)
        loop_arm(&vmm->loop, &vmm->lifetime, deadline_after_ms(vmm->options->max_lifetime_ms));
    if (r == 0) {
        vmm->mail = (struct loop_fd){.fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN, .ready = on_mail};
        r = vmm->mail.fd < 0 ? -errno : loop_add(&vmm->loop, &vmm->mail);
    }
    if (r == 0 && vmm->options->metrics_path) {
        r = set_metrics(vmm, vmm->options->metrics_path, &error);
        vmm->controller.has_metrics = r == 0;
        if (r < 0)
            log_msg(LOG_ERROR, "%s", error.text);
    } else if (r < 0) {
        log_msg(LOG_ERROR, "can't start: %s", strerror(-r));
    }
    return r;
}

static void run(struct vmm *vmm)
{
    int r;

    vmm->status = EXIT_ERROR;
    if (set_up(vmm) < 0 || (vmm->options->api_sock && listen_for_api(vmm) < 0))
        return;
    if (!kvm_has_hardware())
        log_msg(LOG_WARN, "this processor shows neither vmx nor svm: ordinary kernels are interpreted here and take "
                          "minutes; turn on (nested) virtualization or use the qemu backend");
    get_times(&vmm->ready_us, &vmm->ready_cpu_us);
    /* First, as there are no new threads after the start; requests wait for the loop. */
    r = vmm->server ? api_server_start(vmm->server) : 0;
    if (r == 0 && vmm->options->config_file && start_from_file(vmm) < 0) {
        vmm->status = EXIT_BAD_CONFIG;
        return;
    }
    if (r == 0)
        r = loop_run(&vmm->loop);
    if (r < 0)
        log_msg(LOG_ERROR, "can't serve the API or the VM: %s; is the host short of memory or threads?", strerror(-r));
}

/* The API goes first: who still waits for an answer gets one. */
static void clean_up(struct vmm *vmm)
{
    struct kvm unused;
    struct vm_error error;

    close_mailbox(vmm);
    if (vmm->server)
        (void)unlink(vmm->options->api_sock);
    api_server_free(vmm->server);
    if (vmm->metrics_fd >= 0) {
        (void)flush_metrics(vmm, NULL);
        loop_disarm(&vmm->loop, &vmm->metrics_timer);
        fd_close(vmm->metrics_fd);
    }
    vm_free(vmm->vm);
    if (vmm->early.begun && kvm_finish(&vmm->early, &unused, &error) == 0)
        kvm_deinit(&unused);
    controller_deinit(&vmm->controller);
    restore_terminal(vmm);
    loop_deinit(&vmm->loop);
    fd_close(vmm->signals.fd);
    fd_close(vmm->mail.fd);
    pthread_cond_destroy(&vmm->answered);
    pthread_mutex_destroy(&vmm->lock);
}

int vmm_run(const struct options *options, const struct seccomp_compiled *filters)
{
    static struct vmm vmm; /* large, and zeroed for free */
    struct vm_error error;

    vmm.options = options;
    vmm.signals.fd = vmm.mail.fd = vmm.loop.epoll_fd = vmm.metrics_fd = -1;
    get_times(&vmm.start_us, &vmm.start_cpu_us);
    if (open_log(options->log_path, options->level, &error) < 0) {
        log_msg(LOG_ERROR, "%s", error.text);
        return EXIT_BAD_USAGE;
    }
    if (seccomp_start(options->no_seccomp, options->seccomp_level, filters) < 0)
        return EXIT_ERROR;
    umask(0077);
    pthread_mutex_init(&vmm.lock, NULL);
    pthread_cond_init(&vmm.answered, NULL);
    controller_init(&vmm.controller, options->id, &controller_ops, &vmm);
    run(&vmm);
    clean_up(&vmm);
    return vmm.status;
}
