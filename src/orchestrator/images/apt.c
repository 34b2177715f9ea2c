/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/apt.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "base/buf.h"
#include "base/fd.h"
#include "orchestrator/images/subprocess.h"

#define OUTPUT_BYTES_MAX ((size_t)4 << 20)

static int capture(const char *const *argv, struct buf *ret, struct ic_error *error)
{
    ret->max = OUTPUT_BYTES_MAX;
    return subprocess_run(&(struct subprocess){.argv = argv, .package = "apt", .output = ret}, error);
}

/* "origin|uri|release|component" -> the line for it, unless it is not Debian's or known already. */
static int add_source(char *line, struct strlist *ret, struct ic_error *error)
{
    _cleanup_(freep) char *source = NULL;
    char *field[4], *save = NULL;
    int r;

    for (unsigned i = 0; i < ARRAY_SIZE(field); i++) {
        field[i] = strtok_r(i == 0 ? line : NULL, "|", &save);
        if (!field[i])
            return 0;
    }
    if (strcmp(field[0], "Debian") != 0)
        return 0;
    r = text_format(&source, error, "deb %s %s %s", field[1], field[2], field[3]);
    return r < 0 || strlist_has(ret, source) ? r : strlist_add(ret, source, error);
}

int apt_debian_sources(char **ret, struct ic_error *error)
{
    const char *const argv[] = {"apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)",
            "Created-By: Packages", NULL};
    _cleanup_(strlist_deinit) struct strlist sources = {0};
    _cleanup_(buf_deinit) struct buf output = {0};
    char *save = NULL;
    int r = capture(argv, &output, error);

    if (r < 0)
        return r;
    for (char *line = strtok_r((char *)output.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        r = add_source(line, &sources, error);
        if (r < 0)
            return r;
    }
    if (sources.count == 0)
        return ic_fail(error, IC_ERR_NOT_FOUND,
                "apt: none of the configured sources is Debian's, or their lists were never fetched; run 'apt-get "
                "update'");
    return strlist_join(&sources, '\n', ret, error);
}

int apt_depends(const char *package, const char *prefix, char **ret, struct ic_error *error)
{
    const char *const argv[] = {"apt-cache", "--important", "depends", package, NULL};
    static const char key[] = "Depends: ";
    _cleanup_(buf_deinit) struct buf output = {0};
    struct ic_error why;
    char *save = NULL;
    int r = capture(argv, &output, &why);

    if (r < 0)
        return ic_fail(error, IC_ERR_NOT_FOUND,
                "apt: no package %s; run 'apt-get update' (the sources must have Debian 12's main): %.400s", package,
                why.message);
    for (char *line = strtok_r((char *)output.data, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *found = strstr(line, key);

        if (found && strncmp(found + sizeof(key) - 1, prefix, strlen(prefix)) == 0)
            return text_format(ret, error, "%s", found + sizeof(key) - 1);
    }
    return ic_fail(error, IC_ERR_NOT_FOUND, "apt: %s depends on no package %s*; run 'apt-get update'", package, prefix);
}

struct download {
    const struct progress *progress;
    const char *dir, *what;
    uint64_t total;
};

static uint64_t bytes_in(const char *path)
{
    DIR *dir = opendir(path);
    uint64_t sum = 0;
    struct stat st;

    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (fstatat(dirfd(dir), entry->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            sum += (uint64_t)st.st_size;
    }
    if (dir)
        (void)closedir(dir);
    return sum;
}

static int download_tick(void *userdata, struct ic_error *error)
{
    const struct download *download = userdata;

    return progress_report(
            download->progress, download->what, MIN(bytes_in(download->dir), download->total), download->total, error);
}

/* From "'URI' file size hash", what apt-get would fetch; 0 when it says something else. */
static int download_size(const char *package, uint64_t *ret, struct ic_error *error)
{
    const char *const argv[] = {"apt-get", "--print-uris", "download", package, NULL};
    _cleanup_(buf_deinit) struct buf output = {0};
    const char *field;
    int r = capture(argv, &output, error);

    if (r < 0)
        return r;
    field = strrchr((const char *)output.data, '\'');
    for (unsigned i = 0; field && i < 2; i++)
        field = strchr(field + 1, ' ');
    *ret = field ? strtoull(field, NULL, 10) : 0;
    return 0;
}

static int find_deb(const char *dir_path, char **ret, struct ic_error *error)
{
    DIR *dir = opendir(dir_path);
    int r = ic_fail(error, IC_ERR_IO, "apt: %s: no package file after the download", dir_path);

    for (struct dirent *entry; dir && r < 0 && (entry = readdir(dir));) {
        size_t len = strlen(entry->d_name);

        if (len > 4 && strcmp(entry->d_name + len - 4, ".deb") == 0)
            r = text_format(ret, error, "%s/%s", dir_path, entry->d_name);
    }
    if (dir)
        (void)closedir(dir);
    return r;
}

static int deb_version(const char *deb, char **ret, struct ic_error *error)
{
    const char *const argv[] = {"dpkg-deb", "-f", deb, "Version", NULL};
    _cleanup_(buf_deinit) struct buf output = {.max = 4096};
    int r = subprocess_run(&(struct subprocess){.argv = argv, .package = "dpkg", .output = &output}, error);

    if (r < 0)
        return r;
    return text_format(ret, error, "%.*s", (int)strcspn((const char *)output.data, "\n"), (const char *)output.data);
}

int apt_download(const char *package, const char *dir, const struct progress *progress, char **ret, char **ret_version,
        struct ic_error *error)
{
    /* As root apt would fetch as user _apt, which can't write to our private directory. */
    const char *const argv[] = {"apt-get", "-q", "-o", "APT::Sandbox::User=root", "download", package, NULL};
    _cleanup_(freep) char *into = NULL;
    _cleanup_(freep) char *what = NULL;
    _cleanup_(freep) char *deb = NULL;
    struct download download = {.progress = progress};
    int r = text_format(&into, error, "%s/download-%s", dir, package);

    if (r == 0)
        r = text_format(&what, error, "downloading %s", package);
    if (r == 0 && mkdir(into, 0700) < 0)
        r = ic_fail_errno(error, -errno, "%s", into);
    if (r == 0)
        r = download_size(package, &download.total, error);
    if (r != 0)
        return r;
    download.dir = into;
    download.what = what;
    r = subprocess_run(
            &(struct subprocess){
                    .argv = argv, .package = "apt", .cwd = into, .tick = download_tick, .userdata = &download},
            error);
    if (r == 0)
        r = find_deb(into, &deb, error);
    if (r == 0)
        r = deb_version(deb, ret_version, error);
    if (r == 0)
        *ret = TAKE_PTR(deb);
    return r;
}

static int unpack_tick(void *userdata, struct ic_error *error)
{
    return progress_report(userdata, "unpacking the package", 0, 0, error);
}

int apt_unpack(const char *deb, const char *dir, const struct progress *progress, struct ic_error *error)
{
    const char *const argv[] = {"dpkg-deb", "-x", deb, dir, NULL};

    return subprocess_run(
            &(struct subprocess){.argv = argv, .package = "dpkg", .tick = unpack_tick, .userdata = (void *)progress},
            error);
}
