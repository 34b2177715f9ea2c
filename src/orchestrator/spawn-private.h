/* SPDX-License-Identifier: Apache-2.0 */
/* A VM in the making, private to spawn.c (which says in what order), spawn-look.c and spawn-wait.c. */
#pragma once

#include "orchestrator/backends/backend.h"
#include "orchestrator/images/image.h"
#include "orchestrator/spawn.h"
#include "orchestrator/user-limits.h"
#include "wire/wire.h"

#define SPAWN_LOG_LIMIT_BYTES ((uint64_t)16 << 20)
#define SPAWN_ENTROPY_BYTES   64u
#define SPAWN_PATH_ROOM       128u /* sockets' paths; sun_path has 108 */

struct spawn {
    struct spawn_plan plan;
    struct snapshot template_; /* plan.from, when it is one that we opened ourselves */
    struct backend_snapshot origin;
    struct ic_vm_config config;
    struct limits limits;
    struct image image;
    const struct backend *backend;
    struct record record;
    struct table_entry entry;
    struct backend_start start;
    struct confine confine;
    int ready_listen_fd, ready_fd;
    char uds_path[SPAWN_PATH_ROOM];
    char kernel_args[512], cause[512]; /* of the start, for the log */
    uint64_t begin_us, phase_us, overlay_bytes;
    bool claimed, started, limited;
};

int64_t spawn_unix_ms(void);
/* The phase is over. */
void spawn_phase(struct spawn *s, enum record_phase phase);

/* spawn-look.c: what the VM is to be, into config, record, backend and the descriptors of its files. Nothing exists yet
 * afterwards; but a template may have been made. */
int spawn_look(struct spawn *s, const struct ic_vm_config *config, struct ic_error *error);

/* spawn-wait.c */
/* Until the agent has said READY on s->ready_fd, or, of a template without a vsock, that it is frozen. */
int spawn_wait_ready(struct spawn *s, struct wire_reader *reader, uint64_t deadline, struct ic_error *error);
/* Makes what came back from a snapshot somebody of its own. */
int spawn_give_identity(struct spawn *s, struct wire_reader *reader, uint64_t deadline, struct ic_error *error);
/* The error for a monitor that ended before its guest was ready. */
int spawn_fail_ended(const struct spawn *s, struct ic_error *error);
/* True when its max_lifetime_ms is over, which is then the error. */
bool spawn_fail_lifetime(const struct spawn *s, struct ic_error *error);
/* Its logs have a limit from the guest's first word on. */
void spawn_limit_logs(struct spawn *s, bool guest_runs);
