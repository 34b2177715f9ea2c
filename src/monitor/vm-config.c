/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/vm-config.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int vm_fail(struct vm_error *error, int code, const char *fmt, ...)
{
    va_list args;

    if (!error)
        return code;
    va_start(args, fmt);
    (void)vsnprintf(error->text, sizeof(error->text), fmt, args);
    va_end(args);
    for (char *p = error->text; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            *p = '?';
    }
    return code;
}

void vm_config_init(struct vm_config *config)
{
    *config = (struct vm_config){.machine = {.vcpu_count = 1, .mem_size_mib = 128}};
    (void)snprintf(config->id, sizeof(config->id), "anonymous-instance");
}

void vm_config_deinit(struct vm_config *config)
{
    free(config->boot.kernel_image_path);
    free(config->boot.initrd_path);
    free(config->boot.boot_args);
    for (size_t i = 0; i < config->drive_count; i++) {
        free(config->drives[i].drive_id);
        free(config->drives[i].path_on_host);
    }
    free(config->vsock.uds_path);
    free(config->serial.output_path);
    memset(config, 0, sizeof(*config));
}
