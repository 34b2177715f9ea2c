/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The vsock core (vsock/vsock.h) as a virtio device (virtio 1.2 §5.10).
 *
 * The core is single-threaded, and its sockets live on the loop thread, so
 * nothing of it may be touched elsewhere. Queues are only served there, too;
 * but the driver's reset comes on a vCPU thread, and is therefore only noted
 * and carried out by the loop thread, before the queues are served again.
 */
#include "monitor/devices/devices.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/fd.h"
#include "monitor/devices/mmio.h"
#include "virtio/vsock-backend.h"

enum { QUEUE_RX, QUEUE_TX, QUEUE_EVENT, QUEUE_COUNT };

#define QUEUE_SIZE    256u
#define HOST_BACKLOG  128
#define RUNS_PER_TURN 8u /* each with its own interrupt: the guest takes packets while we fill in the next ones */
#define UDS_PATH_MAX  (sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof("_4294967295"))

struct vsock_dev {
    struct virtio_device dev;
    struct virtio_mmio *mmio;
    struct vsock *core;
    struct vsock_backend backend;
    uint8_t config[8]; /* guest_cid, §5.10.4 */

    bool running; /* inside of run(): the core's news are seen at its end */
    bool used;    /* a driver was served since the last reset */
    bool event;   /* TRANSPORT_RESET waits for a buffer */
    bool reset;   /* atomic: noted by a vCPU thread */
    struct loop *loop;
    struct loop_fd reset_noted;

    char *uds_path;
    int uds_fd;
    struct stat uds; /* of the file that we made */
};

static void carry_out_reset(struct vsock_dev *v)
{
    if (__atomic_exchange_n(&v->reset, false, __ATOMIC_ACQ_REL))
        vsock_reset(v->core);
}

/* Edge-triggered, so that nobody has to read the counter. */
static int reset_noted(struct loop_fd *source, uint32_t events)
{
    carry_out_reset(CONTAINER_OF(source, struct vsock_dev, reset_noted));
    return 0;
}

static void note_reset(struct virtio_device *dev)
{
    struct vsock_dev *v = CONTAINER_OF(dev, struct vsock_dev, dev);

    v->event = false;
    if (!v->used) /* hosts that wait for the first driver go on waiting */
        return;
    v->used = false;
    __atomic_store_n(&v->reset, true, __ATOMIC_RELEASE);
    fd_signal(v->reset_noted.fd);
}

static struct virtqueue *queue(struct vsock_dev *v, unsigned index)
{
    struct virtqueue *vq = &v->dev.queues[index];

    return vq->started && vq->fault == VQ_FAULT_NONE ? vq : NULL;
}

static void send_event(struct vsock_dev *v)
{
    static const uint8_t id[4] = {VSOCK_EVENT_TRANSPORT_RESET};
    struct virtqueue *vq = queue(v, QUEUE_EVENT);
    struct vq_chain *chain = &v->backend.chain;
    bool fits;

    if (!v->event || !vq || vq_pop(vq, chain) != VQ_CHAIN)
        return;
    fits = chain->writable_bytes >= sizeof(id);
    if (fits)
        vq_scatter(chain->writable, id, sizeof(id));
    vq_push(vq, chain->head, fits ? sizeof(id) : 0);
    v->event = false;
    virtio_signal_used(&v->dev, QUEUE_EVENT);
}

static void serve(struct vsock_dev *v, struct vsock_backend_turn *turn)
{
    vsock_backend_run(&v->backend, queue(v, QUEUE_RX), queue(v, QUEUE_TX), turn);
    if (turn->signal_rx || turn->signal_tx)
        v->dev.interrupt(&v->dev, false);
}

static bool run(struct virtio_device *dev, unsigned index)
{
    struct vsock_dev *v = CONTAINER_OF(dev, struct vsock_dev, dev);
    struct vsock_backend_turn turn = {.more = true};

    carry_out_reset(v);
    v->used = true;
    v->running = true;
    for (unsigned i = 0; i < RUNS_PER_TURN && turn.more; i++)
        serve(v, &turn);
    v->running = false;
    send_event(v);
    for (unsigned i = 0; i < QUEUE_COUNT; i++) {
        if (virtio_check_fault(dev, i)) {
            vsock_reset(v->core); /* nobody will answer the hosts any more */
            return false;
        }
    }
    return turn.more;
}

static void rx_ready(void *userdata)
{
    struct vsock_dev *v = userdata;

    if (v->mmio && !v->running)
        virtio_mmio_run(v->mmio);
}

static const struct virtio_device_ops vsock_ops = {.run = run, .reset = note_reset};

static int listen_for_hosts(struct vsock_dev *v, const char *path, struct vm_error *error)
{
    int r;

    if (strlen(path) > UDS_PATH_MAX)
        return vm_fail(error, -ENAMETOOLONG,
                "vsock uds_path %.32s... is too long: %zu bytes, and %zu are the most that leave room for \"_PORT\" "
                "in a socket's address; use a shorter path",
                path, strlen(path), (size_t)UDS_PATH_MAX);
    v->uds_path = strdup(path);
    if (!v->uds_path)
        return vm_fail(error, -ENOMEM, "vsock: out of memory");
    r = unix_listen(path, HOST_BACKLOG, &v->uds_fd);
    if (r == -EADDRINUSE)
        return vm_fail(error, r, "vsock uds_path %s: address in use; remove the file if no VM uses it any more", path);
    if (r < 0)
        return vm_fail(error, r, "vsock uds_path %s: cannot listen there: %s", path, strerror(-r));
    return stat(path, &v->uds) < 0 ? vm_fail(error, -errno, "vsock uds_path %s: it is gone again", path) : 0;
}

static int open_core(
        struct vsock_dev *v, const struct vsock_config *config, uint32_t max_connections, struct vm_error *error)
{
    const struct vsock_options options = {.size = sizeof(options),
            .loop = v->loop,
            .guest_cid = config->guest_cid,
            .uds_path = config->uds_path,
            .listen_fd = v->uds_fd,
            .max_connections = max_connections,
            .rx_ready = rx_ready,
            .userdata = v};
    int r;

    v->reset_noted = (struct loop_fd){
            .fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), .events = EPOLLIN | EPOLLET, .ready = reset_noted};
    r = v->reset_noted.fd < 0 ? -errno : loop_add(v->loop, &v->reset_noted);
    if (r == 0)
        r = vsock_new(&v->core, &options);
    return r < 0 ? vm_fail(error, r, "vsock uds_path %s: cannot serve it: %s", config->uds_path, strerror(-r)) : 0;
}

int vsock_dev_new(struct vsock_dev **ret, const struct vsock_config *config, uint32_t max_connections,
        struct loop *loop, struct vm_error *error)
{
    struct vsock_dev *v;
    int r;

    if (config->guest_cid < VSOCK_GUEST_CID_MIN || config->guest_cid == UINT32_MAX)
        return vm_fail(error, -EINVAL, "vsock guest_cid %u is reserved; use one from %u to %u", config->guest_cid,
                VSOCK_GUEST_CID_MIN, UINT32_MAX - 1);
    v = calloc(1, sizeof(*v));
    if (!v)
        return vm_fail(error, -ENOMEM, "vsock: out of memory");
    v->dev = (struct virtio_device){.ops = &vsock_ops,
            .name = "vsock",
            .id = VIRTIO_ID_VSOCK,
            .queue_count = QUEUE_COUNT,
            .queue_size_max = QUEUE_SIZE,
            .config = v->config,
            .config_size = sizeof(v->config)};
    for (unsigned i = 0; i < 4; i++)
        v->config[i] = (uint8_t)(config->guest_cid >> (8 * i));
    v->loop = loop;
    v->uds_fd = v->reset_noted.fd = -1;
    r = listen_for_hosts(v, config->uds_path, error);
    if (r == 0)
        r = open_core(v, config, max_connections, error);
    if (r < 0) {
        vsock_dev_free(v);
        return r;
    }
    vsock_backend_init(&v->backend, v->core);
    *ret = v;
    return 0;
}

/* Whoever put another file in its place keeps it. */
static void remove_socket(const struct vsock_dev *v)
{
    struct stat st;

    if (v->uds_fd >= 0 && lstat(v->uds_path, &st) == 0 && st.st_ino == v->uds.st_ino && st.st_dev == v->uds.st_dev)
        (void)unlink(v->uds_path);
}

void vsock_dev_free(struct vsock_dev *v)
{
    if (!v)
        return;
    v->mmio = NULL;
    vsock_free(v->core);
    loop_remove(v->loop, &v->reset_noted);
    fd_close(v->reset_noted.fd);
    remove_socket(v);
    fd_close(v->uds_fd);
    free(v->uds_path);
    free(v);
}

struct virtio_device *vsock_dev_device(struct vsock_dev *v)
{
    return &v->dev;
}

void vsock_dev_connect(struct vsock_dev *v, struct virtio_mmio *mmio)
{
    v->mmio = mmio;
}

void vsock_dev_transport_reset(struct vsock_dev *v)
{
    vsock_reset(v->core);
    virtio_mmio_lock(v->mmio);
    v->event = true;
    virtio_mmio_unlock(v->mmio, false);
    virtio_mmio_run(v->mmio);
}

void vsock_dev_get_stats(const struct vsock_dev *v, struct vsock_stats *ret)
{
    vsock_get_stats(v->core, ret);
}
