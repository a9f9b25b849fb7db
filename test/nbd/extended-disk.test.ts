/**
 * A disk over extended headers, from connecting to closing: random requests on a server that cuts and
 * mixes its replies, compared with a model.
 */

import assert from 'node:assert/strict';
import { afterEach, describe, it } from 'node:test';
import {
  diskExtents,
  flushDisk,
  readDisk,
  trimDisk,
  writeDisk,
  zeroDisk,
} from '../../src/disk/promises.js';
import { Command } from '../../src/nbd/constants.js';
import { connectDisk } from '../../src/nbd/nbd-disk.js';
import type { NbdDisk } from '../../src/nbd/nbd-disk.js';
import { FakeServer } from '../support/fake-server.js';
import { seeded } from '../support/memory-disk.js';
import { until } from '../support/mounts.js';

const TIMED = { timeout: 60_000 };
const GIB = 1n << 30n;
const TIB = 1n << 40n;
const SIZE = 4n * TIB;

let server: FakeServer | undefined;
let disk: NbdDisk | undefined;
afterEach(async () => {
  disk?.abort();
  await server?.stop();
  disk = server = undefined;
});

async function connected(
  extendedHeaders: boolean,
  random?: () => number,
  connections = 1,
): Promise<{ disk: NbdDisk; server: FakeServer }> {
  server = await FakeServer.start({ size: SIZE, extendedHeaders, ...(random && { random }) });
  const address = { kind: 'unix', path: server.socketPath } as const;
  disk = await connectDisk({ address, exportName: '' }, { deadline: TIMED.timeout, connections });
  return { disk, server };
}

describe('a disk with extended headers', TIMED, () => {
  it('zeroes 6 GiB with one request', async () => {
    const { disk, server } = await connected(true);
    await writeDisk(disk, 5n * GIB, Buffer.alloc(8192, 'x'));
    await zeroDisk(disk, 4096n, 6n * GIB);
    assert.deepEqual(
      server.ofType(Command.WRITE_ZEROES).map(({ offset, length }) => [offset, length]),
      [[4096n, 6n * GIB]],
    );
    assert.deepEqual(await readDisk(disk, 5n * GIB, 8192), Buffer.alloc(8192));
    await disk.close();
  });

  it('is told of a TiB by one extent', async () => {
    const { disk, server } = await connected(true);
    const hole = { hole: true, zero: true };
    assert.deepEqual(await diskExtents(disk, 0n, TIB), [{ length: TIB, ...hole }]);
    await writeDisk(disk, TIB, Buffer.alloc(4096, 'x'));
    assert.deepEqual(await diskExtents(disk, 4096n, SIZE - 4096n), [
      { length: TIB - 4096n, ...hole },
      { length: 4096n, hole: false, zero: false },
      { length: SIZE - TIB - 4096n, ...hole },
    ]);
    assert.equal(server.ofType(Command.BLOCK_STATUS).length, 2);
    await disk.close();
  });

  it('does without on a server that has none', async () => {
    const { disk, server } = await connected(false);
    await writeDisk(disk, 5n * GIB, Buffer.alloc(4096, 'x'));
    await zeroDisk(disk, 0n, 6n * GIB);
    assert.equal(server.ofType(Command.WRITE_ZEROES).length, 2);
    const [extent] = await diskExtents(disk, 0n, TIB);
    assert.equal(extent?.length, 0xffff0000n);
    assert.deepEqual(await readDisk(disk, 5n * GIB, 4096), Buffer.alloc(4096));
    await disk.close();
  });

  const LANES = 8;
  const LANE_BYTES = 64 * 1024;
  const STEPS = 60;

  for (const [extendedHeaders, connections] of [
    [true, 1],
    [true, 4],
    [false, 2],
  ] as const) {
    const how = extendedHeaders ? 'with' : 'without';
    it(`is what a model is, ${how} them, over ${connections} connections`, async () => {
      const random = seeded(connections + (extendedHeaders ? 10 : 0));
      const { disk, server } = await connected(extendedHeaders, random, connections);
      assert.equal(disk.connections, connections);
      const pick = (below: number): number => Math.floor(random() * below);
      // Each lane is a stretch of its own, behind what 32 bits can say and across pages.
      const base = (lane: number): bigint => 3n * GIB * BigInt(lane + 1) - 1234n;
      const models = Array.from({ length: LANES }, () => Buffer.alloc(LANE_BYTES));

      const step = async (lane: number, model: Buffer): Promise<void> => {
        const at = pick(LANE_BYTES);
        const length = 1 + pick(Math.min(LANE_BYTES - at, [10, 5000, LANE_BYTES][pick(3)] ?? 1));
        const offset = base(lane) + BigInt(at);
        const kind = random();
        if (kind < 0.4) {
          const content = Buffer.from(Array.from({ length }, () => pick(256)));
          await writeDisk(disk, offset, content, { fua: random() < 0.2 });
          content.copy(model, at);
        } else if (kind < 0.8) {
          const is = await readDisk(disk, offset, length);
          assert.ok(is.equals(model.subarray(at, at + length)), `lane ${lane}, ${length} at ${at}`);
        } else if (kind < 0.85) {
          await flushDisk(disk);
        } else if (kind < 0.95) {
          const noHole = random() < 0.5;
          await zeroDisk(disk, offset, BigInt(length), { fua: false, noHole });
          model.fill(0, at, at + length);
        } else {
          const extents = await diskExtents(disk, offset, BigInt(length));
          let from = at;
          for (const { length: count, zero } of extents) {
            const to = Math.min(from + Number(count), LANE_BYTES);
            if (zero) assert.ok(model.subarray(from, to).every((byte) => byte === 0));
            from = to;
          }
        }
      };
      for (let round = 0; round < 3; round++) {
        await Promise.all(
          models.map(async (model, lane) => {
            for (let i = 0; i < STEPS; i++) await step(lane, model);
          }),
        );
        // Over some lanes at once, and from the middle of one to the middle of another.
        const [first, last] = [1 + round, 4 + round];
        const middle = BigInt(LANE_BYTES / 2);
        const start = base(first) + middle;
        const length = base(last) + middle - start;
        if (round === 1) await trimDisk(disk, start, length);
        else await zeroDisk(disk, start, length);
        models[first]?.fill(0, LANE_BYTES / 2);
        for (let lane = first + 1; lane < last; lane++) models[lane]?.fill(0);
        models[last]?.fill(0, 0, LANE_BYTES / 2);
        for (const [lane, model] of models.entries()) {
          assert.ok((await readDisk(disk, base(lane), LANE_BYTES)).equals(model), `lane ${lane}`);
        }
      }
      assert.equal(
        server.asked.some(({ length }) => length > 0xffffffffn),
        extendedHeaders,
      );
      await disk.close();
      const farewells = (): number => server.ofType(Command.DISC).length;
      await until('all connections are told goodbye', () => farewells() === connections);
    });
  }
});
