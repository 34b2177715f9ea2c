/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An attacker that is root in a Linux guest and takes the devices from their drivers: registers through /dev/mem,
 * ports through iopl(), pages whose physical addresses /proc/self/pagemap tells, and code of its own in place of the
 * kernel through kexec_load(). What it can't do by these, a module could not do either.
 *
 * It takes the vsock too, so it tells on the console what it does. Each attempt is a line before it and one after:
 *
 *     @ try GROUP: WHAT
 *     @ did GROUP: WHAT = HOW       it was stopped, and by what (HOW is one of harness.HOW)
 *     @ GOT GROUP: WHAT = DETAIL    it was not
 *     @ not GROUP: WHAT = REASON    it could not be made
 *
 * A "try" with nothing after it is one that ended the guest. The test then takes another guest and says how many
 * attempts not to make again.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof(*(a)))
#define PAGE          4096u

/* HOW */
#define BY_RESET   "device reset"   /* the device is marked DEVICE_NEEDS_RESET */
#define BY_REFUSAL "refused"        /* an answer that says no */
#define BY_SILENCE "ignored"        /* nothing happened */
#define BY_LIMIT   "limit"          /* as far as a limit */
#define BY_ANSWER  "served in full" /* odd, but within the rules: answered like any other, inside guest memory */

/* -- main.c */

/* Announces an attempt. False: it is one of those that are not to be made again. */
bool try(const char *group, const char *what, ...) __attribute__((format(printf, 2, 3)));
void did(const char *how);
void got(const char *detail, ...) __attribute__((format(printf, 1, 2)));
void not_made(const char *group, const char *what, const char *reason);
/* Ends the attack: it can't do its work. */
_Noreturn void fail(const char *text, ...) __attribute__((format(printf, 1, 2)));
uint32_t random32(void); /* from a fixed seed */
uint64_t now_us(void);

/* -- memory.c */

struct page {
    uint8_t *at;
    uint64_t gpa;
};
struct page page_new(void); /* zeroed, never moved */
uint64_t ram_end(void);     /* of the RAM below 4 GiB */
/* A page of physical addresses that is no RAM, or NULL. */
volatile uint8_t *map_registers(uint64_t gpa);

struct window { /* registers of a virtio-mmio device */
    uint64_t at;
    uint32_t size;
};
/* Takes all virtio devices from their drivers; their number. */
unsigned take_devices(struct window *ret, unsigned max);

/* -- virtio.c: a driver for virtio-mmio (virtio 1.2 §2.7, §4.2; version 1, QEMU's default, §4.2.4), by polling */

enum { ID_BLOCK = 2, ID_RNG = 4, ID_BALLOON = 5, ID_VSOCK = 19 };

enum {
    R_MAGIC = 0x000,
    R_VERSION = 0x004,
    R_DEVICE_ID = 0x008,
    R_DEVICE_FEATURES = 0x010,
    R_DEVICE_FEATURES_SEL = 0x014,
    R_DRIVER_FEATURES = 0x020,
    R_DRIVER_FEATURES_SEL = 0x024,
    R_PAGE_SIZE = 0x028, /* version 1 */
    R_QUEUE_SEL = 0x030,
    R_QUEUE_NUM_MAX = 0x034,
    R_QUEUE_NUM = 0x038,
    R_QUEUE_ALIGN = 0x03c, /* version 1 */
    R_QUEUE_PFN = 0x040,   /* version 1 */
    R_QUEUE_READY = 0x044,
    R_QUEUE_NOTIFY = 0x050,
    R_STATUS = 0x070,
    R_QUEUE_DESC = 0x080,
    R_QUEUE_DRIVER = 0x090,
    R_QUEUE_DEVICE = 0x0a0,
    R_CONFIG = 0x100,
};

#define S_NEEDS_RESET 0x40u
#define F_INDIRECT    (1ull << 28)
#define F_EVENT_IDX   (1ull << 29)

enum { D_NEXT = 1, D_WRITE = 2, D_INDIRECT = 4 };

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

#define QUEUE_SIZE 64u   /* or what the device has */
#define QUEUE_USED 2048u /* where the used ring begins in the page */
#define QUEUES     3u

/* Its parts are parts of one page. */
struct queue {
    struct page page;
    uint64_t desc_gpa, avail_gpa, used_gpa;
    volatile struct desc *desc;
    volatile uint16_t *avail; /* flags, idx, ring[size], used_event */
    volatile uint16_t *used;  /* flags, idx, then {u32 id, u32 len}[size], avail_event */
    uint16_t size, used_seen;
};

struct device {
    volatile uint8_t *regs;
    struct window window;
    uint32_t id;
    bool version_1;
    const char *name;
    unsigned queue_count;
    struct queue queue[QUEUES];
    struct page page, table; /* for requests, for indirect descriptors */
};

uint32_t reg(const struct device *d, unsigned offset);
void set_reg(struct device *d, unsigned offset, uint32_t v);
void set_reg64(struct device *d, unsigned offset, uint64_t v);

bool device_open(struct device *ret, const struct window *window); /* false: no device there */
bool device_begin(struct device *d, uint64_t features);            /* reset to FEATURES_OK */
void queue_tell(struct device *d, unsigned index);                 /* the registers of a queue with empty rings */
bool device_start(struct device *d, uint64_t features);            /* all queues, DRIVER_OK */
void queue_offer(struct queue *q, uint16_t head);
void kick(struct device *d, unsigned index);
/* Waits until a chain came back; false: not in this time, or the device is marked. */
bool queue_take(struct device *d, unsigned index, unsigned ms, uint16_t *ret_head, uint32_t *ret_len);
/* The plainest request there is succeeds. */
bool device_works(struct device *d);

/* -- the attacks; each leaves the devices working as far as they do */

struct devices {
    struct device list[16];
    unsigned count;
};
struct device *devices_find(struct devices *all, uint32_t id);

void attack_queues(struct devices *all);    /* queues.c */
void attack_registers(struct devices *all); /* registers.c */
void attack_disk(struct devices *all);
void attack_balloon(struct devices *all);
void attack_vsock(struct devices *all); /* vsock.c */
void attack_ports(void);                /* ports.c */
void attack_serial(void);
/* Each is meant to end the guest, or to take it from its kernel for good. False: no such. */
bool attack_reset(const char *how);   /* ports.c */
bool attack_kernel(const char *name); /* kernel.c */
