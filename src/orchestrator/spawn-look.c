/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM is to be, by its configuration or by the snapshot that it begins from. */
#include "orchestrator/spawn-private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "orchestrator/config.h"
#include "orchestrator/parts.h"
#include "orchestrator/paths.h"
#include "orchestrator/snapshots/template.h"

#define BOOT_TIMEOUT_SOFTWARE_MS 120000u
#define BOOT_TIMEOUT_HARDWARE_MS 10000u

static int copy_text(char **dst, const char *text, struct ic_error *error)
{
    if (!text || !text[0])
        return 0;
    *dst = strdup(text);
    return *dst ? 0 : ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
}

static int copy_env(struct record *record, char *const *image_env, char *const *vm_env, struct ic_error *error)
{
    char *const *const lists[] = {image_env, vm_env};
    size_t count = 0, n = 0;

    for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
        for (size_t i = 0; lists[l] && lists[l][i]; i++)
            count++;
    }
    if (count > RECORD_MAX_ENV)
        return ic_fail(error, IC_ERR_INVALID, "env: more than %u entries together with the image's", RECORD_MAX_ENV);
    record->env = calloc(count + 1, sizeof(*record->env));
    if (!record->env)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    for (size_t l = 0; l < ARRAY_SIZE(lists); l++) {
        for (size_t i = 0; lists[l] && lists[l][i]; i++) {
            record->env[n] = strdup(lists[l][i]);
            if (!record->env[n++])
                return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
        }
    }
    return 0;
}

/* Loading a module of that size and what it needs would cost every boot. */
static int look_at_overlay(struct spawn *s, struct ic_error *error)
{
    int r = copy_text(&s->record.overlay_path, s->config.overlay.path, error);

    if (r == 0 && strcmp(s->record.kernel_kind, "debian") == 0)
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "overlay.kind ext4: the image's kernel (Debian's) comes without ext4; use an image with the fast "
                "kernel: "
                "'ironclaw image build --kernel fast base:fast', then --image base:fast");
    return r < 0 ? r : part_open_overlay(s->record.overlay_path, &s->start.overlay_fd, &s->overlay_bytes, error);
}

/* The image's parts, and the configuration's own instead of them. Without need of any of its parts there is no image.
 */
static int look_at_parts(struct spawn *s, struct ic_error *error)
{
    const struct ic_vm_config *c = &s->config;
    struct record *record = &s->record;
    int r = 0;

    if (!c->kernel_path || !c->initrd_path || !c->rootfs_path) {
        r = image_open(c->image, &s->image, error);
        if (r < 0)
            return r;
        (void)snprintf(record->image, sizeof(record->image), "%s", c->image);
        (void)snprintf(record->image_digest, sizeof(record->image_digest), "%s", s->image.digest);
        if (!c->kernel_path) {
            (void)snprintf(record->kernel, sizeof(record->kernel), "%s", s->image.kernel_release);
            (void)snprintf(record->kernel_kind, sizeof(record->kernel_kind), "%s", s->image.kernel_kind);
        }
    }
    if ((r = copy_text(&record->kernel_path, c->kernel_path ? c->kernel_path : s->image.kernel_path, error)) < 0 ||
            (r = copy_text(&record->initrd_path, c->initrd_path ? c->initrd_path : s->image.initrd_path, error)) < 0 ||
            (r = copy_text(&record->rootfs_path, c->rootfs_path ? c->rootfs_path : s->image.rootfs_path, error)) < 0 ||
            (r = copy_text(&record->user, c->user ? c->user : s->image.user, error)) < 0 ||
            (r = copy_text(&record->cwd, s->image.cwd, error)) < 0 ||
            (r = copy_env(record, s->image.env, c->env, error)) < 0)
        return r;
    if (!record->kernel_path || !record->rootfs_path)
        return ic_fail(error, IC_ERR_CORRUPT, "image '%s': names no kernel or no root filesystem", c->image);
    r = part_check_kernel(record->kernel_path, error);
    if (r == 0 && record->initrd_path)
        r = part_check_file("initrd", record->initrd_path, error);
    if (r == 0)
        r = part_open_rootfs(record->rootfs_path, &s->start.rootfs_fd, error);
    if (r == 0 && c->overlay.kind == IC_OVERLAY_EXT4)
        r = look_at_overlay(s, error);
    return r;
}

static int look_at_host(struct spawn *s, struct ic_error *error)
{
    struct backend_probe probe;
    int r;

    r = backend_pick(s->config.backend, s->config.require_hardware_isolation, &s->backend, &probe, error);
    if (r < 0)
        return r;
    if (s->config.seccomp_level == IC_SECCOMP_PERMISSIVE && !(s->backend->capabilities & BACKEND_PERMISSIVE))
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "seccomp_level permissive: the backend %s has filters of its own, which always refuse; minimal and "
                "basic are both its own, or take another --backend",
                ic_backend_name(s->backend->id));
    if ((s->config.max_connections > 0 || s->config.max_lifetime_ms > 0) &&
            !(s->backend->capabilities & BACKEND_LIMITS))
        return ic_fail(error, IC_ERR_UNSUPPORTED,
                "%s: backend %s has no such limit; leave the key out, or use another backend",
                s->config.max_lifetime_ms > 0 ? "max_lifetime_ms" : "max_connections", ic_backend_name(s->backend->id));
    s->record.backend = s->backend->id;
    s->record.isolation = probe.isolation;
    return 0;
}

static void fill_record(struct spawn *s)
{
    const struct ic_vm_config *c = &s->config;
    struct record *r = &s->record;

    r->state = IC_VM_CREATED;
    r->keep = c->keep;
    r->tied = c->tied_to_caller;
    r->vcpu_count = c->vcpu_count;
    r->memory_mib = c->memory_mib;
    r->timeout_ms = c->timeout_ms;
    r->boot_timeout_ms = c->boot_timeout_ms;
    if (r->boot_timeout_ms == 0)
        r->boot_timeout_ms =
                r->isolation == IC_ISOLATION_HARDWARE ? BOOT_TIMEOUT_HARDWARE_MS : BOOT_TIMEOUT_SOFTWARE_MS;
    r->max_lifetime_ms = c->max_lifetime_ms;
    r->max_output_bytes = c->max_output_bytes;
    r->max_connections = c->max_connections;
    r->max_disk_mib_per_s = c->max_disk_mib_per_s;
    r->max_disk_ops_per_s = c->max_disk_ops_per_s;
    r->overlay_kind = c->overlay.kind;
    r->overlay_size_mib = c->overlay.size_mib ? c->overlay.size_mib : c->memory_mib / 2;
    r->seccomp_level = c->seccomp_level;
    r->jail_mode = c->jail;
    r->guest_seccomp = c->guest_seccomp;
    r->require_hardware_isolation = c->require_hardware_isolation;
    r->created_unix_ms = spawn_unix_ms();
}

/* What it was when it was saved; what it opens must be there still. */
static int look_at_origin(struct spawn *s, struct ic_error *error)
{
    const struct snapshot *from = s->plan.from;
    struct record *record = &s->record;
    struct backend_probe probe = {0};
    int r = snapshot_copy_record(record, &from->vm, error);

    if (r == 0)
        r = backend_pick(record->backend, record->require_hardware_isolation, &s->backend, &probe, error);
    if (r < 0)
        return r;
    if (probe.isolation != record->isolation)
        return ic_fail(error, IC_ERR_UNSUPPORTED, "%s %s: was taken under %s, and here is %s (%s)",
                snapshot_kind(from->store), from->name, ic_isolation_name(record->isolation),
                ic_isolation_name(probe.isolation), probe.reason);
    if (record->overlay_kind != IC_OVERLAY_TMPFS || record->overlay_path)
        return ic_fail(error, IC_ERR_CORRUPT, "%s %s: its manifest names a disk, which none has",
                snapshot_kind(from->store), from->name);
    if (record->image_digest[0]) /* until there is a record that says who needs it */
        s->image.lock_fd = image_hold(record->image_digest);
    r = part_open_rootfs(record->rootfs_path, &s->start.rootfs_fd, error);
    if (r < 0)
        return r;
    /* How its processes are confined is not for a file to say that may come from anywhere. */
    record->jail_mode = s->config.jail;
    record->seccomp_level = s->config.seccomp_level;
    record->state = IC_VM_CREATED;
    record->keep = s->config.keep;
    record->tied = s->config.tied_to_caller;
    record->max_lifetime_ms = s->config.max_lifetime_ms;
    if (s->plan.max_disk_mib_per_s > 0)
        record->max_disk_mib_per_s = s->plan.max_disk_mib_per_s == UINT32_MAX ? 0 : s->plan.max_disk_mib_per_s;
    if (s->plan.max_disk_ops_per_s > 0)
        record->max_disk_ops_per_s = s->plan.max_disk_ops_per_s == UINT32_MAX ? 0 : s->plan.max_disk_ops_per_s;
    record->created_unix_ms = spawn_unix_ms();
    return 0;
}

const char *spawn_test_switch(void)
{
    const char *given = secure_getenv("IRONCLAW_TEST_NO_RESEED");

    return given && strcmp(given, "1") == 0 ? "ironclaw.test_no_reseed=1" : NULL;
}

/* VMs that are configured alike begin from one template. Without one, for whatever reason, there is the long way; it
 * then says better what is wrong with the VM, if that was it. */
static int look_for_template(struct spawn *s, struct ic_error *error)
{
    const struct ic_vm_config *c = &s->config;
    struct ic_error why = {0};
    bool built;
    int r;

    if (c->cold_start || s->plan.for_template || s->plan.from ||
            template_none(s->backend, &s->record, c->kernel_path || c->initrd_path || c->rootfs_path))
        return 0;
    r = template_get(c, s->backend, &s->record, false, &s->template_, &built, &why);
    if (r == -IC_ERR_CANCELLED)
        return ic_fail(error, IC_ERR_CANCELLED, "%s", why.message);
    if (r < 0) {
        (void)snprintf(s->cause, sizeof(s->cause), "asked for; there is no template: %.400s", why.message);
        return 0;
    }
    s->plan.from = &s->template_;
    (void)snprintf(s->record.origin, sizeof(s->record.origin), "template %s%s", s->template_.name,
            spawn_test_switch() ? " for tests: not reseeded" : "");
    return 0;
}

int spawn_look(struct spawn *s, const struct ic_vm_config *config, struct ic_error *error)
{
    int r = ic_vm_config_validate(config, error);

    if (r == 0)
        r = config_copy(&s->config, config, error);
    if (r == 0 && s->plan.restore) {
        r = look_at_origin(s, error);
    } else if (r == 0) {
        r = look_at_host(s, error);
        if (r == 0)
            r = look_at_parts(s, error);
        if (r == 0)
            fill_record(s);
    }
    if (r < 0)
        return r;
    if (s->plan.origin)
        (void)snprintf(s->record.origin, sizeof(s->record.origin), "%s", s->plan.origin);
    r = limits_load(&s->limits, error);
    if (r == 0)
        r = limits_check_vm(&s->limits, &s->record, error);
    if (r < 0)
        return r;
    r = process_boot_id(s->record.boot_id);
    if (r == 0)
        r = process_identify(getpid(), &s->record.creator);
    return r < 0 ? ic_fail_errno(error, r, "/proc (is it mounted?)") : look_for_template(s, error);
}
