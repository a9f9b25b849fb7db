import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, it } from 'node:test';
import { fateIn, fateOf } from '../../src/fuse/fate.js';

const NONE = '0000000000000000';

/** As /proc/PID/status has them, among other lines. */
const status = (sets: Partial<Record<string, string>>): string =>
  [
    'Name:\ta SigPnd:\tffffffffffffffff',
    'State:\tD (disk sleep)',
    ...['SigPnd', 'ShdPnd', 'SigBlk', 'SigIgn', 'SigCgt'].map(
      (name) => `${name}:\t${sets[name] ?? NONE}`,
    ),
    'CapInh:\t0000000000000000',
    '',
  ].join('\n');

const bit = (signal: number): string =>
  (1n << BigInt(signal - 1)).toString(16).padStart(NONE.length, '0');

const [SIGQUIT, SIGKILL, SIGUSR1, SIGTERM, SIGCHLD] = [3, 9, 10, 15, 17];

describe('the fate of a thread', () => {
  for (const [name, sets, fate] of [
    ['nothing pending', {}, 'living'],
    ['killed', { SigPnd: bit(SIGKILL) }, 'dying'],
    ['killed, in whatever way it is held', { ShdPnd: bit(SIGKILL) }, 'dying'],
    [
      'killed, with all blocked',
      { SigPnd: bit(SIGKILL), SigBlk: 'fffffffe7ffbfeff', SigCgt: 'fffffffe7ffbfeff' },
      'dying',
    ],
    ['a signal that it catches', { ShdPnd: bit(SIGUSR1), SigCgt: bit(SIGUSR1) }, 'living'],
    // The kernel turns one that ends a process into SIGKILL for each of its threads; one that is pending as
    // itself is blocked, or is not heeded.
    ['SIGTERM that it blocks', { ShdPnd: bit(SIGTERM), SigBlk: bit(SIGTERM) }, 'living'],
    ['a child that ended', { ShdPnd: bit(SIGCHLD) }, 'living'],
    ['one that leaves a core', { ShdPnd: bit(SIGQUIT) }, 'dying'],
    ['one that would, but is caught', { ShdPnd: bit(SIGQUIT), SigCgt: bit(SIGQUIT) }, 'living'],
    ['one that would, but is blocked', { SigPnd: bit(SIGQUIT), SigBlk: bit(SIGQUIT) }, 'living'],
    ['one that would, but is ignored', { SigPnd: bit(SIGQUIT), SigIgn: bit(SIGQUIT) }, 'living'],
  ] as const) {
    it(`is ${fate}: ${name}`, () => assert.equal(fateIn(status(sets)), fate));
  }

  it('is unknown from a text that does not tell it', () => {
    assert.equal(fateIn(''), 'unknown');
    assert.equal(fateIn(status({}).replace('SigCgt', 'SigXyz')), 'unknown');
    assert.equal(fateIn(status({ SigPnd: 'none' })), 'unknown');
  });

  it('is unknown of who is not there, or is nobody', () => {
    assert.equal(fateOf(0), 'unknown');
    assert.equal(fateOf(4_194_305), 'unknown');
  });

  it('is living of who waits for nothing but time', async () => {
    const child = spawn('sleep', ['60']);
    try {
      await once(child, 'spawn');
      assert.equal(fateOf(child.pid ?? 0), 'living');
    } finally {
      child.kill('SIGKILL');
      await once(child, 'exit');
    }
  });
});
