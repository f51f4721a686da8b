/** `warren new` where other users own or may change what is there. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { type CommandResult, systemTest } from "../kit/system.ts";

const MAIN = fileURLToPath(new URL("../../runtime/cli/main.ts", import.meta.url));
const NOBODY = 65534;

/** A folder, in it an empty one called `there`; the system's other users can reach it. */
class Folder implements Disposable {
  readonly path = Deno.makeTempDirSync();
  readonly there = join(this.path, "there");

  constructor() {
    Deno.chmodSync(this.path, 0o755);
    Deno.mkdirSync(this.there);
  }

  /** What is there in the end. */
  names(): string[] {
    return Array.from(Deno.readDirSync(this.there), ({ name }) => name).sort();
  }

  [Symbol.dispose](): void {
    Deno.removeSync(this.path, { recursive: true });
  }
}

async function create(name: string, cwd: string, env: Record<string, string> = {}): Promise<CommandResult> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", MAIN, "new", name],
    cwd,
    env: { NO_COLOR: "1", SUDO_UID: "", ...env },
    stdin: "null",
  }).output();
  const decoder = new TextDecoder();
  return { code, stdout: decoder.decode(stdout), stderr: decoder.decode(stderr) };
}

/** Has root make my.ts in `there` after `prepare`; it must refuse, with this message, and make nothing. */
function refuses(name: string, prepare: (folder: Folder) => void, message: RegExp, args = "my.ts"): void {
  systemTest(name, {}, async () => {
    using folder = new Folder();
    prepare(folder);
    const before = folder.names();
    const { code, stderr } = await create(args, folder.there);
    assert.match(stderr, message);
    assert.equal(code, 1);
    assert.deepEqual(folder.names(), before);
  });
}

refuses(
  "warren new, as root, refuses a folder of another user",
  ({ there }) => Deno.chownSync(there, NOBODY, NOBODY),
  /^warren: Cannot create "my\.ts": .*there belongs to user 65534: choose another folder$/m,
);
refuses(
  "warren new, as root, refuses a new folder in one of another user",
  ({ there }) => Deno.chownSync(there, NOBODY, NOBODY),
  /^warren: Cannot create "demo": .*there belongs to user 65534/m,
  "demo",
);
refuses(
  "warren new, as root, refuses a folder below one of another user",
  ({ path }) => Deno.chownSync(path, NOBODY, NOBODY),
  /^warren: Cannot create "my\.ts": .+ belongs to user 65534/m,
);
refuses(
  "warren new, as root, refuses a folder that others may write to",
  ({ there }) => Deno.chmodSync(there, 0o777),
  /there is writable by others \(mode 777\): choose another folder$/m,
);
refuses("warren new, as root, refuses a folder that another group may write to", ({ there }) => {
  Deno.chownSync(there, 0, NOBODY);
  Deno.chmodSync(there, 0o775);
}, /there is writable by others \(mode 775\)/);
refuses(
  "warren new refuses a deno.json that is a dangling link, and does not follow it",
  ({ path, there }) => Deno.symlinkSync(join(path, "elsewhere"), join(there, "deno.json")),
  /deno\.json is not a file: remove it$/m,
);
refuses("warren new, as root, refuses another user's link to a file of root", ({ path, there }) => {
  Deno.writeTextFileSync(join(path, "deno.json"), "{}");
  Deno.symlinkSync(join(path, "deno.json"), join(there, "deno.json"));
  new Deno.Command("chown", { args: ["-h", String(NOBODY), join(there, "deno.json")] }).outputSync();
}, /deno\.json belongs to user 65534: remove it$/m);
refuses("warren new refuses a deno.json that is a FIFO, and does not wait for it", ({ there }) => {
  new Deno.Command("mkfifo", { args: [join(there, "deno.json")] }).outputSync();
}, /deno\.json is not a file: remove it$/m);
refuses(
  "warren new does not follow a dangling link in the script's place",
  ({ path, there }) => Deno.symlinkSync(join(path, "elsewhere"), join(there, "my.ts")),
  /^warren: Cannot create "my\.ts": it exists already: choose another name$/m,
);
for (const file of ["deno.json", "deno.jsonc", "deno.lock", "package.json"]) {
  refuses(`warren new, as root, refuses another user's ${file}, in a sticky folder too`, ({ there }) => {
    Deno.chmodSync(there, 0o1777);
    Deno.writeTextFileSync(join(there, file), "{}");
    Deno.chownSync(join(there, file), NOBODY, NOBODY);
  }, new RegExp(`${file.replace(".", "\\.")} belongs to user 65534: remove it$`, "m"));
  refuses(`warren new, as root, refuses a ${file} that others may write to`, ({ there }) => {
    Deno.writeTextFileSync(join(there, file), "{}");
    Deno.chmodSync(join(there, file), 0o666);
  }, new RegExp(`${file.replace(".", "\\.")} is writable by others \\(mode 666\\): remove it$`, "m"));
}

systemTest("warren new makes its files in a sticky folder that others may write to", {}, async () => {
  using folder = new Folder();
  Deno.chmodSync(folder.there, 0o1777);
  const { code, stderr } = await create("my.ts", folder.there);
  assert.equal(code, 0, stderr);
  assert.deepEqual(folder.names(), ["deno.json", "my.ts"]);
});

systemTest("warren new by sudo makes its files in the folder of the user who called it", {}, async () => {
  using folder = new Folder();
  Deno.chownSync(folder.there, NOBODY, NOBODY);
  const { code, stderr } = await create("my.ts", folder.there, { SUDO_UID: String(NOBODY) });
  assert.equal(code, 0, stderr);
});
