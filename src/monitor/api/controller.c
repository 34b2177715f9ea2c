/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The rules are Firecracker's (its API description, "Pre-boot only" and
 * "Post-boot only"), and so are the texts of those refusals that its clients
 * match.
 */
#include "monitor/api/controller.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "monitor/api/request.h"

#define CONFIG_FILE_MAX ((size_t)256 << 10)

void controller_init(struct controller *c, const char *id, const struct controller_ops *ops, void *userdata)
{
    *c = (struct controller){.ops = ops, .userdata = userdata};
    vm_config_init(&c->config);
    if (id)
        (void)snprintf(c->config.id, sizeof(c->config.id), "%s", id);
}

void controller_deinit(struct controller *c)
{
    vm_config_deinit(&c->config);
}

/* What must hold between the sizes of machine and balloon, whichever is set last. */
static int check_memory(
        const struct machine_config *machine, const struct balloon_config *balloon, struct vm_error *error)
{
    if (machine->huge_pages == HUGE_PAGES_2M && machine->mem_size_mib % 2)
        return vm_fail(error, -EINVAL,
                "The memory size (MiB) is either 0, or not a multiple of the configured page size. mem_size_mib is %u, "
                "huge_pages 2M",
                machine->mem_size_mib);
    if (!balloon->present)
        return 0;
    if (machine->huge_pages == HUGE_PAGES_2M)
        return vm_fail(error, -EINVAL,
                "A balloon gives back pages of 4 KiB, which huge pages can't; set huge_pages to None or leave out the "
                "balloon.");
    if (balloon->amount_mib > machine->mem_size_mib)
        return vm_fail(error, -EINVAL,
                "Amount of pages requested is too large. The balloon's amount_mib %u is more than mem_size_mib %u",
                balloon->amount_mib, machine->mem_size_mib);
    return 0;
}

static int set_machine(struct controller *c, const struct api_request *r, struct vm_error *error)
{
    struct machine_config machine = r->machine;
    int rc;

    if (r->verb == API_PATCH_MACHINE_CONFIG) {
        machine = c->config.machine;
        if (r->has & API_HAS_VCPU_COUNT)
            machine.vcpu_count = r->machine.vcpu_count;
        if (r->has & API_HAS_MEM_SIZE)
            machine.mem_size_mib = r->machine.mem_size_mib;
        if (r->has & API_HAS_TRACK_DIRTY)
            machine.track_dirty_pages = r->machine.track_dirty_pages;
        if (r->has & API_HAS_HUGE_PAGES)
            machine.huge_pages = r->machine.huge_pages;
    }
    rc = check_memory(&machine, &c->config.balloon, error);
    if (rc == 0)
        c->config.machine = machine;
    return rc;
}

/* What was there before goes with the request. */
#define SWAP(a, b)                                                                                                     \
    do {                                                                                                               \
        __typeof__(a) swap_ = (a);                                                                                     \
        (a) = (b);                                                                                                     \
        (b) = swap_;                                                                                                   \
    } while (0)

static size_t find_drive(const struct controller *c, const char *id)
{
    size_t i = 0;

    while (i < c->config.drive_count && strcmp(c->config.drives[i].drive_id, id) != 0)
        i++;
    return i;
}

/* A known id is replaced in its place; a root device comes first, as guests count their disks. */
static int set_drive(struct controller *c, struct api_request *r, struct vm_error *error)
{
    struct drive_config *drives = c->config.drives;
    size_t i = find_drive(c, r->drive.drive_id);

    if (r->drive.is_root_device && i != 0 && drives[0].is_root_device)
        return vm_fail(error, -EEXIST, "A root block device already exists!");
    if (i == VM_MAX_DRIVES)
        return vm_fail(
                error, -ENOSPC, "Drive %s is one too many: a VM has at most %u.", r->drive.drive_id, VM_MAX_DRIVES);
    c->config.drive_count += i == c->config.drive_count;
    SWAP(drives[i], r->drive);
    for (; drives[i].is_root_device && i > 0; i--)
        SWAP(drives[i], drives[i - 1]);
    return 0;
}

static int patch_drive(struct controller *c, struct api_request *r, struct vm_error *error)
{
    size_t i = find_drive(c, r->drive.drive_id);
    int rc;

    if (i == c->config.drive_count)
        return vm_fail(error, -ENOENT, "There is no drive %s.", r->drive.drive_id);
    if (!r->drive.path_on_host) /* Firecracker takes that for no change */
        return 0;
    rc = c->ops->update_drive(c->userdata, r->drive.drive_id, r->drive.path_on_host, error);
    if (rc == 0)
        SWAP(c->config.drives[i].path_on_host, r->drive.path_on_host);
    return rc;
}

static int set_metrics(struct controller *c, const struct api_request *r, struct vm_error *error)
{
    int rc;

    if (c->has_metrics)
        return vm_fail(error, -EEXIST, "The metrics have their file already; it can't be changed.");
    rc = c->ops->set_metrics(c->userdata, r->logger.path, error);
    c->has_metrics = rc == 0;
    return rc;
}

static int set_balloon(struct controller *c, const struct api_request *r, struct vm_error *error)
{
    int rc = check_memory(&c->config.machine, &r->balloon, error);

    if (rc == 0)
        c->config.balloon = r->balloon;
    return rc;
}

static int need_balloon(const struct controller *c, struct vm_error *error)
{
    return c->config.balloon.present ? 0 : vm_fail(error, -ENOENT, "No balloon device found.");
}

static int patch_balloon(struct controller *c, const struct api_request *r, struct vm_error *error)
{
    struct balloon_config balloon = c->config.balloon;
    int rc = need_balloon(c, error);

    balloon.amount_mib = r->balloon.amount_mib;
    if (rc == 0)
        rc = check_memory(&c->config.machine, &balloon, error);
    if (rc == 0)
        rc = c->ops->balloon_target(c->userdata, balloon.amount_mib, error);
    if (rc == 0)
        c->config.balloon = balloon;
    return rc;
}

static int patch_balloon_stats(struct controller *c, const struct api_request *r, struct vm_error *error)
{
    uint32_t seconds = r->balloon.stats_polling_interval_s;
    int rc = need_balloon(c, error);

    /* The queue for them is there or not since the guest's driver looked. */
    if (rc == 0 && (seconds == 0) != (c->config.balloon.stats_polling_interval_s == 0))
        rc = vm_fail(error, -EINVAL, "Cannot enable/disable the statistics after boot.");
    if (rc == 0)
        rc = c->ops->balloon_interval(c->userdata, seconds, error);
    if (rc == 0)
        c->config.balloon.stats_polling_interval_s = seconds;
    return rc;
}

int controller_start(struct controller *c, struct vm_error *error)
{
    int rc;

    if (!c->config.boot.kernel_image_path)
        return vm_fail(error, -EINVAL, "Cannot start microvm without kernel configuration.");
    rc = c->ops->start(c->userdata, &c->config, error);
    if (rc == 0)
        c->state = CONTROLLER_RUNNING;
    return rc;
}

/* Pausing what is paused already is no mistake. */
static int set_paused(struct controller *c, bool paused, struct vm_error *error)
{
    enum controller_state wanted = paused ? CONTROLLER_PAUSED : CONTROLLER_RUNNING;
    int rc;

    if (c->state == wanted)
        return 0;
    rc = paused ? c->ops->pause(c->userdata, error) : c->ops->resume(c->userdata, error);
    if (rc == 0)
        c->state = wanted;
    return rc;
}

static json_t *machine_json(const struct machine_config *m)
{
    return json_pack("{s:i, s:I, s:b, s:b, s:s}", "vcpu_count", (int)m->vcpu_count, "mem_size_mib",
            (json_int_t)m->mem_size_mib, "smt", m->smt, "track_dirty_pages", m->track_dirty_pages, "huge_pages",
            m->huge_pages == HUGE_PAGES_2M ? "2M" : "None");
}

static json_t *balloon_json(const struct balloon_config *b)
{
    return b->present ? json_pack("{s:I, s:b, s:i}", "amount_mib", (json_int_t)b->amount_mib, "deflate_on_oom",
                                b->deflate_on_oom, "stats_polling_interval_s", (int)b->stats_polling_interval_s)
                      : json_null();
}

/*
 * A client that looks at app_name learns which monitor it drives; none is known that insists on Firecracker's. The
 * version is ours for the same reason.
 */
static json_t *instance_json(const struct controller *c)
{
    static const char *const states[] = {"Not started", "Running", "Paused"};

    return json_pack("{s:s, s:s, s:s, s:s}", "id", c->config.id, "state", states[c->state], "vmm_version",
            IRONCLAW_VERSION, "app_name", "IronClaw");
}

static json_t *drives_json(const struct vm_config *config)
{
    json_t *drives = json_array();

    for (size_t i = 0; i < config->drive_count; i++) {
        const struct drive_config *d = &config->drives[i];

        (void)json_array_append_new(
                drives, json_pack("{s:s, s:n, s:b, s:s, s:b, s:s, s:n, s:s, s:n}", "drive_id", d->drive_id, "partuuid",
                                "is_root_device", d->is_root_device, "cache_type",
                                d->writeback ? "Writeback" : "Unsafe", "is_read_only", d->is_read_only, "path_on_host",
                                d->path_on_host, "rate_limiter", "io_engine", "Sync", "socket"));
    }
    return drives;
}

/* The sections that Firecracker has, also those that are always empty here. It is what --config-file reads. */
static json_t *config_json(const struct vm_config *config)
{
    const struct boot_source *boot = &config->boot;
    json_t *vsock = config->vsock.uds_path ? json_pack("{s:I, s:s}", "guest_cid", (json_int_t)config->vsock.guest_cid,
                                                     "uds_path", config->vsock.uds_path)
                                           : json_null();
    json_t *serial = config->serial.output_path ? json_pack("{s:s}", "serial_out_path", config->serial.output_path)
                                                : json_null();
    json_t *entropy = config->entropy ? json_pack("{s:n}", "rate_limiter") : json_null();

    return json_pack("{s:o, s:o, s:{s:s, s:s?, s:s?}, s:n, s:n, s:o, s:n, s:n, s:[], s:[], s:o, s:o, s:o}", "balloon",
            balloon_json(&config->balloon), "drives", drives_json(config), "boot-source", "kernel_image_path",
            boot->kernel_image_path ? boot->kernel_image_path : "", "initrd_path", boot->initrd_path, "boot_args",
            boot->boot_args, "cpu-config", "logger", "machine-config", machine_json(&config->machine), "metrics",
            "mmds-config", "network-interfaces", "pmem", "vsock", vsock, "serial", serial, "entropy", entropy);
}

/* By the tags of virtio 1.2 §5.5.6.3 and those that Linux added since; names as Firecracker's. */
static int stats_json(struct controller *c, json_t **ret, struct vm_error *error)
{
    static const char *const names[16] = {"swap_in", "swap_out", "major_faults", "minor_faults", "free_memory",
            "total_memory", "available_memory", "disk_caches", "hugetlb_allocations", "hugetlb_failures", "oom_kill",
            "alloc_stall", "async_scan", "direct_scan", "async_reclaim", "direct_reclaim"};
    struct balloon_stats stats = {0};
    int rc = need_balloon(c, error);

    if (rc == 0 && c->config.balloon.stats_polling_interval_s == 0)
        rc = vm_fail(error, -ENOENT, "Statistics for the balloon device are not enabled");
    if (rc == 0)
        rc = c->ops->balloon_stats(c->userdata, &stats, error);
    if (rc < 0)
        return rc;
    *ret = json_pack("{s:I, s:I, s:I, s:I}", "target_pages", (json_int_t)stats.target_pages, "actual_pages",
            (json_int_t)stats.actual_pages, "target_mib", (json_int_t)stats.target_mib, "actual_mib",
            (json_int_t)stats.actual_mib);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        /* The guest's numbers: JSON's here are signed. */
        if (stats.present & (1ull << i))
            (void)json_object_set_new(
                    *ret, names[i], json_integer((json_int_t)MIN(stats.value[i], (uint64_t)INT64_MAX)));
    }
    return 0;
}

/* A VM in motion has no state to write down. */
static int create_snapshot(struct controller *c, const struct api_request *r, struct vm_error *error)
{
    if (c->state != CONTROLLER_PAUSED)
        return vm_fail(error, -EBUSY,
                "Cannot create a snapshot of a running microVM; pause it first (PATCH /vm with state Paused).");
    return c->ops->create_snapshot(c->userdata, &c->config, &r->create, error);
}

static int load_snapshot(struct controller *c, const struct api_request *r, struct vm_error *error)
{
    int rc;

    if (c->configured)
        return vm_fail(
                error, -EBUSY, "Loading a microVM snapshot not allowed after configuring boot-specific resources.");
    rc = c->ops->load_snapshot(c->userdata, &r->load, &c->config, error);
    if (rc == 0)
        c->state = r->load.resume ? CONTROLLER_RUNNING : CONTROLLER_PAUSED;
    return rc;
}

/* When each verb is legal: at any time, before the start, after it. */
enum { ANY_TIME, BEFORE, AFTER };

static int when(enum api_verb verb)
{
    switch (verb) {
    case API_GET_INSTANCE:
    case API_GET_VERSION:
    case API_GET_VM_CONFIG:
    case API_GET_MACHINE_CONFIG:
    case API_GET_BALLOON:
        return ANY_TIME;
    case API_PATCH_DRIVE:
    case API_PATCH_BALLOON:
    case API_GET_BALLOON_STATS:
    case API_PATCH_BALLOON_STATS:
    case API_FLUSH_METRICS:
    case API_CTRL_ALT_DEL:
    case API_PATCH_VM:
    case API_SNAPSHOT_CREATE:
        return AFTER;
    default:
        return BEFORE;
    }
}

static int check_state(const struct controller *c, enum api_verb verb, struct vm_error *error)
{
    if (when(verb) == BEFORE && c->state != CONTROLLER_NOT_STARTED)
        return vm_fail(error, -EBUSY, "The requested operation is not supported after starting the microVM.");
    if (when(verb) == AFTER && c->state == CONTROLLER_NOT_STARTED)
        return vm_fail(error, -EBUSY, "The requested operation is not supported before starting the microVM.");
    return 0;
}

/* What a VM is made of comes from its snapshot; where its log, metrics and serial output go does not. */
static bool is_boot_specific(enum api_verb verb)
{
    return verb >= API_PUT_MACHINE_CONFIG && verb <= API_PUT_BALLOON && verb != API_PUT_SERIAL &&
           verb != API_PUT_LOGGER && verb != API_PUT_METRICS && when(verb) == BEFORE;
}

static int apply(struct controller *c, struct api_request *r, struct vm_error *error)
{
    switch (r->verb) {
    case API_PUT_MACHINE_CONFIG:
    case API_PATCH_MACHINE_CONFIG:
        return set_machine(c, r, error);
    case API_PUT_BOOT_SOURCE:
        SWAP(c->config.boot, r->boot);
        return 0;
    case API_PUT_DRIVE:
        return set_drive(c, r, error);
    case API_PATCH_DRIVE:
        return patch_drive(c, r, error);
    case API_PUT_VSOCK:
        SWAP(c->config.vsock, r->vsock);
        return 0;
    case API_PUT_ENTROPY:
        c->config.entropy = true;
        return 0;
    case API_PUT_SERIAL:
        SWAP(c->config.serial, r->serial);
        return 0;
    case API_PUT_LOGGER:
        return c->ops->set_logger(c->userdata, r, error);
    case API_PUT_METRICS:
        return set_metrics(c, r, error);
    case API_PUT_BALLOON:
        return set_balloon(c, r, error);
    case API_PATCH_BALLOON:
        return patch_balloon(c, r, error);
    case API_PATCH_BALLOON_STATS:
        return patch_balloon_stats(c, r, error);
    case API_START:
        return controller_start(c, error);
    case API_FLUSH_METRICS:
        return c->ops->flush_metrics(c->userdata, error);
    case API_CTRL_ALT_DEL:
        return c->ops->ctrl_alt_del(c->userdata, error);
    case API_PATCH_VM:
        return set_paused(c, r->paused, error);
    case API_SNAPSHOT_CREATE:
        return create_snapshot(c, r, error);
    default:
        return load_snapshot(c, r, error);
    }
}

static int change(struct controller *c, struct api_request *r, struct vm_error *error)
{
    int rc = apply(c, r, error);

    if (rc == 0 && is_boot_specific(r->verb))
        c->configured = true;
    return rc;
}

static int describe(struct controller *c, enum api_verb verb, json_t **ret, struct vm_error *error)
{
    switch (verb) {
    case API_GET_INSTANCE:
        *ret = instance_json(c);
        return 0;
    case API_GET_VERSION:
        *ret = json_pack("{s:s}", "firecracker_version", IRONCLAW_VERSION);
        return 0;
    case API_GET_VM_CONFIG:
        *ret = config_json(&c->config);
        return 0;
    case API_GET_MACHINE_CONFIG:
        *ret = machine_json(&c->config.machine);
        return 0;
    case API_GET_BALLOON:
        *ret = balloon_json(&c->config.balloon);
        return need_balloon(c, error); /* null needs no release */
    case API_GET_BALLOON_STATS:
        return stats_json(c, ret, error);
    default:
        return 1; /* not a question */
    }
}

/* 200 with the JSON, which is released. */
static void answer(struct api_response *response, json_t *json)
{
    size_t n = json ? json_dumpb(json, response->body, sizeof(response->body) - 1, JSON_COMPACT) : 0;

    json_decref(json);
    response->status = 200;
    if (n == 0 || n >= sizeof(response->body))
        api_fault(response, "The answer would be longer than %u bytes; use shorter paths.", API_MAX_RESPONSE - 1);
    else
        response->body[n] = '\0';
}

void controller_handle(struct controller *c, struct api_request *request, struct api_response *response)
{
    struct vm_error error = {0};
    json_t *json = NULL;
    int rc = check_state(c, request->verb, &error);

    response->body[0] = '\0';
    response->status = 204;
    if (rc == 0)
        rc = describe(c, request->verb, &json, &error);
    if (rc < 0)
        api_fault(response, "%s", error.text);
    else if (rc == 0)
        answer(response, json);
    else if (change(c, request, &error) < 0)
        api_fault(response, "%s", error.text);
}

static int load_body(struct controller *c, enum api_verb verb, const json_t *body, struct vm_error *error)
{
    struct api_request request;
    int rc = api_parse_body(&request, verb, body, error);

    if (rc < 0)
        return rc;
    rc = change(c, &request, error);
    api_request_deinit(&request);
    return rc;
}

/* In the order in which they are applied, so that a logger sees the rest, and sizes are there before the balloon. The
 * last ones are Firecracker's own, which may be there as long as they say nothing. */
static const struct section {
    const char *name;
    enum { ONE, LIST, EMPTY } kind;
    enum api_verb verb;
} sections[] = {
        {"logger", ONE, API_PUT_LOGGER},
        {"metrics", ONE, API_PUT_METRICS},
        {"machine-config", ONE, API_PUT_MACHINE_CONFIG},
        {"boot-source", ONE, API_PUT_BOOT_SOURCE},
        {"drives", LIST, API_PUT_DRIVE},
        {"vsock", ONE, API_PUT_VSOCK},
        {"entropy", ONE, API_PUT_ENTROPY},
        {"balloon", ONE, API_PUT_BALLOON},
        {"serial", ONE, API_PUT_SERIAL},
        {"network-interfaces", EMPTY},
        {"mmds-config", EMPTY},
        {"cpu-config", EMPTY},
        {"pmem", EMPTY},
        {"memory-hotplug", EMPTY},
};

static int load_section(
        struct controller *c, const struct section *section, const json_t *value, struct vm_error *error)
{
    int rc = 0;

    if (!value || json_is_null(value))
        return 0;
    if (section->kind == ONE)
        return load_body(c, section->verb, value, error);
    if (!json_is_array(value) || (section->kind == EMPTY && json_array_size(value) > 0))
        return vm_fail(error, -EINVAL,
                section->kind == LIST ? "not a list"
                                      : "not supported: IronClaw VMs have drives, a vsock, an entropy device, a "
                                        "balloon, and no network card");
    for (size_t i = 0; i < json_array_size(value) && rc == 0; i++)
        rc = load_body(c, section->verb, json_array_get(value, i), error);
    return rc;
}

static int load_sections(struct controller *c, const json_t *root, struct vm_error *error)
{
    struct vm_error why = {0};
    const char *key;
    json_t *value;

    if (!json_is_object(root))
        return vm_fail(error, -EINVAL, "not a JSON object of sections");
    json_object_foreach((json_t *)root, key, value)
    {
        size_t i = 0;

        while (i < ARRAY_SIZE(sections) && strcmp(key, sections[i].name) != 0)
            i++;
        if (i == ARRAY_SIZE(sections))
            return vm_fail(error, -EINVAL, "unknown section \"%.64s\"", key);
    }
    for (size_t i = 0; i < ARRAY_SIZE(sections); i++) {
        int rc = load_section(c, &sections[i], json_object_get(root, sections[i].name), &why);

        if (rc < 0)
            return vm_fail(error, rc, "section \"%s\": %.400s", sections[i].name, why.text);
    }
    return 0;
}

int controller_load_file(struct controller *c, const char *path, struct vm_error *error)
{
    _cleanup_(json_decrefp) json_t *root = NULL;
    _cleanup_(freep) char *text = NULL;
    struct vm_error why = {0};
    size_t len;
    int rc = fd_read_file(AT_FDCWD, path, CONFIG_FILE_MAX, &text, &len);

    if (rc == -EFBIG)
        return vm_fail(error, rc, "configuration %.300s: longer than %zu bytes", path, CONFIG_FILE_MAX);
    if (rc < 0)
        return vm_fail(error, rc, "configuration %.300s: %s", path, strerror(-rc));
    root = api_parse_json(text, len, &why);
    rc = root ? load_sections(c, root, &why) : -EINVAL;
    return rc < 0 ? vm_fail(error, rc, "configuration %.150s: %.300s", path, why.text) : 0;
}
