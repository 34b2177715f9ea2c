/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who needs an image. A VM that runs has its parts open, but copies of it open
 * them by their paths; a snapshot has only these. So an image without a name,
 * since another was built or imported by that name, stays for them, until a
 * change of images or the end of a snapshot finds that nobody needs it.
 */
#include <string.h>

#include "base/macro.h"
#include "orchestrator/images/image.h"
#include "orchestrator/images/store.h"
#include "orchestrator/snapshots/snapshot.h"
#include "orchestrator/state.h"
#include "orchestrator/table.h"

/* digest: "" when it can't be read of a snapshot. */
typedef int (*user_fn)(const char *kind, const char *name, const char *digest, void *userdata, struct ic_error *error);

static int ask_vm(const char *vm_id, user_fn fn, void *userdata, struct ic_error *error)
{
    struct record record = {0};
    int r = table_read(&record, vm_id, error);

    /* Gone, or nothing that could be copied. One of another version's is somebody's. */
    if (r == -IC_ERR_NOT_FOUND || r == -IC_ERR_CORRUPT)
        return 0;
    if (r < 0)
        return r;
    if (!state_is_final(record.state) && record.image_digest[0])
        r = fn("VM", vm_id, record.image_digest, userdata, error);
    record_deinit(&record);
    return r;
}

/* What `fn` says of the first user for which that is not 0. */
static int each_user(user_fn fn, void *userdata, struct ic_error *error)
{
    _cleanup_(freep) struct ic_snapshot_info *infos = NULL;
    size_t count = 0;
    char **ids = NULL;
    int r = table_ids(&ids, &count, error);

    if (r < 0)
        return r;
    for (size_t i = 0; r == 0 && i < count; i++)
        r = ask_vm(ids[i], fn, userdata, error);
    table_free_ids(ids, count);
    if (r == 0)
        r = ic_snapshot_list(&infos, &count, error);
    for (size_t i = 0; r == 0 && i < count; i++) {
        if (infos[i].image_digest[0] || infos[i].backend == IC_BACKEND_AUTO)
            r = fn("snapshot", infos[i].name, infos[i].image_digest, userdata, error);
    }
    return r;
}

static int note(const char *kind, const char *name, const char *digest, void *userdata, struct ic_error *error)
{
    if (!digest[0])
        return ic_fail(error, IC_ERR_CORRUPT, "%s %s: can't be read, and may need any image", kind, name);
    return strlist_add(userdata, digest, error);
}

static int needed(struct strlist *ret, struct ic_error *error)
{
    return each_user(note, ret, error);
}

struct question {
    const char *object, *image;
    bool named;
};

static int is_other(const char *kind, const char *name, const char *digest, void *userdata, struct ic_error *error)
{
    const struct question *q = userdata;

    if (!digest[0] && !q->named)
        return ic_fail(error, IC_ERR_STATE,
                "image %.128s: %s '%s' can't be read, and may need it; 'ironclaw %s rm %s' removes that", q->image,
                kind, name, kind, name);
    if (strcmp(digest, q->object) != 0)
        return 0;
    if (q->named)
        return ic_fail(error, IC_ERR_STATE,
                "image %.128s: %s '%s' needs it; 'ironclaw image rm -f %.128s' takes only its name", q->image, kind,
                name, q->image);
    return ic_fail(error, IC_ERR_STATE,
            "image %.128s: %s '%s' needs it, and can't be copied or restored after 'ironclaw image rm -f %.128s'",
            q->image, kind, name, q->image);
}

static int is_unused(const char *object, const char *name, bool named, struct ic_error *error)
{
    (void)table_reap(NULL);
    return each_user(is_other, &(struct question){object, name, named}, error);
}

static void images_collect(void)
{
    store_collect(STORE_IMAGES, needed);
}

int ic_image_build(const struct ic_image_build_options *options, bool *ret_built, struct ic_error *error)
{
    int r = image_build(options, ret_built, error);

    if (r == 0)
        images_collect();
    return r;
}

int ic_image_import(const char *path, const struct ic_image_import_options *options, struct ic_error *error)
{
    int r = image_import(path, options, error);

    if (r == 0)
        images_collect();
    return r;
}

int ic_image_remove(const char *name, bool force, struct ic_error *error)
{
    int r = image_remove(name, force ? NULL : is_unused, force ? NULL : needed, error);

    images_collect(); /* also of a digest of which only some names could be removed */
    return r;
}

int ic_snapshot_remove(const char *name, struct ic_error *error)
{
    int r = snapshot_remove(STORE_SNAPSHOTS, name, error);

    if (r == 0)
        images_collect(); /* its own, perhaps */
    return r;
}
