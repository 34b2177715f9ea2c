/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What one user's VMs may take together and each: the object "limits" of the
 * user's own configuration file (IC_PATH_CONFIG), and of no other. It is read
 * at each start, by whichever program starts a VM.
 *
 * A guard against a program that starts more and more, not against the user:
 * who may write the file may raise the limits.
 */
#pragma once

#include <jansson.h>

#include "orchestrator/record.h"

#define LIMITS_DEFAULT_VMS 64u

struct limits {
    char *path; /* of the file, for messages; it need not be there */
    uint32_t max_vms;
    uint32_t max_vcpus, max_memory_mib; /* of one VM; 0: none */
    uint32_t max_total_memory_mib;      /* of all that live; 0: none */
};

void limits_deinit(struct limits *limits);

/* The defaults where the file, or the object in it, is not there. A file that can't be understood is an error: what it
 * limits is not known then. */
int limits_load(struct limits *ret, struct ic_error *error);

/* The object alone: unknown members and wrong values are refused. `ret` may be NULL. */
int limits_parse(const json_t *object, struct limits *ret, struct ic_error *error);

/* -IC_ERR_LIMIT: the VM asks for more than one may have. */
int limits_check_vm(const struct limits *limits, const struct record *record, struct ic_error *error);

struct limits_usage {
    uint32_t vms;
    uint64_t memory_mib;
};

/* -IC_ERR_LIMIT: no room for it beside those that live. */
int limits_check_room(const struct limits *limits, const struct limits_usage *usage, const struct record *record,
        struct ic_error *error);
