/* SPDX-License-Identifier: Apache-2.0 */
/*
 * main() of a fuzz target where there is no libFuzzer: feeds it each file that
 * is named by an argument, and each file of a directory, so that ordinary test
 * runs keep every input that was worth remembering.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/macro.h"
#include "fuzz.h"

#define INPUT_MAX ((size_t)16 << 20)

static bool replay_file(const char *path)
{
    _cleanup_(freep) char *data = NULL;
    uint8_t *exact;
    size_t len;
    int r = fd_read_file(AT_FDCWD, path, INPUT_MAX, &data, &len);

    if (r < 0) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(-r));
        return false;
    }
    /* Exactly as long as the input: a sanitizer then sees a read of one byte too many. */
    exact = malloc(len);
    if (len > 0 && !exact)
        return false;
    if (len > 0)
        memcpy(exact, data, len);
    (void)LLVMFuzzerTestOneInput(exact, len);
    free(exact);
    return true;
}

static unsigned replay_directory(const char *path, bool *ok)
{
    DIR *dir = opendir(path);
    struct dirent *d;
    char file[4096];
    unsigned n = 0;

    if (!dir) {
        (void)fprintf(stderr, "%s: %s\n", path, strerror(errno));
        *ok = false;
        return 0;
    }
    while ((d = readdir(dir))) {
        if (d->d_name[0] == '.')
            continue;
        if ((size_t)snprintf(file, sizeof(file), "%s/%s", path, d->d_name) >= sizeof(file) || !replay_file(file))
            *ok = false;
        n++;
    }
    (void)closedir(dir);
    return n;
}

int main(int argc, char **argv)
{
    unsigned n = 0;
    bool ok = true;

    for (int i = 1; i < argc; i++) {
        struct stat st;

        if (stat(argv[i], &st) == 0 && S_ISDIR(st.st_mode)) {
            n += replay_directory(argv[i], &ok);
        } else {
            ok = replay_file(argv[i]) && ok;
            n++;
        }
    }
    (void)printf("%u inputs replayed\n", n);
    return ok && n > 0 ? 0 : 1;
}
