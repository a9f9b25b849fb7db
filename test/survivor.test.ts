import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { afterEach, beforeEach, describe, it } from 'node:test';
import { native } from '../src/native.js';
import { Survivor } from '../src/survivor.js';
import { Workplace, until } from './support/mounts.js';

describe('a process that outlives us', () => {
  let place: Workplace;
  const children: ChildProcess[] = [];
  beforeEach(async () => {
    place = await Workplace.create();
    await mkdir(place.join('directory'));
    await place.file('directory/socket');
  });
  afterEach(async () => {
    for (const child of children.splice(0)) child.kill('SIGKILL');
    await place.remove();
  });

  /** To it, that is the end of our process. */
  const die = ({ fd }: Survivor): number => native.close(fd);

  async function start(script: string): Promise<{ pid: number; ended: Promise<unknown[]> }> {
    const child = spawn('/bin/sh', ['-c', `${script}; echo; while :; do sleep 1; done`], {
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    children.push(child);
    const ended = once(child, 'exit');
    await once(child.stdout, 'data');
    return { pid: child.pid ?? -1, ended };
  }

  it('kills, and removes a directory', async () => {
    const { pid, ended } = await start(':');
    const survivor = Survivor.start({ directory: place.join('directory') });
    survivor.kill(pid);
    die(survivor);
    assert.deepEqual(await ended, [null, 'SIGTERM']);
    await until('the directory is gone', () => !existsSync(place.join('directory')));
  });

  it('kills a process group, and who does not heed SIGTERM', async () => {
    const { pid, ended } = await start('trap "" TERM');
    const survivor = Survivor.start({});
    survivor.kill(-pid);
    die(survivor);
    assert.deepEqual(await ended, [null, 'SIGKILL']);
  });

  it('does nothing when it is sent away', async () => {
    const { pid } = await start(':');
    const survivor = Survivor.start({ directory: place.join('directory') });
    survivor.kill(pid);
    await survivor.release();
    await survivor.release();
    assert.ok(process.kill(pid, 0));
    assert.ok(existsSync(place.join('directory/socket')));
  });
});
