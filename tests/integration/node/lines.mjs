// How the tests talk to a Node process: commands on stdin, answers and events on stdout, one JSON document per line.
// `{"id": 1, "do": "name", ...}` is answered by `{"id": 1, "result": ...}` or `{"id": 1, "error": "text", "data": ...}`;
// an event has `event` and no id. The packages talk to the console, which goes to stderr if anybody wants to read it.
import { webcrypto } from 'node:crypto';
import { createInterface } from 'node:readline';
import { format } from 'node:util';

globalThis.crypto ??= webcrypto; // Node 18 has none; SmartServe would die of it

const verbose = Boolean(process.env.COREFLOW_NODE_VERBOSE);
for (const level of ['log', 'info', 'debug', 'warn', 'error']) {
  console[level] = verbose ? (...args) => process.stderr.write(`${format(...args)}\n`) : () => {};
}

export const options = JSON.parse(process.argv[2] ?? '{}');

export const say = (document) => process.stdout.write(`${JSON.stringify(document)}\n`);

export const sleep = (milliseconds) => new Promise((resolve) => setTimeout(resolve, milliseconds));

export const within = (seconds, promise) => {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer within ${seconds} s`)), seconds * 1000);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

export const obey = (commands) => {
  const lines = createInterface({ input: process.stdin });
  lines.on('line', async (line) => {
    const { id, do: name, ...args } = JSON.parse(line);
    try {
      say({ id, result: (await commands[name](args)) ?? null });
    } catch (error) {
      say({ id, error: error.errorText ?? error.message ?? String(error), data: error.errorData ?? null });
    }
  });
  lines.on('close', () => process.exit(0)); // the test has ended
};

// The packages leave rejected promises lying about; a peer of theirs would go on, and so do we.
process.on('unhandledRejection', (reason) => say({ event: 'unhandled', error: String(reason?.message ?? reason) }));
