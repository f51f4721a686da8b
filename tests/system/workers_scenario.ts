/**
 * Many flows of numbered datagrams, in processes of their own: `send MS DESTINATION` and `receive`; and questions that
 * await their answers: `ask DESTINATION`.
 *
 *     send ──► flow, number ──► receive: each flow's numbers only grow
 *       ▲                          │
 *       └── answers, in order ─────┘   to every other flow; and numbers of its own to idle ones
 *
 * Some flows are idle for a while. Then both sides send at once: whatever were learned now of a flow's queue would be
 * learned amid its packets.
 */

/** Where the datagrams go. */
export const PORT = 9000;
/** How many flows there are. */
export const FLOWS = 48;
/** The numbers of each flow's datagrams: before the pause, and in all. */
export const FIRST = 200;
export const COUNT = 600;

// Implementation
/** How long a flow that is not idle waits after each datagram of the time between (milliseconds). */
const SLOWLY = 50;
/** Datagrams that a flow sends one after the other before it lets others send. */
const BURST = 10;
/** What the datagrams before the pause take, at most (milliseconds). */
const FIRST_TIME = 1500;
/** How long it lets others send, so that the receiver's buffer is long enough (milliseconds). */
const PAUSE = 20;
const REST = 300;
/** How often each port asks. */
const QUESTIONS = 50;

/** What became of numbered datagrams, by their flow. */
export interface Seen {
  /** How many flows there were. */
  readonly flows: number;
  /** How many datagrams came. */
  readonly came: number;
  /** How many were the same as one before, or came after a later one. */
  readonly disordered: number;
  /** Descriptions of the first of those. */
  readonly faults: readonly string[];
}

/** Looks at the numbers of flows. */
class Order {
  readonly #last = new Map<number, number>();
  came = 0;
  disordered = 0;
  readonly faults: string[] = [];

  see(flow: number, number: number): void {
    this.came++;
    const last = this.#last.get(flow) ?? -1;
    if (number > last) {
      this.#last.set(flow, number);
      return;
    }
    this.disordered++;
    if (this.faults.length < 10) this.faults.push(`flow ${flow}: ${number} after ${last}`);
  }

  get seen(): Seen {
    const { came, disordered, faults } = this;
    return { flows: this.#last.size, came, disordered, faults };
  }
}

function openSocket(port: number): Deno.DatagramConn {
  return Deno.listenDatagram({ transport: "udp", hostname: "0.0.0.0", port });
}

/** Calls back for every datagram that comes. */
async function hear(
  socket: Deno.DatagramConn,
  heard: (message: DataView, from: Deno.Addr, bytes: Uint8Array) => void | Promise<unknown>,
): Promise<void> {
  for await (const [bytes, from] of socket) {
    await heard(new DataView(bytes.buffer, bytes.byteOffset), from, bytes);
  }
}

function later(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

/** Flows 0, 1: never idle; 2, 3: idle; 4, 5: never, ...; the even ones are answered. */
function isIdle(flow: number): boolean {
  return flow % 4 >= 2;
}

async function send(idle: number, hostname: string): Promise<void> {
  const answers = new Order();
  const sockets = Array.from({ length: FLOWS }, () => openSocket(0));
  for (const socket of sockets) {
    hear(socket, (message) => answers.see(message.getUint32(0), message.getUint32(4)));
  }
  const to: Deno.NetAddr = { transport: "udp", hostname, port: PORT };
  const resumption = Date.now() + FIRST_TIME + idle;
  await Promise.all(sockets.map(async (socket, flow) => {
    for (let number = 0; number < COUNT; number++) {
      const message = new DataView(new ArrayBuffer(16 + number % 700));
      message.setUint32(0, flow);
      message.setUint32(4, number);
      message.setFloat64(8, resumption);
      await socket.send(new Uint8Array(message.buffer), to);
      if (number === FIRST && isIdle(flow)) await later(resumption - Date.now());
      else if (number > FIRST && Date.now() < resumption) await later(SLOWLY);
      else if (number % BURST === 0) await later(PAUSE);
    }
  }));
  for (let before = -1; before !== answers.came;) {
    before = answers.came;
    await later(REST);
  }
  console.log(JSON.stringify(answers.seen));
  Deno.exit();
}

/** Asks from many ports, one question after the other, and says from which port each one's answer came. */
async function ask(hostname: string): Promise<void> {
  const answers: [own: number, from: number][] = [];
  for (let i = 0; i < FLOWS; i++) {
    const socket = openSocket(0);
    for (let j = 0; j < QUESTIONS; j++) {
      await socket.send(new Uint8Array(1 + 29 * j), { transport: "udp", hostname, port: PORT });
      const [, from] = await socket.receive();
      answers.push([(socket.addr as Deno.NetAddr).port, (from as Deno.NetAddr).port]);
    }
    socket.close();
  }
  console.log(JSON.stringify(answers));
  Deno.exit();
}

/** Sends numbers of the receiver's own to a flow, as those of a flow that has a number of its own. */
async function begin(socket: Deno.DatagramConn, to: Deno.Addr, flow: number): Promise<void> {
  for (let number = 0; number < COUNT; number++) {
    const message = new DataView(new ArrayBuffer(8));
    message.setUint32(0, FLOWS + flow);
    message.setUint32(4, number);
    await socket.send(new Uint8Array(message.buffer), to);
    if (number % BURST === 0) await later(PAUSE);
  }
}

async function receive(): Promise<void> {
  const begun = new Set<number>();
  const order = new Order();
  const socket = openSocket(PORT);
  hear(socket, (message, from, bytes) => {
    const flow = message.getUint32(0);
    const number = message.getUint32(4);
    order.see(flow, number);
    if (isIdle(flow) && !begun.has(flow)) {
      begun.add(flow);
      setTimeout(() => begin(socket, from, flow), message.getFloat64(8) - Date.now());
    }
    if (flow % 2 === 0) return socket.send(bytes, from);
  });
  console.log("ready");
  await new Promise<void>((resolve) => Deno.addSignalListener("SIGINT", resolve));
  console.log(`received ${JSON.stringify(order.seen)}`);
  Deno.exit();
}

if (import.meta.main) {
  const [scenario, word, destination] = Deno.args;
  if (scenario === "send") await send(Number(word), destination!);
  else if (scenario === "ask") await ask(word!);
  else await receive();
}
