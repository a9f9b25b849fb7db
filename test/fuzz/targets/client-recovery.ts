/** The disk of the client while its server is lost and comes back: each request is answered once, nothing is kept. */

import assert from 'node:assert/strict';
import { setImmediate as turn } from 'node:timers/promises';
import fc from 'fast-check';
import type { Owner } from '../../../src/buffer-pool.js';
import type { Disk, Reply } from '../../../src/disk/disk.js';
import { NbdDisk } from '../../../src/nbd/nbd-disk.js';
import type { Asked } from '../../support/reply-client.js';
import { Asking } from '../asking.js';
import { mutations } from '../mutation.js';
import { PlayedServer } from '../played-server.js';
import type { Fate } from '../played-server.js';
import { settled } from '../target.js';
import type { Target } from '../target.js';
import { agreedFor } from './client-disk.js';

/** One run of the server. */
interface Run {
  /** In the order of the commands; the last one is for all that follow. */
  readonly fates: readonly Fate[];
  /** How much of an answer comes at once. */
  readonly piece: number;
  /** It is another disk, or cannot be reached. */
  readonly problem: 'none' | 'another disk' | 'refuses';
}

export interface RecoveryInput {
  readonly structured: boolean;
  /** How many connections there are at the start. */
  readonly connections: number;
  readonly runs: readonly Run[];
  readonly asked: readonly Asked[];
  /** How many of these wait for the answer to another one. */
  readonly later: number;
  readonly unflushedLimit: number;
  readonly forever: boolean;
  /** After how many turns of the event loop the end is asked for, while more is under way. */
  readonly turns: number;
}

/** Milliseconds for a server that is lost. */
const PATIENCE = 3;
/** Turns of the event loop in which an answer comes where any does. */
const MOST_TURNS = 3_000;

/** Small, so that they meet. */
const asked: fc.Arbitrary<Asked> = fc.record({
  type: fc.constantFrom('read', 'write', 'write', 'write', 'flush', 'trim', 'zero', 'status'),
  offset: fc.constantFrom(0n, 512n, 1024n, 4096n, 2n ** 40n),
  length: fc.constantFrom(1, 512, 1024, 5000),
});

const fate: fc.Arbitrary<Fate> = fc.oneof(
  { arbitrary: fc.constant('serve' as const), weight: 6 },
  fc.constantFrom('leave', 'serve and leave'),
  fc.constantFrom('twice', 'silence'),
  fc.constantFrom(5, 28, 95, 108),
  mutations,
);

const run: fc.Arbitrary<Run> = fc.record({
  fates: fc.array(fate, { minLength: 1, maxLength: 12 }),
  piece: fc.constantFrom(1 << 20, 1 << 20, 100, 7),
  problem: fc.constantFrom('none', 'none', 'none', 'none', 'another disk', 'refuses'),
});

/** Counts what is kept of writes. */
class Keeping {
  kept = 0;

  /** Writes to it may be kept without a copy, by turns. */
  of(disk: Disk): Disk {
    let writes = 0;
    return new Proxy(disk, {
      get: (target, name) => {
        if (name === 'write') {
          return (...[offset, bytes, start, length, options, reply]: Parameters<Disk['write']>) => {
            const keep = writes++ % 2 === 0 ? { keep: () => this.#owner() } : {};
            const told: Reply = { done: (code) => reply.done(code), ...keep };
            target.write(offset, bytes, start, length, options, told);
          };
        }
        const member: unknown = Reflect.get(target, name, target);
        return typeof member === 'function' ? (member.bind(target) as unknown) : member;
      },
    });
  }

  #owner(): Owner {
    let released = false;
    this.kept++;
    return {
      release: () => {
        assert.ok(!released, 'it is released once');
        released = true;
        this.kept--;
      },
    };
  }
}

export const clientRecoveryTarget: Target<RecoveryInput> = {
  name: 'client-recovery',
  inputs: fc.record({
    structured: fc.boolean(),
    connections: fc.constantFrom(1, 1, 2, 3),
    runs: fc.array(run, { minLength: 1, maxLength: 5 }),
    asked: fc.array(asked, { minLength: 1, maxLength: 24 }),
    later: fc.nat({ max: 12 }),
    unflushedLimit: fc.constantFrom(2048, 1 << 26),
    forever: fc.boolean(),
    turns: fc.constantFrom(MOST_TURNS, MOST_TURNS, 0, 3, 20),
  }),
  frames: ({ asked: { length } }) => length,

  async run({ structured, connections, runs, asked: all, later, ...setting }) {
    const agreed = { ...agreedFor(structured ? 'structured' : 'simple'), size: 2n ** 41n };
    const servers: PlayedServer[] = [];
    let made = 0;
    /** The next run of the server, or one more connection to the last that there is. */
    const connect = (run: Run | undefined): PlayedServer => {
      let at = 0;
      const { fates = ['leave' as const], piece = 1 } = run ?? {};
      const next = (): Fate => fates[Math.min(at++, fates.length - 1)] ?? 'leave';
      const server = new PlayedServer(structured, next, piece);
      servers.push(server);
      return server;
    };
    const reports: string[] = [];
    const disk = new NbdDisk(agreed, {
      recovery: {
        patience: PATIENCE,
        forever: setting.forever,
        unflushedLimit: setting.unflushedLimit,
        report: (line) => reports.push(line),
        open: () => {
          const now = runs[made++];
          if (now?.problem === 'refuses') return Promise.reject(new Error('refused'));
          const size = now?.problem === 'another disk' ? agreed.size / 2n : agreed.size;
          return Promise.resolve({ transport: connect(now), negotiated: { ...agreed, size } });
        },
      },
    });
    let losses = 0;
    disk.onLost = (reason) => {
      losses++;
      reports.push(reason);
    };
    const [first] = runs;
    made++;
    for (let i = 0; i < connections; i++) disk.addConnection(connect(first), agreed);

    const keeping = new Keeping();
    const asking = new Asking(keeping.of(disk), all.slice(all.length - later));
    for (const one of all.slice(0, Math.max(0, all.length - later))) asking.ask(one);
    for (let turns = 0; turns < setting.turns && asking.answered < asking.asked; turns++) {
      await turn();
    }
    // Who waits for more than that may wait for a server that is silent: a request, or a flush of our own.
    if (asking.answered < asking.asked) disk.abort();
    const closing = disk.close();
    const state = { closed: false };
    void closing.then(() => (state.closed = true));
    for (let turns = 0; turns < MOST_TURNS && !state.closed; turns++) await turn();
    disk.abort();
    await settled(closing, 'the close');
    asking.ask({ type: 'flush' });
    assert.equal(asking.answered, asking.asked, 'each request has its answer');
    assert.ok(losses <= 1, 'it is lost once');
    for (const line of reports) assert.doesNotMatch(line, /\p{Cc}/u);
    assert.ok(
      servers.every(({ closed }) => closed),
      'each connection is closed',
    );
    assert.equal(keeping.kept, 0, 'nothing is kept');
  },
};
