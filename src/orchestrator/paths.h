/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Where everything is. With IRONCLAW_HOME set: $IRONCLAW_HOME/{data,state,run}
 * and $IRONCLAW_HOME/config.json. Else XDG: images under the data home,
 * records under the state home, sockets under the runtime directory (root
 * without one: /run/ironclaw; others: /tmp/ironclaw-<uid>, refused unless it
 * is a directory of this user with mode 0700), config.json under the config home.
 *
 *   data/images/<digest>/      manifest.json, vmlinux, initramfs, rootfs.erofs
 *   data/images/names/<name>   symlink to ../<digest>
 *   data/kernels/<kind>-<key>/ vmlinux, modules, kernel.json
 *   data/tsc                   rate of the time stamp counter, for one boot of the host (backends/tsc.h)
 *   state/vms/<vm_id>/         record.json, lock, alive, console.log, monitor.log (table.h), audit-*.ring
 *   state/audit.ring           this user's (audit-log.h)
 *   run/<vm_id>/               v (vsock), v_1025 (ready), q (QMP) or a (API), state (link to the record's directory)
 *
 * No path is built from unchecked input: ids and names are validated before.
 */
#pragma once

#include "orchestrator/error.h"

/* Absolute path of the place, without making it. The caller frees *ret. */
int path_of(enum ic_path which, char **ret, struct ic_error *error);

/* "<place>/<fmt...>", allocated; makes no directory. */
int path_in(char **ret, struct ic_error *error, enum ic_path which, const char *fmt, ...) _printf_(4, 5);

/* mkdir -p with mode 0700 for what it makes; verifies that the last part is a directory of this user. */
int path_make_dir(const char *path, struct ic_error *error);

/* That part alone, without making it: -IC_ERR_NOT_FOUND, -IC_ERR_DENIED when it, or the link that it is, belongs to
 * somebody else or others can write to it. */
int path_check_dir(const char *path, struct ic_error *error);

/* -IC_ERR_NO_SPACE when foreign data that is being written there has left the file system too little for everything
 * else: a small archive, or a guest, can have any amount of it. */
int path_check_room(const char *dir, struct ic_error *error);

/* Removes a tree; never follows a symlink, never leaves its file system. Success when it is gone already. */
int path_remove_tree(const char *path, struct ic_error *error);

/* [a-zA-Z0-9_-]{1,64} */
bool path_vm_id_ok(const char *id);
/* Image names: [a-z0-9][a-z0-9._-]{0,63}(:[a-zA-Z0-9._-]{1,32})? and not 64 hex digits. */
bool path_image_name_ok(const char *name);
