/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/snapshots/template.h"

#include <cpuid.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/config.h"
#include "orchestrator/images/text.h"
#include "orchestrator/paths.h"
#include "orchestrator/snapshots/prune.h"
#include "orchestrator/spawn.h"

#define FORMAT     "ironclaw template 2"
#define NAME_CHARS 16 /* of the key, for people */

const char *template_none(const struct backend *backend, const struct record *record, bool custom)
{
    if (!(backend->capabilities & BACKEND_TEMPLATE))
        return "its backend has none";
    if (custom)
        return "its kernel, initramfs or root file system is not an image's";
    if (record->overlay_kind != IC_OVERLAY_TMPFS)
        return "its overlay is a disk, of which a template's kernel would remember what it was";
    return backend->no_template ? backend->no_template(backend, record) : NULL;
}

/* ---- the key ---- */

static void add_number(struct digest_key *key, uint64_t number)
{
    digest_key_add(key, &number, sizeof(number));
}

/* What the guest sees of the processor, and what a monitor refuses to load under another. */
static void add_processor(struct digest_key *key)
{
    static const unsigned leaves[] = {0, 1, 7, 0x80000001u, 0x80000002u, 0x80000003u, 0x80000004u, 0x80000008u};

    for (size_t i = 0; i < ARRAY_SIZE(leaves); i++) {
        unsigned r[4] = {0};

        (void)__get_cpuid_count(leaves[i], 0, &r[0], &r[1], &r[2], &r[3]);
        if (leaves[i] == 1) {
            r[1] &= 0x00ffffffu; /* not the APIC id of where this runs */
            r[2] &= ~(1u << 27); /* nor what the kernel switched on: OSXSAVE */
        }
        digest_key_add(key, r, sizeof(r));
    }
}

/* A program is the same as long as its file is. */
static int add_program(struct digest_key *key, const char *path, struct ic_error *error)
{
    struct stat st;

    if (!path || stat(path, &st) < 0)
        return ic_fail_errno(error, path ? -errno : -ENOENT, "program of the backend");
    digest_key_add_str(key, path);
    add_number(key, (uint64_t)st.st_ino);
    add_number(key, (uint64_t)st.st_size);
    add_number(key, (uint64_t)st.st_mtim.tv_sec);
    add_number(key, (uint64_t)st.st_mtim.tv_nsec);
    return 0;
}

static int make_key(const struct backend *backend, const struct record *record, char ret[DIGEST_HEX_LEN + 1],
        struct ic_error *error)
{
    _cleanup_(freep) char *program = backend->program(backend);
    struct utsname host;
    struct digest_key key;
    int r;

    digest_key_init(&key);
    digest_key_add_str(&key, FORMAT);
    digest_key_add_str(&key, IRONCLAW_VERSION);
    digest_key_add_str(&key, record->image_digest);
    digest_key_add_str(&key, record->kernel_path);
    digest_key_add_str(&key, record->rootfs_path);
    add_number(&key, record->backend);
    add_number(&key, record->isolation);
    add_number(&key, record->vcpu_count);
    add_number(&key, record->memory_mib);
    add_number(&key, record->overlay_size_mib);
    add_number(&key, record->guest_seccomp);
    digest_key_add_str(&key, spawn_test_switch());
    if (uname(&host) < 0)
        return ic_fail_errno(error, -errno, "uname");
    digest_key_add_str(&key, host.release);
    digest_key_add_str(&key, host.version);
    add_processor(&key);
    r = add_program(&key, program, error);
    if (r == 0)
        digest_key_finish(&key, ret);
    return r;
}

/* ---- making one ---- */

static int save(ic_vm *vm, const struct backend *backend, const char *key, const char *name, struct ic_error *error)
{
    _cleanup_(record_deinitp) struct record record = {0};
    int r = table_read(&record, vm->vm_id, error);

    if (r < 0)
        return r;
    spawn_lift_limits(&record);
    r = backend->save(backend, &record, error);
    return r < 0 ? r : snapshot_take(STORE_TEMPLATES, key, name, &record, error);
}

/* Nothing of this run's own goes into what all others begin as. */
static int builder_config(const struct ic_vm_config *config, struct ic_vm_config *ret, struct ic_error *error)
{
    uint32_t word;
    int r = config_copy(ret, config, error);

    if (r < 0)
        return r;
    free(ret->vm_id);
    ret->vm_id = NULL;
    if (getrandom(&word, sizeof(word), 0) != (ssize_t)sizeof(word))
        return ic_fail_errno(error, -errno, "random numbers");
    if (asprintf(&ret->vm_id, "template-%08x", word) < 0) {
        ret->vm_id = NULL;
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    }
    ret->keep = false;
    ret->tied_to_caller = true;
    ret->max_lifetime_ms = 0;
    ret->max_connections = 0;
    ret->max_disk_mib_per_s = ret->max_disk_ops_per_s = 0;
    return 0;
}

static int build(const struct ic_vm_config *config, const struct backend *backend, const char *key, const char *name,
        struct ic_error *error)
{
    const struct spawn_plan plan = {.for_template = true};
    struct ic_vm_config builder = {0};
    ic_vm *vm = NULL;
    int r = builder_config(config, &builder, error);

    if (r == 0)
        r = spawn_vm(&builder, &plan, &vm, error);
    if (r == 0)
        r = save(vm, backend, key, name, error);
    if (vm && ic_destroy_vm(vm, r == 0 ? error : NULL) < 0 && r == 0)
        r = -IC_ERR_IO;
    ic_vm_free(vm);
    ic_vm_config_deinit(&builder);
    return r;
}

/*
 * A clone that runs what a first command needs at least, to see which pages it touches: they are asked for at once when
 * the next ones start. It is a hint, which an ordinary user, who can't look at a jailed process, does without.
 */
static void measure(const struct ic_vm_config *config, const struct backend *backend, struct snapshot *from)
{
    const struct spawn_plan plan = {.from = from, .no_pool = true};
    const char *const argv[] = {"true", NULL};
    _cleanup_(record_deinitp) struct record record = {0};
    _cleanup_(freep) char *path = NULL, *tmp = NULL;
    struct ic_exec_result result = {.size = sizeof(result)};
    struct ic_vm_config clone = {0};
    struct ic_exec_options exec;
    ic_vm *vm = NULL;
    int r;

    if (!(backend->capabilities & BACKEND_TOUCHED) || geteuid() != 0 ||
            snapshot_note(from, "touched", &path, NULL) < 0 || text_format(&tmp, NULL, "%s.new", path) < 0 ||
            builder_config(config, &clone, NULL) < 0)
        return;
    ic_exec_options_init(&exec);
    exec.argv = argv;
    r = spawn_vm(&clone, &plan, &vm, NULL);
    if (r == 0)
        r = ic_vm_exec(vm, &exec, &result, NULL);
    if (r == 0)
        r = table_read(&record, vm->vm_id, NULL);
    (void)unlink(tmp);
    if (r == 0)
        r = backend->touched(backend, &record, from->path[SNAPSHOT_MEMORY], tmp, NULL);
    if (r == 0 && chmod(tmp, 0444) == 0 && rename(tmp, path) == 0)
        from->touched_path = TAKE_PTR(path);
    else
        (void)unlink(tmp);
    if (vm)
        (void)ic_destroy_vm(vm, NULL);
    ic_vm_free(vm);
    ic_vm_config_deinit(&clone);
}

static bool makes_anew(int r)
{
    return r == -IC_ERR_NOT_FOUND || r == -IC_ERR_CORRUPT || r == -IC_ERR_UNSUPPORTED;
}

int template_get(const struct ic_vm_config *config, const struct backend *backend, const struct record *record,
        bool force, struct snapshot *ret, bool *ret_built, struct ic_error *error)
{
    const struct progress progress = {.fn = config->progress, .userdata = config->progress_userdata};
    _cleanup_(fd_unlockp) int build_fd = -1;
    char key[DIGEST_HEX_LEN + 1], name[NAME_CHARS + 1];
    struct ic_error why = {0};
    int r = make_key(backend, record, key, error);

    *ret_built = false;
    if (r < 0)
        return r;
    (void)snprintf(name, sizeof(name), "%.*s", NAME_CHARS, key);
    r = force ? -IC_ERR_NOT_FOUND : snapshot_open(STORE_TEMPLATES, name, &progress, ret, &why);
    if (!makes_anew(r)) {
        if (r < 0 && error)
            *error = why;
        return r;
    }
    r = store_lock_build(STORE_TEMPLATES, &progress, &build_fd, error);
    if (r < 0)
        return r;
    /* Somebody else may have made it while we waited. */
    r = force ? -IC_ERR_NOT_FOUND : snapshot_open(STORE_TEMPLATES, name, &progress, ret, &why);
    if (!makes_anew(r)) {
        if (r < 0 && error)
            *error = why;
        return r;
    }
    r = progress_report(&progress, TEMPLATE_STEP, 0, 0, error);
    if (r == 0)
        r = build(config, backend, key, name, error);
    if (r == 0)
        r = snapshot_open(STORE_TEMPLATES, name, &progress, ret, error);
    if (r == 0) {
        *ret_built = true;
        measure(config, backend, ret);
        (void)template_prune(UINT32_MAX, UINT32_MAX, name, NULL, NULL); /* not the one that was just made */
    }
    return r;
}

/* ---- for everybody ---- */

int ic_template_list(struct ic_snapshot_info **ret, size_t *ret_count, struct ic_error *error)
{
    return snapshot_list(STORE_TEMPLATES, ret, ret_count, error);
}

int ic_template_remove(const char *name, struct ic_error *error)
{
    return snapshot_remove(STORE_TEMPLATES, name, error);
}

int ic_template_verify(const char *name, ic_progress_fn progress, void *userdata, struct ic_error *error)
{
    return snapshot_verify(STORE_TEMPLATES, name, &(struct progress){.fn = progress, .userdata = userdata}, error);
}
