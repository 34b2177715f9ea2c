/* SPDX-License-Identifier: Apache-2.0 */
/* The words of the public enums, indexed by their values and ended by NULL: for configuration, records, messages. */
#pragma once

extern const char *const state_words[];
extern const char *const backend_words[];
extern const char *const isolation_words[];
extern const char *const overlay_words[];
extern const char *const seccomp_words[];
extern const char *const jail_words[];
