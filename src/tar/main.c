/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ironclaw-tar detect|clean: the archive is standard input, the clean tar
 * standard output. What it has to say are lines on standard error:
 *
 *   kind tar|oci|docker         what detect found
 *   progress BYTES              of the archive, now and then
 *   error CODE TEXT             why it ended with status 1 (tar_codes)
 *
 * It opens nothing, and from its first look at the archive on it can't.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tar/tar.h"
#include "tar/confine.h"

#define EXIT_USAGE     2
#define PROGRESS_BYTES (1u << 20)

static void report(void *userdata, uint64_t done)
{
    uint64_t *next = userdata;

    if (done < *next)
        return;
    *next = done + PROGRESS_BYTES;
    (void)fprintf(stderr, "progress %llu\n", (unsigned long long)done);
}

static int detect(struct tar_error *error)
{
    static const char *const names[] = {[TAR_ROOT] = "tar", [TAR_OCI] = "oci", [TAR_DOCKER] = "docker"};
    enum tar_kind kind;
    int r = tar_detect(STDIN_FILENO, &kind, error);

    if (r == 0)
        (void)fprintf(stderr, "kind %s\n", names[kind]);
    return r;
}

static int clean(struct tar_error *error)
{
    uint64_t next = 0;
    const struct tar_progress progress = {.report = report, .userdata = &next};

    return tar_clean(STDIN_FILENO, STDOUT_FILENO, &progress, error);
}

int main(int argc, char **argv)
{
    struct tar_error error;
    bool detects = argc == 2 && strcmp(argv[1], "detect") == 0;
    int r;

    if (argc == 2 && strcmp(argv[1], "--seccomp-report") == 0) {
        seccomp_report(stdout, tar_profiles, TAR_PROFILES);
        return EXIT_SUCCESS;
    }
    if (!detects && (argc != 2 || strcmp(argv[1], "clean") != 0)) {
        (void)fputs("usage: ironclaw-tar detect|clean <ARCHIVE [>TAR]\n"
                    "       ironclaw-tar --seccomp-report\n",
                stderr);
        return EXIT_USAGE;
    }
    (void)clearenv(); /* nobody's GCONV_PATH or LANG */
    (void)setvbuf(stderr, NULL, _IOLBF, BUFSIZ);
    r = tar_confine();
    if (r < 0) {
        (void)fprintf(stderr, "error failed it can't confine itself: %s\n", strerror(-r));
        return EXIT_FAILURE;
    }
    r = detects ? detect(&error) : clean(&error);
    if (r == 0)
        return EXIT_SUCCESS;
    (void)fprintf(stderr, "error %s %s\n", tar_codes[error.code], error.text);
    return EXIT_FAILURE;
}
