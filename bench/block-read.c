/* SPDX-License-Identifier: Apache-2.0 */
/*
 * In the guest: reads of a block device past its page cache.
 *
 *   block-read stream DEVICE MIB   reads of 128 KiB one after another, prints seconds
 *   block-read random DEVICE N     N reads of 4 KiB at random places, one at a time, prints N lines of microseconds
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHUNK (128u << 10)
#define PAGE  4096u

static uint64_t now_ns(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void read_at(int fd, char *buf, size_t size, uint64_t offset)
{
    if (pread(fd, buf, size, (off_t)offset) != (ssize_t)size)
        err(1, "read at %llu", (unsigned long long)offset);
}

int main(int argc, char **argv)
{
    uint64_t count, started, place = 88172645463325252ull, size;
    char *buf;
    int fd;

    if (argc != 4 || (fd = open(argv[2], O_RDONLY | O_DIRECT | O_CLOEXEC)) < 0)
        err(1, "block-read stream|random DEVICE COUNT");
    count = strtoull(argv[3], NULL, 10);
    size = (uint64_t)lseek(fd, 0, SEEK_END);
    if (posix_memalign((void **)&buf, PAGE, CHUNK) != 0 || size < CHUNK)
        errx(1, "%s: too small", argv[2]);
    if (strcmp(argv[1], "stream") == 0) {
        started = now_ns();
        for (uint64_t i = 0; i < count << 3; i++)
            read_at(fd, buf, CHUNK, i * CHUNK % (size / CHUNK * CHUNK));
        printf("%.6f\n", (double)(now_ns() - started) / 1e9);
        return 0;
    }
    for (uint64_t i = 0; i < count; i++) {
        place ^= place << 13, place ^= place >> 7, place ^= place << 17; /* xorshift64 */
        started = now_ns();
        read_at(fd, buf, PAGE, place % (size / PAGE) * PAGE);
        printf("%.1f\n", (double)(now_ns() - started) / 1e3);
    }
    return 0;
}
