/**
 * A network that can be cut: two interfaces that are connected with each other (veth), of which one is in a
 * network namespace of its own, with the server. The namespace has no name and belongs to a process that does
 * nothing: when that ends, whatever becomes of us, namespace and interfaces are gone.
 */

import { readlinkSync } from 'node:fs';
import { until } from '../support/mounts.js';
import type { Running, Workplace } from '../support/mounts.js';
import type { Cut } from './plan.js';

export const NETWORK_NEEDS = { root: true, programs: ['ip', 'nsenter', 'unshare', 'sleep'] };

/** Milliseconds; the longest timer there is. */
const FOR_EVER = 2 ** 31 - 1;
/** Of nobody: frames that are sent to it are lost. */
const NOWHERE = '02:00:00:00:00:01';

/** Of the range for benchmarks of networks (RFC 2544), which leads nowhere, four for each process. */
function addresses(): { ours: string; theirs: string } {
  const block = 4 * (process.pid % 2 ** 15);
  const address = (n: number): string => `198.${18 + (n >> 16)}.${(n >> 8) & 255}.${n & 255}`;
  return { ours: address(block + 1), theirs: address(block + 2) };
}

export class Network {
  /** Where a server that runs in it is reached. */
  readonly address: string;
  readonly #place: Workplace;
  readonly #holder: Running;
  readonly #ours = `tsnbd${process.pid}`;
  readonly #theirs = `tsnbd${process.pid}s`;

  private constructor(place: Workplace, holder: Running, address: string) {
    this.#place = place;
    this.#holder = holder;
    this.address = address;
  }

  static async create(place: Workplace): Promise<Network> {
    const { ours, theirs } = addresses();
    const holder = place.start('unshare', ['--net', 'sleep', 'infinity'], { deadline: FOR_EVER });
    const network = new Network(place, holder, theirs);
    try {
      await until('there is a network namespace', () => network.#isApart());
      await network.#ip(
        'link',
        'add',
        network.#ours,
        'type',
        'veth',
        'peer',
        'name',
        network.#theirs,
        'netns',
        String(holder.pid),
      );
      await network.#ip('address', 'add', `${ours}/30`, 'dev', network.#ours);
      await network.#ip('link', 'set', network.#ours, 'up');
      await network.#ipInside('address', 'add', `${theirs}/30`, 'dev', network.#theirs);
      await network.#ipInside('link', 'set', network.#theirs, 'up');
      return network;
    } catch (error) {
      await network.remove();
      throw error;
    }
  }

  #isApart(): boolean {
    const name = (pid: number | string): string => readlinkSync(`/proc/${pid}/ns/net`);
    return name(this.#holder.pid) !== name('self');
  }

  /** What to put before a command that is to run in it. */
  get enter(): readonly string[] {
    return ['nsenter', `--net=/proc/${this.#holder.pid}/ns/net`];
  }

  async #ip(...args: readonly string[]): Promise<void> {
    await this.#place.ok('ip', args);
  }

  async #ipInside(...args: readonly string[]): Promise<void> {
    const [program = '', ...rest] = [...this.enter, 'ip', ...args];
    await this.#place.ok(program, rest);
  }

  /** From now on nothing gets through, and nobody is told. */
  async cut(how: Cut): Promise<void> {
    switch (how) {
      case 'ours':
        return this.#ip('link', 'set', this.#ours, 'down');
      case 'theirs':
        return this.#ipInside('link', 'set', this.#theirs, 'down');
      case 'silence':
        return this.#ip(
          ...['neighbour', 'replace', this.address, 'lladdr', NOWHERE],
          ...['nud', 'permanent', 'dev', this.#ours],
        );
    }
  }

  async restore(how: Cut): Promise<void> {
    switch (how) {
      case 'ours':
        return this.#ip('link', 'set', this.#ours, 'up');
      case 'theirs':
        return this.#ipInside('link', 'set', this.#theirs, 'up');
      case 'silence':
        return this.#ip('neighbour', 'delete', this.address, 'dev', this.#ours);
    }
  }

  /** All that is connected through it has to have ended. @throws Error if it stays */
  async remove(): Promise<void> {
    if (!this.#holder.hasEnded) process.kill(this.#holder.pid, 'SIGKILL');
    await this.#holder.ended;
    await until('the network is gone', async () => {
      const { status } = await this.#place.run('ip', ['link', 'show', this.#ours]);
      return status !== 0;
    });
  }
}
