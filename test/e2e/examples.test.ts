/** Each of examples/, run as its first comment says. */

import assert from 'node:assert/strict';
import { open, readFile, readdir, stat, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { fileURLToPath } from 'node:url';
import { connect } from '../../src/index.js';
import { Workplace, until } from '../support/mounts.js';
import type { Running } from '../support/mounts.js';
import { startNbdkit } from '../support/real-servers.js';
import { requires } from '../support/requires.js';

/** Where they are compiled to. */
const EXAMPLES = fileURLToPath(new URL('../../examples', import.meta.url));
const MIB = 1024 * 1024;

let place: Workplace;
beforeEach(async () => {
  place = await Workplace.create();
});
afterEach(() => place.finish());

const tested = new Set<string>();
const example = (name: string, ...args: string[]): Running => {
  tested.add(name);
  return place.start(process.execPath, [join(EXAMPLES, `${name}.js`), ...args]);
};

async function line(running: Running): Promise<string> {
  await until('it says something', () => running.stdout.endsWith('\n') || running.hasEnded);
  assert.equal(running.stderr, '');
  return running.stdout.trimEnd();
}

async function ends(running: Running, signal: NodeJS.Signals): Promise<void> {
  process.kill(running.pid, signal);
  const { status, stderr } = await running.ended;
  assert.deepEqual({ status, stderr }, { status: 0, stderr: '' });
}

describe('an example', () => {
  it('boot-sector', requires({ programs: ['nbdkit'] }), async () => {
    const server = await startNbdkit(['data', '0xeb 0x3c 0x90 "MSDOS5.0" @510 0x55 0xaa']);
    try {
      const { status, stdout } = await example(
        'boot-sector',
        `nbd+unix:///?socket=${server.socketPath}`,
      ).ended;
      assert.equal(status, 0);
      const lines = stdout.trimEnd().split('\n');
      assert.equal(lines.length, 32);
      assert.equal(
        lines[0],
        '00000000  eb 3c 90 4d 53 44 4f 53 35 2e 30 00 00 00 00 00  |.<.MSDOS5.0.....|',
      );
      assert.match(lines[31] ?? '', /^000001f0 .* 55 aa {2}\|/);
    } finally {
      await server.stop();
    }
  });

  it('copy-range', requires({ programs: ['nbdkit'] }), async () => {
    const server = await startNbdkit(['data', '@1000000 "begin" @3000000 "end"', 'size=16M']);
    try {
      const uri = `nbd+unix:///?socket=${server.socketPath}`;
      const part = place.join('part.img');
      const { status, stderr } = await example('copy-range', uri, '999999', '10000000', part).ended;
      assert.equal(stderr, '');
      assert.equal(status, 0);
      const expected = Buffer.alloc(10_000_000);
      expected.write('begin', 1);
      expected.write('end', 2_000_001);
      assert.ok((await readFile(part)).equals(expected));
      assert.ok((await stat(part)).blocks * 512 < MIB, 'it is sparse');
    } finally {
      await server.stop();
    }
  });

  it('custom-disk', requires({ fuse: true, root: true }), async () => {
    const at = await place.file('disk.raw');
    const running = example('custom-disk', at);
    assert.equal(await line(running), `mounted: ${at}`);
    const file = await open(at);
    try {
      const sector = 123_456_789;
      const { buffer } = await file.read(Buffer.alloc(512), 0, 512, sector * 512);
      assert.equal(buffer.readBigUInt64LE(), BigInt(sector));
      assert.equal((await file.stat()).size, 2 ** 40);
    } finally {
      await file.close();
    }
    await ends(running, 'SIGINT');
  });

  it('pieces', requires({ fuse: true, root: true }), async () => {
    const content = Buffer.from(Array.from({ length: 300_000 }, (_, i) => (i * 7) % 251));
    const cuts = [0, 5, 100_000, 100_000, content.length];
    const names = await Promise.all(
      cuts.slice(1).map(async (end, i) => {
        const name = place.join(`piece${i}`);
        await writeFile(name, content.subarray(cuts[i], end));
        return name;
      }),
    );
    const at = await place.file('whole.img');
    const running = example('pieces', at, ...names);
    assert.equal(await line(running), `mounted: ${at}`);
    assert.ok((await readFile(at)).equals(content));
    await assert.rejects(writeFile(at, 'x'), { code: 'EROFS' });
    await ends(running, 'SIGTERM');
  });

  it('serve-memory', async () => {
    const running = example('serve-memory');
    const uri = await line(running);
    {
      await using client = await connect(uri);
      assert.equal(client.size, BigInt(64 * MIB));
      await client.pwrite(Buffer.from('hello'), 12345);
      assert.equal((await client.pread(5, 12345n)).toString(), 'hello');
      await client.zero(2, 12346);
      assert.equal((await client.pread(5, 12345n)).toString('latin1'), 'h\0\0lo');
    }
    await ends(running, 'SIGTERM');
  });

  it('says what it wants where nothing is given', async () => {
    for (const name of ['boot-sector', 'copy-range', 'custom-disk', 'pieces']) {
      const { status, stderr } = await example(name).ended;
      assert.equal(status, 1);
      assert.match(stderr, /Error: give /);
    }
  });

  it('is tested here, each of them', async () => {
    const files = (await readdir(EXAMPLES)).filter((name) => name.endsWith('.js'));
    assert.deepEqual([...tested].toSorted(), files.map((name) => name.slice(0, -3)).toSorted());
  });
});
