/* SPDX-License-Identifier: Apache-2.0 */
#include "monitor/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "jail/start.h"
#include "monitor/vm-config.h"
#include "vsock/vsock.h"

static const char usage[] = "Usage: ironclaw-vmm [--api-sock PATH | --no-api] [--config-file FILE] [OPTION]...\n"
                            "Runs one virtual machine on KVM, driven by Firecracker's API on a unix socket.\n"
                            "\n"
                            "      --api-sock PATH      listen here (" OPTIONS_DEFAULT_SOCKET ")\n"
                            "      --no-api             no API; with --config-file\n"
                            "      --config-file FILE   configure from this JSON and start\n"
                            "      --id ID              name of the VM, for the log and the API (anonymous-instance)\n"
                            "      --log-path FILE      append the log here (standard error)\n"
                            "      --level LEVEL        error, warning, info or debug (info)\n"
                            "      --metrics-path FILE  append metrics here, one JSON object per line\n"
                            "      --boot-timer         log when the guest writes 123 to 0xc0000000\n"
                            "      --max-lifetime-ms N  end after so long, paused or not\n"
                            "      --vsock-max-connections N  vsock connections at a time, 1 to 1023 (1023)\n"
                            "      --seccomp-level L    minimal, basic or permissive (minimal)\n"
                            "      --seccomp-report     print what each thread may call, and why, and exit\n"
                            "      --no-seccomp         no filters\n"
                            "      --audit-fd N         inherited ring for what the filters refuse\n"
                            "      --seccomp-filter F   refused: the filters are built in\n"
                            "      --merge-memory FULL DIFF  put a diff snapshot's memory file into the one that it\n"
                            "                           continues, and exit\n"
                            "      --working-set PID MEMORY FILE  write to FILE which pages of its memory file\n"
                            "                           that monitor has touched, and exit\n"
                            "      --help               print this and exit\n"
                            "      --version            print the version and exit\n"
                            "\n"
                            "Exit status: 0 the guest ended itself, 1 failure, 152 bad configuration, 153 usage,\n"
                            "128+N ended by signal N; 148 a system call that a filter refuses; 124 the lifetime is\n"
                            "over.\n";

enum {
    OPT_API_SOCK = 256,
    OPT_NO_API,
    OPT_CONFIG_FILE,
    OPT_ID,
    OPT_LOG_PATH,
    OPT_LEVEL,
    OPT_METRICS_PATH,
    OPT_BOOT_TIMER,
    OPT_MAX_LIFETIME,
    OPT_VSOCK_MAX,
    OPT_NO_SECCOMP,
    OPT_SECCOMP_FILTER,
    OPT_SECCOMP_LEVEL,
    OPT_SECCOMP_REPORT,
    OPT_AUDIT_FD,
    OPT_MERGE_MEMORY,
    OPT_WORKING_SET,
    OPT_HELP,
    OPT_VERSION,
};

static const struct option long_options[] = {
        {"api-sock", required_argument, NULL, OPT_API_SOCK},
        {"no-api", no_argument, NULL, OPT_NO_API},
        {"config-file", required_argument, NULL, OPT_CONFIG_FILE},
        {"id", required_argument, NULL, OPT_ID},
        {"log-path", required_argument, NULL, OPT_LOG_PATH},
        {"level", required_argument, NULL, OPT_LEVEL},
        {"metrics-path", required_argument, NULL, OPT_METRICS_PATH},
        {"boot-timer", no_argument, NULL, OPT_BOOT_TIMER},
        {"max-lifetime-ms", required_argument, NULL, OPT_MAX_LIFETIME},
        {"vsock-max-connections", required_argument, NULL, OPT_VSOCK_MAX},
        {"no-seccomp", no_argument, NULL, OPT_NO_SECCOMP},
        {"seccomp-filter", required_argument, NULL, OPT_SECCOMP_FILTER},
        {"seccomp-level", required_argument, NULL, OPT_SECCOMP_LEVEL},
        {"audit-fd", required_argument, NULL, OPT_AUDIT_FD},
        {"seccomp-report", no_argument, NULL, OPT_SECCOMP_REPORT},
        {"merge-memory", required_argument, NULL, OPT_MERGE_MEMORY},
        {"working-set", required_argument, NULL, OPT_WORKING_SET},
        {"help", no_argument, NULL, OPT_HELP},
        {"version", no_argument, NULL, OPT_VERSION},
        {NULL, 0, NULL, 0},
};

static int _printf_(1, 2) refuse(const char *fmt, ...)
{
    va_list ap;

    fputs("ironclaw-vmm: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputs("; see ironclaw-vmm --help\n", stderr);
    return -EINVAL;
}

int options_parse_level(const char *text, enum log_level *ret)
{
    static const struct {
        const char *name;
        enum log_level level;
    } levels[] = {
            {"off", LOG_ERROR},
            {"error", LOG_ERROR},
            {"warn", LOG_WARN},
            {"warning", LOG_WARN},
            {"info", LOG_INFO},
            {"debug", LOG_DEBUG},
            {"trace", LOG_DEBUG},
    };

    for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
        if (strcasecmp(text, levels[i].name) == 0) {
            *ret = levels[i].level;
            return 0;
        }
    }
    return -EINVAL;
}

static bool is_id(const char *text)
{
    size_t len = strlen(text);

    return len > 0 && len <= VM_MAX_ID &&
           strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") == len;
}

static int take_number(const char *name, const char *text, uint32_t max, uint32_t *ret)
{
    unsigned long long value;
    char *end;

    errno = 0;
    value = strtoull(text, &end, 10);
    if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0 || value < 1 || value > max)
        return refuse("--%s: '%s' is not a number from 1 to %u", name, text, max);
    *ret = (uint32_t)value;
    return 0;
}

static int take(struct options *options, int option, const char *value, bool *no_api)
{
    switch (option) {
    case OPT_API_SOCK:
        options->api_sock = value;
        return 0;
    case OPT_NO_API:
        *no_api = true;
        return 0;
    case OPT_CONFIG_FILE:
        options->config_file = value;
        return 0;
    case OPT_ID:
        options->id = value;
        return is_id(value) ? 0 : refuse("--id: 1 to %u letters, digits, '-' and '_'", VM_MAX_ID);
    case OPT_LOG_PATH:
        options->log_path = value;
        return 0;
    case OPT_LEVEL:
        return options_parse_level(value, &options->level) == 0 ? 0 : refuse("--level: there is no level '%s'", value);
    case OPT_METRICS_PATH:
        options->metrics_path = value;
        return 0;
    case OPT_BOOT_TIMER:
        options->boot_timer = true;
        return 0;
    case OPT_MAX_LIFETIME:
        return take_number("max-lifetime-ms", value, UINT32_MAX, &options->max_lifetime_ms);
    case OPT_VSOCK_MAX:
        return take_number("vsock-max-connections", value, VSOCK_MAX_CONNECTIONS, &options->vsock_max_connections);
    case OPT_NO_SECCOMP:
        options->no_seccomp = true;
        return 0;
    case OPT_SECCOMP_FILTER:
        return refuse("--seccomp-filter: the filters are built in; --seccomp-level chooses between them");
    case OPT_SECCOMP_LEVEL:
        return seccomp_level_parse(value, &options->seccomp_level) == 0
                       ? 0
                       : refuse("--seccomp-level: there is no level '%s'", value);
    case OPT_AUDIT_FD:
        return seccomp_audit_to(value) == 0 ? 0 : refuse("--audit-fd: '%s' is no inherited audit ring", value);
    case OPT_SECCOMP_REPORT:
        options->seccomp_report = true;
        return 0;
    case OPT_MERGE_MEMORY:
        options->merge_full = value;
        return 0;
    case OPT_WORKING_SET:
        return take_number("working-set", value, INT32_MAX, &options->set_pid);
    case OPT_HELP:
        fputs(usage, stdout);
        return OPTIONS_DONE;
    case OPT_VERSION:
        puts("ironclaw-vmm " IRONCLAW_VERSION);
        return OPTIONS_DONE;
    default:
        fputs("see ironclaw-vmm --help\n", stderr);
        return -EINVAL;
    }
}

int options_parse(struct options *ret, int argc, char **argv)
{
    struct options options = {.id = "anonymous-instance", .level = LOG_INFO};
    bool no_api = false;
    int option, r;

    optind = 1;
    while ((option = getopt_long(argc, argv, "", long_options, NULL)) != -1) {
        r = take(&options, option, optarg, &no_api);
        if (r != 0)
            return r;
    }
    if (options.merge_full) {
        if (optind == argc)
            return refuse("--merge-memory: name the two memory files, the full one first");
        options.merge_diff = argv[optind++];
    }
    if (options.set_pid > 0) {
        if (argc - optind < 2)
            return refuse("--working-set: name the memory file, and a file for the result");
        options.set_memory = argv[optind++];
        options.set_path = argv[optind++];
    }
    if (optind < argc)
        return refuse("'%s' is one argument too many", argv[optind]);
    if (no_api && options.api_sock)
        return refuse("--no-api and --api-sock exclude each other");
    if (no_api && !options.config_file)
        return refuse("--no-api needs --config-file, nothing could start a VM else");
    if (!no_api && !options.api_sock)
        options.api_sock = OPTIONS_DEFAULT_SOCKET;
    *ret = options;
    return 0;
}
