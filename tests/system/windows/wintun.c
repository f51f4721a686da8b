/**
 * A stand-in for wintun.dll 0.14 whose "kernel" is a UDP socket on the loopback interface, or the test itself.
 *
 *     WintunReceivePacket ◀── ring ◀── UDP socket, StandInInject      (from the system)
 *     WintunSendPacket ──▶ ring ──▶ UDP socket, StandInTake           (to the system)
 *
 * Follows wintun.h and the known behaviour of version 0.14.1: capacity and slack of the rings, packets sent in the
 * order of allocation, release out of order, one session per adapter, the errors 259, 38, 13, 111 and 1247, and the
 * read event set at every arrival.
 *
 * Adapters whose names start with one of these words:
 *
 *     deny     creating it fails with ERROR_ACCESS_DENIED
 *     stumble  creating it fails the first time
 *     slow     creating it takes 300 ms
 *     chatter  another thread logs while it holds the lock that creation needs
 *
 * Environment:
 *
 *     STAND_IN_LINKS   name=port:peer,...: UDP port of an adapter, and port that its packets go to; * is any name
 *     STAND_IN_REPORT  a mapped file: counters, and words by which another process causes faults
 *     STAND_IN_FAULTS  corrupt=N,end=N,stall=N: every N packets the ring from the system is corrupt; after N
 *                      packets the adapter is removed, or sent packets are no longer taken; seed=N: random errors;
 *                      miss=N: the Nth sent packet does not wake the system, as in 0.14.1
 */

#include <winsock2.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <wchar.h>
#include <windows.h>

#define EXPORT __declspec(dllexport)

/* Specification: wintun.h of 0.14.1. */
#define MIN_RING_CAPACITY 0x20000u
#define MAX_RING_CAPACITY 0x4000000u
#define MAX_IP_PACKET_SIZE 0xffffu
#define MAX_ADAPTER_NAME 128
#define DRIVER_VERSION 0x0000000eu
enum { LOG_INFO, LOG_WARN, LOG_ERR };
typedef void(CALLBACK *Logger)(int level, DWORD64 timestamp, const WCHAR *message);

/* Implementation. */
#define PACKET_HEADER 4u
#define RELEASED 0x80000000u
#define ENDED 0xffffffffu
#define SLACK 0x10000u
#define MAX_ADAPTERS 16
#define INTERFACE_TYPE 53ull
#define FIRST_LUID_INDEX 7ull
#define SPIN_MICROSECONDS 100
#define TICK_MILLISECONDS 20
#define BURST 64
/* Maximum payload of a UDP datagram over IPv4. */
#define LARGEST_DATAGRAM 65507
/* An error number without a name. */
#define UNKNOWN_ERROR 4711
#define SOCKET_BUFFER (4 << 20)
#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/** Counters of the report, 8 bytes each, in this order; tests/system/windows/stand_in.ts has the same list. */
enum Counter {
  LOADS,
  ADAPTERS_CREATED,
  ADAPTERS_CLOSED,
  HANDLES_OPEN,
  SESSIONS_STARTED,
  SESSIONS_ENDED,
  INJECTED,
  INJECTED_BYTES,
  OVERFLOWED,
  DELIVERED,
  DELIVERED_BYTES,
  RELEASES,
  UNREAD_AT_END,
  CORRUPTIONS,
  ALLOCATED,
  ALLOCATIONS_REFUSED,
  SENT,
  SENT_BYTES,
  TAKEN,
  DISCARDED,
  UNTAKEN_AT_END,
  UNSENT_AT_END,
  TOO_LONG_FOR_LINK,
  WAKEUPS,
  LOGGED,
  MISUSES,
  DRIVER_DELETIONS,
  ERRORS_AT_RANDOM,
  INVALID_READS,
  SESSIONS_REFUSED,
  NUDGES,
  NUDGES_DISCARDED,
  COUNTERS
};

/** Words after the counters by which another process causes faults, 8 bytes each. */
enum Command { REMOVE_ADAPTERS, STALL, CORRUPT, COMMANDS };

#define COMMANDS_AT 64
#define REPORT_WORDS 128

typedef struct {
  volatile ULONG head;
  volatile ULONG tail;
  volatile LONG alertable;
  BYTE data[];
} Ring;

typedef struct {
  ULONG size;
  BYTE data[];
} RingPacket;

#define RING_SIZE(capacity) (sizeof(Ring) + (capacity) + SLACK)

typedef struct Adapter Adapter;

/** The API's side of a session, under its lock. `edge` is the first packet that is not released. */
typedef struct {
  CRITICAL_SECTION lock;
  Ring *ring;
  HANDLE event;
  ULONG next, edge, open;
} Side;

typedef struct {
  Adapter *adapter;
  ULONG capacity;
  Side in, out;
  /* The system's side. */
  CRITICAL_SECTION producer, consumer;
  SOCKET socket;
  HANDLE threads[2], stop;
  volatile LONG stopping, ended, calls;
  /* Packets in the rings: arrived and not received, sent and not taken, allocated and not sent. */
  volatile LONG unread, untaken, unsent;
  /* For benches: packets still to arrive when the ring is empty; true if sent packets are taken at once. */
  LONG64 flood;
  BOOL sink;
  /* The system missed a wakeup: it sleeps until the next packet is sent. */
  volatile BOOL missed;
} Session;

struct Adapter {
  WCHAR name[MAX_ADAPTER_NAME], type[MAX_ADAPTER_NAME];
  GUID guid;
  DWORD64 luid;
  Session *session;
  LONG handles;
  BOOL present;
  /* As in MIB_IF_ROW2: packets, bytes and discards to the script, then from it. */
  volatile LONG64 statistics[6];
};

enum Statistic { OUT_PACKETS, OUT_BYTES, OUT_DISCARDS, IN_PACKETS, IN_BYTES, IN_DISCARDS, STATISTICS };

typedef struct {
  Adapter *adapter;
  BOOL owner;
} Handle;

/* Wintun's mutex for creating, opening and closing adapters, which may log under it; and the lock of this file. */
static CRITICAL_SECTION installation_lock, device_lock;
static Logger volatile logger;
static Adapter adapters[MAX_ADAPTERS];
static DWORD64 luid_index = FIRST_LUID_INDEX;
static BOOL driver_running, stumbled;
static volatile LONG64 private_report[REPORT_WORDS];
static volatile LONG64 *report = private_report;
static volatile LONG stalled;
static struct {
  LONG64 corrupt, end, stall;
} faults;
static LONG64 missing;
static volatile LONG64 seed;
/* Number of sessions to refuse, and the error. */
static volatile LONG refusals;
static volatile DWORD refusal;

static void count(enum Counter counter, LONG64 by) { InterlockedExchangeAdd64(&report[counter], by); }

static void tally(Session *session, enum Statistic statistic, LONG64 by) {
  InterlockedExchangeAdd64(&session->adapter->statistics[statistic], by);
}

/** Reports a call that wintun.h forbids, or a handle that was not closed. */
static void misuse(const char *what) {
  count(MISUSES, 1);
  fprintf(stderr, "stand-in: misuse: %s\n", what);
}

static void write_log(int level, const WCHAR *format, ...) {
  Logger to = logger;
  if (to == NULL) return;
  WCHAR message[0x400];
  FILETIME now;
  va_list arguments;
  va_start(arguments, format);
  _vsnwprintf(message, ARRAY_LENGTH(message) - 1, format, arguments);
  va_end(arguments);
  message[ARRAY_LENGTH(message) - 1] = 0;
  GetSystemTimeAsFileTime(&now);
  DWORD error = GetLastError();
  count(LOGGED, 1);
  to(level, (DWORD64)now.dwHighDateTime << 32 | now.dwLowDateTime, message);
  SetLastError(error);
}

static void *fail(DWORD error) {
  SetLastError(error);
  return NULL;
}

/** Logs as wintun.dll does, with the code at the end, and leaves the code as the last error. */
static void *fail_aloud(DWORD error, const WCHAR *what) {
  write_log(LOG_ERR, L"%ls (Code 0x%08X)", what, (unsigned)error);
  return fail(error);
}

/** Returns a random number below `bound` from the seed, or 1 without a seed; callers test for 0. */
static ULONG chance(ULONG bound) {
  if (seed == 0) return 1;
  LONG64 before, after;
  do {
    before = seed;
    after = (LONG64)((DWORD64)before * 6364136223846793005ull + 1442695040888963407ull);
    if (after == 0) after = 1;
  } while (InterlockedCompareExchange64(&seed, after, before) != before);
  return (ULONG)((DWORD64)after >> 33) % bound;
}

static ULONG aligned(ULONG size) { return (PACKET_HEADER + size + 3) & ~3u; }

static ULONG wrap(const Session *session, ULONG offset) { return offset & (session->capacity - 1); }

static RingPacket *packet_at(Ring *ring, ULONG offset) { return (RingPacket *)(ring->data + offset); }

static ULONG load(volatile ULONG *word) { return __atomic_load_n(word, __ATOMIC_SEQ_CST); }

/** For benches, below. */
static void flood(Session *session);

static void store(volatile ULONG *word, ULONG value) { __atomic_store_n(word, value, __ATOMIC_SEQ_CST); }

/* The system's side of a session. */

/** Ends the rings of a session whose adapter is gone or whose ring is corrupt. */
static void end_rings(Session *session) {
  if (InterlockedExchange(&session->ended, 1)) return;
  EnterCriticalSection(&session->producer);
  store(&session->in.ring->tail, ENDED);
  LeaveCriticalSection(&session->producer);
  EnterCriticalSection(&session->consumer);
  store(&session->out.ring->head, ENDED);
  LeaveCriticalSection(&session->consumer);
  SetEvent(session->in.event);
  SetEvent(session->out.event);
}

/** Writes an entry into the ring from the system; `claimed` is the size in the entry. */
static BOOL produce(Session *session, const BYTE *bytes, ULONG size, ULONG claimed) {
  BOOL fits = FALSE;
  EnterCriticalSection(&session->producer);
  Ring *ring = session->in.ring;
  ULONG tail = ring->tail, head = load(&ring->head);
  if (tail < session->capacity && head < session->capacity) {
    fits = aligned(size) <= wrap(session, head - tail - PACKET_HEADER);
    if (fits) {
      RingPacket *packet = packet_at(ring, tail);
      packet->size = claimed;
      memcpy(packet->data, bytes, size);
      store(&ring->tail, wrap(session, tail + aligned(size)));
    }
  }
  LeaveCriticalSection(&session->producer);
  return fits;
}

static BOOL corrupt(Session *session) {
  static const BYTE nothing[PACKET_HEADER];
  if (!produce(session, nothing, sizeof nothing, 0x10000u + chance(0x7000000))) return FALSE;
  count(CORRUPTIONS, 1);
  SetEvent(session->in.event);
  return TRUE;
}

/** Adds a packet from the system; the caller sets the event, once for several. */
static BOOL inject(Session *session, const BYTE *bytes, ULONG size) {
  LONG64 number = InterlockedIncrement64(&report[INJECTED]);
  count(INJECTED_BYTES, size);
  BOOL fits = produce(session, bytes, size, size);
  if (fits) {
    InterlockedIncrement(&session->unread);
    tally(session, OUT_PACKETS, 1);
    tally(session, OUT_BYTES, size);
  } else {
    count(OVERFLOWED, 1);
    tally(session, OUT_DISCARDS, 1);
  }
  if (faults.corrupt != 0 && number % faults.corrupt == 0) corrupt(session);
  if (faults.end != 0 && number == faults.end) end_rings(session);
  return fits;
}

static BOOL is_ip(const BYTE *bytes, ULONG size) {
  if (size < 20) return FALSE;
  return bytes[0] >> 4 == 4 || (bytes[0] >> 4 == 6 && size >= 40);
}

/** Returns true for a nudge of the driver, which is not a packet and cannot come from a script. */
static BOOL is_nudge(const BYTE *bytes, ULONG size) {
  static const BYTE nudge[20];
  return size == sizeof nudge && memcmp(bytes, nudge, sizeof nudge) == 0;
}

/** Takes a sent packet: returns its length, 0 if there is none, -1 if the session has ended. */
static int consume(Session *session, BYTE *into, ULONG room) {
  int length = 0;
  EnterCriticalSection(&session->consumer);
  Ring *ring = session->out.ring;
  while (length == 0) {
    ULONG head = ring->head, tail = load(&ring->tail);
    if (head >= session->capacity) {
      length = -1;
      break;
    }
    if (head == tail || stalled || session->missed) break;
    RingPacket *packet = packet_at(ring, head);
    ULONG size = packet->size, content = wrap(session, tail - head);
    if (tail >= session->capacity || size > MAX_IP_PACKET_SIZE || aligned(size) > content) {
      misuse("the ring to the system makes no sense");
      store(&ring->head, ENDED);
      InterlockedExchange(&session->ended, 1);
      length = -1;
      break;
    }
    InterlockedDecrement(&session->untaken);
    if (!is_ip(packet->data, size)) {
      count(DISCARDED, 1);
      if (is_nudge(packet->data, size)) count(NUDGES_DISCARDED, 1);
      tally(session, IN_DISCARDS, 1);
    } else {
      count(TAKEN, 1);
      if (faults.stall != 0 && report[TAKEN] >= faults.stall) stalled = TRUE;
      tally(session, IN_PACKETS, 1);
      tally(session, IN_BYTES, size);
      if (size <= room) memcpy(into, packet->data, size);
      length = (int)size;
    }
    store(&ring->head, wrap(session, head + aligned(size)));
  }
  LeaveCriticalSection(&session->consumer);
  return length;
}

static DWORD WINAPI bring(void *argument) {
  Session *session = argument;
  BYTE bytes[MAX_IP_PACKET_SIZE];
  HANDLE events[] = {WSACreateEvent(), session->stop};
  WSAEventSelect(session->socket, events[0], FD_READ);
  for (int brought = 0; !session->stopping;) {
    if (brought < BURST) WaitForMultipleObjects(ARRAY_LENGTH(events), events, FALSE, INFINITE);
    WSAResetEvent(events[0]);
    for (brought = 0; brought < BURST; brought++) {
      int size = recv(session->socket, (char *)bytes, sizeof bytes, 0);
      if (size <= 0) break;
      inject(session, bytes, (ULONG)size);
    }
    if (brought > 0) SetEvent(session->in.event);
  }
  WSACloseEvent(events[0]);
  return 0;
}

static LONG64 microseconds(void) {
  LARGE_INTEGER now, frequency;
  QueryPerformanceCounter(&now);
  QueryPerformanceFrequency(&frequency);
  return now.QuadPart * 1000000 / frequency.QuadPart;
}

static DWORD WINAPI fetch(void *argument) {
  Session *session = argument;
  BYTE bytes[MAX_IP_PACKET_SIZE];
  LONG64 idle_since = microseconds();
  while (!session->stopping) {
    int length = consume(session, bytes, sizeof bytes);
    if (length > 0) {
      if (length > LARGEST_DATAGRAM) count(TOO_LONG_FOR_LINK, 1);
      else send(session->socket, (char *)bytes, length, 0);
      idle_since = 0;
      continue;
    }
    if (idle_since == 0) idle_since = microseconds();
    if (length == 0 && microseconds() - idle_since < SPIN_MICROSECONDS) {
      SwitchToThread();
      continue;
    }
    /* The tail is read again after the flag is set: a sender that did not see the flag has moved the tail. */
    Ring *ring = session->out.ring;
    InterlockedExchange(&ring->alertable, TRUE);
    if (load(&ring->head) == load(&ring->tail) || length < 0 || stalled || session->missed) {
      WaitForSingleObject(session->out.event, stalled ? TICK_MILLISECONDS : INFINITE);
    }
    InterlockedExchange(&ring->alertable, FALSE);
  }
  return 0;
}

/** Finds the ports of an adapter's link in STAND_IN_LINKS. */
static BOOL find_link(const WCHAR *name, int *port, int *peer) {
  char links[1024], wanted[MAX_ADAPTER_NAME * 3];
  DWORD length = GetEnvironmentVariableA("STAND_IN_LINKS", links, sizeof links);
  if (length == 0 || length >= sizeof links) return FALSE;
  WideCharToMultiByte(CP_UTF8, 0, name, -1, wanted, sizeof wanted, NULL, NULL);
  for (char *entry = strtok(links, ","); entry != NULL; entry = strtok(NULL, ",")) {
    char *ports = strchr(entry, '=');
    if (ports == NULL) continue;
    *ports++ = 0;
    if (strcmp(entry, "*") != 0 && _stricmp(entry, wanted) != 0) continue;
    return sscanf(ports, "%d:%d", port, peer) == 2;
  }
  return FALSE;
}

static BOOL open_link(Session *session) {
  int port, peer;
  session->socket = INVALID_SOCKET;
  if (!find_link(session->adapter->name, &port, &peer)) return TRUE;
  static BOOL started;
  WSADATA data;
  if (!started && WSAStartup(MAKEWORD(2, 2), &data) != 0) return FALSE;
  started = TRUE;
  SOCKET link = socket(AF_INET, SOCK_DGRAM, 0);
  struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
  int buffer = SOCKET_BUFFER;
  BOOL reuse = TRUE;
  u_long nonblocking = 1;
  setsockopt(link, SOL_SOCKET, SO_RCVBUF, (char *)&buffer, sizeof buffer);
  setsockopt(link, SOL_SOCKET, SO_SNDBUF, (char *)&buffer, sizeof buffer);
  address.sin_port = htons((u_short)port);
  /* Wine may keep the port of a killed process: the socket bound last receives the packets. */
  setsockopt(link, SOL_SOCKET, SO_REUSEADDR, (char *)&reuse, sizeof reuse);
  BOOL open = bind(link, (struct sockaddr *)&address, sizeof address) == 0;
  address.sin_port = htons((u_short)peer);
  open = open && connect(link, (struct sockaddr *)&address, sizeof address) == 0;
  open = open && ioctlsocket(link, FIONBIO, &nonblocking) == 0;
  if (!open) {
    fprintf(stderr, "stand-in: no link from port %d to %d: %d\n", port, peer, WSAGetLastError());
    closesocket(link);
    return FALSE;
  }
  session->socket = link;
  session->stop = CreateEventW(NULL, TRUE, FALSE, NULL);
  session->threads[0] = CreateThread(NULL, 0, bring, session, 0, NULL);
  session->threads[1] = CreateThread(NULL, 0, fetch, session, 0, NULL);
  return TRUE;
}

/** Causes the faults of the report's words and of STAND_IN_FAULTS. */
static DWORD WINAPI obey(void *argument) {
  (void)argument;
  for (;; Sleep(TICK_MILLISECONDS)) {
    BOOL remove = InterlockedExchange64(&report[COMMANDS_AT + REMOVE_ADAPTERS], 0) != 0;
    LONG64 corruptions = InterlockedExchange64(&report[COMMANDS_AT + CORRUPT], 0);
    stalled = report[COMMANDS_AT + STALL] != 0 || (faults.stall != 0 && report[TAKEN] >= faults.stall);
    if (!remove && corruptions == 0) continue;
    EnterCriticalSection(&device_lock);
    for (size_t i = 0; i < MAX_ADAPTERS; i++) {
      Session *session = adapters[i].session;
      if (session == NULL) continue;
      if (corruptions != 0) corrupt(session);
      if (remove) end_rings(session);
    }
    LeaveCriticalSection(&device_lock);
  }
  return 0;
}

/* Adapters. */

static Adapter *find_adapter(const WCHAR *name) {
  for (size_t i = 0; i < MAX_ADAPTERS; i++) {
    if (adapters[i].present && _wcsicmp(adapters[i].name, name) == 0) return &adapters[i];
  }
  return NULL;
}

static BOOL starts_with(const WCHAR *name, const WCHAR *start) {
  return _wcsnicmp(name, start, wcslen(start)) == 0;
}

static Handle *open_handle(Adapter *adapter, BOOL owner) {
  Handle *handle = calloc(1, sizeof *handle);
  handle->adapter = adapter;
  handle->owner = owner;
  adapter->handles++;
  count(HANDLES_OPEN, 1);
  return handle;
}

static DWORD WINAPI sweep_aloud(void *holds) {
  EnterCriticalSection(&installation_lock);
  SetEvent(holds);
  write_log(LOG_INFO, L"Removed orphaned adapter \"Ghost\"");
  LeaveCriticalSection(&installation_lock);
  return 0;
}

/** Makes another thread take the lock and log; the caller then waits for the lock. */
static void chatter(void) {
  HANDLE holds = CreateEventW(NULL, FALSE, FALSE, NULL);
  HANDLE thread = CreateThread(NULL, 0, sweep_aloud, holds, 0, NULL);
  WaitForSingleObject(holds, INFINITE);
  CloseHandle(holds);
  CloseHandle(thread);
}

static Handle *add_adapter(const WCHAR *name, const WCHAR *type, const GUID *guid) {
  /* A new adapter takes the name from another one. */
  Adapter *other = find_adapter(name);
  if (other != NULL && wcslen(name) < MAX_ADAPTER_NAME - 2) wcscat(other->name, L" 1");
  for (size_t i = 0; i < MAX_ADAPTERS; i++) {
    Adapter *adapter = &adapters[i];
    if (adapter->handles != 0) continue;
    memset(adapter, 0, sizeof *adapter);
    wcscpy(adapter->name, name);
    wcscpy(adapter->type, type);
    adapter->luid = INTERFACE_TYPE << 48 | luid_index++ << 24;
    adapter->present = TRUE;
    if (guid != NULL) adapter->guid = *guid;
    else adapter->guid.Data1 = (DWORD)adapter->luid;
    count(ADAPTERS_CREATED, 1);
    return open_handle(adapter, TRUE);
  }
  return NULL;
}

static Handle *create(const WCHAR *name, const WCHAR *type, const GUID *guid) {
  if (starts_with(name, L"deny")) return fail_aloud(ERROR_ACCESS_DENIED, L"Failed to create private namespace");
  if (starts_with(name, L"stumble") && !stumbled) {
    stumbled = TRUE;
    return fail_aloud(ERROR_DEVICE_NOT_AVAILABLE, L"Failed to setup adapter");
  }
  if (starts_with(name, L"slow")) Sleep(300);
  write_log(LOG_INFO, driver_running ? L"Using existing driver 0.14" : L"Installing driver 0.14");
  driver_running = TRUE;
  EnterCriticalSection(&device_lock);
  Handle *handle = add_adapter(name, type, guid);
  LeaveCriticalSection(&device_lock);
  return handle != NULL ? handle : fail_aloud(ERROR_OUTOFMEMORY, L"Failed to allocate adapter");
}

EXPORT Handle *WINAPI WintunCreateAdapter(const WCHAR *name, const WCHAR *type, const GUID *guid) {
  if (wcslen(name) >= MAX_ADAPTER_NAME || wcslen(type) >= MAX_ADAPTER_NAME) return fail(ERROR_BUFFER_OVERFLOW);
  if (starts_with(name, L"chatter")) chatter();
  EnterCriticalSection(&installation_lock);
  Handle *handle = create(name, type, guid);
  DWORD error = GetLastError();
  LeaveCriticalSection(&installation_lock);
  SetLastError(error);
  return handle;
}

EXPORT Handle *WINAPI WintunOpenAdapter(const WCHAR *name) {
  if (wcslen(name) >= MAX_ADAPTER_NAME) return fail(ERROR_BUFFER_OVERFLOW);
  EnterCriticalSection(&installation_lock);
  EnterCriticalSection(&device_lock);
  Adapter *adapter = find_adapter(name);
  Handle *handle = adapter == NULL ? NULL : open_handle(adapter, FALSE);
  LeaveCriticalSection(&device_lock);
  LeaveCriticalSection(&installation_lock);
  return handle != NULL ? handle : fail_aloud(ERROR_NOT_FOUND, L"Failed to find matching adapter name");
}

EXPORT void WINAPI WintunCloseAdapter(Handle *handle) {
  if (handle == NULL) return;
  EnterCriticalSection(&installation_lock);
  EnterCriticalSection(&device_lock);
  Adapter *adapter = handle->adapter;
  if (handle->owner) {
    if (adapter->session != NULL) {
      misuse("an adapter is closed before its session");
      end_rings(adapter->session);
    }
    adapter->present = FALSE;
    count(ADAPTERS_CLOSED, 1);
  }
  adapter->handles--;
  count(HANDLES_OPEN, -1);
  LeaveCriticalSection(&device_lock);
  LeaveCriticalSection(&installation_lock);
  free(handle);
}

EXPORT BOOL WINAPI WintunDeleteDriver(void) {
  count(DRIVER_DELETIONS, 1);
  for (size_t i = 0; i < MAX_ADAPTERS; i++) {
    if (adapters[i].present) {
      fail_aloud(ERROR_SHARING_VIOLATION, L"Failed to delete driver: it is in use");
      return FALSE;
    }
  }
  driver_running = FALSE;
  return TRUE;
}

EXPORT void WINAPI WintunGetAdapterLUID(Handle *handle, DWORD64 *luid) { *luid = handle->adapter->luid; }

EXPORT DWORD WINAPI WintunGetRunningDriverVersion(void) {
  if (driver_running) return DRIVER_VERSION;
  SetLastError(ERROR_FILE_NOT_FOUND);
  return 0;
}

EXPORT void WINAPI WintunSetLogger(Logger new_logger) { logger = new_logger; }

/* Sessions. */

static void open_side(Side *side, void *memory) {
  InitializeCriticalSection(&side->lock);
  side->ring = memory;
  side->event = CreateEventW(NULL, FALSE, FALSE, NULL);
}

EXPORT Session *WINAPI WintunStartSession(Handle *handle, DWORD capacity) {
  BOOL is_power = (capacity & (capacity - 1)) == 0;
  if (capacity < MIN_RING_CAPACITY || capacity > MAX_RING_CAPACITY || !is_power) {
    return fail_aloud(ERROR_INVALID_PARAMETER, L"Failed to register rings");
  }
  EnterCriticalSection(&device_lock);
  if (refusals > 0) {
    refusals--;
    LeaveCriticalSection(&device_lock);
    count(SESSIONS_REFUSED, 1);
    return fail_aloud(refusal, L"Failed to register rings");
  }
  Adapter *adapter = handle->adapter;
  if (adapter->session != NULL || !adapter->present) {
    DWORD error = adapter->present ? ERROR_ALREADY_INITIALIZED : ERROR_FILE_NOT_FOUND;
    LeaveCriticalSection(&device_lock);
    return fail_aloud(error, L"Failed to register rings");
  }
  /* Both rings are one allocation, so that a write past the first one's slack hits the second one's head. */
  BYTE *memory = VirtualAlloc(NULL, 2 * RING_SIZE(capacity), MEM_COMMIT | MEM_RESERVE, PAGE_READWRITE);
  /* Never freed: a call after the end is a misuse to report, not a crash. */
  Session *session = calloc(1, sizeof *session);
  session->adapter = adapter;
  session->capacity = capacity;
  open_side(&session->in, memory);
  open_side(&session->out, memory + RING_SIZE(capacity));
  InitializeCriticalSection(&session->producer);
  InitializeCriticalSection(&session->consumer);
  if (!open_link(session)) {
    VirtualFree(memory, 0, MEM_RELEASE);
    CloseHandle(session->in.event);
    CloseHandle(session->out.event);
    LeaveCriticalSection(&device_lock);
    return fail_aloud(ERROR_GEN_FAILURE, L"Failed to open the link");
  }
  adapter->session = session;
  count(SESSIONS_STARTED, 1);
  LeaveCriticalSection(&device_lock);
  return session;
}

/** Returns true if a call may continue; one on an ended session is a misuse. */
static BOOL enter(Session *session) {
  InterlockedIncrement(&session->calls);
  if (!session->stopping) return TRUE;
  InterlockedDecrement(&session->calls);
  misuse("a call on a session after its end");
  return FALSE;
}

static void leave(Session *session) { InterlockedDecrement(&session->calls); }

EXPORT void WINAPI WintunEndSession(Session *session) {
  if (InterlockedExchange(&session->stopping, 1)) {
    misuse("a session is ended twice");
    return;
  }
  if (session->calls != 0) misuse("a session is ended during another call");
  /* Only a pending wait could consume this signal. */
  SetEvent(session->in.event);
  if (WaitForSingleObject(session->in.event, 0) != WAIT_OBJECT_0) misuse("a session is ended during a wait for its event");
  SetEvent(session->out.event);
  if (session->stop != NULL) SetEvent(session->stop);
  for (size_t i = 0; i < ARRAY_LENGTH(session->threads); i++) {
    if (session->threads[i] == NULL) continue;
    WaitForSingleObject(session->threads[i], INFINITE);
    CloseHandle(session->threads[i]);
  }
  if (session->socket != INVALID_SOCKET) closesocket(session->socket);
  if (session->stop != NULL) CloseHandle(session->stop);
  EnterCriticalSection(&device_lock);
  session->adapter->session = NULL;
  LeaveCriticalSection(&device_lock);
  Side *in = &session->in, *out = &session->out;
  count(UNREAD_AT_END, session->unread);
  count(UNTAKEN_AT_END, session->untaken);
  count(UNSENT_AT_END, session->unsent);
  BOOL closed = CloseHandle(in->event);
  if (!(CloseHandle(out->event) && closed)) misuse("a session's event was closed by the caller");
  VirtualFree(in->ring, 0, MEM_RELEASE);
  count(SESSIONS_ENDED, 1);
}

EXPORT HANDLE WINAPI WintunGetReadWaitEvent(Session *session) { return session->in.event; }

static void *invalid(void) {
  count(INVALID_READS, 1);
  return fail(ERROR_INVALID_DATA);
}

static BYTE *receive(Session *session, DWORD *size) {
  Side *side = &session->in;
  ULONG tail = load(&side->ring->tail);
  if (side->next >= session->capacity || tail >= session->capacity) return fail(ERROR_HANDLE_EOF);
  if (chance(64) == 0) {
    static const DWORD errors[] = {ERROR_NO_MORE_ITEMS, ERROR_NO_MORE_ITEMS, ERROR_GEN_FAILURE, WAIT_TIMEOUT,
                                   ERROR_SUCCESS,       UNKNOWN_ERROR};
    count(ERRORS_AT_RANDOM, 1);
    return fail(errors[chance(ARRAY_LENGTH(errors))]);
  }
  if (chance(30000) == 0) return invalid();
  ULONG content = wrap(session, tail - side->next);
  if (content == 0 && session->flood > 0) {
    flood(session);
    content = wrap(session, load(&side->ring->tail) - side->next);
  }
  if (content == 0) return fail(ERROR_NO_MORE_ITEMS);
  RingPacket *packet = packet_at(side->ring, side->next);
  if (content < PACKET_HEADER || packet->size > MAX_IP_PACKET_SIZE || aligned(packet->size) > content) {
    return invalid();
  }
  side->next = wrap(session, side->next + aligned(packet->size));
  side->open++;
  InterlockedDecrement(&session->unread);
  count(DELIVERED, 1);
  count(DELIVERED_BYTES, packet->size);
  *size = packet->size;
  return packet->data;
}

EXPORT BYTE *WINAPI WintunReceivePacket(Session *session, DWORD *size) {
  if (!enter(session)) return fail(ERROR_HANDLE_EOF);
  EnterCriticalSection(&session->in.lock);
  BYTE *bytes = receive(session, size);
  LeaveCriticalSection(&session->in.lock);
  leave(session);
  return bytes;
}

/** Returns true for a pointer of the API: in the ring, and aligned like packets. */
static BOOL is_of_ring(const Session *session, const Side *side, const BYTE *bytes) {
  const BYTE *data = side->ring->data;
  return bytes >= data + PACKET_HEADER && bytes < data + PACKET_HEADER + session->capacity &&
         ((bytes - data) & 3) == 0;
}

EXPORT void WINAPI WintunReleaseReceivePacket(Session *session, const BYTE *bytes) {
  if (!enter(session)) return;
  Side *side = &session->in;
  EnterCriticalSection(&side->lock);
  RingPacket *packet = (RingPacket *)(bytes - PACKET_HEADER);
  if (!is_of_ring(session, side, bytes) || side->open == 0 || packet->size & RELEASED) {
    misuse("a packet is released that was not received");
  } else {
    packet->size |= RELEASED;
    count(RELEASES, 1);
    while (side->open > 0) {
      RingPacket *first = packet_at(side->ring, side->edge);
      if (!(first->size & RELEASED)) break;
      side->edge = wrap(session, side->edge + aligned(first->size & ~RELEASED));
      side->open--;
    }
    store(&side->ring->head, side->edge);
  }
  LeaveCriticalSection(&side->lock);
  leave(session);
}

static BYTE *allocate(Session *session, DWORD size) {
  Side *side = &session->out;
  ULONG head = load(&side->ring->head);
  if (head >= session->capacity || side->next >= session->capacity) return fail(ERROR_HANDLE_EOF);
  if (size > MAX_IP_PACKET_SIZE) misuse("a packet longer than WINTUN_MAX_IP_PACKET_SIZE is allocated");
  BOOL at_random = chance(64) == 0;
  if (at_random) count(ERRORS_AT_RANDOM, 1);
  if (at_random || aligned(size) > wrap(session, head - side->next - PACKET_HEADER)) {
    count(ALLOCATIONS_REFUSED, 1);
    return fail(at_random && chance(4) == 0 ? UNKNOWN_ERROR : ERROR_BUFFER_OVERFLOW);
  }
  RingPacket *packet = packet_at(side->ring, side->next);
  packet->size = size | RELEASED;
  side->next = wrap(session, side->next + aligned(size));
  side->open++;
  session->unsent++;
  count(ALLOCATED, 1);
  return packet->data;
}

EXPORT BYTE *WINAPI WintunAllocateSendPacket(Session *session, DWORD size) {
  if (!enter(session)) return fail(ERROR_HANDLE_EOF);
  EnterCriticalSection(&session->out.lock);
  BYTE *bytes = allocate(session, size);
  LeaveCriticalSection(&session->out.lock);
  leave(session);
  return bytes;
}

EXPORT void WINAPI WintunSendPacket(Session *session, const BYTE *bytes) {
  if (!enter(session)) return;
  Side *side = &session->out;
  EnterCriticalSection(&side->lock);
  RingPacket *packet = (RingPacket *)(bytes - PACKET_HEADER);
  if (!is_of_ring(session, side, bytes) || side->open == 0 || !(packet->size & RELEASED)) {
    misuse("a packet is sent that was not allocated");
  } else {
    packet->size &= ~RELEASED;
    session->unsent--;
    InterlockedIncrement(&session->untaken);
    count(SENT, 1);
    count(SENT_BYTES, packet->size);
    if (is_nudge(packet->data, packet->size)) count(NUDGES, 1);
    while (side->open > 0) {
      RingPacket *first = packet_at(side->ring, side->edge);
      if (first->size & RELEASED) break;
      side->edge = wrap(session, side->edge + aligned(first->size));
      side->open--;
    }
    session->missed = missing != 0 && report[SENT] == missing;
    if (side->ring->tail != side->edge) {
      store(&side->ring->tail, side->edge);
      if (side->ring->alertable) {
        count(WAKEUPS, 1);
        SetEvent(side->event);
      }
    }
    while (session->sink && consume(session, NULL, 0) > 0) continue;
  }
  LeaveCriticalSection(&side->lock);
  leave(session);
}

/* For tests in the same process. */

/** Returns the session of an adapter of this name, or NULL; the caller holds the device lock. */
static Session *session_of(const WCHAR *name) {
  Adapter *adapter = find_adapter(name);
  return adapter == NULL ? NULL : adapter->session;
}

/** Copies the first counters. */
EXPORT void WINAPI StandInCounters(LONG64 *into, DWORD length) {
  for (DWORD i = 0; i < length && i < COUNTERS; i++) into[i] = report[i];
}

/** Returns an adapter's LUID by name, for the stand-in of iphlpapi.dll. */
EXPORT BOOL WINAPI StandInFind(const WCHAR *name, DWORD64 *luid) {
  EnterCriticalSection(&device_lock);
  const Adapter *adapter = find_adapter(name);
  if (adapter != NULL) *luid = adapter->luid;
  LeaveCriticalSection(&device_lock);
  return adapter != NULL;
}

/** Returns an adapter's statistics by LUID, for the stand-in of iphlpapi.dll. */
EXPORT BOOL WINAPI StandInStatistics(DWORD64 luid, LONG64 *into) {
  for (size_t i = 0; i < MAX_ADAPTERS; i++) {
    if (!adapters[i].present || adapters[i].luid != luid) continue;
    for (size_t at = 0; at < STATISTICS; at++) into[at] = adapters[i].statistics[at];
    return TRUE;
  }
  return FALSE;
}

/** Adds a packet from the system; returns FALSE if there is no session, or its ring is full. */
EXPORT BOOL WINAPI StandInInject(const WCHAR *name, const BYTE *bytes, DWORD size) {
  EnterCriticalSection(&device_lock);
  Session *session = session_of(name);
  BOOL fits = session != NULL && size <= MAX_IP_PACKET_SIZE && inject(session, bytes, size);
  if (session != NULL) SetEvent(session->in.event);
  LeaveCriticalSection(&device_lock);
  return fits;
}

/** Takes a sent packet: returns its length, 0 if there is none, -1 if there is no session or it has ended. */
EXPORT int WINAPI StandInTake(const WCHAR *name, BYTE *into, DWORD room) {
  EnterCriticalSection(&device_lock);
  Session *session = session_of(name);
  int length = session == NULL ? -1 : consume(session, into, room);
  LeaveCriticalSection(&device_lock);
  return length;
}

/** Writes an invalid entry into the ring from the system. */
EXPORT BOOL WINAPI StandInCorrupt(const WCHAR *name) {
  EnterCriticalSection(&device_lock);
  Session *session = session_of(name);
  BOOL done = session != NULL && corrupt(session);
  LeaveCriticalSection(&device_lock);
  return done;
}

/** Ends the session of an adapter, like its removal. */
EXPORT BOOL WINAPI StandInEnd(const WCHAR *name) {
  EnterCriticalSection(&device_lock);
  Session *session = session_of(name);
  if (session != NULL) end_rings(session);
  LeaveCriticalSection(&device_lock);
  return session != NULL;
}

/** Makes sent packets stay in the ring, or be taken again. */
EXPORT void WINAPI StandInStall(BOOL stall) {
  report[COMMANDS_AT + STALL] = stall;
  stalled = stall;
}

/** Refuses the next `sessions` sessions with this error. */
EXPORT void WINAPI StandInRefuseSessions(DWORD sessions, DWORD error) {
  EnterCriticalSection(&device_lock);
  refusals = (LONG)sessions;
  refusal = error;
  LeaveCriticalSection(&device_lock);
}

/** Starts random errors from this seed; 0 ends them. */
EXPORT void WINAPI StandInSeed(DWORD64 new_seed) { InterlockedExchange64(&seed, (LONG64)new_seed); }

static ULONG any_size(void) {
  switch (chance(16)) {
    case 0: return MAX_IP_PACKET_SIZE - chance(4);
    case 1: return chance(MAX_IP_PACKET_SIZE + 1);
    case 2: return chance(40);
    default: return 20 + chance(1500);
  }
}

/**
 * Performs random operations of the system: packets of any size and content arrive and are taken, rarely an entry is
 * invalid, and most rarely the adapter is removed. The event is sometimes set without a packet. Call StandInSeed first.
 */
EXPORT void WINAPI StandInFuzz(const WCHAR *name, DWORD operations) {
  static BYTE bytes[MAX_IP_PACKET_SIZE];
  EnterCriticalSection(&device_lock);
  Session *session = session_of(name);
  for (DWORD i = 0; session != NULL && i < operations; i++) {
    ULONG kind = chance(2000);
    if (kind == 0) {
      if (chance(100) == 0) end_rings(session);
      else corrupt(session);
    } else if (kind < 1100) {
      ULONG size = any_size();
      for (ULONG at = 0; at < size && at < 64; at++) bytes[at] = (BYTE)chance(256);
      inject(session, bytes, size);
    } else if (kind < 1120) {
      while (consume(session, bytes, sizeof bytes) > 0) continue;
    } else {
      consume(session, bytes, sizeof bytes);
    }
  }
  if (session != NULL) SetEvent(session->in.event);
  LeaveCriticalSection(&device_lock);
}

static DWORD WINAPI log_aside(void *argument) {
  write_log(LOG_WARN, L"From another thread: %d", (int)(intptr_t)argument);
  return 0;
}

/** Logs a line, from another thread or from this one. */
EXPORT void WINAPI StandInLog(int number, BOOL from_another_thread) {
  if (!from_another_thread) {
    log_aside((void *)(intptr_t)number);
    return;
  }
  HANDLE thread = CreateThread(NULL, 0, log_aside, (void *)(intptr_t)number, 0, NULL);
  CloseHandle(thread);
}

/* For benches: the system's side without another thread, a socket or an event per packet. */

#define FLOOD_SIZE 1400
#define BENCH_SLOTS 64
#define BENCH_SLOT 2048

static BYTE bench_slots[BENCH_SLOTS][BENCH_SLOT] = {[0 ... BENCH_SLOTS - 1] = {0x45}};

/** Adds several packets at once. */
static void flood(Session *session) {
  for (int i = 0; i < BURST && session->flood > 0; i++, session->flood--) {
    inject(session, bench_slots[0], FLOOD_SIZE);
  }
}

/** Adds packets of 1,400 bytes as fast as they are read. */
EXPORT void WINAPI StandInFlood(const WCHAR *name, LONG64 packets) {
  Session *session = session_of(name);
  session->flood = packets;
  SetEvent(session->in.event);
}

/** Makes sent packets be taken within the call. */
EXPORT void WINAPI StandInSink(const WCHAR *name) { session_of(name)->sink = TRUE; }

typedef void(WINAPI *Copy)(void *into, const void *from, SIZE_T length);

/** The function with which the driver copies; winnt.h defines this name as another function. */
static Copy find_copy(void) { return (Copy)(void *)GetProcAddress(GetModuleHandleA("kernel32.dll"), "RtlMoveMemory"); }

/** Receives a flood like a C program; returns the number of packets. */
EXPORT LONG64 WINAPI StandInReceiveAll(const WCHAR *name) {
  Session *session = session_of(name);
  Copy copy = find_copy();
  LONG64 packets = 0;
  DWORD size;
  for (BYTE *bytes; (bytes = WintunReceivePacket(session, &size)) != NULL; packets++) {
    copy(bench_slots[packets % BENCH_SLOTS], bytes, size);
    WintunReleaseReceivePacket(session, bytes);
  }
  return packets;
}

/** Sends packets of 1,400 bytes like a C program. */
EXPORT void WINAPI StandInSendAll(const WCHAR *name, LONG64 packets) {
  Session *session = session_of(name);
  Copy copy = find_copy();
  while (packets > 0) {
    BYTE *bytes = WintunAllocateSendPacket(session, FLOOD_SIZE);
    if (bytes == NULL) return;
    copy(bytes, bench_slots[packets-- % BENCH_SLOTS], FLOOD_SIZE);
    WintunSendPacket(session, bytes);
  }
}

static LONG64 fault(const char *name) {
  char text[256];
  DWORD length = GetEnvironmentVariableA("STAND_IN_FAULTS", text, sizeof text);
  if (length == 0 || length >= sizeof text) return 0;
  for (char *entry = strtok(text, ","); entry != NULL; entry = strtok(NULL, ",")) {
    char *value = strchr(entry, '=');
    if (value == NULL) continue;
    *value = 0;
    if (strcmp(entry, name) == 0) return _atoi64(value + 1);
  }
  return 0;
}

static void map_report(void) {
  WCHAR path[MAX_PATH];
  DWORD length = GetEnvironmentVariableW(L"STAND_IN_REPORT", path, MAX_PATH);
  if (length == 0 || length >= MAX_PATH) return;
  HANDLE file = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL,
                            OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
  HANDLE mapping =
      CreateFileMappingW(file, NULL, PAGE_READWRITE, 0, REPORT_WORDS * sizeof(LONG64), NULL);
  void *view = mapping == NULL ? NULL : MapViewOfFile(mapping, FILE_MAP_WRITE, 0, 0, 0);
  if (view == NULL) fprintf(stderr, "stand-in: no report: %lu\n", GetLastError());
  else report = view;
}

BOOL WINAPI DllMain(HINSTANCE library, DWORD reason, LPVOID reserved) {
  (void)library;
  (void)reserved;
  if (reason != DLL_PROCESS_ATTACH) return TRUE;
  /* Its thread runs on after the library is closed. */
  HMODULE pinned;
  GetModuleHandleExW(GET_MODULE_HANDLE_EX_FLAG_PIN | GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, (LPCWSTR)(void *)DllMain,
                     &pinned);
  InitializeCriticalSection(&installation_lock);
  InitializeCriticalSection(&device_lock);
  map_report();
  count(LOADS, 1);
  faults.corrupt = fault("corrupt");
  faults.end = fault("end");
  faults.stall = fault("stall");
  missing = fault("miss");
  seed = fault("seed");
  /* It wakes often, so it runs only where another process may write the report. */
  if (report != private_report || faults.stall != 0) CloseHandle(CreateThread(NULL, 0, obey, NULL, 0, NULL));
  return TRUE;
}
