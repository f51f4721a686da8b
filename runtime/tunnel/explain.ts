/** What to print for an error: its message, where in a script it came from, or all of its stack. */

// Implementation
/** Where Warren's own code is; a script in `scripts/` is a user's. */
const OWN_CODE = [
  ...["lib/", "driver/", "runtime/"].flatMap((floor) => ownCode(new URL(`../../${floor}`, import.meta.url))),
  // The root module of `warren run`, as Deno abbreviates it.
  "data:text/javascript,import%20%7B%20runLa",
];
/** Errors of the engine that begin as ours do. */
const ENGINE_MESSAGE = /^Cannot ((read|set) properties of|access '|convert |mix |destructure )/;

/**
 * What to print for an error. What Warren expects is its message; with the script's own code in the stack, where
 * that is, too; anything else, all of its stack.
 */
export function explain(error: unknown): string {
  const lines = new Set(parts(error).map(explainOne));
  return [...lines].join("\n");
}

/** The errors that an error is made of; one that came up twice, as a tunnel's does, comes once. */
function parts(error: unknown): unknown[] {
  const found = error instanceof SuppressedError
    ? [error.suppressed, error.error].flatMap(parts)
    : error instanceof AggregateError && error.errors.length > 0
    ? error.errors.flatMap(parts)
    : [error];
  return [...new Set(found)];
}

function explainOne(error: unknown): string {
  if (!(error instanceof Error)) return `The script threw ${Deno.inspect(error)}`;
  const isOurs = isExpected(error) && !isScriptFrame(frames(error)[0] ?? "");
  const text = isOurs ? error.message : `${error.name}: ${error.message}`;
  const scriptFrames = chain(error).map((one) => frames(one).filter(isScriptFrame)).find(({ length }) =>
    length > 0
  );
  if (scriptFrames !== undefined) return [text, ...scriptFrames].join("\n");
  // A stage of ours that threw what none should.
  const { cause } = error;
  const bug = !isOurs
    ? error
    : cause instanceof Error && /^Cannot go on /.test(text) && !isExpected(cause)
    ? cause
    : undefined;
  return bug === undefined ? text : [text, ...frames(bug)].join("\n");
}

/** An error and its causes. */
function chain(error: Error): Error[] {
  const found = [error];
  for (let { cause } = error; cause instanceof Error && !found.includes(cause); { cause } = cause) {
    found.push(cause);
  }
  return found;
}

function isExpected({ message }: Error): boolean {
  return message.startsWith("Cannot ") && !ENGINE_MESSAGE.test(message);
}

/** Where an error came from; its message may hold lines that look the same. */
function frames({ stack = "", message }: Error): string[] {
  const start = Math.max(0, stack.indexOf(message)) + message.length;
  return stack.slice(start).split("\n").filter((line) => /^ {4}at /.test(line));
}

/** The beginnings of a folder's files in a stack: Deno decodes what a URL encodes, such as the spaces of a path. */
export function ownCode({ href }: URL): string[] {
  return [href, decodeURIComponent(href)];
}

function isScriptFrame(frame: string): boolean {
  return /\b(file|https?|data|blob):/.test(frame) && !OWN_CODE.some((floor) => frame.includes(floor));
}
