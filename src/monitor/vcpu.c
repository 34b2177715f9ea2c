/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>

#include "base/fd.h"

#define KICK_SIGNAL  (SIGRTMIN)
#define THREAD_STACK (128u << 10)

/* ---- what a vCPU left the guest for ---- */

static void count(uint64_t *counter)
{
    __atomic_store_n(counter, __atomic_load_n(counter, __ATOMIC_RELAXED) + 1, __ATOMIC_RELAXED);
}

static void serve_io(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint8_t *data = (uint8_t *)run + run->io.data_offset;

    for (uint32_t i = 0; i < run->io.count; i++, data += run->io.size) {
        if (run->io.direction == KVM_EXIT_IO_OUT)
            bus_write(vcpu->all->pio, run->io.port, data, run->io.size);
        else
            bus_read(vcpu->all->pio, run->io.port, data, run->io.size);
    }
    count(run->io.direction == KVM_EXIT_IO_OUT ? &vcpu->io_out : &vcpu->io_in);
}

static void serve_mmio(struct vcpu *vcpu)
{
    struct kvm_run *run = vcpu->run;
    uint32_t len = MIN(run->mmio.len, (uint32_t)sizeof(run->mmio.data));

    if (run->mmio.is_write)
        bus_write(vcpu->all->mmio, run->mmio.phys_addr, run->mmio.data, len);
    else
        bus_read(vcpu->all->mmio, run->mmio.phys_addr, run->mmio.data, len);
    count(run->mmio.is_write ? &vcpu->mmio_write : &vcpu->mmio_read);
}

static uint64_t rip_of(const struct vcpu *vcpu)
{
    struct kvm_regs regs;

    return ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 ? 0 : regs.rip;
}

static void end(struct vcpu *vcpu, enum vm_end_cause cause, const char *what, uint64_t detail)
{
    struct vm_end report = {.cause = cause, .vcpu = (int)vcpu->index};

    (void)snprintf(report.text, sizeof(report.text), "vCPU %u: %s (%#llx, rip %#llx)", vcpu->index, what,
            (unsigned long long)detail, (unsigned long long)rip_of(vcpu));
    vcpu->ended = true;
    vcpu->all->on_end(vcpu->all->userdata, &report);
}

static void serve_exit(struct vcpu *vcpu)
{
    const struct kvm_run *run = vcpu->run;

    switch (run->exit_reason) {
    case KVM_EXIT_IO:
        serve_io(vcpu);
        break;
    case KVM_EXIT_MMIO:
        serve_mmio(vcpu);
        break;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        break;
    case KVM_EXIT_SHUTDOWN:
        end(vcpu, VM_END_SHUTDOWN, "triple fault", 0);
        break;
    case KVM_EXIT_SYSTEM_EVENT:
        end(vcpu, VM_END_SYSTEM_EVENT, "system event", run->system_event.type);
        break;
    case KVM_EXIT_FAIL_ENTRY:
        end(vcpu, VM_END_KVM_ERROR, "KVM can't enter the guest: hardware reason",
                run->fail_entry.hardware_entry_failure_reason);
        break;
    case KVM_EXIT_INTERNAL_ERROR:
        end(vcpu, VM_END_KVM_ERROR,
                run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION ? "KVM can't emulate an instruction"
                                                                       : "KVM internal error",
                run->internal.suberror);
        break;
    default:
        end(vcpu, VM_END_KVM_ERROR, "unexpected exit from the guest", run->exit_reason);
        break;
    }
}

/* Until somebody changed his mind, or the end. */
static void run_guest(struct vcpu *vcpu)
{
    /* Its watchdogs must not take the time that it was parked for a hang. Fails for one that has no kvmclock (yet). */
    (void)ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0);
    while (!vcpu->ended) {
        if (ioctl(vcpu->fd, KVM_RUN, 0) == 0)
            serve_exit(vcpu);
        else if (errno == EINTR)
            return;
        else if (errno != EAGAIN) /* a vCPU that waits for its SIPI */
            end(vcpu, VM_END_KVM_ERROR, strerror(errno), (uint64_t)errno);
    }
}

/* ---- threads ---- */

static const struct seccomp_rule calls[] = {
        SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, (uint32_t)KVM_RUN, "the guest"),
        SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, (uint32_t)KVM_GET_REGS, "where the guest ended, for the log"),
        SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, (uint32_t)KVM_KVMCLOCK_CTRL, "the guest was paused"),
        SECCOMP_ALLOW_IF(ioctl, 1, SECCOMP_ANY_BIT, (uint32_t)KVM_SIGNAL_MSI, "interrupts"),
        SECCOMP_ALLOW(write, "eventfds: kicks, news for the VMM thread; the log"),
        SECCOMP_ALLOW(futex, "locks of devices; parking"),
        SECCOMP_ALLOW(rt_sigreturn, "after the signal that ends KVM_RUN"),
        SECCOMP_ALLOW(clock_gettime, "boot timer, bounds of the log; no vDSO without a stable TSC"),
        SECCOMP_ALLOW(rt_sigprocmask, "end of a thread"),
        SECCOMP_ALLOW_IF(madvise, 2, SECCOMP_ANY_BIT, MADV_DONTNEED, "end of a thread: its stack"),
        SECCOMP_ALLOW(exit, "end of a thread"),
        SECCOMP_ALLOW(exit_group, "after a call that is not in this list"),
};
const struct seccomp_profile vcpu_seccomp = {"vcpu", calls, ARRAY_SIZE(calls)};

/* False when it is time to quit. */
static bool wait_for_turn(struct vcpu *vcpu)
{
    struct vcpus *all = vcpu->all;
    bool go;

    pthread_mutex_lock(&all->lock);
    all->busy--;
    pthread_cond_broadcast(&all->changed);
    while (all->wish == VCPU_HOLD || (all->wish == VCPU_RUN && vcpu->ended))
        pthread_cond_wait(&all->changed, &all->lock);
    all->busy++;
    __atomic_store_n(&vcpu->run->immediate_exit, 0, __ATOMIC_RELAXED);
    go = all->wish == VCPU_RUN;
    pthread_mutex_unlock(&all->lock);
    return go;
}

static void *vcpu_main(void *arg)
{
    struct vcpu *vcpu = arg;
    char name[16];

    (void)snprintf(name, sizeof(name), "fc_vcpu %u", vcpu->index);
    (void)prctl(PR_SET_NAME, name);
    seccomp_enter(&vcpu_seccomp);
    while (wait_for_turn(vcpu))
        run_guest(vcpu);
    return NULL;
}

static void on_kick(int signo)
{
    (void)signo; /* its arrival is what ends KVM_RUN */
}

static int catch_kicks(void)
{
    struct sigaction action = {.sa_handler = on_kick}; /* without SA_RESTART */
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, KICK_SIGNAL);
    if (sigaction(KICK_SIGNAL, &action, NULL) < 0 || pthread_sigmask(SIG_UNBLOCK, &set, NULL) != 0)
        return -errno;
    return 0;
}

static void wish(struct vcpus *vcpus, enum vcpu_wish what)
{
    vcpus->wish = what;
    pthread_cond_broadcast(&vcpus->changed);
    if (what == VCPU_RUN)
        return;
    for (uint32_t i = 0; i < vcpus->count; i++) {
        struct vcpu *vcpu = &vcpus->table[i];

        if (!vcpu->has_thread)
            continue;
        __atomic_store_n(&vcpu->run->immediate_exit, 1, __ATOMIC_RELAXED);
        (void)pthread_kill(vcpu->thread, KICK_SIGNAL);
    }
}

void vcpus_run(struct vcpus *vcpus)
{
    pthread_mutex_lock(&vcpus->lock);
    while (vcpus->wish == VCPU_HOLD && vcpus->busy > 0) /* new, and perhaps without its filter yet */
        pthread_cond_wait(&vcpus->changed, &vcpus->lock);
    wish(vcpus, VCPU_RUN);
    pthread_mutex_unlock(&vcpus->lock);
}

void vcpus_hold(struct vcpus *vcpus)
{
    pthread_mutex_lock(&vcpus->lock);
    wish(vcpus, VCPU_HOLD);
    while (vcpus->busy > 0)
        pthread_cond_wait(&vcpus->changed, &vcpus->lock);
    pthread_mutex_unlock(&vcpus->lock);
}

/* ---- making and unmaking ---- */

static int make_vcpu(struct vcpus *vcpus, uint32_t index, const struct vcpus_options *options, struct vm_error *error)
{
    struct vcpu *vcpu = &vcpus->table[index];
    void *run;

    *vcpu = (struct vcpu){.all = vcpus, .index = index, .fd = -1};
    vcpus->count++;
    vcpu->fd = ioctl(options->kvm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (vcpu->fd < 0)
        return vm_fail(error, -errno, "KVM can't make vCPU %u: %s", index, strerror(errno));
    run = mmap(NULL, vcpus->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (run == MAP_FAILED)
        return vm_fail(error, -errno, "vCPU %u: mmap: %s", index, strerror(errno));
    vcpu->run = run;
    return vcpu_set_state(vcpu, options, error);
}

static int make_thread(struct vcpu *vcpu, struct vm_error *error)
{
    pthread_attr_t attr;
    int r;

    pthread_attr_init(&attr);
    (void)pthread_attr_setstacksize(&attr, THREAD_STACK);
    vcpu->all->busy++; /* until it is parked */
    r = pthread_create(&vcpu->thread, &attr, vcpu_main, vcpu);
    pthread_attr_destroy(&attr);
    if (r != 0) {
        vcpu->all->busy--;
        return vm_fail(error, -r, "can't make the thread of vCPU %u: %s", vcpu->index, strerror(r));
    }
    vcpu->has_thread = true;
    return 0;
}

int vcpus_init(struct vcpus *vcpus, const struct vcpus_options *options, struct vm_error *error)
{
    int r = catch_kicks();

    *vcpus = (struct vcpus){
            .run_size = options->kvm->run_size,
            .pio = options->pio,
            .mmio = options->mmio,
            .on_end = options->on_end,
            .userdata = options->userdata,
    };
    pthread_mutex_init(&vcpus->lock, NULL);
    pthread_cond_init(&vcpus->changed, NULL);
    if (r < 0)
        (void)vm_fail(error, r, "signals: %s", strerror(-r));
    for (uint32_t i = 0; r == 0 && i < options->count; i++)
        r = make_vcpu(vcpus, i, options, error);
    pthread_mutex_lock(&vcpus->lock); /* the threads wait here until all are counted */
    for (uint32_t i = 0; r == 0 && i < options->count; i++)
        r = make_thread(&vcpus->table[i], error);
    pthread_mutex_unlock(&vcpus->lock);
    if (r < 0)
        vcpus_deinit(vcpus);
    return r;
}

void vcpus_deinit(struct vcpus *vcpus)
{
    if (vcpus->run_size == 0)
        return;
    pthread_mutex_lock(&vcpus->lock);
    wish(vcpus, VCPU_QUIT);
    pthread_mutex_unlock(&vcpus->lock);
    for (uint32_t i = 0; i < vcpus->count; i++) {
        struct vcpu *vcpu = &vcpus->table[i];

        if (vcpu->has_thread)
            (void)pthread_join(vcpu->thread, NULL);
        if (vcpu->run)
            (void)munmap(vcpu->run, vcpus->run_size);
        fd_close(vcpu->fd);
        free(vcpu->cpuid);
    }
    pthread_cond_destroy(&vcpus->changed);
    pthread_mutex_destroy(&vcpus->lock);
    *vcpus = (struct vcpus){0};
}
