/** The kernel's side of the FUSE protocol, for tests: makes requests, and takes replies apart. */

import assert from 'node:assert/strict';
import type { TestContext } from 'node:test';
import { DiskFile } from '../../src/disk/disk-file.js';
import { fitDisk } from '../../src/disk/fit.js';
import { Opcode } from '../../src/fuse/constants.js';
import type { Fate } from '../../src/fuse/fate.js';
import { FuseProtocol } from '../../src/fuse/protocol.js';
import type { ProtocolOptions } from '../../src/fuse/protocol.js';
import { Tree } from '../../src/fuse/tree.js';
import type { FileNode } from '../../src/fuse/tree.js';
import { RequestArena } from '../../src/fuse/request-arena.js';
import { viewOf } from '../../src/bytes.js';
import { MemoryDisk } from './memory-disk.js';
import type { MemoryDiskOptions } from './memory-disk.js';

export interface KernelReply {
  /** Positive errno, or 0. */
  readonly error: number;
  readonly body: Buffer;
}

/** Of a request, in bytes. */
const LARGEST = 1024 * 1024 + 4096;

export class FakeKernel {
  readonly disk: MemoryDisk;
  readonly file: DiskFile;
  readonly node: FileNode;
  readonly tree: Tree;
  readonly protocol: FuseProtocol;
  /** Replies by `unique`. */
  readonly replies = new Map<bigint, KernelReply>();
  /** Messages that are no replies: code and body. */
  readonly notifications: { readonly code: number; readonly body: Buffer }[] = [];
  started: { readonly writeback: boolean } | undefined;
  overruns = 0;
  /** What a sync waits for besides the disk. */
  settled: Promise<unknown> | undefined;
  /** What mends the size after a write past the end. */
  mended: Promise<void> = Promise.resolve();
  readonly #arena: RequestArena;
  /** Which file or directory the next request is about. */
  nodeId: number;
  /** Who makes the requests. */
  uid = 0;
  /** What becomes of a thread that waits. */
  fate: Fate = 'unknown';
  /** Of the next request. */
  unique = 0xfedc_ba98_0000_0000n;

  constructor(
    disk: Partial<MemoryDiskOptions> = {},
    options: Partial<ProtocolOptions> & {
      readOnly?: boolean;
      directory?: string;
      largest?: number;
    } = {},
  ) {
    const largest = options.largest ?? LARGEST;
    this.#arena = new RequestArena(largest, 64 * largest, () => undefined);
    this.disk = new MemoryDisk({ size: 64 * 1024, ...disk });
    this.file = new DiskFile(fitDisk(this.disk, 1024 * 1024), {
      readOnly: options.readOnly ?? false,
      uid: 1,
      gid: 2,
      permissions: 0o600,
    });
    if (options.directory === undefined) {
      const { tree, node } = Tree.ofFile(this.file);
      this.tree = tree;
      this.node = node;
    } else {
      this.tree = Tree.ofDirectory({ uid: 1, gid: 2, permissions: 0o640 });
      this.node = this.tree.add(options.directory, this.file);
    }
    this.nodeId = this.node.id;
    this.protocol = new FuseProtocol(
      this.tree,
      {
        writeback: options.writeback ?? true,
        openFlags: options.openFlags ?? 2,
        denyOthers: options.denyOthers,
        size: this.file.size,
        blockSize: this.file.blockSize,
        fateOf: () => this.fate,
      },
      this.#arena,
      {
        send: (bytes, start, length) => this.#take(bytes.subarray(start, start + length)),
        started: (agreed) => (this.started = agreed),
        overrun: () => {
          this.overruns++;
          return this.mended;
        },
        synced: () => this.settled,
      },
    );
  }

  #take(lent: Buffer): number {
    const message = Buffer.from(lent);
    assert.equal(message.readUInt32LE(0), message.length, 'the length of a message is in it');
    const error = message.readInt32LE(4);
    const unique = message.readBigUInt64LE(8);
    const body = message.subarray(16);
    if (unique === 0n) {
      this.notifications.push({ code: error, body });
      return 0;
    }
    assert.ok(error <= 0 && error > -512, `error ${error} is what the kernel takes`);
    assert.ok(error === 0 || body.length === 0, 'an error has no body');
    assert.ok(!this.replies.has(unique), 'one reply for each request');
    this.replies.set(unique, { error: Math.abs(error), body });
    return message.length;
  }

  /** Makes a request. @returns its `unique` */
  send(opcode: number, body: Buffer = Buffer.alloc(0), pid = 77): bigint {
    const { unique } = this;
    this.unique += 2n;
    const header = Buffer.alloc(40);
    header.writeUInt32LE(40 + body.length, 0);
    header.writeUInt32LE(opcode, 4);
    header.writeBigUInt64LE(unique, 8);
    header.writeBigUInt64LE(BigInt(this.nodeId), 16);
    header.writeUInt32LE(this.uid, 24);
    header.writeUInt32LE(pid, 32);
    this.deliver(Buffer.concat([header, body]));
    return unique;
  }

  /** Hands over bytes as they would be read from /dev/fuse. */
  deliver(message: Buffer): void {
    const slab = this.#arena.next();
    assert.ok(slab !== undefined, 'there is room for a request');
    message.copy(slab.bytes, slab.used);
    this.protocol.handle(slab, message.length);
  }

  /** Makes a request that is answered at once. */
  ask(opcode: number, body?: Buffer, pid?: number): KernelReply {
    const unique = this.send(opcode, body, pid);
    const reply = this.replies.get(unique);
    assert.ok(reply !== undefined, 'answered at once');
    return reply;
  }

  open(flags: number): bigint {
    const { error, body } = this.ask(Opcode.OPEN, fields([4, flags], [4, 0]));
    assert.equal(error, 0);
    return body.readBigUInt64LE(0);
  }
}

/** A body of fields, each as [bytes, value]. */
export function fields(...list: readonly (readonly [1 | 2 | 4 | 8, number | bigint])[]): Buffer {
  const body = Buffer.alloc(list.reduce((sum, [bytes]) => sum + bytes, 0));
  const view = viewOf(body);
  let at = 0;
  for (const [bytes, value] of list) {
    if (bytes === 8) view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true);
    else if (bytes === 4) view.setUint32(at, Number(value), true);
    else if (bytes === 2) view.setUint16(at, Number(value), true);
    else view.setUint8(at, Number(value));
    at += bytes;
  }
  return body;
}

export const readBody = (fh: bigint, offset: bigint, size: number): Buffer =>
  fields([8, fh], [8, offset], [4, size], [4, 0], [8, 0], [4, 0], [4, 0]);

export const writeBody = (
  fh: bigint,
  offset: bigint,
  data: Buffer,
  { writeFlags = 0, flags = 0 } = {},
): Buffer =>
  Buffer.concat([
    fields([8, fh], [8, offset], [4, data.length], [4, writeFlags], [8, 0], [4, flags], [4, 0]),
    data,
  ]);

/** Lets time pass by, in milliseconds, in which one timer may start the next. */
export function pass(t: TestContext, milliseconds: number): void {
  const step = 100;
  for (let past = 0; past < milliseconds; past += step) t.mock.timers.tick(step);
}
