/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/config.h"

#include <stdio.h>
#include <stdlib.h>

int cli_config_fail(int r, const struct ic_error *error)
{
    return r == -IC_ERR_INVALID ? cli_usage("%s", error->message) : cli_fail(r, error);
}

int cli_config_load(struct ic_vm_config *config)
{
    struct ic_error error = {0};
    char *path = NULL;
    FILE *f;
    int r;

    r = ic_path_of(IC_PATH_CONFIG, &path, &error);
    if (r == -IC_ERR_UNSUPPORTED)
        return CLI_OK; /* starting the VM says so better */
    if (r < 0)
        return cli_fail(r, &error);
    f = fopen(path, "rb");
    if (f) {
        (void)fclose(f);
        r = ic_vm_config_load_file(config, path, &error);
    }
    free(path);
    return r < 0 ? cli_config_fail(r, &error) : CLI_OK;
}

int cli_config_set(struct ic_vm_config *config, const char *key, const char *value)
{
    struct ic_error error = {0};
    int r;

    if (!value)
        return CLI_OK;
    r = ic_vm_config_set(config, key, value, &error);
    return r < 0 ? cli_config_fail(r, &error) : CLI_OK;
}

int cli_config_set_number(struct ic_vm_config *config, const char *key, const struct cli_number *number)
{
    char value[16];

    if (!number->given)
        return CLI_OK;
    (void)snprintf(value, sizeof(value), "%u", (unsigned)number->value);
    return cli_config_set(config, key, value);
}

int cli_config_machine(struct ic_vm_config *config, const struct cli_machine *m)
{
    struct ic_error error = {0};
    int r = cli_config_load(config);

    if (r == CLI_OK && m->config && ic_vm_config_load_file(config, m->config, &error) < 0)
        return cli_usage("%s", error.message);
    if (r != CLI_OK || (r = cli_config_set(config, "image", m->image)) ||
            (r = cli_config_set(config, "backend", m->backend)) ||
            (r = cli_config_set(config, "vcpu_count", m->cpus)) || (r = cli_config_set(config, "jail", m->jail)) ||
            (r = cli_config_set(config, "guest_seccomp", m->guest_seccomp)) ||
            (r = cli_config_set_number(config, "max_connections", &m->max_connections)) ||
            (r = cli_config_set_number(config, "max_disk_mib_per_s", &m->max_disk)) ||
            (r = cli_config_set_number(config, "max_disk_ops_per_s", &m->max_disk_ops)) ||
            (r = cli_config_set_number(config, "memory_mib", &m->memory)))
        return r;
    r = ic_vm_config_validate(config, &error);
    return r < 0 ? cli_config_fail(r, &error) : CLI_OK;
}
