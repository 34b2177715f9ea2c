/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/snapshot/files.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/fd.h"
#include "monitor/snapshot/machine.h"

#define SUFFIX ".new"

/* ---- making ---- */

struct new_file {
    const char *path, *what;
    char temporary[SNAPSHOT_MAX_PATH + sizeof(SUFFIX)];
    int fd;
};

static int open_new(struct new_file *file, const char *what, const char *path, struct vm_error *error)
{
    struct stat st;

    *file = (struct new_file){.path = path, .what = what, .fd = -1};
    if (lstat(path, &st) == 0 && !S_ISREG(st.st_mode))
        return vm_fail(error, -EEXIST,
                "Cannot create the snapshot: %s %.300s is there and no regular file; name another.", what, path);
    (void)snprintf(file->temporary, sizeof(file->temporary), "%s" SUFFIX, path);
    (void)unlink(file->temporary); /* left by one that was killed */
    file->fd = open(file->temporary, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (file->fd < 0)
        return vm_fail(error, -errno, "Cannot create the snapshot: %s %.300s: %s; name a place that can be written.",
                what, file->temporary, strerror(errno));
    return 0;
}

/* Removes what did not get its name. */
static void close_new(struct new_file *file)
{
    if (file->fd < 0)
        return;
    fd_close(file->fd);
    if (file->temporary[0])
        (void)unlink(file->temporary);
}

static int flush(const struct new_file *file, struct vm_error *error)
{
    if (fsync(file->fd) == 0)
        return 0;
    return vm_fail(
            error, -errno, "Cannot create the snapshot: %s %.300s: %s.", file->what, file->path, strerror(errno));
}

static int give_name(struct new_file *file, struct vm_error *error)
{
    if (rename(file->temporary, file->path) < 0)
        return vm_fail(error, -errno, "Cannot create the snapshot: %s %.300s: its name: %s.", file->what, file->path,
                strerror(errno));
    file->temporary[0] = '\0';
    return 0;
}

/* Else a name may be lost when the power fails. Some file systems can't, and there it is as safe as it gets. */
static void flush_directory(const char *path)
{
    char directory[SNAPSHOT_MAX_PATH + 1];
    const char *slash = strrchr(path, '/');
    int fd;

    (void)snprintf(directory, sizeof(directory), "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    fd = open(directory[0] ? directory : "/", O_RDONLY | O_CLOEXEC);
    if (fd >= 0)
        (void)fsync(fd);
    fd_close(fd);
}

static int write_both(struct vm *vm, const struct vm_config *config, bool diff, const struct new_file *state,
        const struct new_file *memory, struct vm_error *error)
{
    uint8_t id[SNAPSHOT_ID_BYTES];
    const struct vm_save_options options = {.config = config, .id = id, .diff = diff, .memory_fd = memory->fd};
    _cleanup_(buf_deinit) struct buf bytes = {.max = SNAPSHOT_MAX_BYTES};
    struct vm_error why = {0};
    int r;

    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return vm_fail(error, -EIO, "Cannot create the snapshot: no random numbers.");
    r = vm_save(vm, &options, &bytes, &why);
    if (r < 0)
        return vm_fail(error, r, "Cannot create the snapshot: %.400s.", why.text);
    r = fd_write_all(state->fd, bytes.data, bytes.len, DEADLINE_NEVER);
    if (r < 0)
        return vm_fail(error, r, "Cannot create the snapshot: %s %.300s: %s.", state->what, state->path, strerror(-r));
    r = flush(memory, error);
    return r == 0 ? flush(state, error) : r;
}

int snapshot_create(struct vm *vm, const struct vm_config *config, const struct snapshot_create_config *request,
        struct vm_error *error)
{
    _cleanup_(close_new) struct new_file state = {.fd = -1}, memory = {.fd = -1};
    int r = snapshot_check_config(config, error);

    if (r < 0)
        return r;
    if (strcmp(request->snapshot_path, request->mem_file_path) == 0)
        return vm_fail(error, -EINVAL, "snapshot_path and mem_file_path are the same; a snapshot is two files.");
    r = open_new(&state, "snapshot_path", request->snapshot_path, error);
    if (r == 0)
        r = open_new(&memory, "mem_file_path", request->mem_file_path, error);
    if (r < 0)
        return r;
    r = write_both(vm, config, request->diff, &state, &memory, error);
    if (r == 0)
        r = give_name(&memory, error);
    if (r == 0)
        r = give_name(&state, error);
    vm_saved(vm, r == 0);
    if (r < 0)
        return r;
    flush_directory(request->mem_file_path);
    flush_directory(request->snapshot_path);
    return 0;
}

/* ---- loading ---- */

static int read_state(int fd, const char *path, void **ret, size_t *ret_len, struct vm_error *error)
{
    _cleanup_(freep) void *bytes = NULL;
    struct stat st;
    int r;

    if (fstat(fd, &st) < 0)
        return vm_fail(error, -errno, "snapshot %.300s: %s", path, strerror(errno));
    if (!S_ISREG(st.st_mode) || st.st_size == 0 || st.st_size > (off_t)SNAPSHOT_MAX_BYTES)
        return vm_fail(error, -EBADMSG, "snapshot %.300s: not a state file of ironclaw-vmm", path);
    bytes = malloc((size_t)st.st_size);
    if (!bytes)
        return vm_fail(error, -ENOMEM, "out of memory");
    r = fd_read_all(fd, bytes, (size_t)st.st_size, DEADLINE_NEVER);
    if (r < 0)
        return vm_fail(error, r, "snapshot %.300s: can't be read: %s", path, strerror(-r));
    *ret = TAKE_PTR(bytes);
    *ret_len = (size_t)st.st_size;
    return 0;
}

int snapshot_read(const char *path, struct snapshot *ret, void **ret_bytes, struct vm_error *error)
{
    _cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    _cleanup_(freep) void *bytes = NULL;
    size_t len = 0;
    int r;

    if (fd < 0)
        return vm_fail(error, -errno, "snapshot %.300s: %s; name the one that was made", path, strerror(errno));
    r = read_state(fd, path, &bytes, &len, error);
    if (r == 0)
        r = snapshot_open(ret, bytes, len, path, error);
    if (r == 0)
        *ret_bytes = TAKE_PTR(bytes);
    return r;
}

static int copy(char **ret, const char *text, struct vm_error *error)
{
    char *new = NULL;

    if (text) {
        new = strdup(text);
        if (!new)
            return vm_fail(error, -ENOMEM, "out of memory");
    }
    free(*ret);
    *ret = new;
    return 0;
}

int snapshot_configure(const struct snapshot *snapshot, const struct snapshot_load_config *request,
        const struct vm_config *config, struct vm_config *ret, struct vm_error *error)
{
    _cleanup_(vm_config_deinit) struct vm_config new = {0};
    struct snapshot_host made_on, here;
    int r = snapshot_get_host(snapshot, &made_on, error);

    snapshot_host_here(&here);
    if (r == 0)
        r = snapshot_check_host(&made_on, &here, snapshot->path, error);
    if (r == 0)
        r = snapshot_get_config(snapshot, &new, error);
    if (r == 0)
        r = snapshot_check_expected(&new.machine, request, snapshot->path, error);
    if (r < 0)
        return r;
    memcpy(new.id, config->id, sizeof(new.id));
    new.machine.track_dirty_pages = request->track_dirty_pages;
    r = copy(&new.serial.output_path, config->serial.output_path, error);
    if (r == 0 && request->uds_path && !new.vsock.uds_path)
        r = vm_fail(error, -EINVAL, "vsock_override: the microVM of this snapshot has no vsock; leave it out.");
    if (r == 0 && request->uds_path)
        r = copy(&new.vsock.uds_path, request->uds_path, error);
    if (r < 0)
        return r;
    *ret = new;
    new = (struct vm_config){0};
    return 0;
}
