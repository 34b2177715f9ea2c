/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Processes that outlive the program that started them.
 *
 * A pid alone may belong to somebody else by the time it is used. So a
 * process is named by pid and start time (field 22 of /proc/PID/stat; the
 * record adds the boot id), and is signalled through a pidfd that was opened
 * first and verified afterwards.
 *
 * Every child carries MARK_ENV=<the VM's state directory> in its environment.
 * Whoever cleans up after a crash finds with it also those children whose
 * pids never reached the record.
 */
#pragma once

#include <linux/filter.h>
#include <sys/types.h>

#include "jail/jail.h"
#include "orchestrator/error.h"

#define PROCESS_MARK_ENV "IRONCLAW_VM"
#define BOOT_ID_SIZE     37 /* uuid and NUL */

struct process_id {
    pid_t pid; /* 0: none */
    uint64_t start_ticks;
};

/* Of /proc/PID/stat, proc(5). */
struct process_stat {
    uint64_t start_ticks;
    uint64_t cpu_ticks; /* used by all its threads, those that ended too */
    pid_t parent;
    char state;
    bool doomed; /* it ends, or SIGKILL waits for it */
};
/* 0, -EBADMSG. */
int process_stat_parse(const char *text, struct process_stat *ret);

int process_boot_id(char ret[BOOT_ID_SIZE]);

/* Fills start_ticks; -ESRCH when there is no such process. */
int process_identify(pid_t pid, struct process_id *ret);

/* False also for a zombie; a zombie that is our own child is reaped. True when it can't be told (no descriptors, no
 * memory): a VM must not end because its observer is short of something. */
bool process_alive(const struct process_id *p);

/* Alive, and not about to end: who is killed takes a moment to die, in which it must not pass for well. */
bool process_well(const struct process_id *p);

/* What it has used of processors, in sysconf(_SC_CLK_TCK) per second; 0 when it is gone. */
uint64_t process_cpu_ticks(const struct process_id *p);

/* How a process that was our child ended, as in siginfo_t: CLD_EXITED and a status, or CLD_KILLED, CLD_DUMPED and a
 * signal. False when it lives, was not ours, or is long forgotten. */
bool process_how_ended(const struct process_id *p, int *ret_code, int *ret_status);

/* A pidfd of exactly this process, or -ESRCH. */
int process_open(const struct process_id *p, int *ret_pidfd);

/* SIGKILL, then waits until it is gone (and reaps it if it is our child). 0 when it was gone already; -ETIMEDOUT. */
int process_kill(const struct process_id *p, uint64_t deadline);

/* Kills every process of this user whose environment has PROCESS_MARK_ENV=mark and waits for them. Returns how many,
 * or a negative errno. Searches all of /proc. */
int process_kill_marked(const char *mark, uint64_t deadline);

struct process_options {
    size_t size;
    const char *path; /* of the program */
    char *const *argv;
    const char *mark;    /* value of PROCESS_MARK_ENV */
    int out_fd, err_fd;  /* become stdout and stderr */
    const int *keep_fds; /* stay open under their numbers, which are 3 or more; -1: none */
    size_t keep_count;
    uint64_t max_file_bytes;   /* no file of its can be written beyond it; 0: as far as the caller's */
    uint64_t file_ceiling;     /* how far process_limit_files() can raise that. Only for processes whose filter has no
                                  prlimit */
    bool die_with_parent;      /* SIGKILL when the calling thread ends */
    const struct jail *jail;   /* NULL: none */
    struct sock_fprog *filter; /* of system calls, which must allow write(2), execve(2) and exit_group(2); NULL: none */
    /* Out, either may be NULL: how far each stage of the jail went, and the one at which the start failed or -1. */
    struct jail_report *ret_report;
    int *ret_failed_stage;
};

/*
 * Starts a program in a session of its own (a terminal's Ctrl-C does not reach it), with cwd /, umask 077, an
 * environment of a few variables, no core dumps, SIGXFSZ ignored, and no descriptors but the ones named. Returns after
 * its execve; -errno of that if it failed.
 */
int process_spawn(const struct process_options *options, struct process_id *ret, int *ret_pidfd);

/* Waits for those that have ended of what process_spawn() started, so that they are no zombies. */
void process_reap_children(void);

/* How a process that we started ended, for people: "with status 1", "by signal 9 (Killed)", or "" when that can't be
 * told (any more). *ret_failed is false for status 0. `p` may be NULL; with it also when another thread has reaped it.
 */
void process_describe_end(int pidfd, const struct process_id *p, char *dst, size_t size, bool *ret_failed);

/* Limits the size of every file that the process writes from now on; a full log is then just cut off. It can be raised
 * again up to `ceiling`, by us as by the process itself, or, with 0, by nobody. */
int process_limit_files(const struct process_id *p, uint64_t bytes, uint64_t ceiling);

/* Moves a descriptor out of 0..2, where a child's stdio goes. Closes the old one. */
int fd_above_stdio(int *fd);

/* Looks `name` up in PATH (or below the working directory when it has a slash): the absolute path of a file that can
 * be executed, allocated; NULL when there is none. */
char *process_find_program(const char *name);
