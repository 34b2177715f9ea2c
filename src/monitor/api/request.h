/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From an HTTP request, or a section of the configuration file, to a `struct
 * api_request`: routes and the fields of each body, as tables. Pure. What is
 * accepted here has the right names, types and ranges; whether it fits the
 * VM's state is the controller's business.
 */
#pragma once

#include <jansson.h>

#include "monitor/api/api.h"

#define API_MAX_DEPTH 16u /* of nested JSON */

/* Both: 0, or -EINVAL with the fault's text. `ret` needs api_request_deinit() after success only. */
int api_parse(struct api_request *ret, const char *method, const char *path, const char *body, size_t len,
        struct vm_error *error);
int api_parse_body(struct api_request *ret, enum api_verb verb, const json_t *body, struct vm_error *error);

/* NULL with the text: not one JSON object, too deep, a key twice. */
json_t *api_parse_json(const char *text, size_t len, struct vm_error *error);

/* The answer to one request: parses it and asks the handler. */
void api_answer(const char *method, const char *path, const char *body, size_t len, api_handler handler, void *userdata,
        struct api_response *response);
