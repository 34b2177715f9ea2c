/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/initramfs.h"

#include <fcntl.h>
#include <string.h>

#include "base/fd.h"
#include "orchestrator/images/cpio.h"
#include "orchestrator/images/modules.h"
#include "orchestrator/images/vmlinux.h"

#define FILE_BYTES_MAX    ((size_t)64 << 20)
#define ARCHIVE_BYTES_MAX ((size_t)256 << 20)

static int add_file(struct cpio *cpio, const char *name, mode_t mode, const char *from, struct ic_error *error)
{
    _cleanup_(freep) char *data = NULL;
    size_t len;
    int r = fd_read_file(AT_FDCWD, from, FILE_BYTES_MAX, &data, &len);

    if (r < 0)
        return ic_fail_errno(error, r, "%s", from);
    cpio_add_file(cpio, name, mode, data, len);
    return 0;
}

/*
 * Without the signature: to check it costs an emulated guest more than all
 * else that the agent does at boot, and it would prove nothing here. Who could
 * change a module in this archive could as well change the agent beside it;
 * both are covered by the image's digest.
 */
static int add_module(struct cpio *cpio, const char *name, const char *from, struct ic_error *error)
{
    _cleanup_(freep) char *data = NULL;
    size_t len;
    int r = fd_read_file(AT_FDCWD, from, FILE_BYTES_MAX, &data, &len);

    if (r < 0)
        return ic_fail_errno(error, r, "%s", from);
    cpio_add_file(cpio, name, 0644, data, module_unsigned_len(data, len));
    return 0;
}

static int add_modules(struct cpio *cpio, const struct kernel *kernel, struct ic_error *error)
{
    _cleanup_(freep) char *order = NULL;
    int r = strlist_join(&kernel->modules, '\n', &order, error);

    cpio_add_dir(cpio, "modules", 0755);
    for (size_t i = 0; r == 0 && i < kernel->modules.count; i++) {
        _cleanup_(freep) char *name = NULL;
        _cleanup_(freep) char *from = NULL;

        r = text_format(&name, error, "modules/%s", kernel->modules.items[i]);
        if (r == 0)
            r = text_format(&from, error, "%s/%s", kernel->dir, name);
        if (r == 0)
            r = add_module(cpio, name, from, error);
    }
    if (r < 0)
        return r;
    if (kernel->modules.count > 0) {
        /* strlist_join leaves room for the terminator only; the last line's newline takes its place. */
        size_t len = strlen(order);

        order[len] = '\n';
        cpio_add_file(cpio, "modules/order", 0644, order, len + 1);
    } else {
        cpio_add_file(cpio, "modules/order", 0644, "", 0);
    }
    return 0;
}

int initramfs_build(const char *agent_path, const struct kernel *kernel, const char *path, struct ic_error *error)
{
    static const char *const dirs[] = {"dev", "mnt", "proc", "root", "run", "sys", "tmp"};
    _cleanup_(buf_deinit) struct buf archive = {.max = ARCHIVE_BYTES_MAX}, packed = {.max = ARCHIVE_BYTES_MAX};
    struct cpio cpio;
    int r;

    cpio_init(&cpio, &archive);
    for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
        cpio_add_dir(&cpio, dirs[i], 0755);
    cpio_add_char_device(&cpio, "dev/console", 0600, 5, 1);
    r = add_file(&cpio, "init", 0755, agent_path, error);
    if (r == 0)
        r = add_modules(&cpio, kernel, error);
    if (r != 0)
        return r;
    cpio_finish(&cpio);
    if (archive.error)
        return ic_fail(error, IC_ERR_NO_MEMORY, "initramfs: larger than %zu MiB", ARCHIVE_BYTES_MAX >> 20);
    r = lz4_legacy_pack(archive.data, archive.len, &packed, error);
    if (r < 0)
        return r;
    r = fd_write_file_atomic(AT_FDCWD, path, packed.data, packed.len, 0600);
    return r < 0 ? ic_fail_errno(error, r, "%s", path) : 0;
}
