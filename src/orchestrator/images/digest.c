/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/images/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fd.h"

#define CHUNK_BYTES ((size_t)1 << 20)

bool digest_hex_ok(const char *s)
{
    return strspn(s, "0123456789abcdef") == DIGEST_HEX_LEN && s[DIGEST_HEX_LEN] == '\0';
}

static void to_hex(struct sha256_ctx *ctx, char ret[DIGEST_HEX_LEN + 1])
{
    static const char digits[] = "0123456789abcdef";
    uint8_t raw[SHA256_DIGEST_SIZE];

    sha256_digest(ctx, sizeof(raw), raw);
    for (size_t i = 0; i < sizeof(raw); i++) {
        ret[2 * i] = digits[raw[i] >> 4];
        ret[2 * i + 1] = digits[raw[i] & 15];
    }
    ret[DIGEST_HEX_LEN] = '\0';
}

void digest_bytes(const void *data, size_t len, char ret[DIGEST_HEX_LEN + 1])
{
    struct sha256_ctx ctx;

    sha256_init(&ctx);
    sha256_update(&ctx, len, data);
    to_hex(&ctx, ret);
}

int digest_file(const char *path, const struct progress *progress, const char *what, char ret[DIGEST_HEX_LEN + 1],
        uint64_t *ret_size, struct ic_error *error)
{
    _cleanup_(fd_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    _cleanup_(freep) uint8_t *chunk = malloc(CHUNK_BYTES);
    struct sha256_ctx ctx;
    struct stat st;
    uint64_t done = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return ic_fail_errno(error, -errno, "%s", path);
    if (!chunk)
        return ic_fail(error, IC_ERR_NO_MEMORY, "out of memory");
    sha256_init(&ctx);
    for (;;) {
        ssize_t n = read(fd, chunk, CHUNK_BYTES);
        int r;

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return ic_fail_errno(error, -errno, "%s", path);
        if (n == 0)
            break;
        sha256_update(&ctx, (size_t)n, chunk);
        done += (uint64_t)n;
        r = progress_report(progress, what, done, (uint64_t)st.st_size, error);
        if (r < 0)
            return r;
    }
    to_hex(&ctx, ret);
    if (ret_size)
        *ret_size = done;
    return 0;
}

void digest_key_init(struct digest_key *key)
{
    sha256_init(&key->ctx);
}

void digest_key_add(struct digest_key *key, const void *data, size_t len)
{
    uint8_t head[8];

    for (size_t i = 0; i < sizeof(head); i++)
        head[i] = (uint8_t)((uint64_t)len >> (8 * i));
    sha256_update(&key->ctx, sizeof(head), head);
    sha256_update(&key->ctx, len, data);
}

void digest_key_add_str(struct digest_key *key, const char *s)
{
    digest_key_add(key, s ? s : "", s ? strlen(s) : 0);
}

void digest_key_finish(struct digest_key *key, char ret[DIGEST_HEX_LEN + 1])
{
    to_hex(&key->ctx, ret);
}
