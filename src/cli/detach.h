/* SPDX-License-Identifier: Apache-2.0 */
/* Running this program once more, away from its terminal. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/*
 * Starts this program again with `argv` (its own, from the verb on, which is `verb` words) and, behind the verb,
 * --foreground --ready-fd, in a session of its own with no terminal, and waits until it says its word there: into
 * ret_word, and CLI_OK. When it ends before, it has said why on our stderr: its exit status. A signal that would end us
 * ends it, and is waited for: 128 and its number.
 */
int detach_again(char *const *argv, size_t verb, char *ret_word, size_t size);

/* Whether descriptor `fd` is open, and for writing. */
bool detach_can_say(int fd);

/* That word; from now on stderr leads nowhere. */
void detach_say(int fd, const char *word);
