/** A Linux of its own as a process: its kernel has what the machine's may lack, such as netem. */

import { command } from "./system.ts";
import { Unavailable } from "./tools.ts";

/** The programs that {@linkcode userModeLinux} needs. */
export const USER_MODE_LINUX = ["linux.uml", "modprobe", "ip", "mount", "sh"];

// Specification: Debian's package user-mode-linux
const MODULES = "/usr/lib/uml/modules";

// Implementation
const MEMORY = "64M";
/** modprobe looks for `lib/modules` below this folder, in the machine that lasts as long as the script. */
const ROOT = "/mnt";

/**
 * Runs a shell script as the only program of a new machine, which sees this one's files but cannot write to them;
 * returns what the script wrote.
 *
 * @throws {Unavailable} when this machine does not let it start (a container without ptrace, say).
 * @throws {Error} with what was written, when a command of the script fails or it lasts longer than `limit`
 * milliseconds.
 */
export async function userModeLinux(modules: string[], script: string, limit: number): Promise<string> {
  // The kernel's command line takes no spaces.
  const folder = await Deno.makeTempDir({ dir: "/tmp" });
  try {
    const init = `${folder}/init.sh`;
    await Deno.writeTextFile(
      init,
      `#!/bin/sh
export PATH=${Deno.env.get("PATH")}
main() {
  set -e
  echo started
  mount -t proc proc /proc
  mount -t sysfs sysfs /sys
  mount -t tmpfs run /run
  mount -t tmpfs root ${ROOT}
  mkdir -p ${ROOT}/lib
  ln -s ${MODULES} ${ROOT}/lib/modules
  modprobe -d ${ROOT} -a ${modules.join(" ")}
  ip link set lo up
${script}
  echo done
}
(main) 2>&1
echo o > /proc/sysrq-trigger
sleep infinity
`,
    );
    await Deno.chmod(init, 0o755);
    const { stdout, stderr } = await command("linux.uml", [
      `mem=${MEMORY}`,
      `uml_dir=${folder}`,
      ...["root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", `init=${init}`],
      ...["con=null", "con0=null,fd:1", "quiet"],
    ], { signal: AbortSignal.timeout(limit), check: false });
    if (!/^started$/m.test(stdout)) {
      throw new Unavailable(`Cannot start User-mode Linux: ${stdout}${stderr}`);
    }
    if (!/^done$/m.test(stdout)) throw new Error(`User-mode Linux did not finish: ${stdout}${stderr}`);
    return stdout;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
