/* SPDX-License-Identifier: Apache-2.0 */
/* logs --audit: what system call filters and limits refused. */
#include "cli/audit.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/json.h"
#include "cli/table.h"

static void format_time(int64_t unix_ms, char *dst, size_t size)
{
    time_t seconds = (time_t)(unix_ms / 1000);
    struct tm tm;
    size_t n = 0;

#if defined(_WIN32)
    if (gmtime_s(&tm, &seconds) == 0)
#else
    if (gmtime_r(&seconds, &tm))
#endif
        n = strftime(dst, size, "%Y-%m-%dT%H:%M:%S", &tm);
    if (n > 0)
        (void)snprintf(dst + n, size - n, ".%03dZ", (int)(unix_ms % 1000));
    else
        (void)snprintf(dst, size, "%" PRId64, unix_ms);
}

static void put_json(struct json *j, const struct ic_audit_entry *e)
{
    json_begin_object(j);
    json_key(j, "time_unix_ms");
    json_i64(j, e->time_unix_ms);
    json_key(j, "vm_id");
    json_string(j, e->vm_id[0] ? e->vm_id : NULL);
    json_key(j, "action");
    json_string(j, ic_audit_action_name(e->action));
    json_key(j, "process");
    json_string(j, e->process[0] ? e->process : NULL);
    json_key(j, "pid");
    json_i64(j, e->pid);
    json_key(j, "thread");
    json_string(j, e->thread[0] ? e->thread : NULL);
    json_key(j, "call");
    json_string(j, e->call_name[0] ? e->call_name : NULL);
    json_key(j, "call_number");
    json_i64(j, e->call);
    json_key(j, "arguments");
    json_begin_array(j);
    for (size_t i = 0; e->call_name[0] && i < COUNT_OF(e->args); i++)
        json_u64(j, e->args[i]);
    json_end(j);
    json_key(j, "count");
    json_u64(j, e->count);
    json_key(j, "text");
    json_string(j, e->text[0] ? e->text : NULL);
    json_end(j);
}

static void print_json(const struct ic_audit_entry *entries, size_t count, uint64_t dropped)
{
    struct json j = {0};

    json_begin_object(&j);
    json_key(&j, "entries");
    json_begin_array(&j);
    for (size_t i = 0; i < count; i++)
        put_json(&j, &entries[i]);
    json_end(&j);
    json_key(&j, "dropped");
    json_u64(&j, dropped);
    json_end(&j);
    json_print(&j);
    json_deinit(&j);
}

static void put_row(struct table *t, const struct ic_audit_entry *e)
{
    struct text where = {0}, what = {0};
    char when[40], count[24];

    format_time(e->time_unix_ms, when, sizeof(when));
    (void)snprintf(count, sizeof(count), "%" PRIu64, e->count);
    text_puts(&where, e->process[0] ? e->process : "-");
    if (e->thread[0])
        text_printf(&where, "/%s", e->thread);
    for (size_t i = 0; e->call_name[0] && i < COUNT_OF(e->args); i++)
        text_printf(&what, "%s%#" PRIx64, i > 0 ? " " : "", e->args[i]);
    text_puts(&what, e->text);
    table_row(
            t, (const char *const[]){when, e->vm_id[0] ? e->vm_id : NULL, text_str(&where),
                       e->call_name[0] ? e->call_name : NULL, ic_audit_action_name(e->action), count, text_str(&what)});
    text_deinit(&where);
    text_deinit(&what);
}

static void print_table(const struct ic_audit_entry *entries, size_t count, uint64_t dropped)
{
    struct table table;

    table_init(&table,
            (const char *const[]){"TIME", "VM", "PROCESS/THREAD", "CALL", "ACTION", "COUNT", "ARGUMENTS", NULL});
    for (size_t i = 0; i < count; i++)
        put_row(&table, &entries[i]);
    table_print(&table);
    table_deinit(&table);
    (void)printf("%" PRIu64 " dropped\n", dropped);
}

int audit_print(const char *vm_id, bool json, uint32_t tail)
{
    struct ic_audit_entry *entries = NULL;
    struct ic_error error = {0};
    uint64_t dropped = 0;
    size_t count = 0, skip;
    int r = ic_audit_read(vm_id, &entries, &count, &dropped, &error);

    if (r < 0)
        return cli_fail(r, &error);
    skip = count > tail ? count - tail : 0;
    if (json)
        print_json(entries + skip, count - skip, dropped);
    else
        print_table(entries + skip, count - skip, dropped);
    free(entries);
    return CLI_OK;
}
