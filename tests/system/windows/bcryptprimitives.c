/**
 * Lets the published deno.exe start under Wine 8, from the same folder under this library's name.
 *
 * Wine 8 lacks the library, from which Rust's standard library takes its random bytes. It also exports VirtualAlloc2
 * but refuses the placeholders that V8 then reserves with it, so the name is hidden: V8 looks it up at run time and
 * works without it. Later versions of Wine need neither, and are not harmed.
 */

#include <string.h>
#include <windows.h>

/* The documented name of RtlGenRandom, from advapi32 (ntsecapi.h). */
BOOLEAN NTAPI SystemFunction036(PVOID buffer, ULONG length);

#define LARGEST_REQUEST 0x01000000u

/** Fills with random bytes (bcryptprimitives.dll, used by Rust and Chromium). */
__declspec(dllexport) BOOL WINAPI ProcessPrng(BYTE *bytes, SIZE_T length) {
  for (SIZE_T done = 0; done < length;) {
    SIZE_T rest = length - done;
    ULONG part = rest > LARGEST_REQUEST ? LARGEST_REQUEST : (ULONG)rest;
    if (!SystemFunction036(bytes + done, part)) return FALSE;
    done += part;
  }
  return TRUE;
}

/** Returns the address of an export's name in a loaded library, or NULL. */
static char *export_name(BYTE *base, const char *wanted) {
  const IMAGE_DOS_HEADER *dos = (const IMAGE_DOS_HEADER *)base;
  const IMAGE_NT_HEADERS *headers = (const IMAGE_NT_HEADERS *)(base + dos->e_lfanew);
  const IMAGE_DATA_DIRECTORY *directory =
      &headers->OptionalHeader.DataDirectory[IMAGE_DIRECTORY_ENTRY_EXPORT];
  const IMAGE_EXPORT_DIRECTORY *exports = (const IMAGE_EXPORT_DIRECTORY *)(base + directory->VirtualAddress);
  const DWORD *names = (const DWORD *)(base + exports->AddressOfNames);
  for (DWORD i = 0; i < exports->NumberOfNames; i++) {
    char *name = (char *)(base + names[i]);
    if (strcmp(name, wanted) == 0) return name;
  }
  return NULL;
}

static void hide_export(const char *library, const char *wanted) {
  BYTE *base = (BYTE *)GetModuleHandleA(library);
  char *name = base == NULL ? NULL : export_name(base, wanted);
  if (name == NULL) return;
  char *last = name + strlen(name) - 1;
  DWORD protection;
  if (!VirtualProtect(last, 1, PAGE_READWRITE, &protection)) return;
  /* The table is searched by bisection: decrementing the last character keeps it sorted. */
  *last -= 1;
  VirtualProtect(last, 1, protection, &protection);
}

BOOL WINAPI DllMain(HINSTANCE library, DWORD reason, LPVOID reserved) {
  (void)library;
  (void)reserved;
  if (reason == DLL_PROCESS_ATTACH) hide_export("kernelbase.dll", "VirtualAlloc2");
  return TRUE;
}
