/* SPDX-License-Identifier: Apache-2.0 */
/* The jail's root stage. Internal to this folder. */
#pragma once

#include "jail/jail.h"

/*
 * In a mount namespace of our own, with the privilege to mount: changes the root to a read-only tmpfs with the jail's
 * mounts. System calls only. *ret_half: it failed when the old root could no longer be had whole.
 */
int root_enter(const struct jail *jail, bool *ret_half);
