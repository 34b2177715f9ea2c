/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What SIGINT, SIGTERM, SIGHUP and SIGQUIT mean, depending on how far we are.
 *
 *   before signals_init      they end the program, as by default
 *   nothing attached         they are remembered; libironclaw's waits are interrupted and return -IC_ERR_CANCELLED.
 *                            A signal that falls between two waits is made good by an alarm each second.
 *   a command is attached    they are forwarded to it. SIGINT again within 2 s, or another signal again, cancels it.
 *                            With a terminal SIGTERM and SIGHUP cancel it at once: an interactive shell ignores the
 *                            one, and after the other there is nobody left.
 *   signals_hold             they wait until the program ends: cleaning up is never cut short
 *
 * The third signal with nothing attached ends the program at once.
 */
#pragma once

#include <ironclaw/ironclaw.h>

void signals_init(void);
int signals_pending(
        void); /* the first signal met since signals_init while nothing was attached, or the cancelling one; 0 */
void signals_attach(ic_exec *exec, bool tty); /* one that came just before is forwarded now */
void signals_detach(void);
void signals_hold(void);
