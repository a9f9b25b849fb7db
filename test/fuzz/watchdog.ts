/** Ends a process whose event loop does not turn any more, and says what it was at. */

import { Worker } from 'node:worker_threads';

/** Milliseconds that one input may take, shared machines included. */
const DEADLINE = 60_000;

const BODY = `
  const { workerData } = require('node:worker_threads');
  const { beats, deadline, text } = workerData;
  const words = new Int32Array(beats);
  const decoder = new TextDecoder();
  let before = -1;
  setInterval(() => {
    const now = Atomics.load(words, 0);
    if (now === before && Atomics.load(words, 1) === 1) {
      const what = decoder.decode(new Uint8Array(text).slice()).replaceAll('\\0', '');
      require('node:fs').writeSync(2, 'hangs: ' + what + '\\n');
      process.kill(process.pid, 'SIGKILL');
    }
    before = now;
  }, deadline);`;

export class Watchdog {
  readonly #beats = new SharedArrayBuffer(8);
  readonly #words = new Int32Array(this.#beats);
  readonly #text = new SharedArrayBuffer(256);
  readonly #worker: Worker;

  constructor() {
    const workerData = { beats: this.#beats, deadline: DEADLINE, text: this.#text };
    this.#worker = new Worker(BODY, { eval: true, workerData });
    this.#worker.unref();
  }

  /** @param what is begun, to be told if it hangs */
  watch(what: string): void {
    new Uint8Array(this.#text).fill(0).set(Buffer.from(what).subarray(0, 255));
    Atomics.store(this.#words, 1, 1);
    this.beat();
  }

  beat(): void {
    Atomics.add(this.#words, 0, 1);
  }

  async stop(): Promise<void> {
    await this.#worker.terminate();
  }
}
