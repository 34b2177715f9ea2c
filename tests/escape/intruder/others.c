/* SPDX-License-Identifier: Apache-2.0 */
/* Other processes and VMs, and whoever listens on the host. */
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/vm_sockets.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>

#include "intruder.h"

#define FORKS_MANY 400

static pid_t other(void)
{
    return (pid_t)plan_number("other_pid");
}

static pid_t tester(void)
{
    return (pid_t)plan_number("test_pid");
}

/* The other VM's processes are this very program, at the same addresses. */

/* No signal that would harm, should it arrive. */
static int kill_other(void)
{
    return TRY(kill(other(), SIGCONT));
}

static int kill_tester(void)
{
    return TRY(kill(tester(), SIGCONT));
}

/* Its parent in the jail's namespace is the process that is process 1 there, which is not counted. */
static int kill_all(void)
{
    return TRY(kill(-1, SIGCONT));
}

static int trace_other(void)
{
    return TRY(ptrace(PTRACE_SEIZE, other(), 0, 0));
}

static int trace_tester(void)
{
    return TRY(ptrace(PTRACE_SEIZE, tester(), 0, 0));
}

static int read_other(void)
{
    static char bytes[64];
    struct iovec here = {bytes, sizeof(bytes)}, there = {&own_program, sizeof(bytes)};

    return TRY(process_vm_readv(other(), &here, 1, &there, 1, 0));
}

static int write_other(void)
{
    static char scratch;
    struct iovec here = {&scratch, 1}, there = {&scratch, 1};

    return TRY(process_vm_writev(other(), &here, 1, &there, 1, 0));
}

static int open_other(void)
{
    return TRY(syscall(SYS_pidfd_open, other(), 0));
}

static int open_other_memory(void)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/mem", (int)other());
    return TRY(open(path, O_RDONLY));
}

static int limit_other(void)
{
    struct rlimit limit;

    return TRY(prlimit(other(), RLIMIT_NOFILE, NULL, &limit));
}

static int priority_of_other(void)
{
    return TRY(setpriority(PRIO_PROCESS, (id_t)other(), 19));
}

static int processors_of_other(void)
{
    cpu_set_t set;

    return TRY(sched_getaffinity(other(), sizeof(set), &set));
}

static int segment_of_host(void)
{
    return shmat((int)plan_number("segment"), NULL, SHM_RDONLY) == (void *)-1 ? errno : 0;
}

/* The kernel's store of secrets: what the user who started it keeps there for the session. */
static int key_of_user(void)
{
    char secret[64];
    long key = syscall(SYS_request_key, "user", plan("key"), NULL, 0);

    if (key < 0)
        return errno;
    return syscall(SYS_keyctl, 11 /* KEYCTL_READ, keyctl.h */, key, secret, sizeof(secret)) < 0 ? errno : 0;
}

static int fork_many(void)
{
    int r = 0;
    long made = 0;

    for (; made < FORKS_MANY && r == 0; made++) {
        pid_t pid = fork();

        if (pid == 0) {
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            for (;;)
                pause();
        }
        r = pid < 0 ? errno : 0;
    }
    *reached = made;
    return r;
}

const struct attempt process_attempts[] = {
        {"signal another VM", kill_other},
        {"signal a program of the user's", kill_tester},
        {"signal everybody", kill_all},
        {"trace another VM", trace_other},
        {"trace a program of the user's", trace_tester},
        {"read another VM's memory", read_other},
        {"write another VM's memory", write_other},
        {"open another VM's process", open_other},
        {"open another VM's memory", open_other_memory},
        {"see another VM's limits", limit_other},
        {"change another VM's priority", priority_of_other},
        {"see another VM's processors", processors_of_other},
        {"attach a System V segment", segment_of_host},
        {"read a key of the user's", key_of_user},
        {"fork without end", fork_many},
        {NULL, NULL},
};

/* ---- sockets ---- */

static int connect_tcp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)plan_number("tcp"))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd < 0 ? errno : TRY(connect(fd, (struct sockaddr *)&address, sizeof(address)));
}

static int send_udp(void)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)plan_number("udp"))};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return fd < 0 ? errno : TRY(sendto(fd, "x", 1, 0, (struct sockaddr *)&address, sizeof(address)));
}

static int connect_tcp6(void)
{
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)plan_number("tcp"))};
    int fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);

    address.sin6_addr = in6addr_loopback;
    return fd < 0 ? errno : TRY(connect(fd, (struct sockaddr *)&address, sizeof(address)));
}

static int raise_loopback(void)
{
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd < 0 ? errno : TRY(ioctl(fd, SIOCSIFFLAGS, &request));
}

static int find_card(void)
{
    struct ifreq request = {.ifr_ifindex = 2};
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    return fd < 0 ? errno : TRY(ioctl(fd, SIOCGIFNAME, &request));
}

static int raw_packets(void)
{
    return TRY(socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0));
}

static int raw_ip(void)
{
    return TRY(socket(AF_INET, SOCK_RAW | SOCK_CLOEXEC, IPPROTO_ICMP));
}

static int connect_vsock(void)
{
    struct sockaddr_vm address = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_LOCAL, .svm_port = 1};
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd < 0 ? errno : TRY(connect(fd, (struct sockaddr *)&address, sizeof(address)));
}

static int connect_unix(const char *path, size_t skip)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    snprintf(address.sun_path + skip, sizeof(address.sun_path) - skip, "%.100s", path);
    return fd < 0 ? errno
                  : TRY(connect(fd, (struct sockaddr *)&address,
                            (socklen_t)(sizeof(sa_family_t) + skip + strlen(address.sun_path + skip) + !skip)));
}

static int connect_path(void)
{
    return connect_unix(plan("unix"), 0);
}

static int connect_abstract(void)
{
    return connect_unix(plan("abstract"), 1);
}

static int connect_other_agent(void)
{
    return connect_unix(plan("other_socket"), 0);
}

static int connect_other_above(void)
{
    return connect_unix(plan("other_socket_above"), 0);
}

static int connect_bus(void)
{
    return connect_unix("/run/dbus/system_bus_socket", 0);
}

/* To the path in its own directory, through a link that it makes: whose name space is looked in? */
static int connect_through_link(void)
{
    int r;

    if (symlink(plan("unix"), "away") < 0)
        return errno;
    r = connect_unix("away", 0);
    unlink("away");
    return r;
}

const struct attempt network_attempts[] = {
        {"connect to TCP on the host", connect_tcp},
        {"connect to TCP on the host by IPv6", connect_tcp6},
        {"send UDP to the host", send_udp},
        {"turn on the loopback", raise_loopback},
        {"find a network card", find_card},
        {"send raw frames", raw_packets},
        {"send raw IP", raw_ip},
        {"connect to AF_VSOCK on the host", connect_vsock},
        {"connect to a unix socket", connect_path},
        {"connect to an abstract unix socket", connect_abstract},
        {"connect to a unix socket through a link", connect_through_link},
        {"connect to another VM's agent", connect_other_agent},
        {"connect to another VM's agent by ..", connect_other_above},
        {"connect to the system's bus", connect_bus},
        {NULL, NULL},
};
