/** Reading from the kernel, where what is read is nothing that a kernel sends. */

import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { DiskFile } from '../../src/disk/disk-file.js';
import { fitDisk } from '../../src/disk/fit.js';
import { Opcode } from '../../src/fuse/constants.js';
import { FuseSession } from '../../src/fuse/session.js';
import { Tree } from '../../src/fuse/tree.js';
import { native } from '../../src/native.js';
import { fields } from '../support/fake-kernel.js';
import { MemoryDisk, seeded } from '../support/memory-disk.js';
import { socketPair } from '../support/nbd-peer.js';

/** Milliseconds; only what hangs takes as long. */
const DEADLINE = 20_000;
const HEADER_BYTES = 40;

function message(opcode: number, unique: bigint, body: Buffer, length?: number): Buffer {
  const all = HEADER_BYTES + body.length;
  return Buffer.concat([
    fields([4, length ?? all], [4, opcode], [8, unique], [8, 1n], [4, 0], [4, 0], [4, 1], [4, 0]),
    body,
  ]);
}

/** A session whose kernel is the other end of a socket, where each message is read by itself. */
class Kernel {
  readonly #end: number;
  readonly #session: FuseSession;
  ended: Error | 'in good order' | undefined;

  constructor() {
    const [ours, theirs] = socketPair();
    this.#end = theirs;
    const disk = fitDisk(new MemoryDisk({ size: 65536 }), 1024 * 1024);
    const file = new DiskFile(disk, { readOnly: false, uid: 0, gid: 0, permissions: 0o600 });
    const { tree } = Tree.ofFile(file);
    const options = { writeback: false, openFlags: 2, size: file.size, blockSize: file.blockSize };
    this.#session = new FuseSession(ours, tree, options, undefined, {
      started: () => undefined,
      overrun: () => Promise.resolve(),
      synced: () => undefined,
      ended: (error) => (this.ended = error ?? 'in good order'),
    });
  }

  async send(bytes: Buffer): Promise<void> {
    const sent = native.write(this.#end, bytes, 0, bytes.length);
    assert.equal(sent, bytes.length);
    // Two that are read at once would be one.
    await delay(1);
  }

  /** Waits for the reply to a request. @returns its error */
  async reply(unique: bigint): Promise<number> {
    const bytes = Buffer.alloc(65536);
    for (const end = performance.now() + DEADLINE; performance.now() < end;) {
      const count = native.read(this.#end, bytes, 0, bytes.length);
      for (let at = 0; at < count; at += bytes.readUInt32LE(at)) {
        if (bytes.readBigUInt64LE(at + 8) === unique) return Math.abs(bytes.readInt32LE(at + 4));
      }
      await delay(1);
    }
    throw new Error(`no reply to ${unique}`);
  }

  drop(): void {
    native.read(this.#end, Buffer.alloc(65536), 0, 65536);
  }

  close(): void {
    this.#session.close();
    native.close(this.#end);
  }
}

describe('what no kernel sends', () => {
  it('is left where it is no request, and the next one is answered', async () => {
    const kernel = new Kernel();
    try {
      const open = fields([4, 0], [4, 0]);
      for (const bytes of [
        Buffer.of(1),
        Buffer.alloc(HEADER_BYTES - 1),
        Buffer.alloc(HEADER_BYTES),
        message(Opcode.OPEN, 3n, open, 4096),
        message(Opcode.OPEN, 3n, open, 0xffffffff),
        message(Opcode.OPEN, 3n, open, 1),
      ]) {
        await kernel.send(bytes);
      }
      await kernel.send(message(Opcode.OPEN, 5n, open));
      assert.equal(await kernel.reply(5n), 0);
      assert.equal(kernel.ended, undefined);
    } finally {
      kernel.close();
    }
  });

  it('is survived whatever it is', async () => {
    const random = seeded(3);
    const kernel = new Kernel();
    try {
      for (let i = 0; i < 300; i++) {
        // Replies are of no interest, but there must be room for more of them.
        kernel.drop();
        const body = Buffer.from(Array.from({ length: Math.floor(random() * 200) }, () => i % 256));
        const opcode = Math.floor(random() * 60);
        // An INIT of another age ends the mount, and rightly so.
        if (opcode === Opcode.INIT) continue;
        await kernel.send(message(opcode, BigInt(i + 1) * 2n, body));
      }
      await kernel.send(message(Opcode.STATFS, 9999n, Buffer.alloc(0)));
      assert.equal(await kernel.reply(9999n), 0);
      assert.equal(kernel.ended, undefined);
    } finally {
      kernel.close();
    }
  });
});
