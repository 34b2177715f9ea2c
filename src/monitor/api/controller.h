/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What each request does in each state: not started, running, paused. Owns
 * the vm_config until the start and the VM afterwards. One thread (the VMM's).
 * The VM is behind a table of operations so that the rules can be tested
 * without KVM.
 */
#pragma once

#include "monitor/api/api.h"
#include "monitor/vm.h"

struct controller_ops {
    int (*start)(void *userdata, const struct vm_config *config, struct vm_error *error); /* vm_new + vm_start */
    int (*pause)(void *userdata, struct vm_error *error);
    int (*resume)(void *userdata, struct vm_error *error);
    /* Of the VM, which is paused, as `config` says that it is now. */
    int (*create_snapshot)(void *userdata, const struct vm_config *config, const struct snapshot_create_config *request,
            struct vm_error *error);
    /* vm_new from a snapshot, and vm_start if the request says so. What it is made of takes the place of *config. */
    int (*load_snapshot)(void *userdata, const struct snapshot_load_config *request, struct vm_config *config,
            struct vm_error *error);
    int (*ctrl_alt_del)(void *userdata, struct vm_error *error);
    int (*update_drive)(void *userdata, const char *id, const char *path, struct vm_error *error);
    int (*balloon_target)(void *userdata, uint32_t mib, struct vm_error *error);
    int (*balloon_interval)(void *userdata, uint32_t seconds, struct vm_error *error);
    int (*balloon_stats)(void *userdata, struct balloon_stats *ret, struct vm_error *error);
    int (*set_logger)(void *userdata, const struct api_request *request, struct vm_error *error);
    int (*set_metrics)(void *userdata, const char *path, struct vm_error *error);
    int (*flush_metrics)(void *userdata, struct vm_error *error);
};

enum controller_state { CONTROLLER_NOT_STARTED, CONTROLLER_RUNNING, CONTROLLER_PAUSED };

struct controller {
    const struct controller_ops *ops;
    void *userdata;
    enum controller_state state;
    struct vm_config config;
    bool configured;  /* something that a snapshot would bring with it was set */
    bool has_metrics; /* set also by who opened a file before: --metrics-path */
};

void controller_init(struct controller *c, const char *id, const struct controller_ops *ops, void *userdata);
void controller_deinit(struct controller *c);
void controller_handle(struct controller *c, struct api_request *request, struct api_response *response);

/* --config-file: the same sections as the API's bodies, in one object ("boot-source", "drives", "machine-config",
 * "vsock", "entropy", "balloon", "serial", "logger", "metrics"); unknown sections are refused. Does not start. */
int controller_load_file(struct controller *c, const char *path, struct vm_error *error);
/* What the action InstanceStart does before the start. */
int controller_start(struct controller *c, struct vm_error *error);
