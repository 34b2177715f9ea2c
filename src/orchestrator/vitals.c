/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/vitals.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/macro.h"

#define PATH_ROOM   4200u
#define TEXT_ROOM   256u
#define NAMED_MAX   3
#define TEXT_FORMAT "2 %llu %lld.%09ld %36s"

static bool path_to(char ret[PATH_ROOM], const char *dir, const char *name)
{
    return (size_t)snprintf(ret, PATH_ROOM, "%s/%s", dir, name) < PATH_ROOM;
}

/* What tells this record from all others of this VM. */
static bool begin(char ret[TEXT_ROOM], const char *dir, const char *boot_id)
{
    char path[PATH_ROOM];
    struct stat st;

    if (!path_to(path, dir, "record.json") || stat(path, &st) < 0)
        return false;
    (void)snprintf(ret, TEXT_ROOM, TEXT_FORMAT, (unsigned long long)st.st_ino, (long long)st.st_mtim.tv_sec,
            st.st_mtim.tv_nsec, boot_id);
    return true;
}

static void add(char text[TEXT_ROOM], const char *mark, const struct process_id *id)
{
    size_t len = strlen(text);

    (void)snprintf(
            text + len, TEXT_ROOM - len, " %s%lld:%llu", mark, (long long)id->pid, (unsigned long long)id->start_ticks);
}

void vitals_drop(const char *dir)
{
    char path[PATH_ROOM];

    if (path_to(path, dir, VITALS_NAME))
        (void)unlink(path);
}

void vitals_put(const char *dir, const struct record *record, const struct process_id *holder)
{
    bool runs = record->state == IC_VM_READY || record->state == IC_VM_PAUSED;
    char text[TEXT_ROOM], path[PATH_ROOM];

    vitals_drop(dir);
    if ((!runs && !holder) || record->max_lifetime_ms > 0 || !begin(text, dir, record->boot_id) ||
            !path_to(path, dir, VITALS_NAME))
        return;
    add(text, "", &record->monitor);
    if (record->vsock.pid != 0)
        add(text, "", &record->vsock);
    if (holder)
        add(text, "+", holder);
    else if (record->tied)
        add(text, "+", &record->creator);
    (void)!symlink(text, path);
}

/* All processes in the rest of the text, of which there is at least one. */
static bool all_alive(const char *text, struct process_id ret_own[VITALS_OWN], size_t *ret_count)
{
    size_t own = 0;
    int named = 0;

    for (; *text; named++) {
        struct process_id id = {0};
        unsigned long long ticks;
        long long pid;
        bool foreign = strncmp(text, " +", 2) == 0;
        int used = 0;

        /* Our own digits, and what they say is looked up. NOLINTNEXTLINE(cert-err34-c) */
        if (named == NAMED_MAX || sscanf(text, foreign ? " +%lld:%llu%n" : " %lld:%llu%n", &pid, &ticks, &used) != 2 ||
                pid <= 0 || pid > INT32_MAX)
            return false;
        id.pid = (pid_t)pid;
        id.start_ticks = ticks;
        if ((!foreign && own == VITALS_OWN) || !process_well(&id))
            return false;
        if (!foreign)
            ret_own[own++] = id;
        text += used;
    }
    *ret_count = own;
    return named > 0;
}

bool vitals_good(const char *dir, struct process_id ret_own[VITALS_OWN], size_t *ret_count)
{
    char path[PATH_ROOM], text[TEXT_ROOM], expected[TEXT_ROOM], boot_id[BOOT_ID_SIZE];
    size_t len;
    ssize_t n;

    if (!path_to(path, dir, VITALS_NAME))
        return false;
    n = readlink(path, text, sizeof(text) - 1);
    if (n <= 0 || process_boot_id(boot_id) < 0 || !begin(expected, dir, boot_id))
        return false;
    text[n] = '\0';
    len = strlen(expected);
    return strncmp(text, expected, len) == 0 && text[len] == ' ' && all_alive(text + len, ret_own, ret_count);
}
