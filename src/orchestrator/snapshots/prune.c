/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/snapshots/prune.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/fd.h"
#include "base/log.h"
#include "orchestrator/config.h"
#include "orchestrator/paths.h"
#include "orchestrator/snapshots/snapshot.h"

#define DEFAULT_AGE_DAYS  30u
#define DEFAULT_TOTAL_MIB 8192u
#define MAX_AGE_DAYS      36500u
#define MAX_TOTAL_MIB     (1u << 30)
#define DAY_MS            (24 * 3600 * (int64_t)1000)

int prune_parse(const json_t *object, uint32_t *ret_max_age_days, uint32_t *ret_max_total_mib, struct ic_error *error)
{
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return ic_fail(error, IC_ERR_INVALID, "templates: must be an object {...}");
    json_object_foreach((json_t *)object, name, value)
    {
        bool age = strcmp(name, "max_age_days") == 0;
        uint32_t max = age ? MAX_AGE_DAYS : MAX_TOTAL_MIB;
        char shown[100];

        if (!age && strcmp(name, "max_total_mib") != 0)
            return ic_fail(error, IC_ERR_INVALID,
                    "unknown key 'templates.%s'; the keys are max_age_days, max_total_mib",
                    log_escape(shown, sizeof(shown), name, strlen(name)));
        if (!json_is_integer(value) || json_integer_value(value) < 1 || json_integer_value(value) > max)
            return ic_fail(error, IC_ERR_INVALID, "templates.%s: must be a whole number, 1 to %u", name, max);
        *(age ? ret_max_age_days : ret_max_total_mib) = (uint32_t)json_integer_value(value);
    }
    return 0;
}

/* A file that can't be understood is somebody else's error: a start says so. */
static void load_settings(uint32_t *age, uint32_t *total)
{
    _cleanup_(freep) char *path = NULL, *text = NULL;
    const json_t *object;
    json_t *root;
    size_t len;

    *age = DEFAULT_AGE_DAYS;
    *total = DEFAULT_TOTAL_MIB;
    if (path_of(IC_PATH_CONFIG, &path, NULL) < 0 || fd_read_file(AT_FDCWD, path, CONFIG_MAX_BYTES, &text, &len) < 0)
        return;
    root = json_loadb(text, len, JSON_REJECT_DUPLICATES, NULL);
    object = json_object_get(root, "templates");
    if (object)
        (void)prune_parse(object, age, total, NULL);
    json_decref(root);
}

static int by_use(const void *a, const void *b)
{
    const struct ic_snapshot_info *x = a, *y = b;

    return (x->used_unix_ms > y->used_unix_ms) - (x->used_unix_ms < y->used_unix_ms);
}

/* What it would start is gone. */
static bool is_orphan(const struct ic_snapshot_info *info)
{
    _cleanup_(freep) char *path = NULL;

    return info->image_digest[0] && store_path(STORE_IMAGES, info->image_digest, NULL, &path, NULL) == 0 &&
           access(path, F_OK) < 0 && errno == ENOENT;
}

int template_prune(
        uint32_t max_age_days, uint32_t max_total_mib, const char *except, size_t *ret_removed, struct ic_error *error)
{
    _cleanup_(freep) struct ic_snapshot_info *infos = NULL;
    struct timespec now;
    size_t count = 0, removed = 0;
    uint64_t total = 0, max_bytes;
    int64_t oldest;
    int r;

    if (max_age_days == UINT32_MAX && max_total_mib == UINT32_MAX)
        load_settings(&max_age_days, &max_total_mib);
    clock_gettime(CLOCK_REALTIME, &now);
    oldest = max_age_days == 0 ? INT64_MAX : (int64_t)now.tv_sec * 1000 - (int64_t)max_age_days * DAY_MS;
    max_bytes = max_total_mib == 0 || max_total_mib == UINT32_MAX ? UINT64_MAX : (uint64_t)max_total_mib << 20;
    r = snapshot_list(STORE_TEMPLATES, &infos, &count, error);
    if (r < 0)
        return r;
    for (size_t i = 0; i < count; i++)
        total += infos[i].size_bytes;
    qsort(infos, count, sizeof(*infos), by_use);
    for (size_t i = 0; i < count; i++) {
        const struct ic_snapshot_info *info = &infos[i];

        if ((except && strcmp(info->name, except) == 0) ||
                (total <= max_bytes && info->used_unix_ms >= oldest && !is_orphan(info)))
            continue;
        if (snapshot_remove(STORE_TEMPLATES, info->name, r == 0 ? error : NULL) == 0)
            removed++;
        else
            r = -IC_ERR_IO;
        total -= info->size_bytes;
    }
    if (ret_removed)
        *ret_removed = removed;
    return r;
}

int ic_template_prune(uint32_t max_age_days, uint32_t max_total_mib, size_t *ret_removed, struct ic_error *error)
{
    return template_prune(max_age_days, max_total_mib, NULL, ret_removed, error);
}
