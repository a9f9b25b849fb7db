/** A disk that remembers when somebody breaks the contract: a server goes on when its disk throws. */

import assert from 'node:assert/strict';
import type {
  ExtentsReply,
  ReadReply,
  Reply,
  WriteOptions,
  ZeroOptions,
} from '../../src/disk/disk.js';
import { MemoryDisk, seeded } from '../support/memory-disk.js';

export class WatchedDisk extends MemoryDisk {
  readonly #faults: unknown[] = [];

  /** @param shuffle the seed of the order of its answers; 0 to answer at once */
  constructor(size: number, readOnly: boolean, shuffle: number) {
    super({ size, readOnly, shuffle: shuffle === 0 ? undefined : seeded(shuffle) });
  }

  /** @throws what was asked that may not be */
  check(): void {
    if (this.#faults.length > 0) throw this.#faults[0];
  }

  #watch(ask: () => void, writes = false): void {
    try {
      assert.ok(!writes || !this.info.readOnly, 'a change to a read-only disk');
      ask();
    } catch (error) {
      this.#faults.push(error);
      throw error;
    }
  }

  override read(offset: bigint, length: number, reply: ReadReply): void {
    this.#watch(() => super.read(offset, length, reply));
  }

  override write(
    offset: bigint,
    bytes: Buffer,
    start: number,
    length: number,
    options: WriteOptions,
    reply: Reply,
  ): void {
    this.#watch(() => super.write(offset, bytes, start, length, options, reply), true);
  }

  override flush(reply: Reply): void {
    this.#watch(() => super.flush(reply));
  }

  override trim(offset: bigint, length: bigint, options: WriteOptions, reply: Reply): void {
    this.#watch(() => super.trim(offset, length, options, reply), true);
  }

  override zero(offset: bigint, length: bigint, options: ZeroOptions, reply: Reply): void {
    this.#watch(() => super.zero(offset, length, options, reply), true);
  }

  override extents(offset: bigint, length: bigint, reply: ExtentsReply): void {
    this.#watch(() => super.extents(offset, length, reply));
  }
}
