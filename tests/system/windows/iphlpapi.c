/**
 * A stand-in for the functions of iphlpapi.dll that set up an interface: it keeps tables and records its calls.
 *
 * Makes the known checks of Windows, with the same error codes. Environment:
 *
 *     STAND_IN_NETWORK  a mapped file with the tables, which outlive the process; the next process finds only those
 *                       that Windows keeps, since the rest goes with the adapters
 *     STAND_IN_CALLS    a file to which each call adds a line: name, result, bytes
 *     STAND_IN_LATE     number of times that an interface's row is missing at first (ERROR_NOT_FOUND)
 *     STAND_IN_ALIASES  names of existing interfaces: name,...
 *     STAND_IN_REFUSE   functions that fail, with their error: name=code,...
 */

#define _WIN32_WINNT 0x0a00
#include <winsock2.h>
#include <ws2ipdef.h>
#include <stdio.h>
#include <stdlib.h>
#include <windows.h>


#define EXPORT __declspec(dllexport)
#define ARRAY_LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* Specification: netioapi.h; offsets of the fields in use. */
typedef struct {
  BYTE bytes[80];
} AddressRow;
enum { ADDRESS_LUID = 32, ADDRESS_PREFIX = 60 };
typedef struct {
  BYTE bytes[104];
} RouteRow;
enum { ROUTE_DESTINATION = 12, ROUTE_PREFIX = 40, ROUTE_NEXT_HOP = 44, ROUTE_SITE_PREFIX = 72 };
typedef struct {
  BYTE bytes[168];
} InterfaceRow;
enum {
  INTERFACE_FAMILY = 0,
  INTERFACE_LUID = 8,
  INTERFACE_INDEX = 16,
  INTERFACE_AUTOMATIC_METRIC = 44,
  INTERFACE_MANAGED = 46,
  INTERFACE_OTHER_STATEFUL = 47,
  INTERFACE_ROUTER_DISCOVERY = 52,
  INTERFACE_DAD = 56,
  INTERFACE_REACHABLE_TIME = 60,
  INTERFACE_SITE_PREFIX = 144,
  INTERFACE_METRIC = 148,
  INTERFACE_MTU = 152,
  INTERFACE_NEIGHBOR_DISCOVERY = 158,
};
typedef struct {
  BYTE bytes[1352];
} IfRow;
enum {
  IF_INDEX = 8,
  IF_MTU = 1124,
  IF_TYPE = 1128,
  IF_IN_BYTES = 1208,
  IF_IN_PACKETS = 1216,
  IF_IN_DISCARDS = 1232,
  IF_OUT_BYTES = 1280,
  IF_OUT_PACKETS = 1288,
  IF_OUT_DISCARDS = 1304,
};
typedef struct {
  ULONG version;
  ULONG64 flags;
  const WCHAR *domain, *name_server, *search_list;
  ULONG registration, register_name, llmnr, query_name;
  const WCHAR *profile_name_server;
} DnsSettings;
#define DNS_VERSION 1
#define INTERFACE_TYPE 53
#define DEFAULT_MTU 65535u
#define ILLEGAL_PREFIX 255

/* Implementation. */
#define INDEX_ABOVE_LUID 20u
/* An interface's rows outlive its adapter, so that changes that were not undone are visible. */
#define MOST 1000
#define DNS_TEXT 128

typedef struct {
  GUID guid;
  ULONG64 flags;
  char name_server[DNS_TEXT], search_list[DNS_TEXT];
} DnsRow;

/** The mapped file; tests/system/windows/stand_in.ts reads it by the same layout. */
typedef struct {
  ULONG addresses, routes, interfaces, dns;
  AddressRow address_row[MOST];
  RouteRow route_row[MOST];
  InterfaceRow interface_row[MOST];
  DnsRow dns_row[MOST];
  /* The process that set this up and its start time: process IDs are reused. */
  DWORD owner;
  FILETIME owner_began;
} Network;

static CRITICAL_SECTION lock;
static Network private_network;
static Network *network = &private_network;
static int late;

static BOOL is_listed(const char *variable, const char *name) {
  char list[1024];
  DWORD length = GetEnvironmentVariableA(variable, list, sizeof list);
  if (length == 0 || length >= sizeof list) return FALSE;
  for (char *entry = strtok(list, ","); entry != NULL; entry = strtok(NULL, ",")) {
    if (_stricmp(entry, name) == 0) return TRUE;
  }
  return FALSE;
}

/** Returns the error with which a function is to fail, or NO_ERROR. */
static DWORD refusal_of(const char *function) {
  char list[1024];
  DWORD length = GetEnvironmentVariableA("STAND_IN_REFUSE", list, sizeof list);
  if (length == 0 || length >= sizeof list) return NO_ERROR;
  for (char *entry = strtok(list, ","); entry != NULL; entry = strtok(NULL, ",")) {
    char *code = strchr(entry, '=');
    if (code == NULL) continue;
    *code++ = 0;
    if (strcmp(entry, function) == 0) return strtoul(code, NULL, 10);
  }
  return NO_ERROR;
}

/** Adds a line to the calls and returns the result. */
static DWORD record(const char *name, DWORD result, const void *bytes, size_t length) {
  WCHAR path[MAX_PATH];
  DWORD size = GetEnvironmentVariableW(L"STAND_IN_CALLS", path, MAX_PATH);
  if (size == 0 || size >= MAX_PATH) return result;
  FILE *file = _wfopen(path, L"ab");
  if (file == NULL) return result;
  fprintf(file, "%s %lu ", name, result);
  for (size_t i = 0; i < length; i++) fprintf(file, "%02x", ((const BYTE *)bytes)[i]);
  fprintf(file, "\n");
  fclose(file);
  return result;
}

static USHORT family_at(const BYTE *bytes) { return *(const USHORT *)bytes; }

static int longest_prefix(const BYTE *address) { return family_at(address) == AF_INET ? 32 : 128; }

static BOOL is_family(const BYTE *address) {
  return family_at(address) == AF_INET || family_at(address) == AF_INET6;
}

/** Returns the number of bytes of a SOCKADDR_INET that identify the address. */
static BOOL same_address(const BYTE *a, const BYTE *b) {
  if (family_at(a) != family_at(b)) return FALSE;
  return family_at(a) == AF_INET ? memcmp(a + 4, b + 4, 4) == 0 : memcmp(a + 8, b + 8, 16) == 0;
}

static ULONG64 luid_at(const BYTE *bytes) { return *(const ULONG64 *)bytes; }

enum { INTERFACE_CONNECTED = 156 };

/** Returns the row of an interface, created on first use. */
static InterfaceRow *interface_of(USHORT family, ULONG64 luid) {
  for (ULONG i = 0; i < network->interfaces; i++) {
    BYTE *row = network->interface_row[i].bytes;
    if (family_at(row + INTERFACE_FAMILY) == family && luid_at(row + INTERFACE_LUID) == luid) {
      return &network->interface_row[i];
    }
  }
  if (network->interfaces == MOST || luid >> 48 != INTERFACE_TYPE) return NULL;
  InterfaceRow *added = &network->interface_row[network->interfaces++];
  BYTE *row = added->bytes;
  memset(row, 0, sizeof *added);
  *(USHORT *)(row + INTERFACE_FAMILY) = family;
  *(ULONG64 *)(row + INTERFACE_LUID) = luid;
  *(ULONG *)(row + INTERFACE_INDEX) = (ULONG)(luid >> 24 & 0xffffff) + INDEX_ABOVE_LUID;
  row[INTERFACE_AUTOMATIC_METRIC] = TRUE;
  row[INTERFACE_MANAGED] = row[INTERFACE_OTHER_STATEFUL] = TRUE;
  *(LONG *)(row + INTERFACE_ROUTER_DISCOVERY) = family == AF_INET ? 2 : 1;
  *(ULONG *)(row + INTERFACE_REACHABLE_TIME) = 30000;
  row[INTERFACE_NEIGHBOR_DISCOVERY] = TRUE;
  *(ULONG *)(row + INTERFACE_DAD) = family == AF_INET ? 3 : 1;
  /* Longer than an IPv4 address: Windows returns this value, but refuses it when it is set. */
  *(ULONG *)(row + INTERFACE_SITE_PREFIX) = 64;
  *(ULONG *)(row + INTERFACE_METRIC) = 5;
  *(ULONG *)(row + INTERFACE_MTU) = DEFAULT_MTU;
  row[INTERFACE_CONNECTED] = TRUE;
  return added;
}

/* Changes of interfaces. */

/* Specification: netioapi.h. */
typedef void(WINAPI *Callback)(void *context, InterfaceRow *row, int kind);
enum { PARAMETER_CHANGED = 0, INITIAL = 3 };

/* Implementation. */
#define SUBSCRIPTIONS 16

typedef struct {
  Callback callback;
  void *context;
  USHORT family;
} Subscription;

static Subscription subscriptions[SUBSCRIPTIONS];
/* Held while a callback runs: cancelling waits for it. */
static CRITICAL_SECTION calling;

static void tell_all(const BYTE *changed, int kind) {
  InterfaceRow row = {0};
  memcpy(row.bytes, changed, INTERFACE_INDEX + sizeof(ULONG));
  for (size_t i = 0; i < SUBSCRIPTIONS; i++) {
    const Subscription *to = &subscriptions[i];
    if (to->callback == NULL || (to->family != AF_UNSPEC && to->family != family_at(row.bytes))) continue;
    to->callback(to->context, &row, kind);
  }
}

static DWORD WINAPI report_change(void *changed) {
  EnterCriticalSection(&calling);
  tell_all(changed, PARAMETER_CHANGED);
  LeaveCriticalSection(&calling);
  free(changed);
  return 0;
}

/** Reports a changed row from another thread, like Windows. */
static void tell_aside(const InterfaceRow *row) {
  InterfaceRow *copy = malloc(sizeof *copy);
  *copy = *row;
  CloseHandle(CreateThread(NULL, 0, report_change, copy, 0, NULL));
}

EXPORT DWORD WINAPI NotifyIpInterfaceChange(USHORT family, Callback callback, void *context, BOOLEAN initial,
                                            HANDLE *handle) {
  DWORD result = ERROR_OUTOFMEMORY;
  EnterCriticalSection(&calling);
  for (size_t i = 0; i < SUBSCRIPTIONS && result != NO_ERROR; i++) {
    if (subscriptions[i].callback != NULL) continue;
    subscriptions[i] = (Subscription){callback, context, family};
    *handle = &subscriptions[i];
    result = NO_ERROR;
  }
  if (result == NO_ERROR && initial) callback(context, NULL, INITIAL);
  LeaveCriticalSection(&calling);
  return record("NotifyIpInterfaceChange", result, &family, sizeof family);
}

EXPORT DWORD WINAPI CancelMibChangeNotify2(HANDLE handle) {
  Subscription *subscription = handle;
  BOOL known = subscription >= subscriptions && subscription < subscriptions + SUBSCRIPTIONS;
  EnterCriticalSection(&calling);
  if (known) memset(subscription, 0, sizeof *subscription);
  LeaveCriticalSection(&calling);
  return record("CancelMibChangeNotify2", known ? NO_ERROR : ERROR_INVALID_PARAMETER, NULL, 0);
}

/* Interfaces. */

EXPORT void WINAPI InitializeIpInterfaceEntry(InterfaceRow *row) {
  memset(row, 0, sizeof *row);
  memset(row->bytes + 40, 0xff, 9);
  *(LONG *)(row->bytes + 52) = -1;
}

static DWORD get_interface(InterfaceRow *row) {
  DWORD refusal = refusal_of("GetIpInterfaceEntry");
  if (refusal != NO_ERROR) return refusal;
  if (!is_family(row->bytes + INTERFACE_FAMILY)) return ERROR_INVALID_PARAMETER;
  if (late > 0) {
    late--;
    return ERROR_NOT_FOUND;
  }
  const InterfaceRow *found = interface_of(family_at(row->bytes), luid_at(row->bytes + INTERFACE_LUID));
  if (found == NULL) return ERROR_NOT_FOUND;
  *row = *found;
  return NO_ERROR;
}

EXPORT DWORD WINAPI GetIpInterfaceEntry(InterfaceRow *row) {
  EnterCriticalSection(&lock);
  DWORD result = get_interface(row);
  LeaveCriticalSection(&lock);
  return record("GetIpInterfaceEntry", result, row, sizeof *row);
}

static DWORD set_interface(const InterfaceRow *row) {
  DWORD refusal = refusal_of("SetIpInterfaceEntry");
  if (refusal != NO_ERROR) return refusal;
  if (!is_family(row->bytes)) return ERROR_INVALID_PARAMETER;
  ULONG site_prefix = *(const ULONG *)(row->bytes + INTERFACE_SITE_PREFIX);
  ULONG mtu = *(const ULONG *)(row->bytes + INTERFACE_MTU);
  if (site_prefix > (ULONG)longest_prefix(row->bytes)) return ERROR_INVALID_PARAMETER;
  if (mtu < (family_at(row->bytes) == AF_INET ? 576u : 1280u)) return ERROR_INVALID_PARAMETER;
  InterfaceRow *found = interface_of(family_at(row->bytes), luid_at(row->bytes + INTERFACE_LUID));
  if (found == NULL) return ERROR_NOT_FOUND;
  /* Only the driver decides what is connected. */
  BYTE connected = found->bytes[INTERFACE_CONNECTED];
  *found = *row;
  found->bytes[INTERFACE_CONNECTED] = connected;
  tell_aside(found);
  return NO_ERROR;
}

/** Connects or disconnects an interface, for tests. */
EXPORT void WINAPI StandInConnect(ULONG64 luid, BOOL connected) {
  static const USHORT families[] = {AF_INET, AF_INET6};
  EnterCriticalSection(&lock);
  for (size_t i = 0; i < ARRAY_LENGTH(families); i++) {
    InterfaceRow *row = interface_of(families[i], luid);
    if (row == NULL) continue;
    row->bytes[INTERFACE_CONNECTED] = connected != FALSE;
    tell_aside(row);
  }
  LeaveCriticalSection(&lock);
}

EXPORT DWORD WINAPI SetIpInterfaceEntry(const InterfaceRow *row) {
  EnterCriticalSection(&lock);
  DWORD result = set_interface(row);
  LeaveCriticalSection(&lock);
  return record("SetIpInterfaceEntry", result, row, sizeof *row);
}

/** Returns the stand-in for wintun.dll of this process, if it is loaded. */
static HMODULE wintun(void) {
  WCHAR path[MAX_PATH];
  DWORD length = GetEnvironmentVariableW(L"WARREN_WINTUN", path, MAX_PATH);
  return length == 0 || length >= MAX_PATH ? NULL : GetModuleHandleW(path);
}

EXPORT DWORD WINAPI GetIfEntry2(IfRow *row) {
  ULONG64 luid = luid_at(row->bytes);
  EnterCriticalSection(&lock);
  InterfaceRow *found = interface_of(AF_INET, luid);
  LeaveCriticalSection(&lock);
  if (found == NULL) return record("GetIfEntry2", ERROR_FILE_NOT_FOUND, row, 8);
  memset(row, 0, sizeof *row);
  memcpy(row->bytes, &luid, sizeof luid);
  memcpy(row->bytes + IF_INDEX, found->bytes + INTERFACE_INDEX, sizeof(ULONG));
  memcpy(row->bytes + IF_MTU, found->bytes + INTERFACE_MTU, sizeof(ULONG));
  *(ULONG *)(row->bytes + IF_TYPE) = INTERFACE_TYPE;
  BOOL(WINAPI *statistics)(ULONG64, ULONG64 *) = NULL;
  HMODULE library = wintun();
  if (library != NULL) statistics = (void *)GetProcAddress(library, "StandInStatistics");
  ULONG64 counts[6] = {0};
  if (statistics != NULL && statistics(luid, counts)) {
    static const int places[] = {IF_OUT_PACKETS, IF_OUT_BYTES, IF_OUT_DISCARDS,
                                 IF_IN_PACKETS,  IF_IN_BYTES,  IF_IN_DISCARDS};
    for (size_t i = 0; i < ARRAY_LENGTH(places); i++) memcpy(row->bytes + places[i], &counts[i], 8);
  }
  return record("GetIfEntry2", NO_ERROR, row, 8);
}

EXPORT DWORD WINAPI ConvertInterfaceAliasToLuid(const WCHAR *alias, ULONG64 *luid) {
  char name[512];
  WideCharToMultiByte(CP_UTF8, 0, alias, -1, name, sizeof name, NULL, NULL);
  BOOL(WINAPI *find)(const WCHAR *, ULONG64 *) = NULL;
  HMODULE library = wintun();
  if (library != NULL) find = (void *)GetProcAddress(library, "StandInFind");
  DWORD result = ERROR_INVALID_NAME;
  if (is_listed("STAND_IN_ALIASES", name)) {
    *luid = 6ull << 48 | 1ull << 24;
    result = NO_ERROR;
  } else if (find != NULL && find(alias, luid)) {
    result = NO_ERROR;
  }
  return record("ConvertInterfaceAliasToLuid", result, name, strlen(name));
}

EXPORT DWORD WINAPI ConvertInterfaceLuidToIndex(const ULONG64 *luid, ULONG *index) {
  BOOL known = *luid >> 48 == INTERFACE_TYPE;
  *index = known ? (ULONG)(*luid >> 24 & 0xffffff) + INDEX_ABOVE_LUID : 0;
  return record("ConvertInterfaceLuidToIndex", known ? NO_ERROR : ERROR_FILE_NOT_FOUND, luid, sizeof *luid);
}

/* Addresses. */

EXPORT void WINAPI InitializeUnicastIpAddressEntry(AddressRow *row) {
  memset(row, 0, sizeof *row);
  *(ULONG *)(row->bytes + 44) = 16;
  *(ULONG *)(row->bytes + 48) = 16;
  memset(row->bytes + 52, 0xff, 8);
  row->bytes[ADDRESS_PREFIX] = ILLEGAL_PREFIX;
}

static AddressRow *find_address(const AddressRow *wanted) {
  for (ULONG i = 0; i < network->addresses; i++) {
    AddressRow *row = &network->address_row[i];
    if (luid_at(row->bytes + ADDRESS_LUID) == luid_at(wanted->bytes + ADDRESS_LUID) &&
        same_address(row->bytes, wanted->bytes)) {
      return row;
    }
  }
  return NULL;
}

static DWORD create_address(const AddressRow *row) {
  DWORD refusal = refusal_of("CreateUnicastIpAddressEntry");
  if (refusal != NO_ERROR) return refusal;
  BYTE prefix = row->bytes[ADDRESS_PREFIX];
  if (!is_family(row->bytes)) return ERROR_INVALID_PARAMETER;
  if (prefix > longest_prefix(row->bytes) && prefix != ILLEGAL_PREFIX) return ERROR_INVALID_PARAMETER;
  if (interface_of(family_at(row->bytes), luid_at(row->bytes + ADDRESS_LUID)) == NULL) return ERROR_NOT_FOUND;
  if (find_address(row) != NULL) return ERROR_OBJECT_ALREADY_EXISTS;
  if (network->addresses == MOST) return ERROR_OUTOFMEMORY;
  network->address_row[network->addresses++] = *row;
  return NO_ERROR;
}

EXPORT DWORD WINAPI CreateUnicastIpAddressEntry(const AddressRow *row) {
  EnterCriticalSection(&lock);
  DWORD result = create_address(row);
  LeaveCriticalSection(&lock);
  return record("CreateUnicastIpAddressEntry", result, row, sizeof *row);
}

EXPORT DWORD WINAPI DeleteUnicastIpAddressEntry(const AddressRow *row) {
  EnterCriticalSection(&lock);
  AddressRow *found = find_address(row);
  if (found != NULL) *found = network->address_row[--network->addresses];
  LeaveCriticalSection(&lock);
  return record("DeleteUnicastIpAddressEntry", found ? NO_ERROR : ERROR_NOT_FOUND, row, sizeof *row);
}

/* Routes. */

EXPORT void WINAPI InitializeIpForwardEntry(RouteRow *row) {
  memset(row, 0, sizeof *row);
  row->bytes[ROUTE_PREFIX] = ILLEGAL_PREFIX;
  row->bytes[ROUTE_SITE_PREFIX] = ILLEGAL_PREFIX;
  memset(row->bytes + 76, 0xff, 12);
  *(ULONG *)(row->bytes + 88) = 3;
  memset(row->bytes + 92, 1, 4);
}

/** Compares the key of a route: interface, destination and next hop. */
static RouteRow *find_route(const RouteRow *wanted) {
  for (ULONG i = 0; i < network->routes; i++) {
    RouteRow *row = &network->route_row[i];
    if (luid_at(row->bytes) == luid_at(wanted->bytes) &&
        same_address(row->bytes + ROUTE_DESTINATION, wanted->bytes + ROUTE_DESTINATION) &&
        row->bytes[ROUTE_PREFIX] == wanted->bytes[ROUTE_PREFIX] &&
        same_address(row->bytes + ROUTE_NEXT_HOP, wanted->bytes + ROUTE_NEXT_HOP)) {
      return row;
    }
  }
  return NULL;
}

static DWORD create_route(const RouteRow *row) {
  DWORD refusal = refusal_of("CreateIpForwardEntry2");
  if (refusal != NO_ERROR) return refusal;
  const BYTE *bytes = row->bytes;
  if (!is_family(bytes + ROUTE_DESTINATION)) return ERROR_INVALID_PARAMETER;
  if (family_at(bytes + ROUTE_NEXT_HOP) != family_at(bytes + ROUTE_DESTINATION)) return ERROR_INVALID_PARAMETER;
  if (bytes[ROUTE_PREFIX] > longest_prefix(bytes + ROUTE_DESTINATION)) return ERROR_INVALID_PARAMETER;
  if (bytes[ROUTE_SITE_PREFIX] > bytes[ROUTE_PREFIX]) return ERROR_INVALID_PARAMETER;
  if (find_route(row) != NULL) return ERROR_OBJECT_ALREADY_EXISTS;
  if (network->routes == MOST) return ERROR_OUTOFMEMORY;
  network->route_row[network->routes++] = *row;
  return NO_ERROR;
}

EXPORT DWORD WINAPI CreateIpForwardEntry2(const RouteRow *row) {
  EnterCriticalSection(&lock);
  DWORD result = create_route(row);
  LeaveCriticalSection(&lock);
  return record("CreateIpForwardEntry2", result, row, sizeof *row);
}

EXPORT DWORD WINAPI DeleteIpForwardEntry2(const RouteRow *row) {
  EnterCriticalSection(&lock);
  RouteRow *found = find_route(row);
  if (found != NULL) *found = network->route_row[--network->routes];
  LeaveCriticalSection(&lock);
  return record("DeleteIpForwardEntry2", found ? NO_ERROR : ERROR_NOT_FOUND, row, sizeof *row);
}

/* DNS. */

static void copy_text(char *into, const WCHAR *text) {
  into[0] = 0;
  if (text != NULL) WideCharToMultiByte(CP_UTF8, 0, text, -1, into, DNS_TEXT, NULL, NULL);
}

static DWORD set_dns(const GUID *guid, const DnsSettings *settings) {
  DWORD refusal = refusal_of("SetInterfaceDnsSettings");
  if (refusal != NO_ERROR) return refusal;
  if (settings->version != DNS_VERSION) return ERROR_INVALID_PARAMETER;
  ULONG64 ipv6 = settings->flags & 1;
  ULONG at = 0;
  while (at < network->dns) {
    DnsRow *row = &network->dns_row[at];
    if (memcmp(&row->guid, guid, sizeof *guid) == 0 && (row->flags & 1) == ipv6) break;
    at++;
  }
  if (at == MOST) return ERROR_OUTOFMEMORY;
  DnsRow *row = &network->dns_row[at];
  if (at == network->dns) {
    memset(row, 0, sizeof *row);
    network->dns++;
  }
  row->guid = *guid;
  row->flags = settings->flags;
  if (settings->flags & 2) copy_text(row->name_server, settings->name_server);
  if (settings->flags & 4) copy_text(row->search_list, settings->search_list);
  /* Empty settings need no row. */
  if (row->name_server[0] == 0 && row->search_list[0] == 0) *row = network->dns_row[--network->dns];
  return NO_ERROR;
}

EXPORT DWORD WINAPI SetInterfaceDnsSettings(GUID guid, const DnsSettings *settings) {
  char text[512], name_server[DNS_TEXT], search_list[DNS_TEXT];
  copy_text(name_server, settings->name_server);
  copy_text(search_list, settings->search_list);
  EnterCriticalSection(&lock);
  DWORD result = set_dns(&guid, settings);
  LeaveCriticalSection(&lock);
  snprintf(text, sizeof text, "%llu|%s|%s", settings->flags, name_server, search_list);
  return record("SetInterfaceDnsSettings", result, text, strlen(text));
}

static FILETIME when_began(HANDLE process) {
  FILETIME began = {0}, ended, kernel, user;
  GetProcessTimes(process, &began, &ended, &kernel, &user);
  return began;
}

static BOOL is_alive(DWORD id, FILETIME began) {
  HANDLE process = id == 0 ? NULL : OpenProcess(SYNCHRONIZE | PROCESS_QUERY_INFORMATION, FALSE, id);
  if (process == NULL) return FALSE;
  FILETIME found = when_began(process);
  BOOL alive = WaitForSingleObject(process, 0) == WAIT_TIMEOUT && CompareFileTime(&found, &began) == 0;
  CloseHandle(process);
  return alive;
}

static void map_network(void) {
  WCHAR path[MAX_PATH];
  DWORD length = GetEnvironmentVariableW(L"STAND_IN_NETWORK", path, MAX_PATH);
  if (length == 0 || length >= MAX_PATH) return;
  HANDLE file = CreateFileW(path, GENERIC_READ | GENERIC_WRITE, FILE_SHARE_READ | FILE_SHARE_WRITE, NULL,
                            OPEN_ALWAYS, FILE_ATTRIBUTE_NORMAL, NULL);
  HANDLE mapping = CreateFileMappingW(file, NULL, PAGE_READWRITE, 0, sizeof *network, NULL);
  void *view = mapping == NULL ? NULL : MapViewOfFile(mapping, FILE_MAP_WRITE, 0, 0, 0);
  if (view == NULL) {
    fprintf(stderr, "stand-in: no network: %lu\n", GetLastError());
    return;
  }
  network = view;
  if (is_alive(network->owner, network->owner_began)) return;
  network->addresses = network->routes = network->interfaces = 0;
  network->owner = GetCurrentProcessId();
  network->owner_began = when_began(GetCurrentProcess());
}

BOOL WINAPI DllMain(HINSTANCE library, DWORD reason, LPVOID reserved) {
  (void)library;
  (void)reserved;
  if (reason != DLL_PROCESS_ATTACH) return TRUE;
  InitializeCriticalSection(&lock);
  InitializeCriticalSection(&calling);
  map_network();
  char text[16];
  DWORD length = GetEnvironmentVariableA("STAND_IN_LATE", text, sizeof text);
  if (length > 0 && length < sizeof text) late = atoi(text);
  return TRUE;
}
