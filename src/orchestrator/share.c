/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/share.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/fd.h"
#include "orchestrator/confine.h"
#include "orchestrator/paths.h"
#include "orchestrator/table.h"

#define HEAD_FORMAT   "1 %llu\n"                /* when; then for each VM: */
#define LINE_FORMAT   "%64s %llu %llu %d %u %n" /* id, when, ticks, late, usual */
#define FILE_MAX      (1u << 20)
#define LOOK_EVERY_MS 2000u  /* one command is not yet much */
#define USUAL_MS      10000u /* what is usual is what was for about so long */
#define USED_MAX      1000000u
#define LATE_MOST     500u /* with few that share, half a processor is much */
#define LATE_LEAST    40u
#define GOT_LEAST     250u /* of a machine that others have: who got less alone does not crowd it */
#define WEIGHT        100u /* of 1 to 10,000, as the kernel's default */
#define LATE_WEIGHT   10u
#define LATE_NICE     7 /* a fifth: it counts beside everything on the machine, not only beside VMs */
static_assert(IC_VM_ID_MAX == 64, "LINE_FORMAT");

unsigned share_threshold(unsigned processors, uint64_t got, size_t active)
{
    uint64_t shared = MIN((uint64_t)processors * 1000, MAX(got, (uint64_t)GOT_LEAST));
    uint64_t fair = active > 0 ? shared / active : LATE_MOST;

    return (unsigned)MAX(MIN(fair, (uint64_t)LATE_MOST), (uint64_t)LATE_LEAST);
}

/* "0.20 0.18 0.12 1/80 11206": the fourth says how many want to run, with us. */
static unsigned processors_if_contended(void)
{
    _cleanup_(freep) char *text = NULL;
    unsigned running = 0;
    cpu_set_t cpus;

    if (fd_read_file(AT_FDCWD, "/proc/loadavg", 128, &text, NULL) < 0)
        return 0;
    /* The kernel's digits. NOLINTNEXTLINE(cert-err34-c) */
    if (sscanf(text, "%*s %*s %*s %9u", &running) != 1 || running < 2)
        return 0;
    if (sched_getaffinity(0, sizeof(cpus), &cpus) < 0)
        return 0;
    return running > (unsigned)CPU_COUNT(&cpus) ? (unsigned)CPU_COUNT(&cpus) : 0;
}

bool share_is_contended(void)
{
    return processors_if_contended() > 0;
}

static uint64_t boottime_ms(void)
{
    struct timespec now = {0};

    (void)clock_gettime(CLOCK_BOOTTIME, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

/* Whoever has the file locked looks already. False: nothing to do now. */
static bool open_file(struct share *share)
{
    _cleanup_(freep) char *path = NULL;
    unsigned long long at_ms;

    if (path_in(&path, NULL, IC_PATH_STATE, "share") < 0)
        return false;
    share->fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600);
    if (share->fd < 0 || flock(share->fd, LOCK_EX | LOCK_NB) < 0 ||
            fd_read_file(AT_FDCWD, path, FILE_MAX, &share->before, NULL) < 0)
        return false;
    /* Our own digits; a wrong time is one look too many or too few. NOLINTNEXTLINE(cert-err34-c) */
    return sscanf(share->before, HEAD_FORMAT, &at_ms) != 1 || share->now_ms < at_ms ||
           share->now_ms - at_ms >= LOOK_EVERY_MS;
}

void share_begin(struct share *ret, unsigned processors, uint64_t now_ms)
{
    *ret = (struct share){.processors = processors, .now_ms = now_ms, .fd = -1};
    if (processors > 0 && !open_file(ret))
        share_end(ret);
}

void share_begin_here(struct share *ret)
{
    share_begin(ret, processors_if_contended(), boottime_ms());
}

/* What the last look left: the VM as of then. */
static bool find_line(
        const char *text, const char *vm_id, uint64_t *ret_at_ms, uint64_t *ret_ticks, struct share_vm *vm)
{
    for (text = strchr(text, '\n'); text && *++text; text = strchr(text, '\n')) {
        unsigned long long at_ms, ticks;
        char id[IC_VM_ID_MAX + 1];
        unsigned usual;
        int late, end = 0;

        /* Our own digits, and a wrong word costs a VM its turn at most. NOLINTNEXTLINE(cert-err34-c) */
        if (sscanf(text, LINE_FORMAT, id, &at_ms, &ticks, &late, &usual, &end) != 5 || strcmp(id, vm_id) != 0)
            continue;
        *ret_at_ms = at_ms;
        *ret_ticks = ticks;
        vm->late = late != 0;
        vm->usual = MIN(usual, USED_MAX);
        return true;
    }
    return false;
}

static void measure(struct share_vm *vm, const char *before)
{
    long ticks_per_s = sysconf(_SC_CLK_TCK);
    uint64_t at_ms = 0, ticks = 0, elapsed;

    vm->known = before && find_line(before, vm->vm_id, &at_ms, &ticks, vm);
    for (size_t i = 0; i < vm->own_count; i++)
        vm->ticks += process_cpu_ticks(&vm->own[i]);
    /* Less than before: other processes; a later time: of another boot of the host. */
    if (vm->ticks < ticks || vm->at_ms <= at_ms || ticks_per_s <= 0)
        vm->known = false;
    if (!vm->known) {
        vm->usual = 0;
        return;
    }
    elapsed = vm->at_ms - at_ms;
    vm->used = (unsigned)MIN((vm->ticks - ticks) * 1000 / (uint64_t)ticks_per_s * 1000 / elapsed, (uint64_t)USED_MAX);
    elapsed = MIN(elapsed, 100u * USUAL_MS);
    vm->usual = (unsigned)((vm->usual * (uint64_t)USUAL_MS + vm->used * elapsed) / (USUAL_MS + elapsed));
}

void share_look_at(struct share *share, const char *vm_id, const struct process_id *own, size_t count, uint64_t now_ms)
{
    struct share_vm vm = {.at_ms = now_ms, .own_count = MIN(count, ARRAY_SIZE(vm.own))}, *vms;

    if (share->processors == 0 || strlen(vm_id) > IC_VM_ID_MAX)
        return;
    vms = realloc(share->vms, (share->count + 1) * sizeof(*vms));
    if (!vms)
        return;
    share->vms = vms;
    (void)snprintf(vm.vm_id, sizeof(vm.vm_id), "%s", vm_id);
    memcpy(vm.own, own, vm.own_count * sizeof(*own));
    measure(&vm, share->before);
    share->active += vm.usual >= SHARE_ACTIVE;
    share->got += vm.used;
    share->vms[share->count++] = vm;
}

void share_look(struct share *share, const char *vm_id, const struct process_id *own, size_t count)
{
    if (share->processors > 0)
        share_look_at(share, vm_id, own, count, boottime_ms());
}

/* "/autogroup-7 nice 10". Only written when it differs: without CAP_SYS_ADMIN the kernel takes one write in 100 ms, of
 * the whole machine. False: it is not so. */
static bool set_nice(const struct process_id *process, int nice)
{
    _cleanup_(freep) char *text = NULL;
    char path[64], wanted[16];
    _cleanup_(fd_closep) int fd = -1;
    const char *now;

    (void)snprintf(path, sizeof(path), "/proc/%ld/autogroup", (long)process->pid);
    (void)snprintf(wanted, sizeof(wanted), "nice %d\n", nice);
    if (fd_read_file(AT_FDCWD, path, 256, &text, NULL) < 0)
        return false;
    now = strstr(text, "nice ");
    if (now && strcmp(now, wanted) == 0)
        return true;
    fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && process_well(process) && write(fd, wanted + 5, strlen(wanted) - 6) > 0;
}

/* By its group, which is in its record; where that has no weight, its processes' sessions count. */
static bool apply(const struct share_vm *vm, bool late)
{
    struct record record;
    bool done = true, grouped = false;

    if (table_read(&record, vm->vm_id, NULL) == 0) {
        grouped = confine_set_weight(&record, late ? LATE_WEIGHT : WEIGHT) == 0;
        record_deinit(&record);
    }
    for (size_t i = 0; i < vm->own_count; i++)
        done &= set_nice(&vm->own[i], late ? LATE_NICE : 0);
    return grouped || done;
}

static void decide(struct share_vm *vm, unsigned threshold)
{
    bool late = vm->known && (vm->late ? vm->usual >= threshold / 2 : vm->used >= threshold);

    if (late && !vm->late)
        vm->usual = MAX(vm->usual, vm->used);
    /* Also when nothing was known, as somebody who was killed may have left it late. What can't be done is tried again
     * at the next look. */
    if ((late != vm->late || !vm->known) && apply(vm, late))
        vm->late = late;
}

static void write_file(const struct share *share)
{
    _cleanup_(buf_deinit) struct buf text = {.max = FILE_MAX};
    char line[128];
    int n = snprintf(line, sizeof(line), HEAD_FORMAT, (unsigned long long)share->now_ms);

    buf_put(&text, line, (size_t)n);
    for (size_t i = 0; i < share->count; i++) {
        const struct share_vm *vm = &share->vms[i];

        n = snprintf(line, sizeof(line), "%s %llu %llu %d %u\n", vm->vm_id, (unsigned long long)vm->at_ms,
                (unsigned long long)vm->ticks, vm->late ? 1 : 0, vm->usual);
        buf_put(&text, line, (size_t)n);
    }
    /* Half of it, after a crash, is as good as none. */
    if (text.error == 0 && ftruncate(share->fd, 0) == 0)
        (void)!pwrite(share->fd, text.data, text.len, 0);
}

void share_end(struct share *share)
{
    unsigned threshold = share_threshold(share->processors, share->got, share->active);

    for (size_t i = 0; i < share->count; i++)
        decide(&share->vms[i], threshold);
    if (share->count > 0)
        write_file(share);
    free(share->vms);
    free(share->before);
    fd_close(share->fd);
    *share = (struct share){.fd = -1};
}
