/**
 * Connects a TUN device in a network namespace to the UDP socket of the stand-in: one packet, one datagram.
 *
 *     bridge NETNS NAME PORT PEER
 *
 * The socket is in the current namespace, the device in the one of this path. Prints "ready" once both exist, and runs
 * until it is killed.
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define LARGEST_PACKET 65535
#define SOCKET_BUFFER (4 << 20)
#define BURST 64

static int check(int result, const char *what) {
  if (result >= 0) return result;
  fprintf(stderr, "bridge: %s: %s\n", what, strerror(errno));
  exit(1);
}

static int open_link(int port, int peer) {
  int link = check(socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), "socket");
  int buffer = SOCKET_BUFFER;
  setsockopt(link, SOL_SOCKET, SO_RCVBUFFORCE, &buffer, sizeof buffer);
  setsockopt(link, SOL_SOCKET, SO_SNDBUFFORCE, &buffer, sizeof buffer);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  address.sin_port = htons(port);
  check(bind(link, (struct sockaddr *)&address, sizeof address), "bind");
  address.sin_port = htons(peer);
  check(connect(link, (struct sockaddr *)&address, sizeof address), "connect");
  return link;
}

static int open_device(const char *namespace, const char *name) {
  int there = check(open(namespace, O_RDONLY), namespace);
  check(setns(there, CLONE_NEWNET), "setns");
  close(there);
  int device = check(open("/dev/net/tun", O_RDWR | O_NONBLOCK), "/dev/net/tun");
  struct ifreq request = {.ifr_flags = IFF_TUN | IFF_NO_PI};
  strncpy(request.ifr_name, name, IFNAMSIZ - 1);
  check(ioctl(device, TUNSETIFF, &request), "TUNSETIFF");
  return device;
}

/** Forwards up to a burst of packets. Packets that the other side does not take are lost. */
static void carry(int from, int to) {
  static char bytes[LARGEST_PACKET];
  for (int i = 0; i < BURST; i++) {
    ssize_t length = read(from, bytes, sizeof bytes);
    if (length <= 0) return;
    if (write(to, bytes, length) < 0) continue;
  }
}

int main(int count, char **arguments) {
  if (count != 5) {
    fprintf(stderr, "Usage: bridge NETNS NAME PORT PEER\n");
    return 2;
  }
  int link = open_link(atoi(arguments[3]), atoi(arguments[4]));
  int device = open_device(arguments[1], arguments[2]);
  printf("ready\n");
  fflush(stdout);
  for (;;) {
    struct pollfd ready[] = {{link, POLLIN, 0}, {device, POLLIN, 0}};
    check(poll(ready, 2, -1), "poll");
    if (ready[0].revents) carry(link, device);
    if (ready[1].revents) carry(device, link);
  }
}
