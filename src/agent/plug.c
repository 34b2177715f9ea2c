/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/plug.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/pci_regs.h>
#include <linux/virtio_ids.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/macro.h"

#define BUS           "/sys/bus/pci/"
#define CONFIG_BYTES  256u
#define CAPS_MAX      48u     /* as many fit */
#define BRIDGE_CLASS  0x0604u /* PCI Code and ID Assignment §1.7: a bridge, to another PCI bus */
#define VIRTIO_VENDOR 0x1af4u /* virtio 1.2 §4.1.2 */
#define VSOCK_DEVICE  (0x1040u + VIRTIO_ID_VSOCK)

/* A function of the bus. */
struct function {
    const char *name; /* below BUS "devices" */
    int fd;           /* its configuration space */
    uint8_t config[CONFIG_BYTES];
};

static unsigned word(const struct function *f, size_t at)
{
    return at + 1 < CONFIG_BYTES ? f->config[at] | (unsigned)f->config[at + 1] << 8 : 0;
}

static bool open_function(struct function *f, const char *name)
{
    char path[sizeof(BUS "devices//config") + NAME_MAX];

    *f = (struct function){.name = name};
    (void)snprintf(path, sizeof(path), BUS "devices/%s/config", name);
    f->fd = open(path, O_RDWR | O_CLOEXEC);
    return f->fd >= 0 && pread(f->fd, f->config, CONFIG_BYTES, 0) == (ssize_t)CONFIG_BYTES;
}

/* The first for which `fn` returns something else than 0, which is returned. */
static int for_each_function(int (*fn)(struct function *f, void *userdata), void *userdata)
{
    DIR *dir = opendir(BUS "devices");
    struct dirent *entry;
    int r = 0;

    while (dir && r == 0 && (entry = readdir(dir))) {
        struct function f;

        if (entry->d_name[0] == '.')
            continue;
        if (open_function(&f, entry->d_name))
            r = fn(&f, userdata);
        fd_close(f.fd);
    }
    if (dir)
        (void)closedir(dir);
    return r;
}

/* Where its PCI Express capability is; 0: it has none. */
static size_t express_capability(const struct function *f)
{
    size_t at = f->config[PCI_CAPABILITY_LIST] & ~3u;

    if (!(word(f, PCI_STATUS) & PCI_STATUS_CAP_LIST))
        return 0;
    for (unsigned i = 0; i < CAPS_MAX && at >= PCI_STD_HEADER_SIZEOF; i++) {
        if (f->config[at + PCI_CAP_LIST_ID] == PCI_CAP_ID_EXP)
            return at;
        at = f->config[at + PCI_CAP_LIST_NEXT] & ~3u;
    }
    return 0;
}

/* Of a port that has a say in it; to all else nothing is done. */
static int set_power(struct function *f, void *on)
{
    static const unsigned mask = PCI_EXP_SLTCTL_PCC | PCI_EXP_SLTCTL_PIC;
    size_t express = express_capability(f);
    unsigned now, wanted;
    uint8_t bytes[2];

    if (word(f, PCI_CLASS_DEVICE) != BRIDGE_CLASS || express == 0 ||
            !(word(f, express + PCI_EXP_FLAGS) & PCI_EXP_FLAGS_SLOT) ||
            !(word(f, express + PCI_EXP_SLTCAP) & PCI_EXP_SLTCAP_PCP))
        return 0;
    now = word(f, express + PCI_EXP_SLTCTL);
    wanted = (now & ~mask) | (*(const bool *)on ? PCI_EXP_SLTCTL_PWR_ON | PCI_EXP_SLTCTL_PWR_IND_ON
                                                : PCI_EXP_SLTCTL_PWR_OFF | PCI_EXP_SLTCTL_PWR_IND_OFF);
    bytes[0] = (uint8_t)wanted;
    bytes[1] = (uint8_t)(wanted >> 8);
    if (wanted == now || pwrite(f->fd, bytes, sizeof(bytes), (off_t)(express + PCI_EXP_SLTCTL)) == sizeof(bytes))
        return 0;
    return errno ? -errno : -EIO;
}

static int write_one(const char *path)
{
    _cleanup_(fd_closep) int fd = open(path, O_WRONLY | O_CLOEXEC);

    return fd >= 0 && write(fd, "1", 1) == 1 ? 0 : -errno;
}

int plug_power_on(void)
{
    return for_each_function(set_power, &(bool){true});
}

int plug_look(void)
{
    return write_one(BUS "rescan");
}

static int is_vsock(struct function *f, void *userdata)
{
    return word(f, PCI_VENDOR_ID) == VIRTIO_VENDOR && word(f, PCI_DEVICE_ID) == VSOCK_DEVICE;
}

int plug_is_there(void)
{
    return for_each_function(is_vsock, NULL) > 0 ? 0 : -ENODEV;
}

static int remove_vsock(struct function *f, void *userdata)
{
    char path[sizeof(BUS "devices//remove") + NAME_MAX];
    int r;

    if (!is_vsock(f, NULL))
        return 0;
    (void)snprintf(path, sizeof(path), BUS "devices/%s/remove", f->name);
    r = write_one(path);
    return r < 0 ? r : 1;
}

int plug_let_go(void)
{
    int r = for_each_function(remove_vsock, NULL);

    if (r <= 0)
        return r < 0 ? r : -ENODEV;
    r = for_each_function(set_power, &(bool){false});
    return r < 0 ? r : plug_power_on();
}
