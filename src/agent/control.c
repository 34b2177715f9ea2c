/* SPDX-License-Identifier: Apache-2.0 */
#include "agent/control.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statfs.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "agent/freeze.h"
#include "agent/identity.h"
#include "base/clock.h"
#include "base/fd.h"

#define LATE_MAX_NS 1000000000u

void control_answer(struct session *s)
{
    session_step(s, WIRE_OK);
    wire_put_empty(&s->out, WIRE_OK);
    session_touch(s);
}

void control_send_ready(struct session *s)
{
    struct utsname name = {0};
    struct wire_ready ready = {
            .version = WIRE_VERSION,
            .boot_us = clock_now_us(),
            .init_us = s->agent->options.init_us,
            .agent_version = wire_str_of(IRONCLAW_VERSION),
    };

    (void)uname(&name);
    ready.kernel_release = wire_str_of(name.release);
    session_step(s, WIRE_READY);
    wire_put_ready(&s->out, &ready);
    session_touch(s);
}

/* What is told is late by the way it took: who is told again goes by the latest, and a clock that was right stays so. A
 * host whose own was put back says something quite different. Positive errno, or negative for a malformed payload, as
 * add_entropy(). */
static int set_time(struct agent *agent, const uint8_t *payload, size_t len)
{
    uint64_t ns, now = clock_unix_ns();
    int r = wire_get_time(&ns, payload, len);

    if (r < 0)
        return r;
    if (agent->has_time && now >= ns && now - ns < LATE_MAX_NS)
        return 0;
    r = identity_set_clock(ns);
    agent->has_time |= r == 0;
    return -r;
}

static int add_entropy(struct agent *agent, const uint8_t *payload, size_t len)
{
    int r;

    if (len == 0)
        return -EBADMSG;
    r = identity_add_entropy(&agent->identity, payload, len);
    if (r == 0)
        identity_first(&agent->identity);
    return -r;
}

/* The value of "Key:   123 kB"; 0 when it is not there. */
static uint64_t meminfo_kib(const char *text, const char *key)
{
    const char *at = strstr(text, key);

    return at ? strtoull(at + strlen(key), NULL, 10) : 0;
}

/* The first line of /proc/stat is "cpu  user nice system idle iowait irq softirq ..." in clock ticks. */
static uint64_t cpu_busy_ms(void)
{
    static const bool busy[] = {true, true, true, false, false, true, true};
    _cleanup_(freep) char *text = NULL;
    long hz = sysconf(_SC_CLK_TCK);
    uint64_t ticks = 0;
    char *at;
    size_t len;

    if (fd_read_file(AT_FDCWD, "/proc/stat", 256 << 10, &text, &len) < 0 || hz <= 0 || strncmp(text, "cpu ", 4) != 0)
        return 0;
    at = text + 4;
    for (size_t i = 0; i < ARRAY_SIZE(busy); i++) {
        uint64_t n = strtoull(at, &at, 10);

        if (busy[i])
            ticks += n;
    }
    return ticks * 1000 / (uint64_t)hz;
}

static void send_stats(struct session *s)
{
    _cleanup_(freep) char *meminfo = NULL;
    struct wire_stats stats = {.sessions = s->agent->session_count, .reaped = s->agent->reaped};
    struct sysinfo info;
    struct statfs fs;
    size_t len;

    if (fd_read_file(AT_FDCWD, "/proc/meminfo", 64 << 10, &meminfo, &len) == 0) {
        stats.mem_total_kib = meminfo_kib(meminfo, "MemTotal:");
        stats.mem_available_kib = meminfo_kib(meminfo, "MemAvailable:");
    }
    if (sysinfo(&info) == 0) {
        stats.processes = info.procs;
        stats.uptime_ms = clock_now_ms();
    }
    if (statfs("/", &fs) == 0) {
        uint64_t block = (uint64_t)fs.f_bsize;

        stats.overlay_size_kib = fs.f_blocks * block / 1024;
        stats.overlay_used_kib = (fs.f_blocks - fs.f_bfree) * block / 1024;
    }
    stats.cpu_busy_ms = cpu_busy_ms();
    stats.oom_kills = cgroups_oom_kills(&s->agent->cgroups);
    session_step(s, WIRE_STATS);
    wire_put_stats(&s->out, &stats);
    session_touch(s);
}

int control_frame(struct session *s, enum wire_type type, const uint8_t *payload, size_t len)
{
    int r = 0;

    switch (type) {
    case WIRE_TIME:
        r = set_time(s->agent, payload, len);
        break;
    case WIRE_ENTROPY:
        r = add_entropy(s->agent, payload, len);
        break;
    case WIRE_STATS_REQ:
        send_stats(s);
        return 0;
    case WIRE_SHUTDOWN:
        agent_shut_down(s->agent);
        return 0;
    case WIRE_PING:
        break;
    case WIRE_FREEZE:
    case WIRE_UNPLUG:
    case WIRE_THAW:
    case WIRE_CLONE:
        return freeze_frame(s, type, payload, len);
    default:
        return -EPROTO;
    }
    if (r < 0)
        return r;
    if (r > 0)
        session_fail(
                s, WIRE_E_IO, r, "%s: %s", type == WIRE_TIME ? "setting the clock" : "adding entropy", strerror(r));
    else
        control_answer(s);
    return 0;
}
