/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 16550A UART (National Semiconductor PC16550D data sheet), as far as a
 * driver can see one whose line is infinitely fast: the transmitter is always
 * empty, no character arrives damaged or late, and the modem lines never
 * change. The divisor is only remembered.
 *
 * The interrupt is an edge for each cause that becomes pending; the handler
 * asks the IIR until nothing is left, as it has to on an ISA interrupt.
 *
 * Input is read from the host only when the receive FIFO is empty, so that
 * what the guest does not take waits with its sender.
 */
#include "monitor/devices/devices.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>

#include "base/fd.h"
#include "monitor/bus.h"
#include "monitor/devices/serial-output.h"
#include "monitor/layout.h"

#define FIFO_BYTES 16u
#define PORTS      8u

enum { /* offsets; the first two are the divisor latch while LCR_DLAB is set */
    REG_DATA = 0,
    REG_IER = 1,
    REG_IIR_FCR = 2,
    REG_LCR = 3,
    REG_MCR = 4,
    REG_LSR = 5,
    REG_MSR = 6,
    REG_SCR = 7,
};

#define CAUSE_RX     0x01u /* causes are the bits of the IER that enable them */
#define CAUSE_THRE   0x02u
#define IER_MASK     0x0fu
#define IIR_NONE     0x01u
#define IIR_FIFO     0xc0u
#define FCR_ENABLE   0x01u
#define FCR_CLEAR_RX 0x02u
#define LCR_DLAB     0x80u
#define MCR_DTR      0x01u
#define MCR_RTS      0x02u
#define MCR_OUT1     0x04u
#define MCR_OUT2     0x08u
#define MCR_LOOP     0x10u
#define MCR_MASK     0x1fu
#define LSR_DATA     0x01u
#define LSR_EMPTY    0x60u /* holding register and transmitter */
#define MSR_CTS      0x10u
#define MSR_DSR      0x20u
#define MSR_RI       0x40u
#define MSR_DCD      0x80u

struct serial {
    pthread_mutex_t lock;
    uint8_t divisor[2], ier, lcr, mcr, scr;
    bool fifo, thre_pending;
    uint8_t rx[FIFO_BYTES];
    unsigned rx_first, rx_len;
    bool input_waits; /* for the guest to empty the FIFO, which then wakes the loop thread */

    struct irq_line irq;
    struct loop *loop;
    struct loop_fd input, wake;
    struct serial_output output; /* locks itself, inside of our lock */
};

/* Of the causes that the IER enables. */
static uint8_t pending(const struct serial *s)
{
    return s->ier & ((s->rx_len > 0 ? CAUSE_RX : 0) | (s->thre_pending ? CAUSE_THRE : 0));
}

static unsigned rx_size(const struct serial *s)
{
    return s->fifo ? FIFO_BYTES : 1;
}

static void rx_put(struct serial *s, uint8_t byte)
{
    if (s->rx_len < rx_size(s))
        s->rx[(s->rx_first + s->rx_len++) % FIFO_BYTES] = byte;
}

static uint8_t rx_take(struct serial *s)
{
    uint8_t byte;

    if (s->rx_len == 0)
        return 0;
    byte = s->rx[s->rx_first];
    s->rx_first = (s->rx_first + 1) % FIFO_BYTES;
    s->rx_len--;
    return byte;
}

/* By priority; the FIFO's own timeout has passed as soon as there is a character. */
static uint8_t read_iir(struct serial *s)
{
    uint8_t causes = pending(s), fifo = s->fifo ? IIR_FIFO : 0;

    if (causes & CAUSE_RX)
        return fifo | 0x04;
    if (causes & CAUSE_THRE) {
        s->thre_pending = false;
        return fifo | 0x02;
    }
    return fifo | IIR_NONE;
}

/* The other end is always there; in loopback the modem control outputs are wired to the inputs. */
static uint8_t modem_lines(uint8_t mcr)
{
    if (!(mcr & MCR_LOOP))
        return MSR_DCD | MSR_DSR | MSR_CTS;
    return (mcr & MCR_RTS ? MSR_CTS : 0) | (mcr & MCR_DTR ? MSR_DSR : 0) | (mcr & MCR_OUT1 ? MSR_RI : 0) |
           (mcr & MCR_OUT2 ? MSR_DCD : 0);
}

static void write_fcr(struct serial *s, uint8_t value)
{
    bool fifo = (value & FCR_ENABLE) != 0;

    if (fifo != s->fifo || (fifo && (value & FCR_CLEAR_RX)))
        s->rx_len = 0;
    s->fifo = fifo;
}

static void write_data(struct serial *s, uint8_t byte)
{
    if (s->mcr & MCR_LOOP)
        rx_put(s, byte);
    else
        serial_output_put(&s->output, byte);
    s->thre_pending = true; /* it is out already */
}

static uint8_t read_reg(struct serial *s, unsigned reg)
{
    switch (reg) {
    case REG_DATA:
        return s->lcr & LCR_DLAB ? s->divisor[0] : rx_take(s);
    case REG_IER:
        return s->lcr & LCR_DLAB ? s->divisor[1] : s->ier;
    case REG_IIR_FCR:
        return read_iir(s);
    case REG_LCR:
        return s->lcr;
    case REG_MCR:
        return s->mcr;
    case REG_LSR:
        return LSR_EMPTY | (s->rx_len > 0 ? LSR_DATA : 0);
    case REG_MSR:
        return modem_lines(s->mcr);
    default:
        return s->scr;
    }
}

static void write_reg(struct serial *s, unsigned reg, uint8_t value)
{
    switch (reg) {
    case REG_DATA:
    case REG_IER:
        if (s->lcr & LCR_DLAB) {
            s->divisor[reg] = value;
        } else if (reg == REG_DATA) {
            write_data(s, value);
        } else {
            if (value & ~s->ier & CAUSE_THRE)
                s->thre_pending = true; /* drivers test for this one: enabled while empty, it comes (again) */
            s->ier = value & IER_MASK;
        }
        break;
    case REG_IIR_FCR:
        write_fcr(s, value);
        break;
    case REG_LCR:
        s->lcr = value;
        break;
    case REG_MCR:
        s->mcr = value & MCR_MASK;
        break;
    case REG_SCR:
        s->scr = value;
        break;
    default: /* LSR and MSR are for factory tests */
        break;
    }
}

static void unlock_and_tell(struct serial *s, bool raise)
{
    bool resume = s->input_waits && s->rx_len == 0 && !(s->mcr & MCR_LOOP);

    if (resume)
        s->input_waits = false;
    pthread_mutex_unlock(&s->lock);
    if (raise)
        irq_raise(&s->irq);
    if (resume)
        fd_signal(s->wake.fd);
}

/* A wider access is one of each register in turn, as on the ISA bus. Reading never makes a cause pending. */
static void serial_read(void *device, uint64_t offset, uint8_t *data, uint32_t len)
{
    struct serial *s = device;

    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < len; i++)
        data[i] = read_reg(s, (unsigned)(offset + i) % PORTS);
    unlock_and_tell(s, false);
}

static void serial_write(void *device, uint64_t offset, const uint8_t *data, uint32_t len)
{
    struct serial *s = device;
    bool raise = false;

    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < len; i++) {
        uint8_t before = pending(s);

        write_reg(s, (unsigned)(offset + i) % PORTS, data[i]);
        raise |= (pending(s) & ~before) != 0;
    }
    unlock_and_tell(s, raise);
}

static int input_ready(struct loop_fd *source, uint32_t events)
{
    struct serial *s = CONTAINER_OF(source, struct serial, input);
    uint8_t bytes[FIFO_BYTES];
    unsigned room;
    bool raise;
    ssize_t n;

    pthread_mutex_lock(&s->lock);
    room = s->rx_len > 0 || (s->mcr & MCR_LOOP) ? 0 : rx_size(s);
    s->input_waits = room == 0;
    pthread_mutex_unlock(&s->lock);
    if (room == 0) { /* not even for errors, which would wake us for ever */
        loop_remove(s->loop, source);
        return 0;
    }
    n = read(source->fd, bytes, room);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        loop_remove(s->loop, source);
        return 0;
    }
    pthread_mutex_lock(&s->lock);
    for (ssize_t i = 0; i < n; i++)
        rx_put(s, bytes[i]);
    raise = (pending(s) & CAUSE_RX) != 0;
    pthread_mutex_unlock(&s->lock);
    if (raise)
        irq_raise(&s->irq);
    return 0;
}

/* The guest emptied the FIFO. Edge-triggered, so that nobody has to read the counter. */
static int input_resumes(struct loop_fd *source, uint32_t events)
{
    struct serial *s = CONTAINER_OF(source, struct serial, wake);

    return s->input.added ? 0 : loop_add(s->loop, &s->input);
}

/* Nothing to read from is not an error: most guests have no input. */
static int open_input(struct serial *s, int fd)
{
    struct stat st;
    bool own;
    int r;

    if (fd < 0 || fstat(fd, &st) < 0 || !(S_ISFIFO(st.st_mode) || isatty(fd)))
        return 0;
    s->input = (struct loop_fd){.fd = serial_own_fd(fd, O_RDONLY, &own), .events = EPOLLIN, .ready = input_ready};
    s->wake = (struct loop_fd){
            .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN | EPOLLET, .ready = input_resumes};
    if (s->input.fd < 0 || s->wake.fd < 0)
        return -EMFILE;
    r = loop_add(s->loop, &s->wake);
    return r < 0 ? r : loop_add(s->loop, &s->input);
}

int serial_new(struct serial **ret, const struct serial_options *options, struct vm_error *error)
{
    struct serial *s;
    int r;

    if (options->size != sizeof(*options))
        return vm_fail(error, -EINVAL, "serial console: options of another version");
    s = calloc(1, sizeof(*s));
    if (!s)
        return vm_fail(error, -ENOMEM, "serial console: out of memory");
    pthread_mutex_init(&s->lock, NULL);
    s->loop = options->loop;
    s->irq = options->irq;
    s->input.fd = s->wake.fd = -1;
    r = serial_output_open(&s->output, options->loop, options->output_fd, options->output_path, error);
    if (r == 0) {
        r = open_input(s, options->input_fd);
        if (r < 0)
            (void)vm_fail(error, r, "serial console: cannot read its input: %s", strerror(-r));
    }
    if (r < 0) {
        serial_free(s);
        return r;
    }
    *ret = s;
    return 0;
}

void serial_free(struct serial *s)
{
    if (!s)
        return;
    loop_remove(s->loop, &s->input);
    loop_remove(s->loop, &s->wake);
    fd_close(s->input.fd);
    fd_close(s->wake.fd);
    serial_output_close(&s->output);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void serial_range(struct serial *serial, struct bus_range *ret)
{
    *ret = (struct bus_range){
            .base = LAYOUT_SERIAL_PORT,
            .size = PORTS,
            .read = serial_read,
            .write = serial_write,
            .device = serial,
    };
}

/* ---- snapshots ---- */

void serial_save(struct serial *s, struct buf *buf)
{
    uint8_t rx[FIFO_BYTES] = {0};

    pthread_mutex_lock(&s->lock);
    for (unsigned i = 0; i < s->rx_len; i++)
        rx[i] = s->rx[(s->rx_first + i) % FIFO_BYTES];
    buf_put(buf, s->divisor, sizeof(s->divisor));
    buf_put_u8(buf, s->ier);
    buf_put_u8(buf, s->lcr);
    buf_put_u8(buf, s->mcr);
    buf_put_u8(buf, s->scr);
    buf_put_u8(buf, s->fifo);
    buf_put_u8(buf, s->thre_pending);
    buf_put_u8(buf, (uint8_t)s->rx_len);
    buf_put(buf, rx, sizeof(rx));
    pthread_mutex_unlock(&s->lock);
}

int serial_load(struct serial *s, struct rd *rd, struct vm_error *error)
{
    const uint8_t *regs = rd_bytes(rd, 9), *rx = rd_bytes(rd, FIFO_BYTES);

    if (!regs || !rx)
        return -EBADMSG;
    if (regs[2] & ~IER_MASK || regs[4] & ~MCR_MASK || regs[6] > 1 || regs[7] > 1 ||
            regs[8] > (regs[6] ? FIFO_BYTES : 1))
        return vm_fail(error, -EBADMSG, "serial port: registers that it can't have");
    pthread_mutex_lock(&s->lock);
    memcpy(s->divisor, regs, sizeof(s->divisor));
    s->ier = regs[2];
    s->lcr = regs[3];
    s->mcr = regs[4];
    s->scr = regs[5];
    s->fifo = regs[6];
    s->thre_pending = regs[7];
    memcpy(s->rx, rx, FIFO_BYTES);
    s->rx_first = 0;
    s->rx_len = regs[8];
    pthread_mutex_unlock(&s->lock);
    return 0;
}
