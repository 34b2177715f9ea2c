/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/commands.h"

#include <stdio.h>

#include "cli/json.h"

struct doctor_args {
    bool json;
};

static const struct cli_option options[] = {
        {0, "json", NULL, "print a JSON object", CLI_FLAG, offsetof(struct doctor_args, json), 0},
        {0},
};

static const char *status_name(enum ic_check_status status)
{
    switch (status) {
    case IC_CHECK_OK:
        return "ok";
    case IC_CHECK_WARNING:
        return "warning";
    case IC_CHECK_FAILED:
        return "failed";
    }
    return "unknown";
}

static void print_json(const struct ic_host_report *report, size_t count)
{
    bool usable = report->backend != IC_BACKEND_AUTO;
    struct json j = {0};

    json_begin_object(&j);
    json_key(&j, "usable");
    json_bool(&j, usable);
    json_key(&j, "backend");
    json_string(&j, usable ? ic_backend_name(report->backend) : NULL);
    json_key(&j, "isolation");
    json_string(&j, usable ? ic_isolation_name(report->isolation) : NULL);
    json_key(&j, "reason");
    json_string(&j, report->reason);
    json_key(&j, "checks");
    json_begin_array(&j);
    for (size_t i = 0; i < count; i++) {
        const struct ic_check *c = &report->checks[i];

        json_begin_object(&j);
        json_key(&j, "name");
        json_string(&j, c->name);
        json_key(&j, "status");
        json_string(&j, status_name(c->status));
        json_key(&j, "detail");
        json_string(&j, c->detail);
        json_key(&j, "remedy");
        json_string(&j, c->remedy[0] ? c->remedy : NULL);
        json_end(&j);
    }
    json_end(&j);
    json_end(&j);
    json_print(&j);
}

static void print_text(const struct ic_host_report *report, size_t count)
{
    if (report->backend == IC_BACKEND_AUTO)
        (void)printf("no backend works here: %s\n\n", report->reason);
    else
        (void)printf("backend %s, isolation: %s\n%s\n\n", ic_backend_name(report->backend),
                ic_isolation_name(report->isolation), report->reason);
    for (size_t i = 0; i < count; i++) {
        const struct ic_check *c = &report->checks[i];

        (void)printf("%-8s %-18s %s\n", status_name(c->status), c->name, c->detail);
        if (c->remedy[0] && c->status != IC_CHECK_OK)
            (void)printf("%-8s %-18s -> %s\n", "", "", c->remedy);
    }
}

static int doctor_main(const struct cli_call *call)
{
    const struct doctor_args *a = call->args;
    struct ic_host_report report = {.size = sizeof(report)};
    struct ic_error error = {0};
    size_t count;
    int r;

    r = ic_probe_host(&report, &error);
    if (r < 0)
        return cli_fail(r, &error);
    count = report.check_count < COUNT_OF(report.checks) ? report.check_count : COUNT_OF(report.checks);
    if (a->json)
        print_json(&report, count);
    else
        print_text(&report, count);
    return report.backend == IC_BACKEND_AUTO ? CLI_FAILED : CLI_OK;
}

const struct cli_command cmd_doctor = {
        .name = "doctor",
        .operands = "",
        .summary = "Say what this machine can do, and how to get more of it",
        .details = "The exit status is 125 when no backend works.",
        .options = options,
        .args_size = sizeof(struct doctor_args),
        .run = doctor_main,
};
