/* SPDX-License-Identifier: Apache-2.0 */
#pragma once

/* The digest of an image that something outside of the store needs; NULL: none. */
extern const char *test_needed;
