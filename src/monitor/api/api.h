/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The API server: Firecracker's HTTP API on a unix socket, on a thread of its
 * own ("fc_api"). It parses requests into `struct api_request`, hands them to
 * the VMM thread one at a time and writes the answer. It sees JSON and
 * structs, never guest memory.
 *
 * Limits (Firecracker's): 10 connections, request and header lines of 1,024
 * bytes, bodies of 51,200. Formats: docs/man/ironclaw-vmm.8 and design notes
 * in docs/architecture.md.
 */
#pragma once

#include "base/macro.h"
#include "jail/seccomp.h"
#include "monitor/vm-config.h"

#define API_MAX_BODY        51200u
#define API_MAX_LINE        1024u
#define API_MAX_CONNECTIONS 10u
#define API_MAX_RESPONSE    16384u

enum api_verb {
    API_GET_INSTANCE,
    API_GET_VERSION,
    API_GET_VM_CONFIG,
    API_GET_MACHINE_CONFIG,
    API_PUT_MACHINE_CONFIG,
    API_PATCH_MACHINE_CONFIG,
    API_PUT_BOOT_SOURCE,
    API_PUT_DRIVE,
    API_PATCH_DRIVE,
    API_PUT_VSOCK,
    API_PUT_ENTROPY,
    API_PUT_SERIAL,
    API_PUT_LOGGER,
    API_PUT_METRICS,
    API_GET_BALLOON,
    API_PUT_BALLOON,
    API_PATCH_BALLOON,
    API_GET_BALLOON_STATS,
    API_PATCH_BALLOON_STATS,
    API_START,
    API_FLUSH_METRICS,
    API_CTRL_ALT_DEL,
    API_PATCH_VM, /* paused says which */
    API_SNAPSHOT_CREATE,
    API_SNAPSHOT_LOAD,
};

/* Which members of a PATCH body were there. */
enum {
    API_HAS_VCPU_COUNT = 1 << 0,
    API_HAS_MEM_SIZE = 1 << 1,
    API_HAS_SMT = 1 << 2,
    API_HAS_TRACK_DIRTY = 1 << 3,
    API_HAS_HUGE_PAGES = 1 << 4,
    API_HAS_PATH = 1 << 5,
    API_HAS_LEVEL = 1 << 6,
    API_HAS_SHOW_LEVEL = 1 << 7,
    API_HAS_SHOW_ORIGIN = 1 << 8,
};

struct api_request {
    enum api_verb verb;
    unsigned has;
    /* The member that the verb names; strings are owned by the request until the handler takes them (sets NULL). */
    struct machine_config machine;
    struct boot_source boot;
    struct drive_config drive;
    struct vsock_config vsock;
    struct balloon_config balloon;
    struct serial_config serial;
    struct snapshot_create_config create;
    struct snapshot_load_config load;
    struct {
        char *path;
        int level; /* enum log_level */
        bool show_level, show_origin;
    } logger; /* and metrics: path */
    bool paused;
};
void api_request_deinit(struct api_request *request);

struct api_response {
    int status;                  /* 200 with body, 204 without, 400 with {"fault_message": body} made by api_fault() */
    char body[API_MAX_RESPONSE]; /* NUL-terminated JSON */
};
void api_fault(struct api_response *response, const char *fmt, ...) _printf_(2, 3);

/* Runs on the API thread; blocks until the VMM thread answered. */
typedef void (*api_handler)(void *userdata, struct api_request *request, struct api_response *response);

extern const struct seccomp_profile api_seccomp;

struct api_server;
/* Takes over listen_fd. The thread is made by api_server_start(), after which nothing else may touch the server. */
int api_server_new(struct api_server **ret, int listen_fd, api_handler handler, void *userdata);
int api_server_start(struct api_server *server); /* returns when the thread has its filter */
void api_server_free(struct api_server *server); /* ends the thread; accepts NULL */
