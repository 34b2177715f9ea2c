/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Configuration documents, and with the same bytes the two other parsers of the orchestrator's own JSON: records and
 * QMP lines. What a document sets must be valid, or be refused with a one-line message; loading it twice changes
 * nothing.
 */
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "orchestrator/backends/qmp.h"
#include "orchestrator/config.h"
#include "orchestrator/user-limits.h"
#include "orchestrator/record.h"

static void check(bool ok)
{
    if (!ok)
        abort();
}

static void one_line(const struct ic_error *error)
{
    check(error->code != 0 && error->message[0] != '\0');
    for (const char *p = error->message; *p; p++)
        check((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static void config(const uint8_t *data, size_t size)
{
    struct ic_error error = {0};
    struct ic_vm_config first, second;

    ic_vm_config_init(&first);
    if (ic_vm_config_load_json(&first, (const char *)data, size, "fuzz.json", &error) < 0) {
        one_line(&error);
        check(!first.vm_id && !first.env && first.vcpu_count == 1);
    } else {
        check(!first.enable_networking && first.vcpu_count >= 1 && first.vcpu_count <= IC_VCPU_MAX);
        check(ic_vm_config_load_json(&first, (const char *)data, size, "fuzz.json", NULL) == 0);
        if (ic_vm_config_validate(&first, &error) < 0)
            one_line(&error);
        check(config_copy(&second, &first, NULL) == 0);
        check(second.env_count == first.env_count);
        ic_vm_config_deinit(&second);
    }
    ic_vm_config_deinit(&first);
}

/* The object of the user's own file. Refused or within its ranges, and nothing in between. */
static void limits(const uint8_t *data, size_t size)
{
    json_t *root = json_loadb((const char *)data, size, JSON_REJECT_DUPLICATES, NULL);
    const json_t *object = json_object_get(root, "limits");
    struct limits l = {.max_vms = LIMITS_DEFAULT_VMS};
    struct ic_error error = {0};

    if (object && limits_parse(object, &l, &error) < 0)
        one_line(&error);
    check(l.max_vms >= 1 && l.max_vcpus <= IC_VCPU_MAX);
    check(l.max_memory_mib == 0 || l.max_memory_mib >= IC_MEMORY_MIB_MIN);
    json_decref(root);
}

static void record(const uint8_t *data, size_t size)
{
    struct record r, again;
    char *text;

    if (record_decode(&r, (const char *)data, size) < 0)
        return;
    text = record_encode(&r);
    check(text && record_decode(&again, text, strlen(text)) == 0);
    check(again.state == r.state && strcmp(again.vm_id, r.vm_id) == 0);
    free(text);
    record_deinit(&again);
    record_deinit(&r);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    enum qmp_kind kind;
    char text[64];

    config(data, size);
    limits(data, size);
    record(data, size);
    (void)qmp_parse((const char *)data, size, &kind, text, sizeof(text));
    return 0;
}
