/* SPDX-License-Identifier: Apache-2.0 */
/* sha256 as lower-case hex, of bytes, of files, and of a list of things that make up a key. */
#pragma once

#include <nettle/sha2.h>

#include "orchestrator/images/progress.h"

#define DIGEST_HEX_LEN 64

bool digest_hex_ok(const char *s);

void digest_bytes(const void *data, size_t len, char ret[DIGEST_HEX_LEN + 1]);

/* *ret_size (may be NULL) is the number of bytes that were read. */
int digest_file(const char *path, const struct progress *progress, const char *what, char ret[DIGEST_HEX_LEN + 1],
        uint64_t *ret_size, struct ic_error *error);

/* A key: each item is fed with its length, so that no two lists of items give the same bytes. */
struct digest_key {
    struct sha256_ctx ctx;
};
void digest_key_init(struct digest_key *key);
void digest_key_add(struct digest_key *key, const void *data, size_t len);
void digest_key_add_str(struct digest_key *key, const char *s);
void digest_key_finish(struct digest_key *key, char ret[DIGEST_HEX_LEN + 1]);
