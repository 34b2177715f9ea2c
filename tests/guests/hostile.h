/* SPDX-License-Identifier: Apache-2.0 */
/* What the hostile cases share: all devices, and a look at whether a device still does its work. */
#pragma once

#include "lib/virtio.h"

/* How many queues a driver of this device has to start. */
unsigned queues_of(const struct device *d);
/* device_start() with all of them; like device_set_up() when `checked` is false. */
void start_all(struct device *d, uint64_t features, bool checked);
/* Resets the device, starts it properly, and has it do one thing that shows it works. */
void must_work(struct device *d);
/* What came of a kick; `due`: something has to, so it may take its time. */
enum outcome { NOTHING, ANSWERED, MARKED };
enum outcome settle(const struct queue *q, bool due);
