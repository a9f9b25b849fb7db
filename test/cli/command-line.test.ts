import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { parseCommandLine } from '../../src/cli/command-line.js';
import type { MountCommand } from '../../src/cli/command-line.js';
import { UsageError } from '../../src/cli/errors.js';

/** Words as a shell would split them; there is no quoting here. */
function parse(line: string): ReturnType<typeof parseCommandLine> {
  return parseCommandLine(line === '' ? [] : line.split(' '));
}

function mount(line: string): MountCommand {
  const parsed = parse(line);
  assert.equal(parsed.kind, 'mount');
  return parsed;
}

describe('a command line that says what to mount', () => {
  const defaults = {
    kind: 'mount',
    mountpoint: 'd',
    readOnly: false,
    trim: false,
    cache: 'writeback',
    pidfile: undefined,
    connectTimeout: 10_000,
    verbose: false,
  };
  const captive = (...command: string[]): object => ({ source: { kind: 'captive', command } });
  const uri = (text: string): object => ({ source: { kind: 'uri', uri: text } });

  const table: readonly (readonly [string, object])[] = [
    ['d [ nbdkit memory 1G ]', captive('nbdkit', 'memory', '1G')],
    ['d [ true ]', captive('true')],
    ['d nbd://host/export', uri('nbd://host/export')],
    ['d nbd+unix:///?socket=/run/s', uri('nbd+unix:///?socket=/run/s')],
    // Not ours to judge here.
    ['d http://host/', uri('http://host/')],

    // Options before and after the mountpoint.
    ['-r d [ s ]', { ...captive('s'), readOnly: true }],
    ['--trim d [ s ]', { ...captive('s'), trim: true }],
    ['d -r [ s ]', { ...captive('s'), readOnly: true }],
    ['--readonly d nbd://h', { ...uri('nbd://h'), readOnly: true }],
    ['d nbd://h --readonly', { ...uri('nbd://h'), readOnly: true }],
    ['-v d [ s ]', { ...captive('s'), verbose: true }],
    ['-d d [ s ]', { ...captive('s'), verbose: true }],
    ['--verbose d [ s ]', { ...captive('s'), verbose: true }],
    ['--debug d [ s ]', { ...captive('s'), verbose: true }],
    ['-rv d [ s ]', { ...captive('s'), readOnly: true, verbose: true }],
    ['-P f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['-Pf d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['--pidfile f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['--pidfile=f d [ s ]', { ...captive('s'), pidfile: 'f' }],
    ['--cache=none d [ s ]', { ...captive('s'), cache: 'none' }],
    ['--cache writethrough d [ s ]', { ...captive('s'), cache: 'writethrough' }],
    ['--cache=writeback d [ s ]', { ...captive('s'), cache: 'writeback' }],
    ['--connect-timeout=0.5 d [ s ]', { ...captive('s'), connectTimeout: 500 }],
    ['-- d [ s ]', captive('s')],

    // What stands in the brackets belongs to the server.
    [
      'd [ s -r -v --cache=none -- --help -V ]',
      captive('s', '-r', '-v', '--cache=none', '--', '--help', '-V'),
    ],
    ['d [ s [ x ] ]', captive('s', '[', 'x', ']')],
    ['d [ s ] ]', captive('s', ']')],
    ['d [ s [ ]', captive('s', '[')],
    ['d [ [ ]', captive('[')],
    ['d [ ] ]', captive(']')],
    ['d [ s [x] ]', captive('s', '[x]')],
    ['d [ sh -c exec\tnbdkit ]', captive('sh', '-c', 'exec\tnbdkit')],
  ];
  for (const [line, expected] of table) {
    it(line, () => assert.deepEqual(parse(line), { ...defaults, ...expected }));
  }

  it('keeps empty words of the server', () => {
    assert.deepEqual(parseCommandLine(['d', '[', 's', '', ']']), {
      ...defaults,
      ...captive('s', ''),
    });
  });

  it('takes a mountpoint that begins with a dash after --', () => {
    assert.equal(mount('-- -d [ s ]').mountpoint, '-d');
  });
});

describe('a command line that asks for words', () => {
  it('prints a help that fits a small screen', () => {
    const parsed = parse('--help');
    assert.equal(parsed.kind, 'help');
    const lines = (parsed as { text: string }).text.trimEnd().split('\n');
    assert.ok(lines.length <= 24, `${lines.length} lines`);
    for (const line of lines) assert.ok(line.length <= 80, line);
    assert.ok(lines.some((line) => line.includes('tsnbdfuse disk.raw [ tsnbdkit memory 1G ]')));
    assert.ok(!lines.some((line) => line.includes('words')));
  });

  for (const line of ['-V', '--version', '-V d [ s ]']) {
    it(line, () => assert.deepEqual(parse(line), { kind: 'version' }));
  }
});

describe('a command line that cannot be understood', () => {
  const table: readonly (readonly [string, RegExp])[] = [
    ['', /mountpoint is missing/],
    ['d', /what shall d show/],
    ['d x', /x is neither a URI nor a command in brackets/],
    ['d x y', /x is neither/],
    ['d nbd://h x', /^x: nothing can follow the URI/],
    ['nbd://h', /mountpoint is missing: it stands before the URI/],
    ['nbd://h d', /mountpoint d goes before the URI nbd:\/\/h/],
    ['d nbd://h [ s ]', /both a URI \(nbd:\/\/h\) and \[ CMD \]/],
    ['d e [ s ]', /^e: only one mountpoint/],
    ['[ s ]', /mountpoint is missing/],
    ['-r [ s ]', /mountpoint is missing/],

    ['d [ s', /^\[ without \]/],
    ['d [', /^\[ without \]/],
    ['[', /^\[ without \]/],
    ['d [ ]', /no command between/],
    ['d s ]', /^\] without a \[/],
    ['d ]', /^\] without a \[/],
    ['d [ s ] -r', /^-r stands after the \]/],
    ['d [ s ] nbd://h', /^nbd:\/\/h stands after the \]/],
    ['d [ s 1G]', /put a space before the \] in 1G\]/],
    ['d [s 1G ]', /^\] without a \[/],
    ['d [s 1G]', /^\[s: put a space after the \[/],

    ['--cach none d [ s ]', /unknown option '--cach' \(Did you mean --cache\?\)/],
    ['-x d [ s ]', /unknown option '-x'/],
    [
      '--cache=all d [ s ]',
      /'--cache <mode>' argument 'all' is invalid.*writeback, writethrough, none/,
    ],
    ['d [ s ] --cache', /stands after the \]/],
    ['d nbd://h --cache', /argument missing/],
    ['d nbd://h -P', /argument missing/],
    ['--connect-timeout=0 d [ s ]', /number of seconds/],
    ['--connect-timeout=-1 d [ s ]', /number of seconds/],
    ['--connect-timeout=1h d [ s ]', /number of seconds/],
    ['--connect-timeout=9e9 d [ s ]', /number of seconds/],
    ['--connect-timeout=99999999 d [ s ]', /number of seconds/],
  ];
  for (const [line, message] of table) {
    it(line === '' ? '(nothing)' : line, () =>
      assert.throws(
        () => parse(line),
        (error) => {
          assert.ok(error instanceof UsageError, String(error));
          assert.match(error.message, message);
          assert.ok(!error.message.includes('\n'));
          assert.ok(!error.message.startsWith('error:'));
          return true;
        },
      ),
    );
  }

  it('an empty word for a name', () => {
    assert.throws(() => parseCommandLine(['', '[', 's', ']']), /mountpoint is an empty word/);
    assert.throws(() => parseCommandLine(['d', '[', '', ']']), /empty word/);
  });
});
