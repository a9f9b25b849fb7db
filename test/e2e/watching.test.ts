/** --stats, SIGUSR1 and --metrics. */

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdir, symlink } from 'node:fs/promises';
import { request } from 'node:http';
import type { IncomingMessage } from 'node:http';
import { connect, createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { once } from 'node:events';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { TSNBDFUSE, Workplace, until } from '../support/mounts.js';
import type { Mounted } from '../support/mounts.js';
import { requires } from '../support/requires.js';

const DISK = ['disk.raw', '[', 'tsnbdkit', 'memory', '16M', ']'];

/** What is on the screen in the end, of one that knows the little that we send. */
function screenOf(output: string): string[] {
  const lines = [''];
  let at = 0;
  // eslint-disable-next-line no-control-regex -- it is what a terminal gets
  for (const [piece] of output.matchAll(/\u001b\[K|[^]/g)) {
    const line = lines.pop() ?? '';
    if (piece === '\n') lines.push(line, '');
    else if (piece === '\u001b[K') lines.push(line.slice(0, at));
    else if (piece === '\r') lines.push(line);
    else lines.push(line.slice(0, at).padEnd(at) + piece + line.slice(at + 1));
    at = piece === '\r' || piece === '\n' ? 0 : piece.length > 1 ? at : at + 1;
  }
  return lines;
}

describe(
  'a mount that is watched',
  requires({ root: true, fuse: true, programs: ['script', 'dd', 'fusermount3'] }),
  () => {
    let place: Workplace;

    beforeEach(async () => {
      place = await Workplace.create();
      await place.file('disk.raw');
    });
    afterEach(() => place.finish());

    async function use(): Promise<void> {
      const how = ['bs=4K', 'count=32', 'status=none'];
      await place.ok('dd', ['if=/dev/zero', 'of=disk.raw', 'conv=notrunc', 'oflag=direct', ...how]);
      await place.ok('dd', ['if=disk.raw', 'of=/dev/null', 'iflag=direct', ...how]);
    }

    async function ends(mounted: Mounted): Promise<string> {
      const { status, stderr } = await mounted.unmount('disk.raw');
      assert.equal(status, 0, stderr);
      return stderr;
    }

    it('says a summary for each SIGUSR1, and none unasked', async () => {
      const mounted = await place.mount(DISK);
      await use();
      mounted.signal('SIGUSR1');
      await until('it is said', () => mounted.running.stderr.includes('zeroed'));
      const stderr = await ends(mounted);
      const lines = stderr.trimEnd().split('\n');
      assert.equal(lines.length, 7, stderr);
      for (const line of lines) assert.match(line, /^tsnbdfuse: /);
      assert.match(lines[0] ?? '', /disk\.raw \(tsnbdkit\): healthy, 4 connections, 0 reconnects/);
      assert.match(lines[2] ?? '', /: read +32 +128 KiB +[\d.]+ [mµ]?s/);
      assert.match(lines[3] ?? '', /: written +32 +128 KiB +/);
    });

    it('does not end by a SIGUSR1 that comes before the mount, nor is it opened to a debugger', async () => {
      // The server is started when all that we have to do before is done.
      const slow = ['sh', '-c', ': >started; sleep 1; exec tsnbdkit memory 1M'];
      const running = place.start(TSNBDFUSE, ['-P', 'pid', 'disk.raw', '[', ...slow, ']']);
      await until('the server is started', () => existsSync(place.join('started')));
      process.kill(running.pid, 'SIGUSR1');
      await until('it is mounted', () => running.hasEnded || existsSync(place.join('pid')));
      await place.ok('fusermount3', ['-u', 'disk.raw']);
      const { status, stderr } = await running.ended;
      assert.deepEqual([status, stderr], [0, 'tsnbdfuse: the disk is not mounted yet\n']);
    });

    it('with --stats and no terminal says a summary at the end, and nothing before', async () => {
      const mounted = await place.mount(['--stats', ...DISK]);
      await use();
      assert.equal(mounted.running.stderr, '');
      const stderr = await ends(mounted);
      assert.match(
        stderr,
        /^tsnbdfuse: disk\.raw \(tsnbdkit\): unmounted, 0 reconnects, 0 B unflushed/,
      );
      assert.match(stderr, /^tsnbdfuse: written +32 +128 KiB/m);
      assert.equal(stderr.trimEnd().split('\n').length, 7);
    });

    it('with --stats draws a line on a terminal, which leaves whole messages and nothing else', async () => {
      const command = `exec ${TSNBDFUSE} --stats -P pid ${DISK.join(' ')}`;
      const running = place.start('script', ['-qefc', command, '/dev/null']);
      await until('it is mounted', () => running.hasEnded || existsSync(place.join('pid')));
      const pid = Number(await place.ok('cat', ['pid']));
      await until('a line is drawn', () => running.stdout.includes('in flight'));
      await use();
      await until('it is counted', () => /read [\d.]+ kB\/s \d+ IOPS/.test(running.stdout));
      process.kill(pid, 'SIGUSR1');
      await until('a summary is there', () => running.stdout.includes('zeroed'));
      const said = running.stdout.length;
      await until('it is drawn again', () => running.stdout.slice(said).includes('in flight'));
      await place.ok('fusermount3', ['-u', 'disk.raw']);
      const { status, stdout } = await running.ended;
      assert.equal(status, 0, stdout);

      // eslint-disable-next-line no-control-regex -- it is what a terminal gets
      const frames = [...stdout.matchAll(/\u001b\[K([^\r\n]*in flight[^\r\n]*)\r/g)];
      assert.ok(frames.length >= 2);
      for (const [, frame = ''] of frames) {
        assert.match(
          frame,
          /^(disk\.raw {2})?read .*IOPS {2}written .*IOPS {2}in flight \d+ .*healthy$/,
        );
        assert.ok(frame.length < 80, frame);
      }
      const screen = screenOf(stdout);
      assert.equal(screen.length, 15, screen.join('\n'));
      assert.equal(screen.at(-1), '');
      for (const line of screen.slice(0, -1)) assert.match(line, /^tsnbdfuse: /);
      assert.match(screen[0] ?? '', /: healthy, /);
      assert.match(screen[7] ?? '', /: unmounted, /);
    });

    interface Page {
      readonly status: number | undefined;
      readonly type: string | undefined;
      readonly text: string;
    }

    async function get(
      where: { readonly port: number } | { readonly socketPath: string },
      path = '/metrics',
      method = 'GET',
    ): Promise<Page> {
      const asked = request({ host: '127.0.0.1', ...where, path, method, agent: false });
      asked.end();
      const [response] = (await once(asked, 'response')) as [IncomingMessage];
      let text = '';
      response.setEncoding('utf8');
      for await (const piece of response) text += piece as string;
      return { status: response.statusCode, type: response.headers['content-type'], text };
    }

    /** The samples of a page in Prometheus' text format, checked. */
    function samplesOf(page: string): ReadonlyMap<string, number> {
      const samples = new Map<string, number>();
      const types = new Map<string, string>();
      for (const line of page.split('\n')) {
        const type = /^# TYPE (\w+) (counter|gauge|histogram|summary)$/.exec(line);
        if (type !== null) types.set(type[1] ?? '', type[2] ?? '');
        if (line === '' || line.startsWith('#')) continue;
        const sample = /^([a-z_]\w*)(\{(?:\w+="(?:[^"\\]|\\.)*",?)*\})? (\S+)$/i.exec(line);
        assert.ok(sample !== null, line);
        const [, name = '', labels = '', value] = sample;
        const family = name.replace(/_(bucket|sum|count)$/, '');
        assert.ok(types.has(name) || types.get(family) === 'histogram', line);
        // The library's own word for what is not known yet.
        assert.ok(value === 'Nan' || !Number.isNaN(Number(value)), line);
        samples.set(name + labels, Number(value));
      }
      return samples;
    }

    it('with --metrics tells Prometheus the same, on a port of this machine', async () => {
      const mounted = await place.mount(['--metrics', '0', ...DISK]);
      await until('the port is told', () => mounted.running.stderr.includes('metrics'));
      const port = Number(/http:\/\/127\.0\.0\.1:(\d+)\/metrics/.exec(mounted.running.stderr)?.[1]);
      await use();
      // Twice, as counters are filled anew each time.
      await get({ port });
      const { status, type, text } = await get({ port });
      assert.equal(status, 200);
      assert.match(type ?? '', /^text\/plain; version=0\.0\.4/);
      const samples = samplesOf(text);
      const duration = 'tsnbdfuse_operation_duration_seconds';
      const wanted: readonly (readonly [string, number])[] = [
        ['tsnbdfuse_read_bytes_total', 128 * 1024],
        ['tsnbdfuse_written_bytes_total', 128 * 1024],
        ['tsnbdfuse_trimmed_bytes_total', 0],
        ['tsnbdfuse_operations_total{operation="read"}', 32],
        ['tsnbdfuse_operation_errors_total{operation="write"}', 0],
        [`${duration}_count{operation="write"}`, 32],
        [`${duration}_bucket{le="+Inf",operation="read"}`, 32],
        [`${duration}_bucket{le="33.554432",operation="read"}`, 32],
        ['tsnbdfuse_connections', 4],
        ['tsnbdfuse_reconnects_total', 0],
        ['tsnbdfuse_requests_in_flight', 0],
        ['tsnbdfuse_disk_size_bytes', 16 * 1024 * 1024],
        ['tsnbdfuse_state{state="healthy"}', 1],
        ['tsnbdfuse_state{state="failed"}', 0],
      ];
      for (const [name, value] of wanted) assert.equal(samples.get(name), value, name);
      const sum = samples.get(`${duration}_sum{operation="read"}`) ?? 0;
      assert.ok(sum > 0 && sum < 60, String(sum));
      assert.ok((samples.get('process_resident_memory_bytes') ?? 0) > 1024 * 1024);
      assert.match(
        text,
        /^tsnbdfuse_info\{mountpoint="[^"]*disk\.raw",.*server="tsnbdkit".*\} 1$/m,
      );

      assert.equal((await get({ port }, '/')).status, 404);
      assert.equal((await get({ port }, '/metrics', 'POST')).status, 405);
      assert.deepEqual((await get({ port }, '/metrics', 'HEAD')).text, '');
      await ends(mounted);
      await assert.rejects(get({ port }), /ECONNREFUSED/);
    });

    it('with --metrics has a place for who asks, whoever connects and says nothing', async () => {
      const mounted = await place.mount(['--metrics', './m', ...DISK]);
      const socketPath = place.join('m');
      const silent = Array.from({ length: 40 }, () =>
        connect(socketPath).on('error', () => undefined),
      );
      const answer = async (): Promise<boolean> => {
        const page = await get({ socketPath }).catch(() => undefined);
        return page?.status === 200;
      };
      await Promise.all(silent.map((socket) => once(socket, 'connect')));
      assert.equal(await answer(), false);
      // Who is silent has 10 s.
      await until('it is answered', answer, 20_000);
      for (const socket of silent) socket.destroy();
      await ends(mounted);
    });

    it('with --metrics at a socket serves there, in the place of one that was left, and removes it', async () => {
      const killed = await place.mount(['--metrics', './m', ...DISK]);
      await killed.kill();
      assert.ok(existsSync(place.join('m')));
      const mounted = await place.mount(['--metrics', './m', ...DISK]);
      const socketPath = place.join('m');
      assert.equal(samplesOf((await get({ socketPath })).text).get('tsnbdfuse_connections'), 4);

      // The address of one that lives is not taken away.
      await place.file('other.raw');
      const other = ['other.raw', '[', 'tsnbdkit', 'memory', '1M', ']'];
      const second = await place.tsnbdfuse(['--metrics', './m', ...other]);
      assert.equal(second.status, 1);
      assert.equal(
        second.stderr,
        'tsnbdfuse: cannot serve metrics at ./m: somebody else serves there; take another address\n',
      );
      assert.equal((await get({ socketPath })).status, 200);
      await ends(mounted);
      assert.ok(!existsSync(socketPath));
    });

    it('with --metrics where that cannot be is refused before anything is started', async () => {
      const taken = createServer().listen(0, '127.0.0.1');
      await once(taken, 'listening');
      const { port } = taken.address() as AddressInfo;
      await place.file('file', 'mine');
      await mkdir(place.join('dir/folder'), { recursive: true });
      await symlink('dir', place.join('link'));
      await symlink('dir/folder', place.join('folder'));
      await symlink('.', place.join('here'));
      const table: readonly (readonly [string, RegExp, string?])[] = [
        [String(port), /^cannot serve metrics at 127\.0\.0\.1:\d+: somebody else serves there/],
        [
          '192.0.2.1:9110',
          /^cannot serve metrics at 192\.0\.2\.1:9110: that address is none of this/,
        ],
        ['./file', /^cannot serve metrics at \.\/file: it exists and is no socket/],
        ['./missing/m', /^cannot serve metrics at \.\/missing\/m: /],
        [`./${'m'.repeat(100)}`, /^cannot serve metrics at \.\/m+: a socket path has at most 107/],
        ['./disk.raw', /^cannot serve metrics at \.\/disk\.raw: the mount would hide it/],
        ['here/disk.raw', /^cannot serve metrics at here\/disk\.raw: the mount would hide it/],
        ['dir/m', /^cannot serve metrics at dir\/m: the mount would hide it/, 'dir'],
        ['link/m', /^cannot serve metrics at link\/m: the mount would hide it/, 'dir'],
        ['folder/m', /^cannot serve metrics at folder\/m: the mount would hide it/, 'link'],
      ];
      try {
        for (const [address, problem, mountpoint = 'disk.raw'] of table) {
          const server = ['sh', '-c', ': >started; exec tsnbdkit memory 1M'];
          const args = ['--metrics', address, mountpoint, '[', ...server, ']'];
          const { status, stderr } = await place.tsnbdfuse(args);
          assert.equal(status, 1, address);
          assert.match(stderr.replace(/^tsnbdfuse: /, ''), problem);
          assert.equal(stderr.split('\n').length, 2, stderr);
          assert.ok(!existsSync(place.join('started')));
        }
        assert.equal(await place.ok('cat', ['file']), 'mine');
      } finally {
        taken.close();
      }
    });
  },
);
