/** Errors as text for the terminal: the message, the place in the script, or the whole stack. */

// Implementation
/** Places of Warren's code; a script in `scripts/` counts as a user's. */
const OWN_CODE = [
  ...["lib/", "driver/", "runtime/"].flatMap((floor) => ownCode(new URL(`../../${floor}`, import.meta.url))),
  // The root module of `warren run`, as Deno abbreviates it.
  "data:text/javascript,import%20%7B%20runLa",
];
/** Messages of the JavaScript engine that begin as Warren's do. */
const ENGINE_MESSAGE = /^Cannot ((read|set) properties of|access '|convert |mix |destructure )/;

/**
 * Returns the text of an error for the terminal: the message of an error that Warren throws; the message and the lines
 * of the script if the stack has such lines; the whole stack of any other error.
 */
export function explain(error: unknown): string {
  const lines = new Set(parts(error).map(explainOne));
  return [...lines].join("\n");
}

/** Returns the errors that an error consists of, without duplicates. */
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
  // A bug in a stage of Warren's: its stack is of use.
  const { cause } = error;
  const bug = !isOurs
    ? error
    : cause instanceof Error && /^Cannot go on /.test(text) && !isExpected(cause)
    ? cause
    : undefined;
  return bug === undefined ? text : [text, ...frames(bug)].join("\n");
}

/** Returns an error and its causes. */
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

/** Returns the frames of an error's stack, without its message, which may have lines that look like frames. */
function frames({ stack = "", message }: Error): string[] {
  const start = Math.max(0, stack.indexOf(message)) + message.length;
  return stack.slice(start).split("\n").filter((line) => /^ {4}at /.test(line));
}

/** Returns the prefixes that a folder's files have in a stack: Deno decodes what a URL encodes, such as spaces. */
export function ownCode({ href }: URL): string[] {
  return [href, decodeURIComponent(href)];
}

function isScriptFrame(frame: string): boolean {
  return /\b(file|https?|data|blob):/.test(frame) && !OWN_CODE.some((floor) => frame.includes(floor));
}
