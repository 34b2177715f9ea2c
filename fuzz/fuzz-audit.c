/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A process's audit ring after somebody took the process over: never more
 * entries than it has slots, each with ended, printable texts, and what was
 * read is read the same again.
 */
#include <string.h>

#include "fuzz.h"
#include "jail/audit.h"

static void check_text(const char *text, size_t size)
{
    size_t len = strnlen(text, size);

    FUZZ_CHECK(len < size);
    for (size_t i = 0; i < len; i++)
        FUZZ_CHECK(text[i] >= 0x20 && text[i] < 0x7f);
}

static void check_entry(const struct audit_entry *e)
{
    uint8_t first[AUDIT_ENTRY_SIZE], second[AUDIT_ENTRY_SIZE];
    struct audit_entry again;

    FUZZ_CHECK(e->action > 0 && e->action < AUDIT_ACTIONS && e->count > 0);
    check_text(e->vm_id, sizeof(e->vm_id));
    check_text(e->process, sizeof(e->process));
    check_text(e->thread, sizeof(e->thread));
    check_text(e->text, sizeof(e->text));
    audit_encode(e, first);
    FUZZ_CHECK(audit_decode(first, &again) == 0);
    audit_encode(&again, second);
    FUZZ_CHECK(memcmp(first, second, sizeof(first)) == 0);
}

static void ring(const uint8_t *data, size_t size, uint32_t capacity)
{
    struct audit_log log = {0};

    if (audit_parse(data, size, capacity, &log) < 0)
        return;
    FUZZ_CHECK(log.count <= capacity);
    for (size_t i = 0; i < log.count; i++)
        check_entry(&log.entries[i]);
    audit_log_deinit(&log);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    ring(data, size, AUDIT_PROCESS_ENTRIES);
    ring(data, size, AUDIT_ENTRIES);
    return 0;
}
