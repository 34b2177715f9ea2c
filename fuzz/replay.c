/* SPDX-License-Identifier: Apache-2.0 */
/* main() of a fuzz target in builds without libFuzzer: feeds it each file of the directories given as arguments. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>

#include "base/fd.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define INPUT_MAX ((size_t)4 << 20)

static int replay_dir(const char *path)
{
    DIR *dir = opendir(path);
    struct dirent *entry;
    int count = 0;

    if (!dir)
        return -1;
    while ((entry = readdir(dir))) {
        char *data = NULL;
        size_t len;

        if (entry->d_name[0] == '.')
            continue;
        if (fd_read_file(dirfd(dir), entry->d_name, INPUT_MAX, &data, &len) < 0) {
            (void)closedir(dir);
            return -1;
        }
        (void)LLVMFuzzerTestOneInput((const uint8_t *)data, len);
        free(data);
        count++;
    }
    (void)closedir(dir);
    return count;
}

int main(int argc, char *argv[])
{
    for (int i = 1; i < argc; i++) {
        int count = replay_dir(argv[i]);

        if (count < 0) {
            (void)fprintf(stderr, "%s: can't be read\n", argv[i]);
            return 1;
        }
        (void)printf("%s: %d inputs\n", argv[i], count);
    }
    return 0;
}
