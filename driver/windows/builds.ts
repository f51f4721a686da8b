/** Official builds of wintun.dll, with the hashes and machine types by which a file is recognized. */

// Specification
// https://www.wintun.net
/** Supported version. */
export const WINTUN_VERSION = "0.14.1";
/** Official download. */
export const WINTUN_ZIP = "https://www.wintun.net/builds/wintun-0.14.1.zip";
/** SHA-256 of the download. */
export const WINTUN_ZIP_SHA256 = "07c256185d6ee3652e09fa55c0b673e2624b565e02c4b9091c79ca7d2f24ef51";
/** SHA-256 of the licence file in the zip. */
export const WINTUN_LICENCE_SHA256 = "183adac21e7d96c508c8fd34d394b7b6708bc81564ad1bad61ab66143a008cd2";

/** An official build for one machine type. */
export interface WintunBuild {
  /** Name of the DLL's folder: `bin/<folder>/wintun.dll` in the zip. */
  readonly folder: string;
  /** IMAGE_FILE_HEADER.Machine. */
  readonly machine: number;
  /** Architecture in Deno's terms; `undefined` where Deno does not run. */
  readonly arch: typeof Deno.build.arch | undefined;
  /** SHA-256 of the DLL. */
  readonly sha256: string;
}

/** All official builds. */
export const WINTUN_BUILDS: readonly WintunBuild[] = [
  {
    folder: "amd64",
    machine: 0x8664,
    arch: "x86_64",
    sha256: "e5da8447dc2c320edc0fc52fa01885c103de8c118481f683643cacc3220dafce",
  },
  {
    folder: "arm64",
    machine: 0xaa64,
    arch: "aarch64",
    sha256: "f7ba89005544be9d85231a9e0d5f23b2d15b3311667e2dad0debd344918a3f80",
  },
  {
    folder: "x86",
    machine: 0x14c,
    arch: undefined,
    sha256: "d694fa46ab4cfebcb2632d094c7aa97278eef2f8052438621766d863ae98a931",
  },
  {
    folder: "arm",
    machine: 0x1c4,
    arch: undefined,
    sha256: "daad267411ecdc70a0535e274d2c3e9da3d0084bdac7662cb8424dd4a031b4d9",
  },
];

/** IMAGE_DOS_HEADER.e_magic and e_lfanew, IMAGE_NT_HEADERS.FileHeader.Machine (winnt.h); little-endian. */
const Pe = { DosMagic: 0, NtHeaders: 60, Machine: 4, MachineEnd: 6 } as const;
/** "MZ" */
const IMAGE_DOS_SIGNATURE = 0x5a4d;
/** "PE\0\0" */
const IMAGE_NT_SIGNATURE = 0x4550;

// Implementation
/** Parent of the builds' folders in a user's local data. */
const CACHE = `\\warren\\wintun-${WINTUN_VERSION}\\`;

/** Returns the machine type of a DLL or program; `undefined` for other files. */
export function peMachine(bytes: Uint8Array): number | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (view.byteLength < Pe.NtHeaders + 4) return undefined;
  if (view.getUint16(Pe.DosMagic, true) !== IMAGE_DOS_SIGNATURE) return undefined;
  const header = view.getUint32(Pe.NtHeaders, true);
  if (header + Pe.MachineEnd > view.byteLength) return undefined;
  if (view.getUint32(header, true) !== IMAGE_NT_SIGNATURE) return undefined;
  return view.getUint16(header + Pe.Machine, true);
}

/** Returns the build for an architecture. @throws {Deno.errors.NotSupported} when there is none. */
export function buildFor(arch: typeof Deno.build.arch = Deno.build.arch): WintunBuild {
  const build = WINTUN_BUILDS.find((build) => build.arch === arch);
  if (build !== undefined) return build;
  throw new Deno.errors.NotSupported(`Cannot use Wintun: it has no build for ${arch}`);
}

/** Returns the name of a machine type, such as `amd64`. */
export function machineName(machine: number): string {
  return WINTUN_BUILDS.find((build) => build.machine === machine)?.folder ??
    `machine 0x${machine.toString(16)}`;
}

/** Returns the folder in which `warren driver install` puts a build's DLL; `localAppData` is `%LOCALAPPDATA%`. */
export function cacheFolder(localAppData: string, build: WintunBuild): string {
  return localAppData + CACHE + build.folder;
}
