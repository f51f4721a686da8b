/*
 * What `parking` writes with, and the least that a program that waits can do.
 *
 *     parking send PIPE MICROSECONDS COUNT
 *     parking wait
 *
 * send: a series of messages, so far apart, each of them the moment of its write (CLOCK_MONOTONIC). The first one says
 * that the series begins, COUNT follow, and one of zeros says that it has ended. Each is up to a quarter of the
 * distance late, 10 ms at the most: what waits in slices has to be met in all parts of them.
 *
 * wait: makes a pipe, prints its path, and polls. At the end of each series it prints what `Series` of
 * _parking_process.ts is.
 */

#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

enum { SECOND = 1000000000, LEAD_IN = 30000000, LONGEST_DELAY = 10000000, LONGEST_SERIES = 1 << 20, BATCH = 64 };

static long long nanoseconds(struct timespec time)
{
	return time.tv_sec * (long long)SECOND + time.tv_nsec;
}

static long long read_clock(clockid_t clock)
{
	struct timespec time;

	clock_gettime(clock, &time);
	return nanoseconds(time);
}

static int send_series(const char *path, long long distance, long count)
{
	int pipe = open(path, O_WRONLY | O_CLOEXEC);
	long long start = read_clock(CLOCK_MONOTONIC) + LEAD_IN;
	long long longest = distance / 4 < LONGEST_DELAY ? distance / 4 : LONGEST_DELAY;

	if (pipe < 0) {
		perror(path);
		return 1;
	}
	srandom(1);
	prctl(PR_SET_TIMERSLACK, 1);
	for (long i = 0; i <= count + 1; i++) {
		long long due = start + i * distance + random() % longest;
		struct timespec time = { due / SECOND, due % SECOND };

		clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
		clock_gettime(CLOCK_MONOTONIC, &time);
		if (i > count)
			memset(&time, 0, sizeof time);
		if (write(pipe, &time, sizeof time) != sizeof time)
			return 1;
	}
	return 0;
}

static int wait_for_good(void)
{
	static long long latencies[LONGEST_SERIES];
	struct timespec messages[BATCH];
	long long processor = 0;
	int ends[2];
	int count = -1;

	if (pipe(ends) < 0)
		return 1;
	printf("/proc/%d/fd/%d\n", getpid(), ends[1]);
	fflush(stdout);

	struct pollfd look = { .fd = ends[0], .events = POLLIN };

	while (poll(&look, 1, -1) > 0) {
		ssize_t length = read(ends[0], messages, sizeof messages);
		long long now = read_clock(CLOCK_MONOTONIC);

		for (int i = 0; i < (int)(length / (ssize_t)sizeof *messages); i++) {
			if (messages[i].tv_sec == 0) {
				processor = read_clock(CLOCK_PROCESS_CPUTIME_ID) - processor;
				printf("{\"processor\":%lld,\"latencies\":[", processor);
				for (int j = 0; j < count; j++)
					printf(j == 0 ? "%lld" : ",%lld", latencies[j]);
				printf("]}\n");
				fflush(stdout);
				count = -1;
			} else if (count < 0) {
				processor = read_clock(CLOCK_PROCESS_CPUTIME_ID);
				count = 0;
			} else if (count < LONGEST_SERIES) {
				latencies[count++] = now - nanoseconds(messages[i]);
			}
		}
	}
	return 1;
}

int main(int argc, char **argv)
{
	if (argc == 5 && strcmp(argv[1], "send") == 0)
		return send_series(argv[2], atoll(argv[3]) * 1000, atol(argv[4]));
	if (argc == 2 && strcmp(argv[1], "wait") == 0)
		return wait_for_good();
	fprintf(stderr, "Usage: parking send PIPE MICROSECONDS COUNT | parking wait\n");
	return 2;
}
