/* SPDX-License-Identifier: Apache-2.0 */
/*
 * logs: the guest's kernel log, or what the monitor said.
 *
 * The log is a file that may grow while it is read and is bounded by whoever
 * writes it. -f reads on until the VM has ended and nothing more came. Guest
 * text is raw in the file. It is escaped also when standard output is a pipe:
 * what reads that (grep, tail) usually prints it to a terminal.
 */
#include "cli/commands.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/audit.h"
#include "cli/tty.h"
#include "cli/vms.h"

#define CHUNK_SIZE (64u << 10)
#define POLL_MS    100
#define STATE_MS   500 /* how often -f asks whether the VM still runs */
#define TAIL_MAX   1000000u

struct logs_args {
    bool follow, monitor, raw, audit, json;
    struct cli_number tail;
};

#define FIELD(f) offsetof(struct logs_args, f)

static const struct cli_option options[] = {
        {'f', "follow", NULL, "go on until the VM ends", CLI_FLAG, FIELD(follow), 0},
        {0, "monitor", NULL, "what the monitor and IronClaw's processes said", CLI_FLAG, FIELD(monitor), 0},
        {0, "raw", NULL, "print the bytes as they are", CLI_FLAG, FIELD(raw), 0},
        {0, "audit", NULL, "what system call filters and limits refused, of VM or of all", CLI_FLAG, FIELD(audit), 0},
        {0, "json", NULL, "with --audit: print a JSON object", CLI_FLAG, FIELD(json), 0},
        {'n', "tail", "N", "only the last N lines", CLI_COUNT, FIELD(tail), 0},
        {0},
};

static int fail_errno(const char *what)
{
    cli_error("%s: %s", what, strerror(errno));
    return CLI_FAILED;
}

/* 0, or -1 when stdout takes no more. */
static int put(const char *data, size_t len, bool escape)
{
    struct text line = {0};
    bool ok;

    if (!escape)
        return fwrite(data, 1, len, stdout) == len && fflush(stdout) == 0 ? 0 : -1;
    text_put_escaped(&line, data, len, TEXT_MANY_LINES);
    ok = fwrite(text_str(&line), 1, line.len, stdout) == line.len && fflush(stdout) == 0;
    text_deinit(&line);
    return ok ? 0 : -1;
}

/* Sets fd's position to the start of the last `lines` lines: a ring of line starts, filled in one pass. */
static int seek_tail(int fd, uint32_t lines)
{
    int64_t *starts, offset = 0;
    size_t count = 0, ring = lines + 1u; /* one more: the empty line after the last newline */
    char chunk[4096];
    ssize_t n;

    starts = text_alloc(ring, sizeof(*starts));
    count++;
    while ((n = read(fd, chunk, sizeof(chunk))) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (chunk[i] == '\n')
                starts[count++ % ring] = offset + i + 1;
        }
        offset += n;
    }
    if (n == 0) {
        /* Text without a newline at its end is a line too. */
        bool ends_in_newline = starts[(count - 1) % ring] == offset;
        size_t complete = count - (ends_in_newline ? 1 : 0), first = complete > lines ? complete - lines : 0;

        offset = lines == 0 ? offset : starts[first % ring];
        n = lseek(fd, (off_t)offset, SEEK_SET) < 0 ? -1 : 0;
    }
    free(starts);
    return n < 0 ? -1 : 0;
}

static int copy_all(int fd, bool escape, bool *ret_any)
{
    char *chunk = text_alloc(CHUNK_SIZE, 1);
    size_t held = 0; /* a "\r" at the end waits for what follows it */
    ssize_t n = 0;
    int status = CLI_OK;

    *ret_any = false;
    while (status == CLI_OK && (n = read(fd, chunk + held, CHUNK_SIZE - held)) > 0) {
        size_t len = held + (size_t)n;

        held = chunk[len - 1] == '\r' ? 1 : 0;
        if (put(chunk, len - held, escape) < 0)
            status = CLI_FAILED; /* main reports what became of stdout */
        if (held)
            chunk[0] = '\r';
        *ret_any = true;
    }
    if (status == CLI_OK && n < 0)
        status = fail_errno("reading the log");
    if (status == CLI_OK && held && put(chunk, 1, false) < 0)
        status = CLI_FAILED;
    free(chunk);
    return status;
}

static bool still_runs(const char *name)
{
    struct ic_vm_info info = {.size = sizeof(info)};
    struct ic_error error;
    ic_vm *vm = NULL;
    bool alive;

    alive = ic_open_vm(name, &vm, &error) >= 0 && ic_vm_info(vm, &info, &error) >= 0 && vms_is_alive(info.state);
    ic_vm_free(vm);
    return alive;
}

static int follow(int fd, const char *id, bool escape)
{
    uint64_t asked_ms = 0, now;
    bool any, alive = true;
    int status;

    for (;;) {
        status = copy_all(fd, escape, &any);
        if (status != CLI_OK || (!alive && !any))
            return status;
        now = tty_now_ms();
        if (now - asked_ms >= STATE_MS) {
            alive = still_runs(id);
            asked_ms = now;
        }
        if (alive)
            tty_sleep_ms(POLL_MS);
    }
}

static int print_log(ic_vm *vm, const struct logs_args *a, const char *id)
{
    bool escape = !a->raw, any;
    struct ic_error error = {0};
    int fd = -1, r, status = CLI_OK;

    r = ic_vm_open_log(vm, a->monitor ? IC_LOG_MONITOR : IC_LOG_CONSOLE, &fd, &error);
    if (r < 0)
        return cli_fail(r, &error);
    if (a->tail.given && seek_tail(fd, a->tail.value) < 0)
        status = fail_errno("reading the log");
    if (status == CLI_OK)
        status = a->follow ? follow(fd, id, escape) : copy_all(fd, escape, &any);
    (void)close(fd);
    return status;
}

/* Which options go together, in words; NULL when all do. */
static const char *misfit(const struct logs_args *a, size_t operands)
{
    if (a->json && !a->audit)
        return "--json goes with --audit only";
    if (a->audit && (a->follow || a->monitor || a->raw))
        return "--audit goes with none of -f, --monitor and --raw";
    return !a->audit && operands == 0 ? "VM is missing" : NULL;
}

static int logs_main(const struct cli_call *call)
{
    const struct logs_args *a = call->args;
    const char *wrong = misfit(a, call->operand_count);
    struct ic_vm_info info = {.size = sizeof(info)};
    struct ic_error error = {0};
    ic_vm *vm = NULL;
    int r, status;

    if (wrong)
        return cli_usage("%s", wrong);
    if (a->tail.given && a->tail.value > TAIL_MAX)
        return cli_usage("--tail: at most %u lines", TAIL_MAX);
    if (a->audit)
        return audit_print(call->operand_count > 0 ? call->operands[0] : NULL, a->json,
                a->tail.given ? a->tail.value : UINT32_MAX);
    r = ic_open_vm(call->operands[0], &vm, &error);
    if (r >= 0)
        r = ic_vm_info(vm, &info, &error);
    status = r < 0 ? cli_fail(r, &error) : print_log(vm, a, info.vm_id);
    ic_vm_free(vm);
    return status;
}

const struct cli_command cmd_logs = {
        .name = "logs",
        .operands = "[VM]",
        .summary = "Show a guest's kernel log, or what was refused",
        .details =
                "Bytes that are not printable ASCII are shown as \\xNN. Only --audit does without a VM, and takes one\n"
                "that is gone.",
        .options = options,
        .args_size = sizeof(struct logs_args),
        .min_operands = 0,
        .max_operands = 1,
        .complete = CLI_COMPLETE_VM,
        .run = logs_main,
};
