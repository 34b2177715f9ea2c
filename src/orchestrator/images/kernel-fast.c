/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fast kernel: tinyconfig with the recipes' fragment over it, built from
 * Debian's linux-source in the store's build directory. A line of the fragment
 * that is not in the final configuration is an error, as the guest would miss
 * what it asks for.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/clock.h"
#include "base/fd.h"
#include "orchestrator/images/apt.h"
#include "orchestrator/images/kernel.h"
#include "orchestrator/images/subprocess.h"

#define SOURCE_PACKAGE  "linux-source-6.1"
#define SOURCE_TAR      SOURCE_PACKAGE ".tar.xz"
#define BUILD_BYTES_MIN ((uint64_t)2500 << 20)
/* Lines of make's output for this fragment; only the progress display depends on it. */
#define STEPS_EXPECTED 1500

struct build {
    const struct progress *progress;
    const char *what;
    uint64_t done, total;
    char *source; /* the unpacked tree */
};

static int build_tick(void *userdata, struct ic_error *error)
{
    const struct build *build = userdata;

    return progress_report(build->progress, build->what, MIN(build->done, build->total), build->total, error);
}

static int build_line(void *userdata, const char *line, struct ic_error *error)
{
    struct build *build = userdata;

    build->done++;
    return 0;
}

static int check_tools(struct ic_error *error)
{
    static const struct {
        const char *program, *package;
    } tools[] = {{"gcc", "gcc"}, {"make", "make"}, {"bc", "bc"}, {"bison", "bison"}, {"flex", "flex"},
            {"xz", "xz-utils"}, {"tar", "tar"}, {"objcopy", "binutils"}};
    _cleanup_(strlist_deinit) struct strlist missing = {0};
    _cleanup_(freep) char *list = NULL;
    int r = 0;

    for (size_t i = 0; r == 0 && i < ARRAY_SIZE(tools); i++) {
        _cleanup_(freep) char *path = NULL;

        if (subprocess_find(tools[i].program, tools[i].package, &path, NULL) < 0)
            r = strlist_add(&missing, tools[i].package, error);
    }
    if (r == 0 && access("/usr/include/libelf.h", R_OK) < 0)
        r = strlist_add(&missing, "libelf-dev", error);
    if (r < 0 || missing.count == 0)
        return r;
    r = strlist_join(&missing, ' ', &list, error);
    return r < 0 ? r
                 : ic_fail(error, IC_ERR_NOT_FOUND, "kernel build: tools are missing; run 'apt-get install %s'", list);
}

static int check_space(const char *dir, struct ic_error *error)
{
    struct statvfs fs;
    uint64_t free_bytes;

    if (statvfs(dir, &fs) < 0)
        return ic_fail_errno(error, -errno, "%s", dir);
    free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    if (free_bytes < BUILD_BYTES_MIN)
        return ic_fail(error, IC_ERR_NO_SPACE, "%s: %llu MiB free, the kernel build needs %llu", dir,
                (unsigned long long)(free_bytes >> 20), (unsigned long long)(BUILD_BYTES_MIN >> 20));
    return 0;
}

static int installed_version(char **ret)
{
    const char *const argv[] = {"dpkg-query", "-W", "-f", "${Version}", SOURCE_PACKAGE, NULL};
    _cleanup_(buf_deinit) struct buf output = {.max = 4096};
    int r = subprocess_run(&(struct subprocess){.argv = argv, .package = "dpkg", .output = &output}, NULL);

    return r < 0 ? r : text_format(ret, NULL, "%s", (const char *)output.data);
}

/* The tar of the installed package, or of a fresh download. */
static int find_source(
        const char *dir, const struct progress *progress, char **ret, char **ret_version, struct ic_error *error)
{
    _cleanup_(freep) char *deb = NULL;
    _cleanup_(freep) char *unpacked = NULL;
    int r;

    if (access("/usr/src/" SOURCE_TAR, R_OK) == 0 && installed_version(ret_version) == 0)
        return text_format(ret, error, "%s", "/usr/src/" SOURCE_TAR);
    r = apt_download(SOURCE_PACKAGE, dir, progress, &deb, ret_version, error);
    if (r == 0)
        r = text_format(&unpacked, error, "%s/package", dir);
    if (r == 0 && mkdir(unpacked, 0700) < 0)
        r = ic_fail_errno(error, -errno, "%s", unpacked);
    if (r == 0)
        r = apt_unpack(deb, unpacked, progress, error);
    return r != 0 ? r : text_format(ret, error, "%s/usr/src/" SOURCE_TAR, unpacked);
}

static int unpack_source(struct build *build, const char *tar, struct ic_error *error)
{
    /* Register lists of graphics cards: a quarter of the tree. */
    const char *const argv[] = {"tar", "-xJf", tar, "-C", build->source, "--strip-components=1", "--no-same-owner",
            "--exclude=*/drivers/gpu/drm/amd/include", NULL};

    build->what = "unpacking the kernel's source";
    return subprocess_run(
            &(struct subprocess){.argv = argv, .package = "tar", .tick = build_tick, .userdata = build}, error);
}

static int run_make(struct build *build, const char *jobs, const char *target, struct ic_error *error)
{
    const char *const argv[] = {"make", "-C", build->source, "ARCH=x86", jobs, target, NULL};
    /* The bytes of the kernel must not depend on who builds it and when. */
    static const char *const env[] = {"KBUILD_BUILD_USER=ironclaw", "KBUILD_BUILD_HOST=ironclaw",
            "KBUILD_BUILD_TIMESTAMP=2023-11-14", "KBUILD_BUILD_VERSION=1",
            "MAKEFLAGS=", "MFLAGS=", "KCONFIG_CONFIG=.config", "CROSS_COMPILE=", NULL};

    return subprocess_run(&(struct subprocess){.argv = argv,
                                  .package = "make",
                                  .env = env,
                                  .tick = build_tick,
                                  .line = build_line,
                                  .userdata = build},
            error);
}

static bool has_line(const char *text, const char *line, size_t len)
{
    for (const char *p = text; (p = strstr(p, "\n")) != NULL;) {
        p++;
        if (strncmp(p, line, len) == 0 && p[len] == '\n')
            return true;
    }
    return false;
}

/* Every option that the fragment sets must have its value in the final configuration; "is not set" may be absent. */
static int check_config(const char *config, const char *fragment, struct ic_error *error)
{
    for (const char *line = fragment; *line;) {
        size_t len = strcspn(line, "\n");
        bool off = strncmp(line, "# CONFIG_", 9) == 0;

        if (strncmp(line, "CONFIG_", 7) == 0 && !has_line(config, line, len))
            return ic_fail(error, IC_ERR_INVALID, "kernel/fast.config: '%.*s' did not survive in the configuration",
                    (int)len, line);
        if (off) {
            char set[128];

            (void)snprintf(set, sizeof(set), "\n%.*s=", (int)MIN(strcspn(line + 2, " \n"), sizeof(set) - 3), line + 2);
            if (strstr(config, set))
                return ic_fail(error, IC_ERR_INVALID, "kernel/fast.config: '%.*s', but another option needs it",
                        (int)len, line);
        }
        line += len + (line[len] == '\n');
    }
    return 0;
}

static int configure(struct build *build, const char *fragment, struct ic_error *error)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *config = NULL;
    _cleanup_(fd_closep) int fd = -1;
    int r = text_format(&path, error, "%s/.config", build->source);

    build->what = "configuring the kernel";
    if (r == 0)
        r = run_make(build, "-j1", "tinyconfig", error);
    if (r != 0)
        return r;
    fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
    r = fd < 0 ? -errno : fd_write_all(fd, fragment, strlen(fragment), DEADLINE_NEVER);
    if (r < 0)
        return ic_fail_errno(error, r, "%s", path);
    r = run_make(build, "-j1", "olddefconfig", error);
    if (r < 0)
        return r;
    r = fd_read_file(AT_FDCWD, path, (size_t)1 << 20, &config, NULL);
    return r < 0 ? ic_fail_errno(error, r, "%s", path) : check_config(config, fragment, error);
}

static int compile(struct build *build, struct ic_error *error)
{
    char jobs[32];
    cpu_set_t cpus;
    int count = sched_getaffinity(0, sizeof(cpus), &cpus) == 0 ? CPU_COUNT(&cpus) : 1;

    (void)snprintf(jobs, sizeof(jobs), "-j%d", count);
    build->what = "compiling the kernel";
    build->done = 0;
    build->total = STEPS_EXPECTED;
    return run_make(build, jobs, "vmlinux", error);
}

/* The ELF kernel without its symbols, and what it calls itself. */
static int take_result(const struct build *build, const char *dir, struct kernel *ret, struct ic_error *error)
{
    _cleanup_(freep) char *from = NULL;
    _cleanup_(freep) char *to = NULL;
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *release = NULL;
    _cleanup_(freep) char *modules = NULL;
    int r = text_format(&from, error, "%s/vmlinux", build->source);

    if (r == 0)
        r = text_format(&to, error, "%s/vmlinux", dir);
    if (r == 0)
        r = text_format(&modules, error, "%s/modules", dir);
    if (r == 0)
        r = text_format(&path, error, "%s/include/config/kernel.release", build->source);
    if (r != 0)
        return r;
    const char *const strip[] = {"objcopy", "-S", "-R", ".comment", from, to, NULL};
    r = subprocess_run(&(struct subprocess){.argv = strip, .package = "binutils"}, error);
    if (r < 0)
        return r;
    if (mkdir(modules, 0700) < 0)
        return ic_fail_errno(error, -errno, "%s", modules);
    r = fd_read_file(AT_FDCWD, path, sizeof(ret->release) - 1, &release, NULL);
    if (r < 0)
        return ic_fail_errno(error, r, "%s", path);
    release[strcspn(release, "\n")] = '\0';
    memcpy(ret->release, release, strlen(release) + 1);
    return 0;
}

int kernel_make_fast(const struct workdir *workdir, const char *fragment, const struct progress *progress,
        struct kernel *ret, struct ic_error *error)
{
    _cleanup_(freep) char *tar = NULL;
    _cleanup_(freep) char *version = NULL;
    _cleanup_(freep) char *source = NULL;
    struct build build = {.progress = progress, .what = "preparing"};
    int r = check_tools(error);

    if (r == 0)
        r = check_space(workdir->path, error);
    if (r == 0)
        r = find_source(workdir->path, progress, &tar, &version, error);
    if (r == 0)
        r = text_format(&source, error, "%s/source", workdir->path);
    if (r == 0 && mkdir(source, 0700) < 0)
        r = ic_fail_errno(error, -errno, "%s", source);
    if (r != 0)
        return r;
    build.source = source;
    (void)snprintf(ret->kind, sizeof(ret->kind), "fast");
    (void)snprintf(ret->devices, sizeof(ret->devices), "cmdline");
    (void)snprintf(ret->version, sizeof(ret->version), "%s", version);
    r = unpack_source(&build, tar, error);
    if (r == 0)
        r = configure(&build, fragment, error);
    if (r == 0)
        r = compile(&build, error);
    return r != 0 ? r : take_result(&build, workdir->path, ret, error);
}
