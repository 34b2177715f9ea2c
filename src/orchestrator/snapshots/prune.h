/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How long templates are kept: the object "templates" of the user's own
 * configuration file, with max_age_days (30) and max_total_mib (8192).
 */
#pragma once

#include <jansson.h>

#include "orchestrator/error.h"

/* The object alone: unknown members and wrong values are refused. */
int prune_parse(const json_t *object, uint32_t *ret_max_age_days, uint32_t *ret_max_total_mib, struct ic_error *error);

/* As ic_template_prune(); the template `except` (may be NULL) stays. */
int template_prune(
        uint32_t max_age_days, uint32_t max_total_mib, const char *except, size_t *ret_removed, struct ic_error *error);
