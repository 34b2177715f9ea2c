/* SPDX-License-Identifier: Apache-2.0 */
#include "orchestrator/tail.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "base/log.h"

static size_t read_tail(char buf[TAIL_BYTES + 1], const char *dir, const char *log)
{
    char path[4200];
    _cleanup_(fd_closep) int fd = -1;
    struct stat st;
    ssize_t n;

    buf[0] = '\0';
    if ((size_t)snprintf(path, sizeof(path), "%s/%s", dir, log) >= sizeof(path))
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 || fstat(fd, &st) < 0)
        return 0;
    n = pread(fd, buf, TAIL_BYTES, st.st_size > (off_t)TAIL_BYTES ? st.st_size - (off_t)TAIL_BYTES : 0);
    if (n <= 0)
        return 0;
    for (ssize_t i = 0; i < n; i++) {
        if (buf[i] == '\0')
            buf[i] = ' ';
    }
    buf[n] = '\0';
    return (size_t)n;
}

const char *tail_line(char *dst, size_t size, const char *dir, const char *log)
{
    char buf[TAIL_BYTES + 1];
    char *line = NULL, *save = NULL;
    bool panic = false;

    read_tail(buf, dir, log);
    for (char *p = strtok_r(buf, "\r\n", &save); p; p = strtok_r(NULL, "\r\n", &save)) {
        if (p[strspn(p, " \t")] == '\0')
            continue;
        if (!panic && !(line && strstr(p, "] reboot: ")))
            line = p;
        if (strstr(p, "Kernel panic"))
            panic = true;
    }
    dst[0] = '\0';
    if (line)
        (void)log_escape(dst, size, line, strlen(line));
    return dst;
}

const char *tail_monitor(char *dst, size_t size, const char *dir)
{
    char buf[TAIL_BYTES + 1];
    char *line = NULL, *save = NULL;

    read_tail(buf, dir, "monitor.log");
    for (char *p = strtok_r(buf, "\r\n", &save); p; p = strtok_r(NULL, "\r\n", &save)) {
        if (p[strspn(p, " \t")] != '\0' && !strstr(p, "Z ironclaw["))
            line = p;
    }
    dst[0] = '\0';
    if (line)
        (void)log_escape(dst, size, line, strlen(line));
    return dst;
}

/* The last TAIL_BYTES of the log have the text. */
static bool tail_has(const char *dir, const char *log, const char *text)
{
    char buf[TAIL_BYTES + 1];

    read_tail(buf, dir, log);
    return strstr(buf, text) != NULL;
}

bool tail_lifetime_over(const char *dir)
{
    return tail_has(dir, "monitor.log", " ms is over (--max-lifetime-ms)");
}

bool tail_powered_off(const char *dir)
{
    char buf[TAIL_BYTES + 1];

    read_tail(buf, dir, "console.log");
    return !strstr(buf, "Kernel panic") &&
           (strstr(buf, "reboot: Restarting system") || strstr(buf, "reboot: Power down") ||
                   strstr(buf, "reboot: System halted"));
}
