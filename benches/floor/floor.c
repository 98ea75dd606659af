/* The floor under a proxy's cost: receive a message, send it on, nothing between. A plain loop of system calls.
 *
 *   cc -O2 -o floor floor.c
 *   floor udp|tcp|sctp PORT [RCVBUF SNDBUF]
 *
 * It listens on 127.0.0.1:PORT. What comes from port P of 127.0.0.1 goes to port P ^ 1024, so it needs no table of peers, and both
 * ways work alike. One epoll_wait per wake-up; UDP and SCTP in batches of 64, SCTP bundled per association with MSG_MORE; TCP
 * cut by Content-Length, one read and one write for all messages that are there. SCTP has the options of Strowger's socket
 * (sys/src/sctp/settings.rs) that matter while messages flow.
 *
 * Prints "ready". For every byte on its standard input it prints "MESSAGES BATCHES WAITS": messages sent on, receiving calls that
 * brought some, returns of epoll_wait. It ends when its standard input does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <linux/sctp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 64, ROOM = 65536, APART = 1024, PORTS = 65536, FILES = 4096 };

static unsigned long messages, batches, waits;

static void die(const char *what) {
    perror(what);
    exit(1);
}

static int checked(int result, const char *what) {
    if (result < 0) die(what);
    return result;
}

static struct sockaddr_in local(int port) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void set(int fd, int level, int name, const void *value, socklen_t length) {
    checked(setsockopt(fd, level, name, value, length), "setsockopt");
}

static void set_int(int fd, int level, int name, int value) { set(fd, level, name, &value, sizeof value); }

static void set_buffers(int fd, int receive, int send) {
    if (receive > 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &receive, sizeof receive))
        set_int(fd, SOL_SOCKET, SO_RCVBUF, receive);
    if (send > 0 && setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &send, sizeof send))
        set_int(fd, SOL_SOCKET, SO_SNDBUF, send);
}

/* --- UDP and SCTP: batches ------------------------------------------------------------------------------------------ */

static char *buffers;
static struct mmsghdr in[BATCH], held[BATCH], last[BATCH];
static struct iovec pieces[BATCH];
static struct sockaddr_in names[BATCH];
static _Alignas(8) char controls[BATCH][128];

static void prepare(int from, int to) {
    for (int i = from; i < to; i++) {
        pieces[i] = (struct iovec){.iov_base = buffers + (size_t)i * ROOM, .iov_len = ROOM};
        in[i].msg_hdr = (struct msghdr){.msg_name = &names[i], .msg_namelen = sizeof names[i], .msg_iov = &pieces[i], .msg_iovlen = 1};
    }
}

static void send_all(int fd, struct mmsghdr *batch, int count, int flags) {
    for (int sent = 0; sent < count;) {
        int n = sendmmsg(fd, batch + sent, count - sent, flags | MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0) sent += n;
        /* No room: for a moment, or lost. The benchmark counts every message. */
        else if (errno == EAGAIN) usleep(1000);
        else if (errno != EINTR) die("sendmmsg");
    }
    messages += count;
}

static void forward_udp(int fd) {
    int count = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL);
    if (count <= 0) return;
    batches++;
    for (int i = 0; i < count; i++) {
        pieces[i].iov_len = in[i].msg_len;
        names[i].sin_port ^= htons(APART);
    }
    send_all(fd, in, count, 0);
    prepare(0, count);
}

static uint32_t association_of[PORTS]; /* by the peer's port */

/* SCTP_SNDINFO: unordered, stream 0, payload protocol 0. */
struct info {
    struct cmsghdr header;
    struct sctp_sndinfo info;
};
static struct info infos[BATCH];

static void address_to(struct mmsghdr *to, int i) {
    int port = ntohs(names[i].sin_port) ^ APART;
    struct info *info = &infos[i];
    info->header = (struct cmsghdr){.cmsg_len = sizeof *info, .cmsg_level = IPPROTO_SCTP, .cmsg_type = SCTP_SNDINFO};
    info->info = (struct sctp_sndinfo){.snd_flags = SCTP_UNORDERED, .snd_assoc_id = association_of[port]};
    *to = (struct mmsghdr){.msg_hdr = {.msg_iov = &pieces[i], .msg_iovlen = 1, .msg_control = info, .msg_controllen = sizeof *info}};
    if (!association_of[port]) {
        names[i].sin_port = htons(port);
        to->msg_hdr.msg_name = &names[i];
        to->msg_hdr.msg_namelen = sizeof names[i];
    }
}

static void notice(const char *bytes, const struct sockaddr_in *peer) {
    const union sctp_notification *notification = (const void *)bytes;
    if (notification->sn_header.sn_type != SCTP_ASSOC_CHANGE) return;
    int up = notification->sn_assoc_change.sac_state == SCTP_COMM_UP;
    association_of[ntohs(peer->sin_port)] = up ? notification->sn_assoc_change.sac_assoc_id : 0;
}

static void forward_sctp(int fd) {
    static int later[PORTS]; /* by port: the batch in which a later message for it was seen */
    static int batch;
    int count = recvmmsg(fd, in, BATCH, MSG_DONTWAIT, NULL), holding = 0, closing = 0;
    if (count <= 0) return;
    batches++;
    batch++;
    /* From the end: the first one met is its association's last. The order within an association is kept. */
    for (int i = count - 1; i >= 0; i--) {
        if (in[i].msg_hdr.msg_flags & MSG_NOTIFICATION) {
            notice(pieces[i].iov_base, &names[i]);
            continue;
        }
        int port = ntohs(names[i].sin_port);
        pieces[i].iov_len = in[i].msg_len;
        if (later[port] == batch) address_to(&held[BATCH - ++holding], i);
        else address_to(&last[BATCH - ++closing], i);
        later[port] = batch;
    }
    if (holding) send_all(fd, held + BATCH - holding, holding, MSG_MORE);
    if (closing) send_all(fd, last + BATCH - closing, closing, 0);
    prepare(0, count);
    for (int i = 0; i < count; i++) {
        in[i].msg_hdr.msg_control = controls[i];
        in[i].msg_hdr.msg_controllen = sizeof controls[i];
    }
}

static int open_datagrams(int is_sctp, int port, int receive, int send) {
    struct sockaddr_in address = local(port);
    int kind = is_sctp ? SOCK_SEQPACKET : SOCK_DGRAM;
    int fd = checked(socket(AF_INET, kind | SOCK_NONBLOCK, is_sctp ? IPPROTO_SCTP : IPPROTO_UDP), "socket");
    set_buffers(fd, receive, send);
    if (is_sctp) {
        set_int(fd, IPPROTO_SCTP, SCTP_NODELAY, 1);
        set_int(fd, IPPROTO_SCTP, SCTP_FRAGMENT_INTERLEAVE, 1);
        set_int(fd, IPPROTO_SCTP, SCTP_RECVRCVINFO, 1);
        int events[] = {SCTP_ASSOC_CHANGE, SCTP_SEND_FAILED_EVENT, SCTP_SHUTDOWN_EVENT, SCTP_PEER_ADDR_CHANGE, SCTP_PARTIAL_DELIVERY_EVENT};
        for (unsigned i = 0; i < sizeof events / sizeof *events; i++) {
            struct sctp_event event = {.se_type = events[i], .se_on = 1};
            set(fd, IPPROTO_SCTP, SCTP_EVENT, &event, sizeof event);
        }
    }
    checked(bind(fd, (void *)&address, sizeof address), "bind");
    if (is_sctp) checked(listen(fd, 1024), "listen");
    buffers = mmap(NULL, (size_t)BATCH * ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (buffers == MAP_FAILED) die("mmap");
    prepare(0, BATCH);
    for (int i = 0; is_sctp && i < BATCH; i++) {
        in[i].msg_hdr.msg_control = controls[i];
        in[i].msg_hdr.msg_controllen = sizeof controls[i];
    }
    return fd;
}

/* --- TCP: one stream in, one stream out ----------------------------------------------------------------------------- */

static struct stream {
    int to;
    size_t have;
    char *bytes;
} streams[FILES];

static void accept_tcp(int listener, int epoll) {
    struct sockaddr_in peer;
    socklen_t length = sizeof peer;
    int from = accept4(listener, (void *)&peer, &length, SOCK_NONBLOCK);
    if (from < 0) return;
    if (from >= FILES) exit(1);
    int to = checked(socket(AF_INET, SOCK_STREAM, 0), "socket");
    peer.sin_port ^= htons(APART);
    checked(connect(to, (void *)&peer, sizeof peer), "connect");
    set_int(from, IPPROTO_TCP, TCP_NODELAY, 1);
    set_int(to, IPPROTO_TCP, TCP_NODELAY, 1);
    streams[from] = (struct stream){.to = to, .bytes = malloc(ROOM)};
    struct epoll_event event = {.events = EPOLLIN, .data.fd = from};
    checked(epoll_ctl(epoll, EPOLL_CTL_ADD, from, &event), "epoll_ctl");
}

/* Bytes of the whole message that `bytes` begins with, 0 if it is not whole. */
static size_t message_length(const char *bytes, size_t have) {
    static const char name[] = "\r\nContent-Length: ";
    const char *end = memmem(bytes, have, "\r\n\r\n", 4);
    if (!end) return 0;
    const char *field = memmem(bytes, end + 2 - bytes, name, sizeof name - 1);
    size_t length = end + 4 - bytes + (field ? strtoul(field + sizeof name - 1, NULL, 10) : 0);
    return length <= have ? length : 0;
}

static void forward_tcp(int from) {
    struct stream *stream = &streams[from];
    ssize_t got = read(from, stream->bytes + stream->have, ROOM - stream->have);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (got <= 0) {
        close(from);
        close(stream->to);
        free(stream->bytes);
        return;
    }
    stream->have += got;
    size_t whole = 0;
    for (size_t length; (length = message_length(stream->bytes + whole, stream->have - whole)); whole += length) messages++;
    if (!whole) return;
    batches++;
    for (size_t sent = 0; sent < whole;) {
        ssize_t n = write(stream->to, stream->bytes + sent, whole - sent);
        if (n > 0) sent += n;
        else if (errno != EINTR) die("write");
    }
    stream->have -= whole;
    memmove(stream->bytes, stream->bytes + whole, stream->have);
}

static int listen_tcp(int port) {
    struct sockaddr_in address = local(port);
    int fd = checked(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), "socket");
    set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
    checked(bind(fd, (void *)&address, sizeof address), "bind");
    checked(listen(fd, 1024), "listen");
    return fd;
}

/* --- The loop ------------------------------------------------------------------------------------------------------- */

int main(int count, char **arguments) {
    if (count != 3 && count != 5) {
        fprintf(stderr, "usage: floor udp|tcp|sctp PORT [RCVBUF SNDBUF]\n");
        return 2;
    }
    int tcp = !strcmp(arguments[1], "tcp"), sctp = !strcmp(arguments[1], "sctp"), port = atoi(arguments[2]);
    int receive = count == 5 ? atoi(arguments[3]) : 0, send = count == 5 ? atoi(arguments[4]) : 0;
    int listener = tcp ? listen_tcp(port) : open_datagrams(sctp, port, receive, send);
    int epoll = checked(epoll_create1(0), "epoll_create1");
    int watched[] = {STDIN_FILENO, listener};
    for (int i = 0; i < 2; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = watched[i]};
        checked(epoll_ctl(epoll, EPOLL_CTL_ADD, watched[i], &event), "epoll_ctl");
    }
    setvbuf(stdout, NULL, _IONBF, 0);
    printf("ready\n");
    for (;;) {
        struct epoll_event events[256];
        int ready = epoll_wait(epoll, events, 256, -1);
        waits++;
        for (int i = 0; i < ready; i++) {
            int fd = events[i].data.fd;
            char byte;
            if (fd == STDIN_FILENO) {
                if (read(fd, &byte, 1) <= 0) return 0;
                printf("%lu %lu %lu\n", messages, batches, waits);
            } else if (fd != listener) forward_tcp(fd);
            else if (tcp) accept_tcp(fd, epoll);
            else if (sctp) forward_sctp(fd);
            else forward_udp(fd);
        }
    }
}
