/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who needs an image. A VM that runs has its parts open, but copies of it open
 * them by their paths; a snapshot has only these. So an image without a name,
 * since another was built or imported by that name, stays for them.
 */
#include <string.h>

#include "base/macro.h"
#include "orchestrator/images/image.h"
#include "orchestrator/images/store.h"
#include "orchestrator/snapshots/snapshot.h"
#include "orchestrator/state.h"
#include "orchestrator/table.h"

/* What `fn` says of the first user for which that is not 0. What can't be read can't be copied or restored either. */
static int each_user(int (*fn)(const char *kind, const char *name, const char *digest, void *userdata), void *userdata,
        struct ic_error *error)
{
    _cleanup_(freep) struct ic_snapshot_info *infos = NULL;
    size_t count = 0;
    char **ids = NULL;
    int r = table_ids(&ids, &count, error);

    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < count; i++) {
        struct record record = {0};

        if (table_read(&record, ids[i], NULL) < 0)
            continue;
        if (!state_is_final(record.state) && record.image_digest[0])
            r = fn("VM", ids[i], record.image_digest, userdata);
        record_deinit(&record);
    }
    table_free_ids(ids, count);
    if (r == 0)
        r = ic_snapshot_list(&infos, &count, error);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (infos[i].image_digest[0])
            r = fn("snapshot", infos[i].name, infos[i].image_digest, userdata);
    }
    return r;
}

static int note(const char *kind, const char *name, const char *digest, void *userdata)
{
    return strlist_add(userdata, digest, NULL);
}

int store_images_needed(struct strlist *ret, struct ic_error *error)
{
    return each_user(note, ret, error);
}

struct question {
    const char *object, *image;
    struct ic_error *error;
};

static int is_other(const char *kind, const char *name, const char *digest, void *userdata)
{
    const struct question *q = userdata;

    if (strcmp(digest, q->object) != 0)
        return 0;
    return ic_fail(q->error, IC_ERR_STATE,
            "image %.128s: %s '%s' needs it; 'ironclaw image rm -f %.128s' removes its name all the same, and the rest "
            "when nothing needs it",
            q->image, kind, name, q->image);
}

static int is_unused(const char *object, const char *name, struct ic_error *error)
{
    (void)table_reap(NULL);
    return each_user(is_other, &(struct question){object, name, error}, error);
}

int ic_image_remove(const char *name, bool force, struct ic_error *error)
{
    return image_remove(name, force ? NULL : is_unused, error);
}
