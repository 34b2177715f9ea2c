/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/boot.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <net/if.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "agent/power.h"
#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"

#define NEW_ROOT       "/newroot"
#define MODULES_DIR    "/modules"
#define ORDER_MAX      (64u << 10)
#define STEPS_MAX      8
#define INODES_PER_MIB 512u /* of the overlay: package managers make many small files */
#define NOFILE_SOFT    65536u
#define NOFILE_HARD    524288u

/* When each stage ended, for one line in the kernel's log: boot time is a feature. */
struct steps {
    const char *name[STEPS_MAX];
    uint64_t at_us[STEPS_MAX];
    unsigned count;
};

static void step(struct steps *steps, const char *name)
{
    steps->name[steps->count] = name;
    steps->at_us[steps->count++] = clock_now_us();
}

static void report_steps(const struct steps *steps, uint64_t start_us)
{
    _cleanup_(fd_closep) int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    char line[256];
    int n = snprintf(line, sizeof(line), "<7>ironclaw-agent: boot us:");

    for (unsigned i = 0; i < steps->count; i++) {
        n += snprintf(line + n, sizeof(line) - (size_t)n, " %s %llu", steps->name[i],
                (unsigned long long)(steps->at_us[i] - start_us));
        start_us = steps->at_us[i];
        if (n >= (int)sizeof(line) - 40)
            break;
    }
    line[n++] = '\n'; /* without it the kernel keeps the line back, in case there is more of it */
    if (fd >= 0 && write(fd, line, (size_t)n) < 0)
        return;
}

_noreturn_ void boot_fatal(const char *fmt, ...)
{
    char line[512] = "ironclaw-agent: ";
    size_t n = strlen(line);
    va_list ap;
    int m;

    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof(line) - n - 1, fmt, ap);
    va_end(ap);
    n += MIN((size_t)MAX(m, 0), sizeof(line) - n - 2);
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, n) < 0)
        power_cut();
    power_cut();
}

static void make_dir(const char *path, mode_t mode)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        boot_fatal("can't make directory %s: %s", path, strerror(errno));
}

static void mount_or_die(
        const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    if (mount(source, target, type, flags, data) < 0)
        boot_fatal("can't mount %s (%s) on %s: %s", source, type ? type : "move", target, strerror(errno));
}

/* Something that commands may miss, but the agent does not need. */
static void mount_or_log(
        const char *source, const char *target, const char *type, unsigned long flags, const char *data)
{
    if ((mkdir(target, 0755) < 0 && errno != EEXIST) || mount(source, target, type, flags, data) < 0)
        log_msg(LOG_WARN, "can't mount %s on %s: %s", type, target, strerror(errno));
}

/* ---- 1: the initramfs ---- */

/* Commands read nothing from the console, and nothing of ours must wait for somebody to type there. */
static void open_console(void)
{
    int console = open("/dev/console", O_WRONLY | O_NOCTTY);
    int null = open("/dev/null", O_RDWR);

    if (null < 0)
        power_cut();
    if (console < 0)
        console = null;
    (void)dup2(null, STDIN_FILENO);
    (void)dup2(console, STDOUT_FILENO);
    (void)dup2(console, STDERR_FILENO);
    if (console > STDERR_FILENO)
        fd_close(console);
    if (null > STDERR_FILENO && null != console)
        fd_close(null);
}

static void read_options(struct boot_options *ret)
{
    _cleanup_(freep) char *text = NULL;
    char bad[CMDLINE_VALUE_MAX + 32];
    size_t len;

    if (fd_read_file(AT_FDCWD, "/proc/cmdline", CMDLINE_MAX, &text, &len) < 0)
        boot_fatal("can't read /proc/cmdline");
    if (cmdline_parse(ret, text, bad, sizeof(bad)) < 0)
        boot_fatal("the kernel command line has a word that I don't understand: %s", bad);
    if (ret->console_level >= 0)
        (void)klogctl(BOOT_CONSOLE_LEVEL, NULL, ret->console_level);
}

static void load_module(const char *name)
{
    _cleanup_(fd_closep) int fd = -1;
    char path[sizeof(MODULES_DIR) + 1 + NAME_MAX];

    if (strchr(name, '/') || strlen(name) > NAME_MAX) {
        log_msg(LOG_WARN, "module %s: not a file name", name);
        return;
    }
    (void)snprintf(path, sizeof(path), MODULES_DIR "/%s", name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
        log_msg(LOG_WARN, "module %s: %s", name, strerror(errno));
}

/* Drivers for a PCI bus: only a template on one needs them, for the device that its copies are plugged (freeze.h). */
static bool is_for_pci(const char *module)
{
    return strncmp(module, "virtio_pci", strlen("virtio_pci")) == 0;
}

static bool has_pci_bus(void)
{
    _cleanup_(fd_closep) int fd = open("/proc/bus/pci/devices", O_RDONLY | O_CLOEXEC);
    char byte;

    return fd >= 0 && read(fd, &byte, 1) == 1;
}

static void load_modules(const struct boot_options *options)
{
    bool pci = options->template && has_pci_bus();
    _cleanup_(freep) char *order = NULL;
    char *save = NULL;
    size_t len;

    if (fd_read_file(AT_FDCWD, MODULES_DIR "/order", ORDER_MAX, &order, &len) < 0)
        return; /* a kernel with everything built in */
    for (char *name = strtok_r(order, "\n", &save); name; name = strtok_r(NULL, "\n", &save)) {
        if (pci || !is_for_pci(name))
            load_module(name);
    }
}

/* ---- 2: the root ---- */

static bool is_block_device(const char *path)
{
    struct stat st;

    return stat(path, &st) == 0 && S_ISBLK(st.st_mode);
}

/* Drivers probe while they are loaded, so the device is usually there; if not, the kernel says when it appears. */
static void wait_for_disk(const char *path)
{
    struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
    _cleanup_(fd_closep) int fd = -1;
    uint64_t deadline = deadline_after_ms(BOOT_ROOT_WAIT_MS);
    char event[4096];

    if (is_block_device(path))
        return;
    fd = socket(AF_NETLINK, SOCK_DGRAM | SOCK_CLOEXEC, NETLINK_KOBJECT_UEVENT);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        boot_fatal("can't listen for devices: %s", strerror(errno));
    while (!is_block_device(path)) {
        if (fd_wait(fd, POLLIN, deadline) < 0)
            boot_fatal("no disk %s after %u ms (missing driver, or no disk)", path, BOOT_ROOT_WAIT_MS);
        (void)recv(fd, event, sizeof(event), MSG_DONTWAIT);
    }
}

static uint32_t overlay_mib(const struct boot_options *options)
{
    struct sysinfo info;

    if (options->overlay_mib > 0)
        return options->overlay_mib;
    if (sysinfo(&info) < 0)
        return 64;
    return (uint32_t)MAX(((uint64_t)info.totalram * info.mem_unit >> 20) / 2, (uint64_t)16);
}

static bool on_disk(const struct boot_options *options)
{
    return strcmp(options->overlay, "ext4") == 0;
}

/* What is only for this boot: beside what is written to the root, or with that on a disk, in RAM of its own. */
static const char *scratch_of(const struct boot_options *options)
{
    return on_disk(options) ? "/scratch" : "/upper";
}

static void mount_root(const struct boot_options *options)
{
    char size[64];
    uint32_t mib;

    make_dir("/lower", 0755);
    make_dir("/upper", 0755);
    make_dir(NEW_ROOT, 0755);
    mount_or_die(options->root, "/lower", options->rootfstype, MS_RDONLY, NULL);
    mib = overlay_mib(options);
    (void)snprintf(size, sizeof(size), "mode=0755,size=%um,nr_inodes=%u", mib, mib * INODES_PER_MIB);
    make_dir(scratch_of(options), 0755);
    mount_or_die("overlay", scratch_of(options), "tmpfs", 0, size);
    if (on_disk(options)) {
        wait_for_disk(options->overlay_device);
        mount_or_die(options->overlay_device, "/upper", "ext4", MS_NOATIME, NULL);
    }
    make_dir("/upper/data", 0755);
    make_dir("/upper/work", 0755);
    mount_or_die("overlay", NEW_ROOT, "overlay", 0, "lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work");
}

/* ---- 3: inside the root ---- */

/* A directory of the overlay's tmpfs, so that it counts against the same limit and is as fast as RAM. */
static void bind_scratch(const struct boot_options *options, const char *name, const char *target, mode_t mode)
{
    char source[32];

    (void)snprintf(source, sizeof(source), "%s/%s", scratch_of(options), name);
    make_dir(source, 0755);
    if (chmod(source, mode) < 0 || (mkdir(target, mode) < 0 && errno != EEXIST) ||
            mount(source, target, NULL, MS_BIND, NULL) < 0 ||
            mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | MS_NOSUID | MS_NODEV, NULL) < 0)
        log_msg(LOG_WARN, "can't mount scratch space on %s: %s", target, strerror(errno));
}

static void link_or_log(const char *target, const char *path)
{
    if (symlink(target, path) < 0 && errno != EEXIST)
        log_msg(LOG_WARN, "can't link %s: %s", path, strerror(errno));
}

static void mount_inside(const struct boot_options *options)
{
    make_dir(NEW_ROOT "/dev", 0755);
    make_dir(NEW_ROOT "/proc", 0755);
    mount_or_die("/dev", NEW_ROOT "/dev", NULL, MS_MOVE, NULL);
    mount_or_die("/proc", NEW_ROOT "/proc", NULL, MS_MOVE, NULL);
    mount_or_log("sysfs", NEW_ROOT "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_log("cgroup2", NEW_ROOT "/sys/fs/cgroup", "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    mount_or_log("devpts", NEW_ROOT "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "mode=0620,gid=5,ptmxmode=0666");
    bind_scratch(options, "shm", NEW_ROOT "/dev/shm", 01777);
    bind_scratch(options, "run", NEW_ROOT "/run", 0755);
    bind_scratch(options, "tmp", NEW_ROOT "/tmp", 01777);
    link_or_log("/proc/self/fd", NEW_ROOT "/dev/fd");
    link_or_log("/proc/self/fd/0", NEW_ROOT "/dev/stdin");
    link_or_log("/proc/self/fd/1", NEW_ROOT "/dev/stdout");
    link_or_log("/proc/self/fd/2", NEW_ROOT "/dev/stderr");
}

/* ---- 4: the switch ---- */

static void delete_initramfs(void)
{
    DIR *dir = opendir(MODULES_DIR);
    struct dirent *entry;

    while (dir && (entry = readdir(dir))) {
        if (entry->d_name[0] != '.')
            (void)unlinkat(dirfd(dir), entry->d_name, 0);
    }
    if (dir)
        (void)closedir(dir);
    (void)rmdir(MODULES_DIR);
    (void)unlink("/init");
}

static void switch_root(const struct boot_options *options)
{
    /* The overlay keeps both layers alive; without a name nobody can reach them beside it. */
    if (umount2("/lower", MNT_DETACH) < 0 || umount2("/upper", MNT_DETACH) < 0 ||
            (on_disk(options) && umount2(scratch_of(options), MNT_DETACH) < 0))
        boot_fatal("can't detach the layers: %s", strerror(errno));
    delete_initramfs();
    if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        boot_fatal("can't switch to the new root: %s", strerror(errno));
}

/* ---- 5: settings ---- */

static void loopback_up(void)
{
    _cleanup_(fd_closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};

    if (fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0)
        log_msg(LOG_WARN, "no loopback interface: %s", strerror(errno));
}

static void set_sysctl(const char *path, const char *value)
{
    _cleanup_(fd_closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd >= 0 && write(fd, value, strlen(value)) < 0)
        log_msg(LOG_WARN, "%s: %s", path, strerror(errno));
}

static void settle(const struct boot_options *options)
{
    struct rlimit files = {.rlim_cur = NOFILE_SOFT, .rlim_max = NOFILE_HARD};
    struct rlimit core = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};

    (void)umask(022);
    (void)setrlimit(RLIMIT_NOFILE, &files); /* inherited by the commands */
    (void)setrlimit(RLIMIT_CORE, &core);
    if (sethostname(options->hostname, strlen(options->hostname)) < 0)
        log_msg(LOG_WARN, "host name %s: %s", options->hostname, strerror(errno));
    loopback_up();
    /* A kernel that is broken ends at once, and is seen to have ended, instead of going on. */
    set_sysctl("/proc/sys/kernel/panic_on_oops", "1");
    set_sysctl("/proc/sys/vm/oom_dump_tasks", "0"); /* the console is slow, and a hog's neighbours are no news */
    set_sysctl("/proc/sys/kernel/dmesg_restrict", "1");
    set_sysctl("/proc/sys/fs/protected_symlinks", "1");
    set_sysctl("/proc/sys/fs/protected_hardlinks", "1");
}

void boot_system(struct boot_options *ret_options, uint64_t init_us)
{
    struct steps steps = {0};
    int kmsg;

    (void)mkdir("/proc", 0555);
    (void)mkdir("/dev", 0755);
    if (mount("devtmpfs", "/dev", "devtmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755") < 0 && errno != EBUSY)
        power_cut(); /* there is no console to say it on */
    open_console();
    kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    log_init("ironclaw-agent", LOG_INFO, kmsg >= 0 ? kmsg : STDERR_FILENO);
    mount_or_die("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    read_options(ret_options);
    step(&steps, "early");
    load_modules(ret_options);
    step(&steps, "modules");
    wait_for_disk(ret_options->root);
    step(&steps, "device");
    mount_root(ret_options);
    step(&steps, "root");
    mount_inside(ret_options);
    step(&steps, "mounts");
    switch_root(ret_options);
    step(&steps, "switch");
    settle(ret_options);
    step(&steps, "settings");
    report_steps(&steps, init_us);
    /* The start was quiet, as each character costs an exit to the monitor; from here on the console has everything. */
    if (ret_options->console_level < 0)
        (void)klogctl(BOOT_CONSOLE_LEVEL, NULL, BOOT_CONSOLE_ALL);
}
