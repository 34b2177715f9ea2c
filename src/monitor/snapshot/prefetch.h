/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The working set of a snapshot: which pages its clones touch first, so that
 * they are there before the vCPUs run and each of them doesn't cost a fault.
 * Measured once, kept beside the memory file, and only advice: a clone without
 * it is as right, only slower.
 *
 * The file, little-endian:
 *
 *   0   magic "ICLAWSET"
 *   8   u32 version, u32 the oldest reader's that understands it
 *   16  u8[16] id of the snapshot
 *   32  u64 ram_bytes
 *   40  u32 number of runs, at most PREFETCH_MAX_RUNS
 *   44  u32 CRC-32C of bytes 0..43 and of the runs
 *   48  runs, 8 bytes each: u32 first page, u32 pages and, as bit 31, whether they will be written
 *
 * Pages are of 4 KiB and counted in memory->host, as in the memory file. The
 * runs stand in the order in which a clone touched them. Together they name
 * no more pages than there are, so that a bad file costs no more than a guest
 * that touches all of its memory.
 */
#pragma once

#include <sys/types.h>

#include "base/buf.h"
#include "monitor/snapshot/memory-file.h"

#define PREFETCH_VERSION  1u
#define PREFETCH_MAX_RUNS 65536u
#define PREFETCH_HEADER   48u
#define PREFETCH_RUN      8u /* bytes */

struct prefetch_run {
    uint32_t first, count; /* count 1..2^31 - 1 */
    bool write;
};

struct prefetch {
    uint8_t id[MEMORY_FILE_ID];
    uint64_t ram_bytes;
    uint32_t run_count;
    struct rd runs; /* a view of the parsed bytes, for prefetch_next() */
};

/*
 * Looks through all of the file: every run is inside of the RAM.
 * -EBADMSG: none, or damaged; -EPROTONOSUPPORT: of a later version. *ret views data.
 */
int prefetch_parse(struct prefetch *ret, const void *data, size_t len);
/* True and the next run, in order; false after the last. */
bool prefetch_next(struct prefetch *prefetch, struct prefetch_run *ret);

/* The file's bytes. The runs are as prefetch_parse() wants them; -EINVAL else. */
int prefetch_make(struct buf *ret, const uint8_t id[static MEMORY_FILE_ID], uint64_t ram_bytes,
        const struct prefetch_run *runs, size_t count);

/*
 * Reads the file and has the kernel fill these pages: shared ones of the page
 * cache where they will be read, own ones where they will be written. path is
 * for messages; id is the snapshot's. A failure leaves memory as good as it
 * was, so the caller warns and goes on. *ret_pages: how many were asked for
 * (0 on a kernel before 5.14, which only reads ahead).
 */
int memory_prefetch(struct memory *memory, int fd, const char *path, const uint8_t id[static MEMORY_FILE_ID],
        uint64_t *ret_pages, struct vm_error *error);

/*
 * Measures: what the monitor `pid` has of the memory file that it was started
 * from becomes the working set at set_path (replaced as a whole). In the order
 * of addresses, as nobody knows in which order it came. Neighbours that Linux
 * mapped along with a page count, too. Not for a monitor's own use: it reads
 * /proc. -ESRCH: pid has not mapped this file; -EACCES, -EPERM: not ours.
 */
int prefetch_measure(pid_t pid, const char *memory_path, const char *set_path, struct vm_error *error);
