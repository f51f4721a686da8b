/** Hash tables with a fixed key, for tests in which no two hosts may share a hash by chance. */

/** Makes `crypto.getRandomValues` give zeros until it is disposed of. */
export function fixHashes(): Disposable {
  const { getRandomValues } = crypto;
  crypto.getRandomValues = (array) => array;
  return { [Symbol.dispose]: () => void (crypto.getRandomValues = getRandomValues) };
}
