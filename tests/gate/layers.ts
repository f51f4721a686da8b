/**
 * The layers of the code as a plugin of `deno lint`: scripts → runtime → driver → lib, the order of the folders inside
 * each, and what each may use. Import cycles, which need all files at once, are found by `cycles_test.ts`.
 *
 * @module
 */

/** The floors from the ground up. What is in none of these folders stands above them all and may import any. */
const FLOORS = ["lib", "driver", "runtime", "scripts"];
const SCRIPTS = FLOORS.indexOf("scripts");
/**
 * The folders inside a layer, lowest first: each imports those before it, and none that stands beside it. A folder that
 * is not named here is refused.
 */
const ORDER: Record<string, readonly (readonly string[])[]> = {
  lib: [["core"], ["wire"], ["end", "split", "table", "filter"], ["icmp", "pcap", "vpn"], ["stage"]],
  driver: [["posix", "windows"], ["bsd", "crypto", "linux"], ["freebsd", "macos"]],
  runtime: [["engine", "transport"], ["dns", "ring", "vpn"], ["tunnel"], ["workers"], ["script"], ["cli"]],
};
/** A folder each of whose folders stands by itself: a stage never imports another one. */
const ROOMS = "lib/stage/";
const PACKAGE = "@warren/tunnel";
/** A folder of the driver that belongs to one system. */
const PLATFORM = /^driver\/(linux|windows|macos|freebsd)\//;
/** The files that open a native library. The texts of `rescue.ts` and `module_text.ts` run where nothing is open. */
const LIBRARY_FILES = [
  "driver/crypto/bcrypt.ts",
  "driver/crypto/libcrypto.ts",
  "driver/freebsd/libc.ts",
  "driver/linux/libc.ts",
  "driver/linux/module_text.ts",
  "driver/linux/rescue.ts",
  "driver/macos/libsystem.ts",
  "driver/windows/iphlpapi.ts",
  "driver/windows/kernel32.ts",
  "driver/windows/shell32.ts",
  "driver/windows/wintun.ts",
  "driver/windows/ws2_32.ts",
];
/** What touches the world, or has a clock of its own. */
const IMPURE = [
  "Buffer",
  "Date",
  "Deno",
  "WebSocket",
  "Worker",
  "console",
  "fetch",
  "performance",
  "process",
  "queueMicrotask",
  "setImmediate",
  "setInterval",
  "setTimeout",
];
/** Names that say nothing about what is in a file. */
const EMPTY_NAMES = ["common", "helper", "helpers", "index", "misc", "util", "utils"];
const MAX_SCRIPT_LINES = 40;
/** A whole VPN protocol, which is longer than a script. */
const LONG_SCRIPTS: Record<string, number> = { "scripts/own_vpn.ts": 85 };
const ROOT = new URL("../../", import.meta.url).href;

/** A file's place in the repository, such as `lib/ip.ts`; `undefined` outside of it. */
function placeOf(filename: string): string | undefined {
  const slashes = filename.replaceAll("\\", "/");
  const url = encodeURI(`file://${slashes.startsWith("/") ? "" : "/"}${slashes}`);
  return url.startsWith(ROOT) ? decodeURI(url.slice(ROOT.length)) : undefined;
}

function floorOf(place: string): number {
  const floor = FLOORS.indexOf(place.slice(0, Math.max(0, place.indexOf("/"))));
  return floor < 0 ? FLOORS.length : floor;
}

function folder(place: string): string {
  return place.slice(0, place.indexOf("/"));
}

/** A file's folder, such as `lib/stage/nat`. */
function folderOf(place: string): string {
  return place.slice(0, place.lastIndexOf("/"));
}

/** Returns the fault of an import inside a layer, by the order of its folders; `undefined` for none. */
function orderFault(place: string, target: string): string | undefined {
  const layer = folder(place);
  const [own, other] = [place, target].map((file) => roomOf(layer, file));
  // A layer's own files, such as `runtime/mod.ts`, are its front: they import any folder, and any folder imports them.
  if (own === undefined || other === undefined || own === other) return undefined;
  const [ownRank, otherRank] = [own, other].map((room) => rankOf(layer, room));
  if (ownRank! < 0) return `${layer}/${own}/ has no place in the order of tests/gate/layers.ts`;
  if (otherRank! < ownRank!) return undefined;
  const order = ORDER[layer]!.map((rooms) => rooms.join(", ")).join(" < ");
  return `${layer}/${own}/ imports ${target}: inside ${layer}/, ${order}`;
}

/** The folder of a layer that a file is in, or of {@linkcode ROOMS}: `wire`, `stage/nat`; `undefined`: in none. */
function roomOf(layer: string, file: string): string | undefined {
  const path = file.slice(layer.length + 1).split("/");
  if (path.length < 2) return undefined;
  return file.startsWith(ROOMS) ? `${path[0]}/${path[1]}` : path[0];
}

function rankOf(layer: string, room: string): number {
  return ORDER[layer]!.findIndex((rooms) => rooms.includes(room.split("/")[0]!));
}

/** What is wrong with an import; `undefined`: nothing. `late`: it is dynamic, or of types alone. */
function fault(place: string, specifier: string, late: boolean): string | undefined {
  const floor = floorOf(place);
  if (/^(jsr|npm|https?):/.test(specifier)) {
    return `"${specifier}" is written out: name it in the imports of deno.json, as an npm package`;
  }
  if (!specifier.startsWith(".") && !specifier.startsWith("/")) {
    if (floor === 0 && specifier.startsWith("node:")) return `lib/ is pure: it cannot use "${specifier}"`;
    return floor < SCRIPTS && specifier.startsWith(PACKAGE)
      ? `${folder(place)}/ imports the package that it is a part of: write the file's own path`
      : undefined;
  }
  if (floor === SCRIPTS) return `A script imports by name ("${PACKAGE}/..."), as a stranger's does`;
  const target = new URL(specifier, `file:///${place}`).pathname.slice(1);
  if (floorOf(target) > floor) {
    return `${folder(place)}/ imports ${target}: scripts → runtime → driver → lib, never upward`;
  }
  const platform = PLATFORM.exec(target)?.[0];
  if (platform !== undefined && !late && floor < SCRIPTS && !place.startsWith(platform)) {
    return `${platform} is for one system: import it dynamically, or its types alone`;
  }
  if (floorOf(target) < SCRIPTS) {
    const [own, other] = [folderOf(place), folderOf(target)];
    if (/(^|\/)_[^/]*$/.test(target) && own !== other && floor < SCRIPTS) {
      return `${target} is private to ${other}/: move it, or what needs it`;
    }
    if (floorOf(target) === floor && floor < SCRIPTS) {
      const message = orderFault(place, target);
      if (message !== undefined) return message;
    }
  }
}

/** A rule for files of this repository. */
function rule(
  visit: (place: string, context: Deno.lint.RuleContext) => Deno.lint.LintVisitor,
): Deno.lint.Rule {
  return {
    create: (context) => {
      const place = placeOf(context.filename);
      return place === undefined ? {} : visit(place, context);
    },
  };
}

/** Who may import whom. */
const floors = rule((place, context) => {
  const check = (node: Deno.lint.Node, specifier: unknown, late: boolean): void => {
    const message = typeof specifier === "string" ? fault(place, specifier, late) : undefined;
    if (message !== undefined) context.report({ node, message });
  };
  return {
    ImportDeclaration: (node) => check(node, node.source.value, node.importKind === "type"),
    ExportAllDeclaration: (node) => check(node, node.source.value, node.exportKind === "type"),
    ExportNamedDeclaration: (node) => check(node, node.source?.value, node.exportKind === "type"),
    ImportExpression: (node) =>
      check(node, node.source.type === "Literal" ? node.source.value : undefined, true),
    TSImportType: (node) => {
      const { argument } = node;
      const literal = argument.type === "TSLiteralType" ? argument.literal : argument;
      check(node, literal.type === "Literal" ? literal.value : undefined, true);
    },
  };
});

/** Whether an identifier is only a member's name: `packet.Date`, `{ Date: 1 }`. */
function isMemberName({ parent, range: [start] }: Deno.lint.Identifier): boolean {
  switch (parent.type) {
    case "MemberExpression":
      return !parent.computed && parent.property.range[0] === start;
    case "Property":
    case "MethodDefinition":
    case "PropertyDefinition":
    case "TSPropertySignature":
    case "TSMethodSignature":
      return !parent.computed && parent.key.range[0] === start;
    default:
      return false;
  }
}

/** What `lib/` may use: the language. */
const pure = rule((place, context) =>
  floorOf(place) !== 0 ? {} : {
    Identifier: (node) => {
      if (!IMPURE.includes(node.name) || isMemberName(node)) return;
      context.report({ node, message: `lib/ is pure: it cannot use ${node.name}` });
    },
  }
);

/** Where native libraries are opened; tests and benches may open others. */
const library = rule((place, context) => ({
  Identifier: (node) => {
    if (node.name !== "dlopen" || floorOf(place) > SCRIPTS) return;
    if (!LIBRARY_FILES.includes(place)) {
      const message =
        "A native library has one file, listed in tests/gate/layers.ts; nothing else calls dlopen";
      context.report({ node, message });
    } else if (!context.sourceCode.getAncestors(node).some(({ type }) => /Function/.test(type))) {
      context.report({ node, message: "A library is opened on first use, not when its file is imported" });
    }
  },
}));

/** How a file is called, starts and, when it is a script, how long it is. */
const file = rule((place, context) => ({
  Program: () => {
    const { text } = context.sourceCode;
    const start = text.startsWith("#!") ? text.indexOf("\n") + 1 : 0;
    const report = (message: string) => context.report({ range: [start, start + 1], message });
    if (!text.startsWith("/**", start)) {
      report("A file's first line is a doc comment that says what it is for");
    }
    const name = place.slice(place.lastIndexOf("/") + 1);
    if (EMPTY_NAMES.includes(name.replace(/(_test)?(\.d)?\.ts$/, ""))) {
      report(`"${name}" says nothing about what is in the file`);
    }
    if (!/^[a-z0-9_.]+$/.test(name)) report(`"${name}" is not in snake_case`);
    const lines = text.trimEnd().split("\n").length;
    const max = LONG_SCRIPTS[place] ?? MAX_SCRIPT_LINES;
    if (floorOf(place) === SCRIPTS && lines > max) {
      report(`A script has at most ${max} lines; this one has ${lines}`);
    }
  },
}));

/** For `lint.plugins` of deno.json. */
export default { name: "warren", rules: { floors, pure, library, file } } satisfies Deno.lint.Plugin;
