/* SPDX-License-Identifier: Apache-2.0 */
#include "cli/tty.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

static struct termios original, raw;
static int raw_fd = -1; /* set before, and cleared after, the handlers below matter */
static atomic_bool is_raw;
static _Atomic(ic_exec *) followed;
static int size_fd = -1;

bool tty_is(int fd)
{
    return isatty(fd) == 1;
}

void tty_size(int fd, uint16_t *ret_rows, uint16_t *ret_cols)
{
    struct winsize size;

    *ret_rows = 24;
    *ret_cols = 80;
    if (ioctl(fd, TIOCGWINSZ, &size) == 0 && size.ws_row && size.ws_col) {
        *ret_rows = size.ws_row;
        *ret_cols = size.ws_col;
    }
}

/* Async-signal-safe. */
void tty_restore(void)
{
    if (atomic_exchange(&is_raw, false))
        (void)tcsetattr(raw_fd, TCSADRAIN, &original);
}

static void on_fatal(int signo)
{
    tty_restore();
    (void)raise(signo); /* SA_RESETHAND: now with its default action */
}

static void send_size(void)
{
    ic_exec *exec = atomic_load(&followed);
    uint16_t rows, cols;

    if (!exec)
        return;
    tty_size(size_fd, &rows, &cols);
    ic_exec_resize(exec, rows, cols);
}

static void on_resize(int signo)
{
    int saved = errno;

    (void)signo;
    send_size();
    errno = saved;
}

/* In raw mode Ctrl-Z goes to the guest; this is somebody's kill -TSTP. */
static void on_stop(int signo)
{
    int saved = errno;
    bool was_raw = atomic_load(&is_raw);

    (void)signo;
    tty_restore();
    (void)kill(getpid(), SIGSTOP);
    if (was_raw && tcsetattr(raw_fd, TCSADRAIN, &raw) == 0)
        atomic_store(&is_raw, true);
    send_size();
    errno = saved;
}

static void install(int signo, void (*handler)(int), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};

    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(signo, &action, NULL);
}

int tty_raw(int fd)
{
    static bool registered;
    static const int fatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT};

    if (tcgetattr(fd, &original) < 0)
        return -1;
    raw = original;
    cfmakeraw(&raw);
    raw_fd = fd;
    if (!registered) {
        if (atexit(tty_restore) != 0)
            return -1;
        for (size_t i = 0; i < COUNT_OF(fatal); i++)
            install(fatal[i], on_fatal, (int)SA_RESETHAND);
        install(SIGTSTP, on_stop, SA_RESTART);
        registered = true;
    }
    atomic_store(&is_raw, true);
    if (tcsetattr(fd, TCSADRAIN, &raw) < 0) {
        atomic_store(&is_raw, false);
        return -1;
    }
    return 0;
}

void tty_follow_size(int fd, ic_exec *exec)
{
    size_fd = fd;
    atomic_store(&followed, exec);
    install(SIGWINCH, on_resize, SA_RESTART);
    send_size(); /* it may have changed since the command was started with the size of then */
}

void tty_unfollow_size(void)
{
    (void)signal(SIGWINCH, SIG_DFL);
    atomic_store(&followed, NULL);
}

/* What is opened from here on must not become one of these three. */
void tty_init(void)
{
    int fd = open("/dev/null", O_RDWR);

    while (fd >= 0 && fd <= STDERR_FILENO)
        fd = open("/dev/null", O_RDWR);
    if (fd >= 0)
        (void)close(fd);
}

uint64_t tty_now_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

int64_t tty_unix_ms(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_REALTIME, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

void tty_sleep_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};

    (void)nanosleep(&t, NULL);
}
