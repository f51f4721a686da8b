/**
 * What idle scripts cost. By hand, for a minute: `deno run -A tests/system/idle_scenario.ts 60`.
 */

import { type Namespace, openNamespace } from "../kit/system.ts";
import { ping, type Running, startScript } from "../kit/traffic.ts";

// Specification
/** proc(5), /proc/PID/stat: utime and stime, counted behind the name in parentheses. */
const UTIME = 11;
const STIME = 12;
/** sysconf(_SC_CLK_TCK) of every Linux that Deno runs on. */
const TICKS_PER_SECOND = 100;

// Implementation
/** Pings before the measurement. */
const WARM_UP_PINGS = 200;
/** How long nothing comes before the measurement (milliseconds): V8 gives memory back some time after work. */
const SETTLE = 2000;

/** What a script cost while nothing came. */
export interface IdleCost {
  /** Which one. */
  readonly script: string;
  /** Its processor time, of what one processor has (percent). */
  readonly processorPercent: number;
  /** Its resident memory at the beginning (KiB). */
  readonly memoryBefore: number;
  /** And at the end. */
  readonly memoryAfter: number;
}

function processorSeconds(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[UTIME]) + Number(fields[STIME])) / TICKS_PER_SECOND;
}

function residentMemory(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]);
}

/** Runs scripts side by side, each in a namespace of its own, without packets for so many seconds. */
export async function measureIdle(seconds: number): Promise<IdleCost[]> {
  await using stack = new AsyncDisposableStack();
  const scripts: [string, ...string[]][] = [
    ["icmp_echo.ts"],
    ["relay.ts"],
    ["plain_udp.ts", "--far", "udp://127.0.0.1:4501?listen=4500"],
  ];
  const started: { script: string; running: Running }[] = [];
  for (const [script, ...flags] of scripts) {
    const namespace: Namespace = stack.use(await openNamespace());
    const running = stack.use(await startScript(namespace, script, ...flags));
    await ping(namespace, "-c", String(WARM_UP_PINGS), "-i", "0.002", "-W", "0.1", "10.9.0.77");
    started.push({ script, running });
  }
  await new Promise((resolve) => setTimeout(resolve, SETTLE));
  const before = started.map(({ running: { pid } }) => [processorSeconds(pid), residentMemory(pid)] as const);
  await new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  return started.map(({ script, running: { pid, hasEnded, heard } }, i) => {
    if (hasEnded) throw new Error(`${script} ended by itself: ${heard}`);
    const [processor, memoryBefore] = before[i]!;
    return {
      script,
      processorPercent: (processorSeconds(pid) - processor) / seconds * 100,
      memoryBefore,
      memoryAfter: residentMemory(pid),
    };
  });
}

/** The processor time that icmp_echo.ts takes while it answers one ping per second (percent of one processor). */
export async function measurePinged(seconds: number): Promise<number> {
  await using namespace = await openNamespace();
  await using running = await startScript(namespace, "icmp_echo.ts");
  await ping(namespace, "-c", String(WARM_UP_PINGS), "-i", "0.002", "-W", "0.1", "10.9.0.77");
  const before = processorSeconds(running.pid);
  const { answered } = await ping(namespace, "-c", String(seconds), "-i", "1", "-W", "1", "10.9.0.77");
  if (answered.length !== seconds) {
    throw new Error(`icmp_echo.ts answered ${answered.length} of ${seconds} pings`);
  }
  // ping(8) ends with the last reply, one second early.
  return (processorSeconds(running.pid) - before) / (seconds - 1) * 100;
}

if (import.meta.main) console.table(await measureIdle(Number(Deno.args[0] ?? 60)));
