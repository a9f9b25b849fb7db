import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { errno } from '../../src/errno.js';
import { readPartitions } from '../../src/partitions/read.js';
import type { PartitionTable } from '../../src/partitions/table.js';
import {
  diskOf,
  LINUX_DATA,
  putGpt,
  putRecord,
  signGptHeader,
} from '../support/partition-tables.js';
import type { GptOptions } from '../support/partition-tables.js';

const SIZE = 4 * 1024 * 1024;
const LIMITS = { minimum: 1, preferred: 4096, maximum: 1024 * 1024 };
const ENTRIES = [
  { number: 1, first: 100, last: 199, name: 'start' },
  { number: 7, first: 300, last: 300, name: 'one sector' },
];

function gpt(options: Partial<GptOptions> = {}, size = SIZE): Buffer {
  const content = Buffer.alloc(size);
  putGpt(content, { entries: ENTRIES, ...options });
  return content;
}

function numbers(table: PartitionTable): number[] {
  return table.partitions.map((partition) => partition.number);
}

/** The first header, to be changed. */
function headerOf(content: Buffer): Buffer {
  return content.subarray(512, 512 + 92);
}

describe('a GPT', () => {
  for (const sectorSize of [512, 4096]) {
    it(`with sectors of ${sectorSize} bytes`, async () => {
      const disk = diskOf(gpt({ sectorSize }));
      const table = await readPartitions(disk);
      const bytes = BigInt(sectorSize);
      assert.deepEqual(table, {
        scheme: 'gpt',
        sectorSize,
        partitions: [
          { number: 1, offset: 100n * bytes, size: 100n * bytes, type: LINUX_DATA, name: 'start' },
          { number: 7, offset: 300n * bytes, size: bytes, type: LINUX_DATA, name: 'one sector' },
        ],
        extended: [],
        problems: [],
        watched:
          sectorSize === 512
            ? [{ offset: 0n, length: 1024n + 16384n }]
            : [
                // Nothing is at 1024: no header was at 512.
                { offset: 0n, length: 1024n },
                { offset: 4096n, length: 4096n + 16384n },
              ],
        complete: true,
      });
    });

    it(`whose start is damaged, from the end, with sectors of ${sectorSize} bytes`, async () => {
      for (const damaged of [sectorSize, 2 * sectorSize]) {
        const content = gpt({ sectorSize });
        content.writeUInt8(0xff ^ content.readUInt8(damaged + 60), damaged + 60);
        const table = await readPartitions(diskOf(content));
        assert.equal(table.scheme, 'gpt');
        assert.equal(table.sectorSize, sectorSize);
        assert.deepEqual(numbers(table), [1, 7]);
        assert.match(table.problems[0] ?? '', /at the start.*checksum.*its copy at the end/);
        // Also the array that may be written right next, and the copy.
        const last = table.watched.at(-1);
        assert.equal((last?.offset ?? 0n) + (last?.length ?? 0n), BigInt(SIZE));
        assert.ok(
          table.watched.some(({ offset, length }) => {
            const at = BigInt(damaged + 60);
            return offset <= at && at < offset + length;
          }),
        );
      }
    });
  }

  it('with entries of more than 128 bytes, and of other counts', async () => {
    const table = await readPartitions(diskOf(gpt({ entrySize: 256, entryCount: 9 })));
    assert.deepEqual(numbers(table), [1, 7]);
    assert.equal(table.partitions[1]?.name, 'one sector');
  });

  it('on a disk whose size is no whole number of sectors, or that was made longer', async () => {
    const content = Buffer.alloc(SIZE + 4000);
    gpt().copy(content);
    const table = await readPartitions(diskOf(content));
    assert.deepEqual(numbers(table), [1, 7]);
    const odd = Buffer.alloc(SIZE + 300);
    putGpt(odd, { entries: ENTRIES });
    odd.fill(0, 512, 1024);
    assert.deepEqual(numbers(await readPartitions(diskOf(odd))), [1, 7]);
  });

  it('is read past what the server asks of requests', async () => {
    for (const minimum of [512, 4096, 65536]) {
      const limits = { minimum, preferred: 65536, maximum: 65536 };
      const table = await readPartitions(diskOf(gpt({ entryCount: 1024 }), { limits }));
      assert.deepEqual(numbers(table), [1, 7]);
    }
  });

  it('wins over the other entries of a hybrid', async () => {
    const content = gpt();
    putRecord(content, 0, [{ index: 1, type: 0x83, start: 100, count: 100 }]);
    const table = await readPartitions(diskOf(content));
    assert.equal(table.scheme, 'gpt');
    assert.deepEqual(numbers(table), [1, 7]);
  });

  it('does not count without its protective record', async () => {
    const content = gpt();
    content.fill(0, 446, 446 + 16);
    putRecord(content, 0, [{ index: 0, type: 0x83, start: 500, count: 100 }]);
    const table = await readPartitions(diskOf(content));
    assert.equal(table.scheme, 'mbr');
    assert.deepEqual(numbers(table), [1]);
    content.fill(0, 0, 512);
    assert.equal((await readPartitions(diskOf(content))).scheme, 'none');
  });

  it('leaves out what is not wholly on the disk', async () => {
    const last = SIZE / 512 - 1;
    const entries = [
      { number: 1, first: last, last },
      { number: 2, first: last, last: last + 1 },
      { number: 3, first: last + 1, last: last + 1 },
      { number: 4, first: 101, last: 100 },
      { number: 5, first: 50, last: Number.MAX_SAFE_INTEGER },
    ];
    const table = await readPartitions(diskOf(gpt({ entries })));
    assert.deepEqual(numbers(table), [1]);
    assert.deepEqual(table.problems, ['partitions 2-5: not wholly on the disk, left out']);
  });

  it('has names that are safe for a terminal', async () => {
    const entries = [{ number: 1, first: 100, last: 199, name: '\u001b[31mred\nline\u202e' }];
    const table = await readPartitions(diskOf(gpt({ entries })));
    assert.equal(table.partitions[0]?.name, '[31mred line');
  });

  const lies: readonly [string, (header: Buffer) => void, RegExp][] = [
    ['a header longer than its sector', (header) => header.writeUInt32LE(513, 12), /513 bytes/],
    ['a header that is too short', (header) => header.writeUInt32LE(91, 12), /91 bytes/],
    ['another place', (header) => header.writeBigUInt64LE(2n, 24), /another place/],
    ['a larger disk', (header) => header.writeBigUInt64LE(BigInt(SIZE / 512), 48), /larger disk/],
    ['no room', (header) => header.writeBigUInt64LE(9n, 48), /no room/],
    ['entries of 0 bytes', (header) => header.writeUInt32LE(0, 84), /have 0 bytes/],
    ['entries of 129 bytes', (header) => header.writeUInt32LE(129, 84), /have 129 bytes/],
    ['no entries', (header) => header.writeUInt32LE(0, 80), /0 entries/],
    ['endless entries', (header) => header.writeUInt32LE(0xffffffff, 80), /4294967295 entries/],
    ['huge entries', (header) => header.writeUInt32LE(0x80000000, 84), /2147483648 bytes/],
    [
      'entries elsewhere',
      (header) => header.writeBigUInt64LE(2n ** 64n - 1n, 72),
      /not on the disk/,
    ],
    ['another array', (header) => header.writeUInt32LE(1, 88), /checksum of its entries/],
  ];
  for (const [what, change, why] of lies) {
    it(`that claims ${what} is not used`, async () => {
      const content = gpt();
      change(headerOf(content));
      signGptHeader(headerOf(content));
      const fromCopy = await readPartitions(diskOf(content));
      assert.deepEqual(numbers(fromCopy), [1, 7]);
      assert.match(fromCopy.problems[0] ?? '', why);
      content.fill(0, SIZE - 512);
      const disk = diskOf(content);
      const table = await readPartitions(disk);
      assert.equal(table.scheme, 'none');
      assert.match(table.problems[0] ?? '', why);
      assert.match(table.problems[0] ?? '', /at the end there is none$/);
      assert.ok(disk.log.length <= 6, disk.log.join('; '));
    });
  }

  it('is read from its copy where the first one cannot be read', async () => {
    const disk = diskOf(gpt({ entryCount: 8 }));
    const read = disk.read.bind(disk);
    disk.read = (offset, length, reply) => {
      if (offset === 512n) reply.fail(errno.EIO);
      else read(offset, length, reply);
    };
    const table = await readPartitions(disk, { sectorSize: 512 });
    assert.match(table.problems[0] ?? '', /cannot be read/);
    assert.equal(table.scheme, 'gpt');
    assert.ok(table.complete);
    disk.read = (offset, length, reply) => {
      if (offset > 0n) reply.fail(errno.EIO);
      else read(offset, length, reply);
    };
    const neither = await readPartitions(disk, { sectorSize: 512 });
    assert.deepEqual([neither.scheme, neither.complete], ['none', false]);
  });

  it('is looked for with the sector size that is known, and no other', async () => {
    const content = gpt({ sectorSize: 4096 });
    assert.equal((await readPartitions(diskOf(content), { sectorSize: 512 })).scheme, 'none');
    assert.equal((await readPartitions(diskOf(content), { sectorSize: 4096 })).scheme, 'gpt');
  });

  it('of 4096 is found at once where the server takes no less', async () => {
    const limits = { ...LIMITS, minimum: 4096 };
    const disk = diskOf(gpt({ sectorSize: 4096 }), { limits });
    assert.equal((await readPartitions(disk)).scheme, 'gpt');
    assert.deepEqual(disk.log, ['read 0+4096', 'read 4096+4096', 'read 8192+16384']);
  });
});
