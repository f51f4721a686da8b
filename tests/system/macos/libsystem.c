/*
 * A stand-in for libSystem of macOS on Linux: Darwin's constants and structures over calls of Linux.
 *
 *     utun0 ═══ utun1, utun2 ═══ utun3, ...: two units are connected, each reads what the other one writes
 *     routing sockets: a socket pair; the test writes messages to its other end
 *
 * Records calls as text for standin_log, one line per call: the operation and its bytes.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Darwin's numbers: bsd/sys/{socket,sys_domain,kern_control,sockio,fcntl}.h, bsd/net/{if,if_utun,route}.h of xnu */
enum { D_AF_INET = 2, D_AF_ROUTE = 17, D_AF_INET6 = 30, D_PF_SYSTEM = 32, D_SOL_SOCKET = 0xffff };
enum { D_F_SETFD = 2, D_F_SETFL = 4, D_O_NONBLOCK = 4 };
enum { D_RTM_ADD = 1, D_RTM_DELETE = 2, D_RTM_GET = 4, D_RTM_IFINFO = 14, D_RTM_IFINFO2 = 18 };
enum { D_IFF_UP = 1, D_IFF_POINTOPOINT = 16, D_IFF_RUNNING = 64 };
#define D_CTLIOCGINFO 0xc0644e03ul
#define D_SIOCSIFFLAGS 0x80206910ul
#define D_SIOCGIFFLAGS 0xc0206911ul
#define D_SIOCGIFMTU 0xc0206933ul
#define D_SIOCSIFMTU 0x80206934ul

/* Constants of Linux, whose sys/socket.h declares the functions below differently. */
enum { AF_UNIX = 1, AF_INET6 = 10, SOCK_SEQPACKET = 5, SOCK_CLOEXEC = 02000000, DUPFD_CLOEXEC = 1030 };
enum { UNITS = 64, DESCRIPTORS = 1024, CONTROL = 7, ROUTES = 64 };
enum kind { PLAIN, CONTROL_SOCKET, UTUN, ROUTE, OTHER };

struct unit { int open, taken, mtu, flags; uint64_t in, out; };

struct msghdr_x {
	void *msg_name;
	uint32_t msg_namelen;
	struct iovec *msg_iov;
	int msg_iovlen;
	void *msg_control;
	uint32_t msg_controllen;
	int msg_flags;
	size_t msg_datalen;
};

static struct unit units[UNITS];
/* Ends of unit pairs that wait for their device. */
static int waiting[UNITS];
static enum kind kinds[DESCRIPTORS];
static int unit_of[DESCRIPTORS], news_of[DESCRIPTORS];
static struct route { uint8_t key[28]; uint16_t bits, index; } routes[ROUTES];
static char recorded[1 << 16];
static size_t recorded_length;
static char fails[32];
static int fails_with, fails_times;
static __thread int darwin_errno;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

int *__error(void) { return &darwin_errno; }

static int darwin_number(int number)
{
	static const struct { int linux_number, number; } table[] = {
		{ EAGAIN, 35 }, { ENOTSOCK, 38 }, { EMSGSIZE, 40 }, { EOPNOTSUPP, 102 }, { EAFNOSUPPORT, 47 },
		{ EADDRINUSE, 48 }, { EADDRNOTAVAIL, 49 }, { ENETUNREACH, 51 }, { ENOBUFS, 55 }, { ENOTCONN, 57 },
		{ ECONNRESET, 54 }, { ECONNREFUSED, 61 }, { ENOSYS, 78 },
	};
	for (size_t i = 0; i < sizeof(table) / sizeof(*table); i++)
		if (table[i].linux_number == number) return table[i].number;
	return number;
}

static long failed(int number) { darwin_errno = number; return -1; }
static long result(long value) { return value < 0 ? failed(darwin_number(errno)) : value; }

/* Returns true if a test requested a failure of this operation. */
static int told_to_fail(const char *operation)
{
	if (fails_times == 0 || strcmp(fails, operation) != 0) return 0;
	fails_times--;
	darwin_errno = fails_with;
	return 1;
}

static void record(const char *operation, const void *bytes, size_t length)
{
	if (recorded_length + 2 * length + 64 > sizeof(recorded)) return;
	recorded_length += sprintf(recorded + recorded_length, "%s ", operation);
	for (size_t i = 0; i < length; i++)
		recorded_length += sprintf(recorded + recorded_length, "%02x", ((const uint8_t *)bytes)[i]);
	recorded[recorded_length++] = '\n';
}

/* For tests: returns and clears the recorded calls. */
int standin_log(char *buffer, uint32_t size)
{
	size_t length = recorded_length < size ? recorded_length : size;
	memcpy(buffer, recorded, length);
	recorded_length = 0;
	return length;
}

/* For tests: makes an operation fail several times with an error number of Darwin. */
void standin_fail(const char *operation, int number, int times)
{
	snprintf(fails, sizeof(fails), "%s", operation);
	fails_with = number;
	fails_times = times;
}

/* For tests: returns the number of open descriptors of the stand-in. */
int standin_open(void)
{
	int count = 0;
	for (int fd = 0; fd < DESCRIPTORS; fd++) count += kinds[fd] != PLAIN;
	return count;
}

/* For tests: adds an existing route; a Darwin struct sockaddr, and its prefix length. */
void standin_route(const uint8_t *key, int bits, int index)
{
	for (int i = 0; i < ROUTES; i++) {
		if (routes[i].index != 0) continue;
		memcpy(routes[i].key, key, key[0]);
		routes[i].bits = bits;
		routes[i].index = index;
		return;
	}
}

/* For tests: sends bytes to every routing socket. */
void standin_tell(const uint8_t *bytes, uint32_t length)
{
	for (int fd = 0; fd < DESCRIPTORS; fd++)
		if (kinds[fd] == ROUTE) syscall(SYS_write, news_of[fd], bytes, (size_t)length);
}

static int known(int fd, enum kind kind)
{
	if (fd >= 0 && fd < DESCRIPTORS) kinds[fd] = kind;
	return fd;
}

static int pair(int type, int ends[2]) { return syscall(SYS_socketpair, AF_UNIX, type | SOCK_CLOEXEC, 0, ends); }

int socket(int domain, int type, int protocol)
{
	if (told_to_fail("socket")) return -1;
	if (domain == D_PF_SYSTEM) {
		if (type != 2 || protocol != 2) return failed(43);
		return known(result(syscall(SYS_socket, AF_UNIX, SOCK_SEQPACKET, 0)), CONTROL_SOCKET);
	}
	if (domain == D_AF_ROUTE) {
		int ends[2];
		if (pair(SOCK_SEQPACKET, ends) < 0) return result(-1);
		syscall(SYS_fcntl, ends[1], 4, 04000);
		news_of[ends[0]] = ends[1];
		return known(ends[0], ROUTE);
	}
	return known(result(syscall(SYS_socket, domain == D_AF_INET6 ? AF_INET6 : domain, type, protocol)), OTHER);
}

int close(int fd)
{
	if (fd >= 0 && fd < DESCRIPTORS) {
		pthread_mutex_lock(&lock);
		if (kinds[fd] == UTUN) {
			int unit = unit_of[fd];
			/* The other unit of the pair, if open, does not see this one close; otherwise both ends close. */
			if (units[unit ^ 1].open) waiting[unit] = syscall(SYS_fcntl, fd, DUPFD_CLOEXEC, 3);
			else if (waiting[unit ^ 1] > 0) {
				syscall(SYS_close, waiting[unit ^ 1]);
				waiting[unit ^ 1] = 0;
			}
			memset(&units[unit], 0, sizeof(*units));
			record("closed", &unit, 1);
			/* The system removes the routes of a closed interface. */
			for (int i = 0; i < ROUTES; i++)
				if (routes[i].index == unit + 100) memset(&routes[i], 0, sizeof(*routes));
		}
		if (kinds[fd] == ROUTE) syscall(SYS_close, news_of[fd]);
		kinds[fd] = PLAIN;
		pthread_mutex_unlock(&lock);
	}
	return result(syscall(SYS_close, fd));
}

/* struct sockaddr_ctl: the control's ID at 4, the unit at 8; unit 0 means any. */
int connect(int fd, const uint8_t *bytes, uint32_t length)
{
	if (kinds[fd] != CONTROL_SOCKET) return failed(102);
	record("connect", bytes, length);
	if (told_to_fail("connect")) return -1;
	if (length != 32 || bytes[0] != 32 || bytes[1] != D_PF_SYSTEM || bytes[2] != 2 || bytes[4] != CONTROL)
		return failed(22);
	int unit = bytes[8] - 1;
	if (unit < 0) for (unit = 0; unit < UNITS - 1 && units[unit].open; unit++);
	if (unit >= UNITS || units[unit].open) return failed(16);
	if (waiting[unit] > 0) {
		syscall(SYS_dup3, waiting[unit], fd, 02000000);
		syscall(SYS_close, waiting[unit]);
		waiting[unit] = 0;
	} else {
		int ends[2];
		if (pair(SOCK_SEQPACKET, ends) < 0) return result(-1);
		syscall(SYS_dup3, ends[0], fd, 02000000);
		syscall(SYS_close, ends[0]);
		waiting[unit ^ 1] = ends[1];
	}
	syscall(SYS_fcntl, fd, 4, 04000);
	units[unit] = (struct unit){ .open = 1, .mtu = 1500, .flags = D_IFF_UP | D_IFF_POINTOPOINT | D_IFF_RUNNING };
	unit_of[fd] = unit;
	kinds[fd] = UTUN;
	return 0;
}

int getsockopt(int fd, int level, int option, void *value, uint32_t *length)
{
	if (kinds[fd] != UTUN || level != 2 || option != 2) return failed(42);
	*length = snprintf(value, *length, "utun%d", unit_of[fd]) + 1;
	return 0;
}

int setsockopt(int fd, int level, int option, const void *value, uint32_t length)
{
	char operation[32];
	sprintf(operation, "setsockopt %x %x", level, option);
	record(operation, value, length);
	/* SO_SNDBUF and SO_RCVBUF of a UDP socket; as root, the limits of net.core do not apply. */
	if (kinds[fd] != OTHER || level != D_SOL_SOCKET || (option != 0x1001 && option != 0x1002)) return 0;
	if (syscall(SYS_setsockopt, fd, 1, option == 0x1001 ? 32 : 33, value, length) == 0) return 0;
	return result(syscall(SYS_setsockopt, fd, 1, option == 0x1001 ? 7 : 8, value, length));
}

uint32_t if_nametoindex(const char *name)
{
	int unit = -1;
	if (sscanf(name, "utun%d", &unit) != 1 || unit < 0 || unit >= UNITS || !units[unit].open) {
		failed(6);
		return 0;
	}
	return unit + 100;
}

/* Returns the unit of a named interface, or -1. */
static int unit_named(const char *request) { return (int)if_nametoindex(request) - 100; }

int ioctl(int fd, unsigned long request, ...)
{
	va_list rest;
	va_start(rest, request);
	uint8_t *argument = va_arg(rest, void *);
	va_end(rest);
	(void)fd;
	char operation[32];
	sprintf(operation, "ioctl %08lx", request);
	record(operation, argument, request >> 16 & 0x1fff);
	if (told_to_fail(operation + 6)) return -1;
	if (request == D_CTLIOCGINFO) {
		if (strcmp((char *)argument + 4, "com.apple.net.utun_control") != 0) return failed(2);
		argument[0] = CONTROL;
		return 0;
	}
	int unit = unit_named((char *)argument);
	if (unit < 0) return -1;
	int16_t flags = units[unit].flags;
	switch (request) {
	case D_SIOCGIFFLAGS: memcpy(argument + 16, &flags, 2); break;
	case D_SIOCSIFFLAGS: memcpy(&flags, argument + 16, 2); units[unit].flags = flags; break;
	case D_SIOCGIFMTU: memcpy(argument + 16, &units[unit].mtu, 4); break;
	case D_SIOCSIFMTU: memcpy(&units[unit].mtu, argument + 16, 4); break;
	}
	return 0;
}

int fcntl(int fd, int command, ...)
{
	va_list rest;
	va_start(rest, command);
	int argument = va_arg(rest, int);
	va_end(rest);
	if (command == D_F_SETFL) argument = argument & D_O_NONBLOCK ? 04000 : 0;
	return result(syscall(SYS_fcntl, fd, command, argument));
}

/* Returns the route of exactly this prefix or, with bits < 0, the longest match of this address. */
static struct route *find_route(const uint8_t *key, int bits)
{
	struct route *found = NULL;
	int start = key[1] == D_AF_INET ? 4 : 8;
	for (struct route *route = routes; route < routes + ROUTES; route++) {
		if (route->index == 0 || route->key[1] != key[1] || (bits >= 0 && route->bits != bits)) continue;
		int same = 0;
		while (same < route->bits && !((route->key[start + same / 8] ^ key[start + same / 8]) & 0x80 >> same % 8)) same++;
		if (same == route->bits && (found == NULL || found->bits < route->bits)) found = route;
	}
	return found;
}

static int ones(const uint8_t *mask)
{
	int count = 0;
	for (int i = mask[1] == D_AF_INET ? 4 : 8; i < (mask[1] == D_AF_INET ? 8 : 24); i++) count += __builtin_popcount(mask[i]);
	return count;
}

/* struct rt_msghdr: 92 bytes, then the destination, the gateway, ...; its index is at 4, its errno at 24. */
static long route(int fd, const uint8_t *bytes, size_t length)
{
	static const char *const names[] = { [D_RTM_ADD] = "RTM_ADD", [D_RTM_DELETE] = "RTM_DELETE", [D_RTM_GET] = "RTM_GET" };
	uint8_t message[512] = { 0 };
	if (length > sizeof(message) || length < 96 || bytes[0] != length % 256 || bytes[2] != 5) return failed(22);
	const char *name = bytes[3] < 5 ? names[bytes[3]] : NULL;
	if (name == NULL) return failed(102);
	memcpy(message, bytes, length);
	/* The sequence differs from run to run. */
	memset(message + 20, 0, 4);
	record(name, message, length);
	if (told_to_fail(name)) return -1;
	const uint8_t *key = bytes + 92, *next = key + (key[0] + 3) / 4 * 4, *gateway = next;
	if (bytes[12] & 2) next += (gateway[0] + 3) / 4 * 4;
	int bits = bytes[12] & 4 ? ones(next) : bytes[3] == D_RTM_GET ? -1 : key[1] == D_AF_INET ? 32 : 128;
	struct route *found = find_route(key, bits);
	if (bytes[3] == D_RTM_ADD) {
		if (found != NULL) return failed(17);
		struct route *hop = gateway[1] == 18 ? NULL : find_route(gateway, -1);
		standin_route(key, bits, hop == NULL ? gateway[2] : hop->index);
		return length;
	}
	if (found == NULL) return failed(3);
	if (bytes[3] == D_RTM_DELETE) {
		memset(found, 0, sizeof(*found));
		return length;
	}
	int pid = getpid();
	memcpy(message, bytes, length);
	memcpy(message + 4, &found->index, 2);
	memcpy(message + 16, &pid, 4);
	/* The reply to another process comes first. */
	message[20] ^= 0xff;
	syscall(SYS_write, news_of[fd], message, length);
	message[20] ^= 0xff;
	syscall(SYS_write, news_of[fd], message, length);
	return length;
}

/* Writes one packet to the other unit; an unknown family is a fault of the program. */
static long move(int fd, const struct iovec *pieces, int count, int outgoing)
{
	if (kinds[fd] != UTUN) return result(syscall(outgoing ? SYS_writev : SYS_readv, fd, pieces, count));
	if (told_to_fail(outgoing ? "write" : "read")) return darwin_errno == 0 ? 0 : -1;
	if (outgoing) {
		uint32_t family = 0;
		memcpy(&family, pieces[0].iov_base, 4);
		uint8_t version = *(uint8_t *)pieces[1].iov_base >> 4;
		if (pieces[0].iov_len != 4 || __builtin_bswap32(family) != (version == 4 ? D_AF_INET : D_AF_INET6)) return failed(47);
	}
	long length = result(syscall(outgoing ? SYS_writev : SYS_readv, fd, pieces, count));
	if (length > 0 && outgoing) units[unit_of[fd]].in++;
	if (length > 0 && !outgoing) units[unit_of[fd]].out++;
	return length;
}

ssize_t readv(int fd, const struct iovec *pieces, int count) { return move(fd, pieces, count, 0); }
ssize_t writev(int fd, const struct iovec *pieces, int count) { return move(fd, pieces, count, 1); }
ssize_t read(int fd, void *buffer, size_t size) { return result(syscall(SYS_read, fd, buffer, size)); }

ssize_t write(int fd, const void *buffer, size_t size)
{
	return kinds[fd] == ROUTE ? route(fd, buffer, size) : result(syscall(SYS_write, fd, buffer, size));
}

#ifndef WITHOUT_BATCHES
ssize_t recvmsg_x(int fd, const struct msghdr_x *headers, uint32_t count, int flags)
{
	struct msghdr_x *all = (void *)headers;
	if (flags != 0) return failed(22);
	for (uint32_t i = 0; i < count; i++) {
		if (all[i].msg_flags != 0) return failed(22);
		long length = move(fd, all[i].msg_iov, all[i].msg_iovlen, 0);
		if (length <= 0) return i > 0 ? (ssize_t)i : length;
		all[i].msg_datalen = length;
		/* The system writes flags here, and refuses a call that does not clear them. */
		all[i].msg_flags = 0x80;
	}
	return count;
}

ssize_t sendmsg_x(int fd, const struct msghdr_x *headers, uint32_t count, int flags)
{
	if (flags != 0) return failed(22);
	for (uint32_t i = 0; i < count; i++) {
		if (headers[i].msg_flags != 0) return failed(22);
		long length = move(fd, headers[i].msg_iov, headers[i].msg_iovlen, 1);
		if (length < 0) return i > 0 ? (ssize_t)i : -1;
	}
	return count;
}
#endif

/* NET_RT_IFLIST2: struct if_msghdr2, with struct if_data64 at 32. */
int sysctl(int *name, uint32_t count, void *old, size_t *size, void *new, size_t new_size)
{
	(void)new, (void)new_size;
	static const int prefix[] = { 4, D_AF_ROUTE, 0, 0, 6 };
	if (count != 6 || memcmp(name, prefix, sizeof(prefix)) != 0) return failed(2);
	int unit = name[5] - 100;
	if (unit < 0 || unit >= UNITS || !units[unit].open) return failed(6);
	uint8_t answer[160] = { 160, 0, 5, D_RTM_IFINFO2 };
	int drops = 5;
	uint64_t counts[] = { units[unit].in, 2, units[unit].out, 3, 0, 1024, 2048, 0, 0, 4 };
	memcpy(answer + 24, &drops, 4);
	memcpy(answer + 32 + 24, counts, sizeof(counts));
	memcpy(old, answer, sizeof(answer));
	*size = sizeof(answer);
	return 0;
}

int pipe(int ends[2]) { return result(syscall(SYS_pipe2, ends, 0)); }
int poll(struct pollfd *fds, nfds_t count, int timeout) { return result(syscall(SYS_poll, fds, count, timeout)); }
uint32_t geteuid(void) { return syscall(SYS_geteuid); }

/* UDP: Darwin's struct sockaddr starts with one byte of length and one of family, Linux's with two of family. */
static const uint8_t *to_linux(uint8_t *copy, const uint8_t *address, uint32_t length)
{
	uint16_t family = address[1] == D_AF_INET6 ? AF_INET6 : address[1];
	memcpy(copy, address, length);
	memcpy(copy, &family, 2);
	return copy;
}

static void to_darwin(uint8_t *address, uint32_t length)
{
	address[1] = address[0] == AF_INET6 ? D_AF_INET6 : address[0];
	address[0] = length;
}

struct msghdr { void *name; uint32_t name_length; struct iovec *pieces; int count; void *control; uint32_t control_length; int flags; };
struct linux_msghdr { void *name; uint32_t name_length; struct iovec *pieces; size_t count; void *control; size_t control_length; int flags; };

int bind(int fd, const uint8_t *address, uint32_t length)
{
	uint8_t copy[28];
	return result(syscall(SYS_bind, fd, to_linux(copy, address, length), length));
}

int getsockname(int fd, uint8_t *address, uint32_t *length)
{
	long done = result(syscall(SYS_getsockname, fd, address, length));
	if (done == 0) to_darwin(address, *length);
	return done;
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
	uint8_t copy[28];
	to_linux(copy, message->name, message->name_length);
	struct linux_msghdr linux_message = { copy, message->name_length, message->pieces, message->count, NULL, 0, 0 };
	return result(syscall(SYS_sendmsg, fd, &linux_message, flags));
}

ssize_t recvmsg(int fd, struct msghdr *message, int flags)
{
	struct linux_msghdr linux_message = { message->name, message->name_length, message->pieces, message->count, NULL, 0, 0 };
	long length = result(syscall(SYS_recvmsg, fd, &linux_message, flags));
	if (length >= 0) to_darwin(message->name, message->name_length = linux_message.name_length);
	return length;
}

/* Functions that only need to exist for the symbol table. */
long sendto(void) { return failed(102); }
long recvfrom(void) { return failed(102); }
