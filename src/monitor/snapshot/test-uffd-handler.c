/* SPDX-License-Identifier: Apache-2.0 */
/*
 * uffd-handler SOCKET MEMORY-FILE: serves the memory of one VM, and says at the VM's end how many faults there were,
 * and how many times memory was given back. For tests/integration/test_monitor_memory.py.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "monitor/snapshot/test-handler.h"

static int map_file(struct handler *h, const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat st;
    void *file;

    if (fd < 0 || fstat(fd, &st) < 0)
        return -errno;
    file = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (file == MAP_FAILED)
        return -errno;
    fd_close(fd);
    h->file = file;
    h->file_bytes = (uint64_t)st.st_size;
    h->removed = calloc((size_t)st.st_size / 4096 + 1, 1);
    return h->removed ? 0 : -ENOMEM;
}

int main(int argc, char **argv)
{
    struct handler handler = {.stop_fd = -1};
    int listen_fd, r;

    if (argc != 3)
        return 2;
    r = map_file(&handler, argv[2]);
    if (r == 0)
        r = unix_listen(argv[1], 1, &listen_fd);
    if (r == 0)
        r = handler_accept(&handler, listen_fd);
    if (r == 0)
        r = handler_serve(&handler);
    printf("faults %lu removals %lu result %d\n", handler.faults, handler.removals, r);
    return r == 0 ? 0 : 1;
}
