/** Room among what is kept for a server that may be lost, and who waits for it. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setImmediate as turn } from 'node:timers/promises';
import { Command } from '../../src/nbd/constants.js';
import type { NegotiatedExport } from '../../src/nbd/export.js';
import { InFlight, KeptCommand } from '../../src/nbd/in-flight.js';
import type { PendingCommand } from '../../src/nbd/in-flight.js';
import { Recovery } from '../../src/nbd/recovery.js';

const BLOCK = 512;
/** Seven blocks, with what is counted beside each. */
const LIMIT = 4096;

const AGREED: NegotiatedExport = {
  size: 1n << 20n,
  flags: 0,
  limits: { minimum: 1, preferred: 4096, maximum: 1 << 20 },
  structuredReplies: false,
  extendedHeaders: false,
  allocationId: undefined,
};

const never = (): never => {
  throw new Error('nothing is lost here');
};

/** A server that answers what the test tells it to, in any order. */
class Server {
  // As they came: the objects are used again.
  readonly writes: PendingCommand[] = [];
  readonly flushes: PendingCommand[] = [];
  readonly recovery: Recovery;
  readonly #inFlight: InFlight;

  constructor() {
    const options = { patience: 1, forever: false, unflushedLimit: LIMIT, open: never };
    this.recovery = new Recovery(
      AGREED,
      { ...options, report: never },
      {
        connect: never,
        admit: never,
        down: never,
        up: never,
        end: never,
        send: (kept) => this.send(kept),
      },
    );
    this.#inFlight = new InFlight(this.recovery.unflushed);
  }

  send(kept: KeptCommand): boolean {
    const command = this.#inFlight.addKept(kept);
    if (kept.type === Command.FLUSH) command.mark = this.recovery.unflushed.mark();
    (kept.type === Command.FLUSH ? this.flushes : this.writes).push(command);
    return true;
  }

  answer(command: PendingCommand | undefined): void {
    assert.ok(command?.reply);
    this.#inFlight.succeed(command, command.reply);
  }
}

function writeTo(answered: () => void): KeptCommand {
  return Object.assign(new KeptCommand(), {
    type: Command.WRITE,
    length: BLOCK,
    bytes: Buffer.alloc(BLOCK),
    reply: { done: answered },
  });
}

describe('who waits for room', () => {
  it('gets it, in whatever order flushes are answered', async () => {
    const server = new Server();
    for (let i = 0; i < 15; i++) server.send(writeTo(() => undefined));
    // From the first answer on one is sent in the background.
    for (const write of server.writes.slice(0, 8)) server.answer(write);
    assert.equal(server.flushes.length, 1);
    const flush = Object.assign(new KeptCommand(), {
      type: Command.FLUSH,
      reply: { done: () => undefined },
    });
    server.send(flush);
    const [ours, theirs] = server.flushes;
    for (const write of server.writes.slice(8)) server.answer(write);
    assert.ok(server.recovery.isFull);
    let isDone = false;
    server.recovery.hold(writeTo(() => (isDone = true)));

    // The one that was sent last covers more than the other, which is answered then.
    server.answer(theirs);
    await turn();
    assert.ok(server.recovery.isFull);
    server.answer(ours);
    await turn();
    assert.equal(server.flushes.length, 3, 'there is another one for the rest');
    server.answer(server.flushes[2]);
    assert.ok(!server.recovery.isFull);
    server.answer(server.writes.at(-1));
    assert.ok(isDone);
  });
});
