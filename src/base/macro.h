/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small language helpers used everywhere: cleanup attributes, checked
 * integers, array sizes. Nothing here allocates or makes a system call.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define _cleanup_(fn)      __attribute__((cleanup(fn)))
#define _printf_(fmt, arg) __attribute__((format(printf, fmt, arg)))
#define _noreturn_         __attribute__((noreturn))
#define _unused_           __attribute__((unused))
#define _must_check_       __attribute__((warn_unused_result))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define MIN(a, b)                                                                                                      \
    ({                                                                                                                 \
        __typeof__(a) min_a_ = (a);                                                                                    \
        __typeof__(b) min_b_ = (b);                                                                                    \
        min_a_ < min_b_ ? min_a_ : min_b_;                                                                             \
    })
#define MAX(a, b)                                                                                                      \
    ({                                                                                                                 \
        __typeof__(a) max_a_ = (a);                                                                                    \
        __typeof__(b) max_b_ = (b);                                                                                    \
        max_a_ > max_b_ ? max_a_ : max_b_;                                                                             \
    })
#define CONTAINER_OF(ptr, type, member) ((type *)(void *)((char *)(ptr)-offsetof(type, member)))

/* Both are true on overflow; *ret is then unspecified. */
#define add_overflows(a, b, ret) __builtin_add_overflow((a), (b), (ret))
#define mul_overflows(a, b, ret) __builtin_mul_overflow((a), (b), (ret))

/* _cleanup_(freep) char *s = NULL; */
static inline void freep(void *p)
{
    free(*(void **)p);
}

/* Defines `fn`p for use with _cleanup_; `fn` must accept NULL. */
#define DEFINE_CLEANUP(type, fn)                                                                                       \
    static inline void fn##p(type *p)                                                                                  \
    {                                                                                                                  \
        fn(*p);                                                                                                        \
    }

/* Hands ownership out of a _cleanup_ variable. */
#define TAKE_PTR(p)                                                                                                    \
    ({                                                                                                                 \
        __typeof__(p) take_p_ = (p);                                                                                   \
        (p) = NULL;                                                                                                    \
        take_p_;                                                                                                       \
    })
#define TAKE_FD(fd)                                                                                                    \
    ({                                                                                                                 \
        int take_fd_ = (fd);                                                                                           \
        (fd) = -1;                                                                                                     \
        take_fd_;                                                                                                      \
    })
