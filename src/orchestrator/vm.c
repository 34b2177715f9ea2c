/* SPDX-License-Identifier: Apache-2.0 */
/* Handles and what can be asked about VMs without talking to them. */
#include "orchestrator/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#include "base/fd.h"
#include "orchestrator/paths.h"
#include "orchestrator/state.h"

int vm_new(const char *vm_id, ic_vm **ret, struct ic_error *error)
{
    ic_vm *vm = calloc(1, sizeof(*vm));

    if (!vm)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    (void)snprintf(vm->vm_id, sizeof(vm->vm_id), "%s", vm_id);
    vm->ready_fd = -1;
    *ret = vm;
    return 0;
}

/* Closing the connection of a tied VM would end it, and this releases only the handle: as long as such a VM lives, the
 * descriptor is left to the end of the process, which is what the VM is tied to. */
void ic_vm_free(ic_vm *vm)
{
    struct record record = {0};
    bool lives;

    if (!vm)
        return;
    if (vm->ready_fd >= 0) {
        lives = table_read(&record, vm->vm_id, NULL) == 0 && !state_is_final(record.state) && table_healthy(&record);
        if (!lives)
            fd_close(vm->ready_fd);
        record_deinit(&record);
    }
    free(vm);
}

/* The whole id, or the only one that begins so. */
static int match_id(const char *wanted, char *const *ids, size_t count, size_t *ret, struct ic_error *error)
{
    size_t found = 0, at = 0;

    for (size_t i = 0; i < count; i++) {
        if (strcmp(ids[i], wanted) == 0) {
            *ret = i;
            return 0;
        }
        if (strncmp(ids[i], wanted, strlen(wanted)) == 0 && found++ == 0)
            at = i;
    }
    if (found == 0)
        return ic_fail(error, IC_ERR_NOT_FOUND, "no VM '%s'; 'ironclaw ps -a' lists them", wanted);
    if (found > 1)
        return ic_fail(error, IC_ERR_INVALID, "VM '%s': begins the ids of %zu VMs (%s, %s%s); give more of it", wanted,
                found, ids[at], ids[at + 1], found > 2 ? ", ..." : "");
    *ret = at;
    return 0;
}

int ic_open_vm(const char *vm_id, ic_vm **ret_vm, struct ic_error *error)
{
    size_t count = 0, at = 0;
    char **ids = NULL;
    int r;

    if (!vm_id || !path_vm_id_ok(vm_id))
        return ic_fail(error, IC_ERR_INVALID, "vm id: must be 1 to %d of the characters a-z A-Z 0-9 _ -", IC_VM_ID_MAX);
    (void)table_reap(NULL); /* another VM that can't be cleaned up now (a full disk) does not keep this one from us */
    r = table_ids(&ids, &count, error);
    if (r == 0)
        r = match_id(vm_id, ids, count, &at, error);
    if (r == 0)
        r = vm_new(ids[at], ret_vm, error);
    table_free_ids(ids, count);
    return r;
}

/* A VM that crashed and could not be settled, since its record can't be written. */
static void tell_the_truth(struct record *record)
{
    if ((record->state != IC_VM_READY && record->state != IC_VM_PAUSED) || table_healthy(record))
        return;
    record->state = IC_VM_FAILED;
    record->monitor = record->vsock = (struct process_id){0};
    (void)snprintf(record->failure, sizeof(record->failure), "its processes ended; it could not be cleaned up yet");
}

/* As it is, and not as it was when a command last looked. */
static int read_now(struct record *ret, const char *vm_id, struct ic_error *error)
{
    int r = table_read(ret, vm_id, error);

    if (r < 0 || (ret->state != IC_VM_READY && ret->state != IC_VM_PAUSED) || table_healthy(ret))
        return r;
    record_deinit(ret);
    *ret = (struct record){0};
    (void)table_reap(NULL);
    r = table_read(ret, vm_id, error);
    if (r == 0)
        tell_the_truth(ret);
    return r;
}

int ic_vm_info(ic_vm *vm, struct ic_vm_info *ret, struct ic_error *error)
{
    _cleanup_(record_deinitp) struct record record = {0};
    int r = read_now(&record, vm->vm_id, error);

    if (r == 0)
        record_to_info(&record, ret);
    return r;
}

static int compare_age(const void *a, const void *b)
{
    const struct ic_vm_info *x = a, *y = b;

    if (x->created_unix_ms != y->created_unix_ms)
        return x->created_unix_ms < y->created_unix_ms ? -1 : 1;
    return strcmp(x->vm_id, y->vm_id);
}

int ic_list_vms(struct ic_vm_info **ret, size_t *ret_count, struct ic_error *error)
{
    struct ic_vm_info *infos = NULL;
    size_t count = 0, listed = 0;
    char **ids = NULL;
    int r;

    (void)table_reap(NULL);
    r = table_ids(&ids, &count, error);
    if (r < 0)
        return r;
    infos = calloc(count + 1, sizeof(*infos)); /* never NULL for an empty list */
    for (size_t i = 0; infos && i < count; i++) {
        struct record record;

        if (table_read(&record, ids[i], NULL) < 0)
            continue; /* removed meanwhile */
        tell_the_truth(&record);
        record_to_info(&record, &infos[listed++]);
        record_deinit(&record);
    }
    table_free_ids(ids, count);
    if (!infos)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    qsort(infos, listed, sizeof(*infos), compare_age);
    *ret = infos;
    *ret_count = listed;
    return 0;
}

int ic_vm_inspect_json(ic_vm *vm, char **ret, struct ic_error *error)
{
    _cleanup_(record_deinitp) struct record record = {0};
    int r = read_now(&record, vm->vm_id, error);
    _cleanup_(freep) char *dir = NULL;
    char *text;
    json_t *root;

    if (r < 0)
        return r;
    r = path_in(&dir, error, IC_PATH_STATE, "vms/%s", vm->vm_id);
    if (r < 0)
        return r;
    text = record_encode(&record);
    root = text ? json_loads(text, 0, NULL) : NULL;
    free(text);
    text = NULL;
    if (root && json_object_set_new(root, "state_dir", json_string(dir)) == 0)
        text = json_dumps(root, JSON_INDENT(2));
    json_decref(root);
    if (!text)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    *ret = text;
    return 0;
}

int ic_vm_open_log(ic_vm *vm, enum ic_log log, int *ret_fd, struct ic_error *error)
{
    const char *name = log == IC_LOG_CONSOLE ? "console.log" : "monitor.log";
    _cleanup_(freep) char *path = NULL;
    int fd, r;

    if (log != IC_LOG_CONSOLE && log != IC_LOG_MONITOR)
        return ic_fail(error, IC_ERR_INVALID, "log %d: there is none with this number", (int)log);
    r = path_in(&path, error, IC_PATH_STATE, "vms/%s/%s", vm->vm_id, name);
    if (r < 0)
        return r;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT)
        return ic_fail(error, IC_ERR_NOT_FOUND, "VM '%s': has no %s; it is gone, or has not started", vm->vm_id, name);
    if (fd < 0)
        return ic_fail_errno(error, -errno, "log %s", path);
    *ret_fd = fd;
    return 0;
}
