/** Connections with simple replies beside those with structured ones, and what goes over which. */

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
import { Command, CommandFlag, TransmissionFlag } from '../../src/nbd/constants.js';
import { connectDisk } from '../../src/nbd/nbd-disk.js';
import type { NbdDisk } from '../../src/nbd/nbd-disk.js';
import { FakeServer } from '../support/fake-server.js';
import type { FakeServerOptions } from '../support/fake-server.js';
import { until } from '../support/mounts.js';

const TIMED = { timeout: 60_000 };
const KIB = 1024;
const GIB = 1n << 30n;
const SMALL = 32 * KIB;
/** Flush, FUA, trim, write zeroes. */
const PLAIN = 0x6d;
const MULTI_CONN = PLAIN | TransmissionFlag.CAN_MULTI_CONN;
const WITH_DF = MULTI_CONN | TransmissionFlag.SEND_DF;

let server: FakeServer | undefined;
let disk: NbdDisk | undefined;
afterEach(async () => {
  disk?.abort();
  await server?.stop();
  disk = server = undefined;
});

async function connected(
  connections: number,
  options: Partial<FakeServerOptions> = {},
  wanted = connections,
): Promise<{ disk: NbdDisk; server: FakeServer }> {
  server = await FakeServer.start({
    size: 64n * GIB,
    extendedHeaders: false,
    flags: WITH_DF,
    ...options,
  });
  const address = { kind: 'unix', path: server.socketPath } as const;
  const how = { deadline: TIMED.timeout, connections: wanted };
  const made = (disk = await connectDisk({ address, exportName: '' }, how));
  // Those that take their time join in later.
  await until('all have joined', () => made.connections === connections);
  return { disk, server };
}

/** How many requests of a type went over connections of each form. */
function over(from: FakeServer, type: number): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const one of from.ofType(type)) counts[one.over] = (counts[one.over] ?? 0) + 1;
  return counts;
}

describe('the connections of a disk', TIMED, () => {
  it('are of both kinds by turns, the first one with structured replies', async () => {
    for (const [connections, simple] of [
      [1, 0],
      [2, 1],
      [3, 1],
      [4, 2],
      [7, 3],
    ] as const) {
      for (const extendedHeaders of [false, true]) {
        const { disk, server } = await connected(connections, { extendedHeaders });
        const form = extendedHeaders ? 'extended' : 'structured';
        assert.equal(server.forms.length, connections);
        assert.equal(server.forms[0], form);
        assert.equal(server.forms.filter((one) => one === 'simple').length, simple);
        assert.equal(server.forms.filter((one) => one === form).length, connections - simple);
        await disk.close();
        await server.stop();
      }
    }
    server = undefined;
  });

  it('is one, with structured replies, where the server allows no more', async () => {
    const { server } = await connected(1, { flags: PLAIN }, 4);
    assert.deepEqual(server.forms, ['structured']);
  });

  it('may differ in what simple replies make different, and in nothing else', async () => {
    const joined = async (simpleFlags: number): Promise<number> => {
      const { disk, server } = await connected(4, { flags: WITH_DF, simpleFlags });
      await disk.close();
      await server.stop();
      return server.forms.length;
    };
    assert.equal(await joined(MULTI_CONN), 4);
    // It may not offer that, but it does no harm.
    assert.equal(await joined(WITH_DF), 4);
    server = undefined;
    for (const bit of [TransmissionFlag.READ_ONLY, TransmissionFlag.SEND_FLUSH]) {
      const { disk, server } = await connected(2, { simpleFlags: MULTI_CONN ^ bit }, 4);
      assert.equal(server.forms.filter((form) => form === 'structured').length, 2);
      await until('the others have been there', () => server.forms.length === 4);
      assert.equal(disk.connections, 2);
      disk.abort();
      await server.stop();
    }
    server = undefined;
  });
});

describe('a read', TIMED, () => {
  it('goes over simple replies if it is small, and over structured ones if not', async () => {
    for (const extendedHeaders of [false, true]) {
      const { disk, server } = await connected(4, { extendedHeaders });
      const content = Buffer.from(Array.from({ length: 2 * SMALL }, (_, i) => i % 251));
      await writeDisk(disk, 7n, content);
      for (const length of [1, 4096, SMALL, SMALL + 1, 2 * SMALL]) {
        assert.ok((await readDisk(disk, 7n, length)).equals(content.subarray(0, length)));
      }
      const reads = server.ofType(Command.READ);
      const form = extendedHeaders ? 'extended' : 'structured';
      assert.deepEqual(
        reads.map((one) => one.over),
        ['simple', 'simple', 'simple', form, form],
      );
      assert.ok(reads.every(({ flags }) => flags === 0));
      await disk.close();
      await server.stop();
    }
    server = undefined;
  });

  it('is helped out with by the others where those of its kind are full', async () => {
    const { disk, server } = await connected(4);
    const reads = (count: number, length: number): Promise<unknown> =>
      Promise.all(Array.from({ length: count }, () => readDisk(disk, 0n, length)));
    await reads(16, 512);
    assert.deepEqual(over(server, Command.READ), { simple: 16 });
    server.asked.length = 0;
    await reads(32, 512);
    assert.deepEqual(over(server, Command.READ), { simple: 16, structured: 16 });
    server.asked.length = 0;
    await reads(24, 64 * KIB);
    assert.deepEqual(over(server, Command.READ), { structured: 16, simple: 8 });
  });

  it('asks for one piece if it is small, where the server can be asked', async () => {
    for (const [flags, extendedHeaders] of [
      [PLAIN, false],
      [PLAIN | TransmissionFlag.SEND_DF, false],
      [PLAIN | TransmissionFlag.SEND_DF, true],
    ] as const) {
      const { disk, server } = await connected(1, { flags, extendedHeaders, random: () => 0.9 });
      await writeDisk(disk, 4096n, Buffer.alloc(512, 'x'));
      const expected = Buffer.concat([
        Buffer.alloc(4096),
        Buffer.alloc(512, 'x'),
        Buffer.alloc(65024),
      ]);
      for (const length of [8192, SMALL, SMALL + 1, 65536]) {
        assert.ok((await readDisk(disk, 0n, length)).equals(expected.subarray(0, length)));
      }
      await flushDisk(disk);
      const small = flags === PLAIN ? 0 : CommandFlag.DF;
      assert.deepEqual(
        server.asked.map((one) => one.flags & CommandFlag.DF),
        [0, small, small, 0, 0, 0],
      );
      await disk.close();
      await server.stop();
    }
    server = undefined;
  });

  it('fails with the error of a simple reply, and the connection goes on', async () => {
    const { disk, server } = await connected(2);
    server.refuses.set(Command.READ, 28);
    await assert.rejects(readDisk(disk, 0n, 512), /ENOSPC|No space|28/i);
    server.refuses.clear();
    assert.deepEqual(await readDisk(disk, 0n, 512), Buffer.alloc(512));
    assert.deepEqual(over(server, Command.READ), { simple: 2 });
  });
});

describe('what only structured replies or extended headers can say', TIMED, () => {
  it('is asked there, whatever else is under way', async () => {
    for (const extendedHeaders of [false, true]) {
      const { disk, server } = await connected(4, { extendedHeaders });
      const form = extendedHeaders ? 'extended' : 'structured';
      await Promise.all([
        ...Array.from({ length: 20 }, () => readDisk(disk, 0n, 512)),
        ...Array.from({ length: 20 }, (_, i) => diskExtents(disk, BigInt(i), GIB)),
        zeroDisk(disk, 0n, 6n * GIB),
        trimDisk(disk, 8n * GIB, 6n * GIB),
      ]);
      assert.deepEqual(over(server, Command.BLOCK_STATUS), { [form]: 20 });
      // Without extended headers they go in two parts that any connection can say.
      for (const type of [Command.WRITE_ZEROES, Command.TRIM]) {
        const asked = server.ofType(type);
        assert.equal(asked.length, extendedHeaders ? 1 : 2);
        if (extendedHeaders) assert.equal(asked[0]?.over, form);
      }
      await disk.close();
      await server.stop();
    }
    server = undefined;
  });

  it('makes no difference to shorter ranges, which go where small reads go', async () => {
    const { disk, server } = await connected(2, { extendedHeaders: true });
    await zeroDisk(disk, 0n, GIB);
    await trimDisk(disk, 0n, GIB);
    await writeDisk(disk, 0n, Buffer.alloc(512));
    await flushDisk(disk);
    assert.deepEqual(
      server.asked.map((one) => one.over),
      ['simple', 'simple', 'simple', 'simple'],
    );
  });
});
