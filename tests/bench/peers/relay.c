/*
 * The least that a relay between two TUN devices can do: poll, then read and write packet by packet.
 *
 *     relay [-o] DEVICE DEVICE
 *
 * With -o, super-packets and unfinished sums pass, with virtio's header in front, as they come.
 * Creates both devices, or attaches to them, and runs until it is killed. What the other device refuses is lost.
 */

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/if.h>
#include <linux/if_tun.h>

/* As many as Warren's batch. */
enum { DRAIN = 64, LONGEST_PACKET = 10 + 65535 };

static int offload;

static int open_device(const char *name)
{
	struct ifreq request = { .ifr_flags = IFF_TUN | IFF_NO_PI | (offload ? IFF_VNET_HDR : 0) };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	strncpy(request.ifr_name, name, IFNAMSIZ - 1);
	if (fd < 0 || ioctl(fd, TUNSETIFF, &request) < 0) {
		fprintf(stderr, "Cannot open device \"%s\": %s\n", name, strerror(errno));
		exit(1);
	}
	if (offload && ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6) < 0) {
		fprintf(stderr, "Cannot offload on \"%s\": %s\n", name, strerror(errno));
		exit(1);
	}
	return fd;
}

static void drain(int from, int to)
{
	static char packet[LONGEST_PACKET];

	for (int i = 0; i < DRAIN; i++) {
		ssize_t length = read(from, packet, sizeof packet);

		if (length <= 0)
			return;
		if (write(to, packet, (size_t)length) < 0 && errno == EBADFD)
			exit(1);
	}
}

int main(int argc, char **argv)
{
	if (argc == 4 && strcmp(argv[1], "-o") == 0) {
		offload = 1;
		argv++;
		argc--;
	}
	if (argc != 3) {
		fprintf(stderr, "Usage: relay [-o] DEVICE DEVICE\n");
		return 2;
	}

	struct pollfd devices[2] = {
		{ .fd = open_device(argv[1]), .events = POLLIN },
		{ .fd = open_device(argv[2]), .events = POLLIN },
	};

	while (poll(devices, 2, -1) >= 0 || errno == EINTR) {
		for (int i = 0; i < 2; i++) {
			if (devices[i].revents & POLLERR)
				return 1;
			if (devices[i].revents & POLLIN)
				drain(devices[i].fd, devices[1 - i].fd);
		}
	}
	return 1;
}
