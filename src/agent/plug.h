/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A vsock device behind a PCI port: found, let go of, found again.
 *
 * QEMU plugs one into a machine that it has loaded, and can save none that has
 * one. Nothing in the guest waits for the port's buttons and interrupts
 * (pcie_ports=compat), so the agent does by hand what is to be done: what is
 * behind the port is there while its power is on, and off, with the guest's
 * consent, the device is QEMU's again (PCI Express 5.0 §6.7.1, slot control).
 */
#pragma once

/* Of all ports: what is plugged from now on can be seen. 0, or a negative errno. */
int plug_power_on(void);

/* Looks through the bus for what has been plugged; -ENOENT: there is none. */
int plug_look(void);

/* 0: there is a vsock device that plug_let_go() can let go of; -ENODEV. */
int plug_is_there(void);

/* Takes it from its driver, which ends all connections, and turns its port's power off, and on for the next. */
int plug_let_go(void);
