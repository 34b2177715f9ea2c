/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/cpio.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

struct entry {
    const char *name;
    mode_t mode;
    const void *data;
    size_t len;
    unsigned major, minor, links;
};

static void pad4(struct buf *out)
{
    static const char zero[4] = "";

    buf_put(out, zero, -out->len & 3);
}

static void add(struct cpio *cpio, const struct entry *entry)
{
    size_t name_len = strlen(entry->name) + 1;
    char head[6 + 13 * 8 + 1];

    if (entry->len > UINT32_MAX) {
        cpio->out->error = -EMSGSIZE;
        return;
    }
    /* magic, ino, mode, uid, gid, nlink, mtime, size, device, device number of a node, name size, check */
    (void)snprintf(head, sizeof(head), "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", cpio->next_inode++,
            (unsigned)entry->mode, 0, 0, entry->links, 0, (unsigned)entry->len, 0, 0, entry->major, entry->minor,
            (unsigned)name_len, 0);
    buf_put(cpio->out, head, sizeof(head) - 1);
    buf_put(cpio->out, entry->name, name_len);
    pad4(cpio->out);
    if (entry->len > 0)
        buf_put(cpio->out, entry->data, entry->len);
    pad4(cpio->out);
}

void cpio_init(struct cpio *cpio, struct buf *out)
{
    *cpio = (struct cpio){.out = out, .next_inode = 1};
}

void cpio_add_dir(struct cpio *cpio, const char *name, mode_t mode)
{
    add(cpio, &(struct entry){.name = name, .mode = S_IFDIR | mode, .links = 2});
}

void cpio_add_file(struct cpio *cpio, const char *name, mode_t mode, const void *data, size_t len)
{
    add(cpio, &(struct entry){.name = name, .mode = S_IFREG | mode, .data = data, .len = len, .links = 1});
}

void cpio_add_char_device(struct cpio *cpio, const char *name, mode_t mode, unsigned major, unsigned minor)
{
    add(cpio, &(struct entry){.name = name, .mode = S_IFCHR | mode, .major = major, .minor = minor, .links = 1});
}

void cpio_finish(struct cpio *cpio)
{
    static const char zero[512] = "";

    cpio->next_inode = 0;
    add(cpio, &(struct entry){.name = "TRAILER!!!", .links = 1});
    buf_put(cpio->out, zero, -cpio->out->len & (sizeof(zero) - 1));
}
