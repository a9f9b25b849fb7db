/** Which connection gets a request while others come and go. */

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import { HEADROOM } from '../../src/disk/disk.js';
import { Command, TransmissionFlag } from '../../src/nbd/constants.js';
import type { NegotiatedExport } from '../../src/nbd/export.js';
import { NbdDisk } from '../../src/nbd/nbd-disk.js';
import type { OpenedExport } from '../../src/nbd/open.js';
import { until } from '../support/mounts.js';
import { AGREED, Answers, connectedPeer, contentAt } from '../support/nbd-peer.js';
import { errorChunk, extended, simpleReply } from '../support/nbd-replies.js';

/** Milliseconds; ends a test that hangs. */
const TIMED = { timeout: 60_000 };
const SIMPLE: NegotiatedExport = {
  ...AGREED,
  flags: AGREED.flags | TransmissionFlag.CAN_MULTI_CONN,
};
const EXTENDED: NegotiatedExport = {
  ...SIMPLE,
  structuredReplies: true,
  extendedHeaders: true,
  allocationId: 5,
};
const MIB = 1024 * 1024;
const LARGE_READ = 64 * 1024;
const ESHUTDOWN = 108;

describe('a disk over several connections', TIMED, () => {
  let disk: NbdDisk | undefined;
  let peers: { close(): void }[] = [];
  afterEach(() => {
    disk?.abort();
    for (const peer of peers) peer.close();
    disk = undefined;
    peers = [];
  });

  function open(
    agreed: NegotiatedExport,
    recovery: { patience: number; forever: boolean; open: () => Promise<OpenedExport> },
  ): NbdDisk {
    const settings = { ...recovery, unflushedLimit: MIB, report: () => undefined };
    return (disk = new NbdDisk(agreed, { recovery: settings }));
  }

  it('asks no connection for what it cannot say, also where another one shuts down', async () => {
    const again = connectedPeer(true);
    const on = open(EXTENDED, {
      patience: TIMED.timeout,
      forever: false,
      open: () => Promise.resolve({ transport: again.transport, negotiated: EXTENDED }),
    });
    const wide = connectedPeer(true);
    const narrow = connectedPeer();
    peers = [again.peer, wide.peer, narrow.peer];
    on.addConnection(wide.transport, EXTENDED);
    on.addConnection(narrow.transport, SIMPLE);
    const answers = new Answers();
    for (const name of ['refused', 'answered']) {
      on.read(0n, LARGE_READ, answers.read(name, 0n, LARGE_READ));
    }
    const reads = await wide.peer.take(2);
    const cookie = reads[0]?.cookie ?? 0n;
    wide.peer.send(extended(errorChunk(cookie, true, ESHUTDOWN), 0n));
    // Nothing large comes over this one as long as the other takes it.
    let more = 0;
    await until('it is known', () => {
      const name = `more ${more++}`;
      on.read(0n, LARGE_READ, answers.read(name, 0n, LARGE_READ));
      return narrow.peer.requests.some(({ length }) => length === LARGE_READ);
    });
    on.zero(0n, 6n << 30n, { fua: false, noHole: false }, answers.reply('zero'));
    on.extents(0n, 4096n, answers.extents('extents'));
    on.flush(answers.reply('flush'));
    await until('it is asked', () => narrow.peer.requests.some(({ type }) => type === 3));
    const types = narrow.peer.requests.map(({ type }) => type);
    assert.ok(!types.includes(Command.WRITE_ZEROES) && !types.includes(Command.BLOCK_STATUS));
    wide.peer.close();
    await again.peer.until('both are sent to the next one', () =>
      [Command.WRITE_ZEROES, Command.BLOCK_STATUS].every((wanted) =>
        again.peer.requests.some(({ type }) => type === wanted),
      ),
    );
  });

  it('takes back what it sends again when it gives up', async () => {
    const first = connectedPeer();
    const second = connectedPeer();
    peers = [first.peer, second.peer];
    let opened = 0;
    const on = open(AGREED, {
      patience: 500,
      forever: true,
      open: () =>
        opened++ === 0
          ? Promise.resolve({ transport: second.transport, negotiated: AGREED })
          : Promise.reject(new Error('it is away')),
    });
    on.addConnection(first.transport, AGREED);
    const answers = new Answers();
    const bytes = Buffer.concat([Buffer.alloc(HEADROOM), contentAt(0n, 512)]);
    on.write(0n, bytes, HEADROOM, 512, { fua: false }, answers.reply('write'));
    first.peer.send(simpleReply((await first.peer.next()).cookie));
    await answers.settled();
    let resets = 0;
    const { transport } = second;
    const reset = transport.reset.bind(transport);
    transport.reset = () => {
      resets++;
      reset();
    };
    first.peer.close();
    assert.equal((await second.peer.next()).type, Command.WRITE);
    await second.peer.gone();
    assert.equal(resets, 1);
  });
});
