/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/snapshots/snapshot.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/backends/backend.h"
#include "orchestrator/images/text.h"
#include "orchestrator/paths.h"

#define FORMAT       1
#define MANIFEST_MAX (RECORD_MAX_BYTES + (64u << 10))
/* Beside guest memory in one file: a trailer, or the devices of an emulator. */
#define PART_BESIDE  ((uint64_t)64 << 20)
#define STAMP_MAX    1024u
#define LOCK_TRIES   10u
#define LOCK_WAIT_US 20000u

static const char *const part_file[SNAPSHOT_PARTS] = {"state", "memory"};
static const char *const run_file[SNAPSHOT_PARTS] = {BACKEND_STATE, BACKEND_MEMORY};

const char *snapshot_kind(enum store_kind store)
{
    return store == STORE_TEMPLATES ? "template" : "snapshot";
}

void snapshot_deinit(struct snapshot *snapshot)
{
    record_deinit(&snapshot->vm);
    for (unsigned i = 0; i < SNAPSHOT_PARTS; i++)
        free(snapshot->path[i]);
    free(snapshot->touched_path);
    fd_unlock(snapshot->lock_fd);
    *snapshot = (struct snapshot){.lock_fd = -1};
}

/* ---- the manifest ---- */

char *snapshot_format(const struct snapshot *s)
{
    _cleanup_(freep) char *vm = record_encode(&s->vm);
    json_t *parts = json_object(), *root;
    char *text = NULL;

    for (unsigned i = 0; i < SNAPSHOT_PARTS; i++) {
        if (s->has[i])
            (void)json_object_set_new(parts, part_file[i],
                    json_pack("{s:I, s:s}", "size", (json_int_t)s->sum[i].size, "sha256", s->sum[i].sha256));
    }
    root = json_pack("{s:i, s:I, s:o, s:o*}", "format", FORMAT, "created_unix_ms", (json_int_t)s->created_unix_ms,
            "parts", parts, "vm", vm ? json_loads(vm, 0, NULL) : NULL);
    if (root && json_object_get(root, "vm"))
        text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    return text;
}

static int damaged(const char *where, const char *what, struct ic_error *error)
{
    return ic_fail(error, IC_ERR_CORRUPT, "%s: %s", where, what);
}

static int parse_part(struct snapshot *s, unsigned i, const json_t *part, const char *where, struct ic_error *error)
{
    const json_t *size = json_object_get(part, "size");
    const char *sum = json_string_value(json_object_get(part, "sha256"));

    if (!part)
        return 0;
    if (json_object_size(part) != 2 || !json_is_integer(size) || json_integer_value(size) < 1 || !sum ||
            !digest_hex_ok(sum))
        return damaged(where, "a part has no size or no sha256", error);
    s->has[i] = true;
    s->sum[i].size = (uint64_t)json_integer_value(size);
    memcpy(s->sum[i].sha256, sum, sizeof(s->sum[i].sha256));
    return 0;
}

static int parse_object(struct snapshot *s, const json_t *root, const char *where, struct ic_error *error)
{
    const json_t *parts = json_object_get(root, "parts"), *vm = json_object_get(root, "vm");
    const json_t *created = json_object_get(root, "created_unix_ms"), *format = json_object_get(root, "format");
    _cleanup_(freep) char *text = NULL;
    size_t known = 0;
    int r = 0;

    if (json_is_integer(format) && json_integer_value(format) != FORMAT)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "%s: format %lld, and this version has %d; use the version that made it", where,
                (long long)json_integer_value(format), FORMAT);
    if (json_object_size(root) != 4 || !json_is_integer(format) || !json_is_integer(created) ||
            !json_is_object(parts) || !json_is_object(vm))
        return damaged(where, "no manifest of a snapshot", error);
    for (unsigned i = 0; r == 0 && i < SNAPSHOT_PARTS; i++) {
        const json_t *part = json_object_get(parts, part_file[i]);

        known += part != NULL;
        r = parse_part(s, i, part, where, error);
    }
    if (r < 0)
        return r;
    if (!s->has[SNAPSHOT_STATE] || json_object_size(parts) != known)
        return damaged(where, "its list of parts is not one", error);
    s->created_unix_ms = json_integer_value(created);
    text = json_dumps(vm, JSON_COMPACT);
    r = text ? record_decode(&s->vm, text, strlen(text)) : -ENOMEM;
    if (r == -EPROTONOSUPPORT)
        return ic_fail(error, IC_ERR_UNSUPPORTED, "%s: another version of IronClaw made it; use that one", where);
    if (r < 0)
        return r == -ENOMEM ? ic_fail(error, IC_ERR_NO_MEMORY, "out of memory")
                            : damaged(where, "its record of the VM is damaged", error);
    return 0;
}

int snapshot_parse(const char *json, size_t len, const char *where, struct snapshot *ret, struct ic_error *error)
{
    struct snapshot s = {.lock_fd = -1};
    json_t *root = len <= MANIFEST_MAX ? json_loadb(json, len, JSON_REJECT_DUPLICATES, NULL) : NULL;
    int r = json_is_object(root) ? parse_object(&s, root, where, error) : damaged(where, "not a JSON object", error);

    json_decref(root);
    if (r < 0)
        snapshot_deinit(&s);
    else
        *ret = s;
    return r;
}

/* ---- what was seen to be right ---- */

int snapshot_note(const struct snapshot *s, const char *kind, char **ret, struct ic_error *error)
{
    char name[96];

    (void)snprintf(name, sizeof(name), ".%.16s-%s", kind, s->object);
    return store_path(s->store, name, NULL, ret, error);
}

static int stamp_path(const struct snapshot *s, char **ret, struct ic_error *error)
{
    return snapshot_note(s, "seen", ret, error);
}

/* What .seen has to say for the files to be what they were when they were read: 0, or -errno. */
static int stamp_make(const struct snapshot *s, char ret[STAMP_MAX])
{
    char boot_id[BOOT_ID_SIZE];
    int r = process_boot_id(boot_id), n;

    if (r < 0)
        return r;
    n = snprintf(ret, STAMP_MAX, "%s\n", boot_id);
    for (unsigned i = 0; i < SNAPSHOT_PARTS; i++) {
        struct stat st;

        if (!s->has[i])
            continue;
        if (lstat(s->path[i], &st) < 0)
            return -errno;
        n += snprintf(ret + n, STAMP_MAX - (size_t)n, "%s %llx %llx %lld %lld.%09ld %lld.%09ld\n", part_file[i],
                (unsigned long long)st.st_dev, (unsigned long long)st.st_ino, (long long)st.st_size,
                (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec, (long long)st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
    }
    return 0;
}

/* It is a note, not a part: without it the next start reads the files again. */
static void stamp_write(const struct snapshot *s)
{
    _cleanup_(freep) char *path = NULL;
    char text[STAMP_MAX];

    if (stamp_path(s, &path, NULL) == 0 && stamp_make(s, text) == 0)
        (void)fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0600);
}

/* True when nothing has changed; it was used then, which its time says. */
static bool stamp_holds(const struct snapshot *s)
{
    _cleanup_(freep) char *path = NULL, *text = NULL;
    char now[STAMP_MAX];
    size_t len;

    if (stamp_path(s, &path, NULL) < 0 || stamp_make(s, now) < 0 ||
            fd_read_file(AT_FDCWD, path, STAMP_MAX, &text, &len) < 0 || strcmp(text, now) != 0)
        return false;
    (void)utimensat(AT_FDCWD, path, NULL, AT_SYMLINK_NOFOLLOW);
    return true;
}

static int check_digests(const struct snapshot *s, const struct progress *progress, struct ic_error *error)
{
    for (unsigned i = 0; i < SNAPSHOT_PARTS; i++) {
        struct file_sum now;
        char what[128];
        int r;

        if (!s->has[i])
            continue;
        (void)snprintf(what, sizeof(what), "checking %s of %s %.16s", part_file[i], snapshot_kind(s->store), s->name);
        r = file_sum(s->path[i], progress, what, &now, error);
        if (r < 0)
            return r;
        if (now.size != s->sum[i].size || strcmp(now.sha256, s->sum[i].sha256) != 0)
            return ic_fail(error, IC_ERR_CORRUPT,
                    "%s %s: its %s (%s) is damaged: sha256 %.16s... and not %.16s...; remove it with 'ironclaw %s rm "
                    "%s'",
                    snapshot_kind(s->store), s->name, part_file[i], s->path[i], now.sha256, s->sum[i].sha256,
                    snapshot_kind(s->store), s->name);
    }
    return 0;
}

/* ---- opening ---- */

static int no_such(enum store_kind store, const char *name, struct ic_error *error)
{
    return ic_fail(error, IC_ERR_NOT_FOUND, "no %s '%.64s'; 'ironclaw %s ls' lists them", snapshot_kind(store), name,
            snapshot_kind(store));
}

/* The object that has the name, with a shared lock, so that it stays while it is used. */
static int lock_object(enum store_kind store, const char *name, char **ret_object, int *ret_fd, struct ic_error *error)
{
    for (unsigned tries = 0; tries < LOCK_TRIES; tries++) {
        _cleanup_(freep) char *object = NULL, *path = NULL;
        _cleanup_(fd_closep) int fd = -1;
        struct stat st;
        int r = store_resolve(store, name, &object, error);

        if (r == -IC_ERR_NOT_FOUND)
            return no_such(store, name, error);
        if (r == 0)
            r = store_path(store, object, NULL, &path, error);
        if (r != 0)
            return r;
        fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0 && errno != ENOENT)
            return ic_fail_errno(error, -errno, "%s %s: %s", snapshot_kind(store), name, path);
        if (fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) == 0 && stat(path, &st) == 0) {
            *ret_object = TAKE_PTR(object);
            *ret_fd = TAKE_FD(fd);
            return 0;
        }
        (void)usleep(LOCK_WAIT_US); /* being replaced or removed: look again */
    }
    return no_such(store, name, error);
}

static int part_paths(struct snapshot *s, const char *dir, struct ic_error *error)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < SNAPSHOT_PARTS; i++) {
        if (s->has[i])
            r = text_format(&s->path[i], error, "%s/%s", dir, part_file[i]);
    }
    return r;
}

static int check_sizes(const struct snapshot *s, struct ic_error *error)
{
    for (unsigned i = 0; i < SNAPSHOT_PARTS; i++) {
        struct stat st;

        if (!s->has[i])
            continue;
        if (lstat(s->path[i], &st) < 0)
            return ic_fail(error, IC_ERR_CORRUPT, "%s %s: its %s (%s): %s; remove it with 'ironclaw %s rm %s'",
                    snapshot_kind(s->store), s->name, part_file[i], s->path[i], strerror(errno),
                    snapshot_kind(s->store), s->name);
        if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size != s->sum[i].size)
            return ic_fail(error, IC_ERR_CORRUPT,
                    "%s %s: its %s (%s) has %lld bytes and not %llu; remove it with 'ironclaw %s rm %s'",
                    snapshot_kind(s->store), s->name, part_file[i], s->path[i], (long long)st.st_size,
                    (unsigned long long)s->sum[i].size, snapshot_kind(s->store), s->name);
    }
    return 0;
}

/* The root disk is not in it; it is opened by the path that the VM was started from. */
static int check_disk(const struct snapshot *s, struct ic_error *error)
{
    const struct record *vm = &s->vm;

    if (!vm->rootfs_path || access(vm->rootfs_path, F_OK) == 0 || errno != ENOENT)
        return 0;
    return ic_fail(error, IC_ERR_NOT_FOUND,
            "%s %s: its root disk %s%s%s is not there any more, and only the very same can take its place; without it, "
            "'ironclaw %s rm %s'",
            snapshot_kind(s->store), s->name, vm->rootfs_path, vm->image[0] ? ", of image " : "", vm->image,
            snapshot_kind(s->store), s->name);
}

/* The manifest, and where the parts are. */
static int load(enum store_kind store, const char *name, struct snapshot *ret, struct ic_error *error)
{
    _cleanup_(freep) char *object = NULL, *dir = NULL, *path = NULL, *text = NULL;
    _cleanup_(fd_unlockp) int lock_fd = -1;
    struct snapshot s = {.lock_fd = -1};
    struct ic_error why = {0};
    size_t len;
    int r;

    if (!name || !path_image_name_ok(name))
        return ic_fail(error, IC_ERR_INVALID, "%s name: use a-z, 0-9, '.', '_', '-', at most 64", snapshot_kind(store));
    r = lock_object(store, name, &object, &lock_fd, error);
    if (r == 0)
        r = store_path(store, object, NULL, &dir, error);
    if (r == 0)
        r = text_format(&path, error, "%s/manifest.json", dir);
    if (r < 0)
        return r;
    r = fd_read_file(AT_FDCWD, path, MANIFEST_MAX, &text, &len);
    if (r < 0)
        return ic_fail(error, IC_ERR_CORRUPT, "%s %s: %s: %s; remove it with 'ironclaw %s rm %s'", snapshot_kind(store),
                name, path, strerror(-r), snapshot_kind(store), name);
    r = snapshot_parse(text, len, path, &s, &why);
    if (r < 0)
        return ic_fail(error, (enum ic_error_code) - r, "%s %s: %s; remove it with 'ironclaw %s rm %s'",
                snapshot_kind(store), name, why.message, snapshot_kind(store), name);
    s.store = store;
    s.lock_fd = TAKE_FD(lock_fd);
    (void)snprintf(s.name, sizeof(s.name), "%s", name);
    (void)snprintf(s.object, sizeof(s.object), "%s", object);
    r = part_paths(&s, dir, error);
    if (r < 0)
        snapshot_deinit(&s);
    else
        *ret = s;
    return r;
}

int snapshot_open(enum store_kind store, const char *name, const struct progress *progress, struct snapshot *ret,
        struct ic_error *error)
{
    struct snapshot s;
    int r = load(store, name, &s, error);

    if (r < 0)
        return r;
    r = check_sizes(&s, error);
    if (r == 0)
        r = check_disk(&s, error);
    if (r == 0 && !stamp_holds(&s)) {
        r = check_digests(&s, progress, error);
        if (r == 0)
            stamp_write(&s);
    }
    if (r == 0 && snapshot_note(&s, "touched", &s.touched_path, NULL) == 0 && access(s.touched_path, R_OK) < 0) {
        free(s.touched_path);
        s.touched_path = NULL;
    }
    if (r < 0)
        snapshot_deinit(&s);
    else
        *ret = s;
    return r;
}

int snapshot_verify(enum store_kind store, const char *name, const struct progress *progress, struct ic_error *error)
{
    struct snapshot s;
    int r = load(store, name, &s, error);

    if (r < 0)
        return r;
    r = check_sizes(&s, error);
    if (r == 0)
        r = check_digests(&s, progress, error);
    snapshot_deinit(&s);
    return r;
}

/* ---- making ---- */

static int64_t unix_ms(void)
{
    return (int64_t)(clock_unix_ns() / 1000000);
}

/* A copy by way of its text, which is what a manifest keeps. */
static int copy_record(struct record *ret, const struct record *vm, struct ic_error *error)
{
    _cleanup_(freep) char *text = record_encode(vm);
    int r = text ? record_decode(ret, text, strlen(text)) : -ENOMEM;

    return r < 0 ? ic_fail_errno(error, r, "record of VM '%s'", vm->vm_id) : 0;
}

int snapshot_copy_record(struct record *ret, const struct record *vm, struct ic_error *error)
{
    struct record record = {0};
    int r = copy_record(&record, vm, error);

    if (r < 0)
        return r;
    free(record.run_dir);
    free(record.cgroup);
    record.run_dir = record.cgroup = NULL;
    record.run_dir_inode = 0;
    record.uid = 0;
    memset(record.jail, 0, sizeof(record.jail));
    record.vm_id[0] = record.failure[0] = record.origin[0] = record.generation[0] = '\0';
    record.monitor = record.vsock = record.creator = (struct process_id){0};
    record.ready_unix_ms = 0;
    record.boot_ms = 0;
    *ret = record;
    return 0;
}

void snapshot_carry_note(const struct snapshot *from, char *origin, size_t size)
{
    size_t used = strnlen(origin, size);

    if (strstr(from->vm.origin, SNAPSHOT_NOT_RESEEDED) && !strstr(origin, SNAPSHOT_NOT_RESEEDED))
        (void)snprintf(origin + used, size - used, " %s", SNAPSHOT_NOT_RESEEDED);
}

static int take_parts(struct snapshot *s, const char *dir, struct ic_error *error)
{
    const struct record *vm = &s->vm;
    _cleanup_(fd_closep) int run_fd = open(vm->run_dir, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    uint64_t max = ((uint64_t)vm->memory_mib << 20) + PART_BESIDE;
    struct stat st;
    int r = 0;

    if (run_fd < 0)
        return ic_fail_errno(error, -errno, "runtime directory %s", vm->run_dir);
    for (unsigned i = 0; r == 0 && i < SNAPSHOT_PARTS; i++) {
        s->has[i] = i == SNAPSHOT_STATE || fstatat(run_fd, run_file[i], &st, AT_SYMLINK_NOFOLLOW) == 0;
        if (!s->has[i])
            continue;
        r = text_format(&s->path[i], error, "%s/%s", dir, part_file[i]);
        if (r == 0)
            r = file_take(run_fd, run_file[i], s->path[i], max, &s->sum[i], error);
        (void)unlinkat(run_fd, run_file[i], 0);
    }
    return r;
}

int snapshot_take_into(const char *dir, const struct record *vm, struct snapshot *ret, struct ic_error *error)
{
    struct snapshot s = {.lock_fd = -1, .created_unix_ms = unix_ms()};
    int r = copy_record(&s.vm, vm, error);

    if (r == 0)
        r = take_parts(&s, dir, error);
    if (r < 0)
        snapshot_deinit(&s);
    else
        *ret = s;
    return r;
}

/* Both files and the manifest are on the disk before the name says so. */
static int sync_all(const struct snapshot *s, struct ic_error *error)
{
    for (unsigned i = 0; i < SNAPSHOT_PARTS; i++) {
        _cleanup_(fd_closep) int fd = -1;

        if (!s->has[i])
            continue;
        fd = open(s->path[i], O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0 || fsync(fd) < 0)
            return ic_fail_errno(error, -errno, "%s", s->path[i]);
    }
    return 0;
}

int snapshot_take(
        enum store_kind store, const char *object, const char *name, const struct record *vm, struct ic_error *error)
{
    _cleanup_(workdir_drop) struct workdir workdir = WORKDIR_NONE;
    _cleanup_(freep) char *path = NULL, *text = NULL, *dir = NULL;
    struct snapshot s = {.lock_fd = -1};
    int r = workdir_make(store, &workdir, error);

    if (r == 0)
        r = snapshot_take_into(workdir.path, vm, &s, error);
    if (r < 0)
        return r;
    s.store = store;
    (void)snprintf(s.object, sizeof(s.object), "%s", object);
    text = snapshot_format(&s);
    r = text ? text_format(&path, error, "%s/manifest.json", workdir.path)
             : ic_fail(error, IC_ERR_INVALID, "%s %s: a path in it is not UTF-8", snapshot_kind(store), name);
    if (r == 0) {
        r = fd_write_file_atomic(AT_FDCWD, path, text, strlen(text), 0444);
        r = r < 0 ? ic_fail_errno(error, r, "%s", path) : 0;
    }
    /* A template that a power loss spoils is made anew; a snapshot can't be. */
    if (r == 0 && store == STORE_SNAPSHOTS)
        r = sync_all(&s, error);
    if (r == 0)
        r = workdir_commit(&workdir, object, name, error);
    for (unsigned i = 0; i < SNAPSHOT_PARTS; i++) {
        free(s.path[i]);
        s.path[i] = NULL;
    }
    if (r == 0)
        r = store_path(store, object, NULL, &dir, error);
    if (r == 0)
        r = part_paths(&s, dir, error);
    if (r == 0)
        stamp_write(&s); /* the digests are those of what was just written */
    snapshot_deinit(&s);
    return r;
}

/* ---- the rest ---- */

static void fill_info(const struct snapshot *s, struct ic_snapshot_info *ret)
{
    struct ic_snapshot_info info = {
            .size = sizeof(info),
            .backend = s->vm.backend,
            .vcpu_count = s->vm.vcpu_count,
            .memory_mib = s->vm.memory_mib,
            .created_unix_ms = s->created_unix_ms,
            .used_unix_ms = s->created_unix_ms,
    };
    _cleanup_(freep) char *stamp = NULL;
    struct stat st;

    memcpy(info.name, s->name, sizeof(info.name));
    if (s->store == STORE_SNAPSHOTS)
        memcpy(info.vm_id, s->vm.vm_id, sizeof(info.vm_id));
    memcpy(info.image, s->vm.image, sizeof(info.image));
    memcpy(info.image_digest, s->vm.image_digest, sizeof(info.image_digest));
    for (unsigned i = 0; i < SNAPSHOT_PARTS; i++) {
        if (s->has[i] && lstat(s->path[i], &st) == 0)
            info.size_bytes += (uint64_t)st.st_blocks * 512;
    }
    if (stamp_path(s, &stamp, NULL) == 0 && lstat(stamp, &st) == 0)
        info.used_unix_ms =
                MAX(info.used_unix_ms, (int64_t)st.st_mtim.tv_sec * 1000 + (int64_t)st.st_mtim.tv_nsec / 1000000);
    *ret = info;
}

int snapshot_list(enum store_kind store, struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error)
{
    _cleanup_(strlist_deinit) struct strlist names = {0};
    struct ic_snapshot_info *infos;
    size_t count = 0;
    int r = store_list(store, &names, error);

    if (r < 0)
        return r;
    infos = calloc(names.count + 1, sizeof(*infos)); /* never NULL for an empty list */
    if (!infos)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < names.count; i++) {
        struct ic_snapshot_info *info = &infos[count];
        struct snapshot s;

        r = load(store, names.items[i], &s, NULL);
        if (r == -IC_ERR_NOT_FOUND)
            continue; /* removed meanwhile */
        if (r == 0) {
            fill_info(&s, info);
            snapshot_deinit(&s);
        } else { /* damaged; it can still be removed */
            *info = (struct ic_snapshot_info){.size = sizeof(*info)};
            (void)snprintf(info->name, sizeof(info->name), "%s", names.items[i]);
        }
        count++;
    }
    *ret = infos;
    *ret_count = count;
    return 0;
}

int snapshot_remove(enum store_kind store, const char *name, struct ic_error *error)
{
    _cleanup_(freep) char *object = NULL, *stamp = NULL, *touched = NULL;
    struct snapshot s = {.store = store, .lock_fd = -1};
    int r;

    if (!name || !path_image_name_ok(name))
        return no_such(store, name ? name : "", error);
    r = store_resolve(store, name, &object, error);
    if (r == -IC_ERR_NOT_FOUND)
        return no_such(store, name, error);
    if (r < 0)
        return r;
    r = store_remove_name(store, name, object, error);
    (void)snprintf(s.object, sizeof(s.object), "%s", object);
    if (r == 0 && stamp_path(&s, &stamp, NULL) == 0)
        (void)unlink(stamp);
    if (r == 0 && snapshot_note(&s, "touched", &touched, NULL) == 0)
        (void)unlink(touched);
    return r;
}

int ic_snapshot_list(struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error)
{
    return snapshot_list(STORE_SNAPSHOTS, ret, ret_count, error);
}

int ic_snapshot_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error)
{
    return snapshot_verify(STORE_SNAPSHOTS, name, &(struct progress){.fn = progress, .userdata = userdata}, error);
}
