/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/kvm.h"

#include <dirent.h>
#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/test.h"

#define PAGE 4096u

/* What the guest does: two writes, then it asks for us. 32-bit code, flat segments, no paging. */
static const uint8_t code[] = {
        0xc6, 0x05, 0x00, 0x50, 0x00, 0x00, 0x01, /* movb $1, 0x5000 */
        0xc6, 0x05, 0xff, 0xff, 0x2f, 0x00, 0x02, /* movb $2, 0x2fffff */
        0xe6, 0x10,                               /* outb 0x10 */
};
#define CODE_AT 0x1000u

struct guest {
    struct memory memory;
    struct kvm kvm;
    int vcpu;
    struct kvm_run *run;
};

static struct kvm_segment flat(uint8_t type)
{
    return (struct kvm_segment){
            .limit = 0xffffffff, .selector = 8, .type = type, .present = 1, .db = 1, .s = 1, .g = 1};
}

/* False: no KVM here. */
static bool start(struct guest *guest, bool track)
{
    struct machine_config config = {.vcpu_count = 1, .mem_size_mib = 4, .track_dirty_pages = track};
    struct kvm_regs regs = {.rip = CODE_AT, .rflags = 2};
    struct kvm_sregs sregs;
    struct vm_error error;

    if (access("/dev/kvm", R_OK | W_OK) < 0)
        return false;
    assert_int_equal(memory_init(&guest->memory, &config, &error), 0);
    assert_int_equal(kvm_init(&guest->kvm, &error), 0);
    assert_int_equal(kvm_add_memory(&guest->kvm, &guest->memory, track, &error), 0);
    guest->vcpu = ioctl(guest->kvm.vm_fd, KVM_CREATE_VCPU, 0);
    assert_true(guest->vcpu >= 0);
    guest->run = mmap(NULL, guest->kvm.run_size, PROT_READ | PROT_WRITE, MAP_SHARED, guest->vcpu, 0);
    assert_ptr_not_equal(guest->run, MAP_FAILED);
    assert_int_equal(ioctl(guest->vcpu, KVM_GET_SREGS, &sregs), 0);
    sregs.cs = flat(0xb);
    sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = flat(0x3);
    sregs.cr0 |= 1;
    assert_int_equal(ioctl(guest->vcpu, KVM_SET_SREGS, &sregs), 0);
    assert_int_equal(ioctl(guest->vcpu, KVM_SET_REGS, &regs), 0);
    assert_int_equal(gmem_write(&guest->memory.gmem, (struct gpa){CODE_AT}, code, sizeof(code)), 0);
    return true;
}

static void end(struct guest *guest)
{
    assert_int_equal(munmap(guest->run, guest->kvm.run_size), 0);
    fd_close(guest->vcpu);
    kvm_deinit(&guest->kvm);
    memory_deinit(&guest->memory);
}

static void takes_what_both_wrote(void **state)
{
    struct guest guest;
    struct dirty_pages dirty;
    struct vm_error error;

    if (!start(&guest, true))
        skip(); /* no KVM */
    assert_int_equal(kvm_take_dirty(&guest.kvm, &guest.memory, &dirty, &error), 0);
    assert_int_equal(dirty_pages_total(&dirty), 1); /* ours */
    assert_true(dirty_pages_has(&dirty, CODE_AT / PAGE));
    dirty_pages_deinit(&dirty);

    assert_int_equal(ioctl(guest.vcpu, KVM_RUN, 0), 0);
    assert_int_equal(guest.run->exit_reason, KVM_EXIT_IO);
    assert_int_equal(guest.memory.host[0x2fffff], 2);
    assert_int_equal(gmem_write(&guest.memory.gmem, (struct gpa){0x3ff000}, "x", 1), 0);
    assert_int_equal(kvm_take_dirty(&guest.kvm, &guest.memory, &dirty, &error), 0);
    assert_true(dirty_pages_has(&dirty, 0x5) && dirty_pages_has(&dirty, 0x2ff) && dirty_pages_has(&dirty, 0x3ff));
    assert_false(dirty_pages_has(&dirty, CODE_AT / PAGE));
    assert_in_range(dirty_pages_total(&dirty), 3, 4);

    /* Given back, they are there again. */
    memory_put_dirty(&guest.memory, &dirty);
    assert_int_equal(dirty_pages_total(&dirty), 0);
    dirty_pages_deinit(&dirty);
    assert_int_equal(kvm_take_dirty(&guest.kvm, &guest.memory, &dirty, &error), 0);
    assert_true(dirty_pages_has(&dirty, 0x5) && dirty_pages_has(&dirty, 0x2ff) && dirty_pages_has(&dirty, 0x3ff));
    dirty_pages_deinit(&dirty);
    assert_int_equal(kvm_take_dirty(&guest.kvm, &guest.memory, &dirty, &error), 0);
    assert_int_equal(dirty_pages_total(&dirty), 0);
    dirty_pages_deinit(&dirty);
    end(&guest);
}

static void untracked(void **state)
{
    struct guest guest;
    struct dirty_pages dirty = {0};
    struct vm_error error = {{0}};

    if (!start(&guest, false))
        skip(); /* no KVM */
    assert_int_equal(kvm_take_dirty(&guest.kvm, &guest.memory, &dirty, &error), -EINVAL);
    assert_non_null(strstr(error.text, "track_dirty_pages"));
    assert_null(dirty.words);
    end(&guest);
}

/* How many files this process has open, the one that is read for it among them. */
static unsigned open_files(void)
{
    DIR *dir = opendir("/proc/self/fd");
    unsigned count = 0;

    assert_non_null(dir);
    while (readdir(dir))
        count++;
    (void)closedir(dir);
    return count;
}

static void begun_early(void **state)
{
    struct kvm_early early = {0};
    struct vm_error error = {{0}};
    struct kvm first, second;
    unsigned before;

    if (access("/dev/kvm", R_OK | W_OK) < 0)
        skip(); /* no KVM */
    before = open_files();
    kvm_begin(&early);
    assert_true(early.begun);
    assert_int_equal(kvm_finish(&early, &first, &error), 0);
    assert_false(early.begun);
    /* The next one is another. */
    assert_int_equal(kvm_finish(&early, &second, &error), 0);
    assert_int_not_equal(first.vm_fd, second.vm_fd);
    for (size_t i = 0; i < 2; i++) {
        int vcpu = ioctl((i == 0 ? &first : &second)->vm_fd, KVM_CREATE_VCPU, 0);

        assert_true(vcpu >= 0);
        fd_close(vcpu);
    }
    kvm_deinit(&first);
    kvm_deinit(&second);
    assert_int_equal(open_files(), before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
            cmocka_unit_test(takes_what_both_wrote),
            cmocka_unit_test(untracked),
            cmocka_unit_test(begun_early),
    };

    return cmocka_run_group_tests_name("kvm", tests, NULL, NULL);
}
