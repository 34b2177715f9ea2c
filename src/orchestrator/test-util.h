/* SPDX-License-Identifier: Apache-2.0 */
/* Tests of src/orchestrator only: a place of its own for the library's directories, and a record to start from. */
#pragma once

#include "base/test.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "orchestrator/paths.h"
#include "orchestrator/record.h"

static inline int home_setup(void **state)
{
    char dir[] = "/tmp/ironclaw-test-XXXXXX";

    if (!mkdtemp(dir))
        return -1;
    *state = strdup(dir);
    return *state ? setenv("IRONCLAW_HOME", dir, 1) : -1;
}

static inline int home_teardown(void **state)
{
    int r = path_remove_tree(*state, NULL);

    free(*state);
    return r;
}

static inline struct record sample_record(const char *vm_id)
{
    struct record r = {
            .state = IC_VM_CREATED,
            .backend = IC_BACKEND_QEMU,
            .isolation = IC_ISOLATION_SOFTWARE_EMULATION,
            .vcpu_count = 1,
            .memory_mib = 256,
            .created_unix_ms = 1,
    };

    (void)snprintf(r.vm_id, sizeof(r.vm_id), "%s", vm_id);
    assert_int_equal(process_boot_id(r.boot_id), 0);
    assert_int_equal(process_identify(getpid(), &r.creator), 0);
    assert_int_equal(path_in(&r.run_dir, NULL, IC_PATH_RUNTIME, "%s", vm_id), 0);
    return r;
}

static inline bool in_home(const char *home, const char *path)
{
    char full[512];

    assert_true((size_t)snprintf(full, sizeof(full), "%s/%s", home, path) < sizeof(full));
    return access(full, F_OK) == 0;
}
