/* SPDX-License-Identifier: Apache-2.0 */
/* The request of the hybrid convention: "CONNECT <port>\n", one port in decimal. Pure. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define CONNECT_LINE_MAX 32u /* bytes, newline included; the longest valid line has 19 */

/*
 * Looks for the line at the start of `data`, which may hold more than it.
 * Returns its length in bytes with the newline, and *ret_port; 0 when what is
 * there may become a line once more bytes come; -EBADMSG when it can't.
 * Strict: one blank, digits only, no leading zero except "0" itself, at most
 * 4294967295; a carriage return is refused.
 */
int connect_line_parse(const void *data, size_t len, uint32_t *ret_port);
