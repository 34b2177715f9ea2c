/* SPDX-License-Identifier: Apache-2.0 */
/* Systems without POSIX signals: nothing to forward, and no command that could be attached. */
#include "cli/signals.h"

void signals_init(void)
{
}

int signals_pending(void)
{
    return 0;
}

void signals_attach(ic_exec *exec, bool tty)
{
    (void)exec;
    (void)tty;
}

void signals_detach(void)
{
}

void signals_hold(void)
{
}
