/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A store is a directory of immutable directories ("objects") with names that
 * point at them: data/images (objects are named by their digest),
 * data/kernels (by kind and key), data/templates and data/snapshots
 * (snapshots/snapshot.h).
 *
 *   <store>/<object>/        never changed once it is there
 *   <store>/names/<name>     symlink ../<object>, replaced atomically
 *   <store>/.tmp-XXXXXX/     being built; its builder holds a flock on it
 *   <store>/.lock            held (flock) while names and objects change
 *   <store>/.build           held for a whole build, so that two builds of
 *                            one thing don't do the work twice
 *
 * An object without a name is removed under .lock at the next change, unless
 * somebody holds a shared flock on it (image_open does); an image only by
 * store_collect(), as VMs and snapshots may need it, which nothing in here
 * knows. What a killed build left is removed at the next change, as its flock
 * is gone.
 */
#pragma once

#include "orchestrator/images/progress.h"
#include "orchestrator/images/text.h"

enum store_kind { STORE_IMAGES, STORE_KERNELS, STORE_TEMPLATES, STORE_SNAPSHOTS };

/* A directory to build in, on the store's file system. */
struct workdir {
    enum store_kind store;
    char *path; /* NULL: none */
    int lock_fd;
};

#define WORKDIR_NONE                                                                                                   \
    {                                                                                                                  \
        .path = NULL, .lock_fd = -1                                                                                    \
    }

int workdir_make(enum store_kind store, struct workdir *ret, struct ic_error *error);
/* Removes it and all that is in it. For _cleanup_. */
void workdir_drop(struct workdir *workdir);
/* Makes it the object `object` (in place of one that is there) and points `name` at it; drops what no name needs. */
int workdir_commit(struct workdir *workdir, const char *object, const char *name, struct ic_error *error);

/* Adds the objects that are needed though they have no name. */
typedef int (*store_needed_fn)(struct strlist *ret, struct ic_error *error);

/* Removes objects that nobody needs any more; `needed` is asked about each with its lock and the store's held, so that
 * who needs it later finds it gone. An error of it keeps them. */
void store_collect(enum store_kind store, store_needed_fn needed);

/* Removes what killed builds left. Only looks into the store's directory when there is nothing. */
void store_sweep(enum store_kind store);

/* Waits for other builds. *ret_fd is closed to release it. */
int store_lock_build(enum store_kind store, const struct progress *progress, int *ret_fd, struct ic_error *error);

/* The object that a name points at; the caller frees *ret. -IC_ERR_NOT_FOUND, without a message when there is none. */
int store_resolve(enum store_kind store, const char *name, char **ret, struct ic_error *error);

/* Removes a name, and what is then without one, but for images. -IC_ERR_STATE: it is not `object`'s any more (NULL:
 * whatever it is of). */
int store_remove_name(enum store_kind store, const char *name, const char *object, struct ic_error *error);

/* Removes an object that has no name. -IC_ERR_STATE: it has one, somebody has it open, or it is needed (`needed` NULL:
 * that does not matter). */
int store_remove_object(enum store_kind store, const char *object, store_needed_fn needed, struct ic_error *error);

/* Names in alphabetical order; empty when there is no store yet. */
int store_list(enum store_kind store, struct strlist *ret, struct ic_error *error);

/* The objects that start with prefix; empty when there is no store yet. */
int store_find(enum store_kind store, const char *prefix, struct strlist *ret, struct ic_error *error);

/* What is in a directory, but for "." and "..", in no order. */
int store_entries(const char *path, struct strlist *ret, struct ic_error *error);

/* "<store>/<object>[/<file>]"; the caller frees *ret. */
int store_path(enum store_kind store, const char *object, const char *file, char **ret, struct ic_error *error);

/* Removes a tree, also one whose owners are this user's subordinate ids. */
int store_remove_tree(const char *path, struct ic_error *error);

/* Gives `to` the content of `from`: a hard link, or a copy where links can't be made. */
int store_link_file(const char *from, const char *to, struct ic_error *error);
