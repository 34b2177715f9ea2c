/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Monitors that are driven by Firecracker's HTTP API: ours, and Firecracker.
 * One code; what differs between the two is the data below.
 *
 * The monitor is started with a socket for its API in the VM's run directory
 * and gets what the VM is made of in the order of Firecracker's Go SDK
 * (machine-config, boot-source, drives, vsock; then entropy), then
 * InstanceStart. The guest's serial port is the monitor's stdout, which is the
 * console's log; its messages go to stderr, the monitor's log.
 */
#pragma once

#include "orchestrator/backends/backend.h"

#define FCAPI_CALLS_MAX 8

struct fcapi {
    const char *program; /* looked up in libexec if it is ours, else in PATH */
    const char *env;     /* names another one; NULL: nothing does */
    bool ours;
    bool plain_id;      /* its --id takes no '_' */
    const char *get;    /* how to come by it */
    const char *reboot; /* Linux's reboot=: the way to end itself that the monitor takes as its guest's wish */
};

extern const struct fcapi fcapi_ironclaw, fcapi_firecracker;

/* The program's path, allocated; NULL when it is not there. */
char *fcapi_path(const struct fcapi *kind);

struct fcapi_call {
    const char *path;
    char *body; /* JSON */
};

/* The PUT requests that make and start a VM, in order; returns how many, -ENOMEM, or -EILSEQ (a path is not UTF-8).
 * Free with fcapi_free_calls. Pure. */
int fcapi_plan(
        const struct fcapi *kind, const struct backend_start *start, struct fcapi_call ret[static FCAPI_CALLS_MAX]);
void fcapi_free_calls(struct fcapi_call calls[static FCAPI_CALLS_MAX]);

/* What a refusal says: the fault_message of its body, escaped, or that it has none. Pure. Returns dst. */
const char *fcapi_fault(char *dst, size_t size, int status, const char *body, size_t len);
