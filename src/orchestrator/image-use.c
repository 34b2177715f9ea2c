/* SPDX-License-Identifier: Apache-2.0 */
/* Who needs an image. A VM that runs has its parts open, but is copied from their paths; a snapshot has only these. */
#include <string.h>

#include "base/macro.h"
#include "orchestrator/images/image.h"
#include "orchestrator/snapshots/snapshot.h"
#include "orchestrator/state.h"
#include "orchestrator/table.h"

static bool vm_uses(const char *vm_id, const char *object)
{
    struct record record = {0};
    bool uses;

    if (table_read(&record, vm_id, NULL) < 0)
        return false;
    uses = !state_is_final(record.state) && strcmp(record.image_digest, object) == 0;
    record_deinit(&record);
    return uses;
}

static int no_vm_uses(const char *object, const char *name, struct ic_error *error)
{
    size_t count = 0;
    char **ids = NULL;
    int r = table_ids(&ids, &count, error);

    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (vm_uses(ids[i], object))
            r = ic_fail(error, IC_ERR_STATE,
                    "image %.128s: VM '%s' uses it; end that first ('ironclaw rm -f %s'), or use 'ironclaw image rm -f "
                    "%.128s'",
                    name, ids[i], ids[i], name);
    }
    table_free_ids(ids, count);
    return r;
}

static int no_snapshot_uses(const char *object, const char *name, struct ic_error *error)
{
    _cleanup_(freep) struct ic_snapshot_info *infos = NULL;
    size_t count = 0;
    int r = ic_snapshot_list(&infos, &count, error);

    for (size_t i = 0; r == 0 && i < count; i++) {
        if (strcmp(infos[i].image_digest, object) == 0)
            r = ic_fail(error, IC_ERR_STATE,
                    "image %.128s: snapshot '%s' needs it; remove that first ('ironclaw snapshot rm %s'), or use "
                    "'ironclaw image rm -f %.128s'",
                    name, infos[i].name, infos[i].name, name);
    }
    return r;
}

static int is_unused(const char *object, const char *name, struct ic_error *error)
{
    int r;

    (void)table_reap(NULL);
    r = no_vm_uses(object, name, error);
    return r < 0 ? r : no_snapshot_uses(object, name, error);
}

int ic_image_remove(const char *name, bool force, struct ic_error *error)
{
    return image_remove(name, force ? NULL : is_unused, error);
}
