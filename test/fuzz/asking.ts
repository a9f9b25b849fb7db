/** Requests to the disk of the client, each of which has to be answered once. */

import assert from 'node:assert/strict';
import { HEADROOM, NOT_DURABLE } from '../../src/disk/disk.js';
import type { Disk } from '../../src/disk/disk.js';
import type { Asked } from '../support/reply-client.js';

/** Asks a disk, and counts answers: more than one to a request is an error. */
export class Asking {
  readonly #disk: Disk;
  readonly #answers: string[] = [];
  /** What is asked when something is answered. */
  readonly #later: Asked[];
  asked = 0;
  answered = 0;

  constructor(disk: Disk, later: readonly Asked[]) {
    this.#disk = disk;
    this.#later = [...later];
  }

  /** In the order of the requests: `done`, `data`, `extents` or `error`. */
  get answers(): readonly string[] {
    return this.#answers;
  }

  ask({ type, offset = 0n, length = 0 }: Asked): void {
    const index = this.asked++;
    const answer = (what: string): void => {
      assert.equal(this.#answers[index], undefined, `request ${index} is answered once`);
      this.#answers[index] = what;
      this.answered++;
      const next = this.#later.shift();
      if (next !== undefined) this.ask(next);
    };
    const done = (code: number): void => answer(code === 0 ? 'done' : 'error');
    const fail = (code: number): void => {
      assert.ok(code > 0 && code < 4096, `errno ${code}`);
      answer('error');
    };
    const count = BigInt(length);
    switch (type) {
      case 'read':
        this.#disk.read(offset, length, {
          data: (bytes, start) => {
            assert.ok(start >= HEADROOM && start + length <= bytes.length, 'within the buffer');
            bytes.fill(0xee, start - HEADROOM, start + length);
            answer('data');
          },
          fail,
        });
        break;
      case 'write': {
        const bytes = Buffer.alloc(HEADROOM + length);
        this.#disk.write(offset, bytes, HEADROOM, length, NOT_DURABLE, { done });
        break;
      }
      case 'flush':
        this.#disk.flush({ done });
        break;
      case 'trim':
        this.#disk.trim(offset, count, NOT_DURABLE, { done });
        break;
      case 'zero':
        this.#disk.zero(offset, count, { ...NOT_DURABLE, noHole: true }, { done });
        break;
      case 'status':
        this.#disk.extents(offset, count, {
          extents: (extents) => {
            assert.ok(extents.length > 0 && extents.every((one) => one.length > 0n));
            answer('extents');
          },
          fail,
        });
    }
  }
}
