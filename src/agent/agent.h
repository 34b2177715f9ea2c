/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The agent: one thread, one epoll loop, a fixed table of sessions.
 *
 * Each connection from the host is a session (session.h). Commands run as
 * children and are served in the loop (exec.h); file transfers are forked off
 * and work on the connection by themselves (copy.h), so that the loop never
 * waits for a disk. As PID 1 the agent also reaps every orphan.
 *
 * The host is trusted to control the guest, the guest's own processes are not:
 * connections from anybody but the host are refused, and what a command does
 * with its pipes, files and processes can at worst end its own session.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "agent/cgroup.h"
#include "agent/freeze.h"
#include "agent/identity.h"
#include "agent/user.h"
#include "base/loop.h"
#include "jail/seccomp.h"
#include "wire/wire.h"

#define AGENT_SESSIONS_MAX     256u
#define AGENT_READY_TIMEOUT_MS 300000u

struct session;
struct spawn;

struct agent_options {
    const char *listen_unix;  /* tests: serve this unix socket, as an ordinary process; NULL: vsock */
    const char *cgroup_mount; /* NULL: none */
    uint64_t init_us;         /* when main() began, clock.h */
    struct sock_fprog filter; /* of commands; len 0: none. The agent does not own it */
    bool tied;                /* power off when the ready connection ends or can't be made */
    bool template;            /* freeze.h */
    bool test_no_reseed;      /* identity.h */
};

struct agent {
    struct loop loop;
    struct agent_options options;
    struct loop_fd listener, signals;
    struct loop_timer reap_more, accept_more, housekeeping;
    struct session *sessions[AGENT_SESSIONS_MAX];
    unsigned session_count;
    struct session *ready; /* the one that the agent made, if it is there or about to be */
    struct cgroups cgroups;
    struct identity identity;
    struct freeze freeze;
    bool change_user; /* false without root's rights: every command runs as the agent itself */
    bool power_off;   /* why the loop ended */
    bool has_time;    /* the host has said it */
    int null_fd;
    struct spawn *spawning; /* starts whose session is gone before the child was */
    uint64_t reaped;
};

/* Listens, and connects to the host's ready port. On failure nothing is left open. */
int agent_init(struct agent *agent, const struct agent_options *options);
void agent_deinit(struct agent *agent);
/* Until a shutdown is asked for (agent->power_off) or SIGTERM came (tests). */
int agent_run(struct agent *agent);
void agent_shut_down(struct agent *agent);
/* The ready connection is gone and this machine is tied to it. */
void agent_untied(struct agent *agent);

/* Whose rights a request asks for. Without root's rights only the agent's own user can be had. As user_lookup. */
int agent_find_user(const struct agent *agent, struct user *ret, const struct wire_str *spec);

/* cgroup_take(), and another group is made ready when the agent has time. */
int agent_take_cgroup(struct agent *agent, struct cgroup **ret);

/* Takes over a struct spawn until its child is reaped. */
void agent_keep_spawn(struct agent *agent, struct spawn *spawn);

/* Begins to connect to the host's ready port. Negative errno when that can't even begin. */
int agent_connect_ready(struct agent *agent, uint64_t patience_ms);

/* Takes the connections that already wait. */
void agent_accept(struct agent *agent);

/* A session that serves fd (taken over also on failure); `ready` for the connection that the agent made. */
int agent_add_session(struct agent *agent, int fd, bool ready);
