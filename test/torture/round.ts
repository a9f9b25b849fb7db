/** A round: a server, a mount, programs that use it, faults; and then all has to be as if there were none. */

import { once } from 'node:events';
import { readFile } from 'node:fs/promises';
import { ExitStatus } from '../../src/cli/exit-status.js';
import { exercise, prepare } from '../support/exerciser.js';
import { Workplace, until } from '../support/mounts.js';
import type { Mounted } from '../support/mounts.js';
import { CaptiveVictim } from './captive-victim.js';
import { holdingsOf } from './figures.js';
import type { Holdings, RoundFigures } from './figures.js';
import { Injector } from './injector.js';
import { Network } from './network.js';
import { isGentle } from './plan.js';
import type { Plan } from './plan.js';
import { SERVERS, checkImage, rawImage } from './servers.js';
import { ServerVictim } from './victim.js';
import type { Victim } from './victim.js';

const FILE = 'disk.raw';
/** Seconds that tsnbdfuse may try to reach its server. */
const RECONNECT = 60;
/** Milliseconds without a step, and without a fault, after which the mount hangs. */
const HANGS_AFTER = 120_000;
/** Milliseconds. What hangs is found before. */
const ROUND_DEADLINE = 24 * 3600_000;
const SETTLE_DEADLINE = 30_000;
/** How much is shown of what tsnbdfuse said. */
const SHOWN = 4000;

/** Lines of servers that were there again, or were more often than there are lines. */
const RESTORED = /^tsnbdfuse: .*\brestored after\b/gm;
const UNTOLD = /\band was lost (\d+) times that were not told of\b/g;

/**
 * @param interrupted ends it, with all that it has started
 * @throws Error that tells what went wrong and what had been done until then; the signal's reason
 */
export async function runRound(plan: Plan, interrupted: AbortSignal): Promise<RoundFigures> {
  interrupted.throwIfAborted();
  const place = await Workplace.create();
  const ending = new AbortController();
  const { signal } = ending;
  const interruption = once(interrupted, 'abort', { signal }).then(() => {
    throw interrupted.reason;
  });
  try {
    const figures = await Promise.race([new Round(place, plan).run(), interruption]);
    await place.nothingLeft();
    return figures;
  } finally {
    interruption.catch(() => undefined);
    ending.abort();
    await place.remove();
  }
}

/** As many as were told of: in the end there may be more. */
function reconnectsIn(said: string): number {
  const untold = [...said.matchAll(UNTOLD)].map(([, count]) => Number(count));
  return (said.match(RESTORED)?.length ?? 0) + untold.reduce((sum, count) => sum + count, 0);
}

class Round {
  readonly #place: Workplace;
  readonly #plan: Plan;
  #injector: Injector | undefined;
  #mounted: Mounted | undefined;
  /** Undefined where it is captive. */
  #server: ServerVictim | undefined;

  constructor(place: Workplace, plan: Plan) {
    this.#place = place;
    this.#plan = plan;
  }

  async run(): Promise<RoundFigures> {
    const began = performance.now();
    await prepare(this.#place, this.#plan.size);
    await this.#place.file(FILE);
    const network = this.#plan.network ? await Network.create(this.#place) : undefined;
    try {
      const figures = await this.#withServer(network);
      return { ...figures, seconds: (performance.now() - began) / 1000 };
    } catch (error) {
      throw new Error(await this.#report(error), { cause: error });
    } finally {
      await network?.remove();
    }
  }

  async #report(error: unknown): Promise<string> {
    const faults = this.#injector?.done.map((line) => `  ${line}`) ?? [];
    return [
      error instanceof Error ? error.message : String(error),
      `plan: ${JSON.stringify({ ...this.#plan, faults: this.#plan.faults.length })}`,
      'faults so far:',
      ...(faults.length > 0 ? faults : ['  none']),
      'tsnbdfuse said:',
      this.#mounted?.running.stderr.slice(-SHOWN) ?? '',
      `the server ${(await this.#server?.state()) ?? 'is captive'}`,
    ].join('\n');
  }

  async #withServer(network: Network | undefined): Promise<Omit<RoundFigures, 'seconds'>> {
    const captive =
      this.#plan.server === 'captive'
        ? await CaptiveVictim.prepare(this.#place, this.#plan)
        : undefined;
    const server = captive ? undefined : await ServerVictim.start(this.#place, this.#plan, network);
    this.#server = server;
    const victim: Victim | undefined = captive ?? server;
    if (victim === undefined) throw new Error('there is no server');
    try {
      const source = captive
        ? ['--restart-server', FILE, '[', ...captive.command, ']']
        : [FILE, server?.uri ?? ''];
      const figures = await this.#withMount(source, victim, network);
      await victim.stop();
      await checkImage(this.#place, SERVERS[this.#plan.server], victim.files);
      await this.#compare(victim);
      return figures;
    } finally {
      await victim.stop();
    }
  }

  async #withMount(
    source: readonly string[],
    victim: Victim,
    network: Network | undefined,
  ): Promise<Omit<RoundFigures, 'seconds'>> {
    const plan = this.#plan;
    const mounted = await this.#place.mount(
      [
        ...(isGentle(plan.fault) ? ['--reconnect', String(RECONNECT)] : []),
        ...(plan.timeout === undefined ? [] : ['--timeout', String(plan.timeout)]),
        ...(plan.unflushedLimit === undefined ? [] : ['--unflushed-limit', plan.unflushedLimit]),
        `--cache=${plan.cache}`,
        ...['-C', String(plan.connections), ...source],
      ],
      { deadline: ROUND_DEADLINE },
    );
    this.#mounted = mounted;
    const injector = new Injector(plan, victim, network);
    this.#injector = injector;
    const start = holdingsOf(mounted.pid);
    await this.#exercise(injector);
    await injector.finish();
    const end = await this.#settle(mounted, start);
    const { status, stderr } = await mounted.unmount(FILE);
    const allowed: readonly number[] = isGentle(plan.fault)
      ? [ExitStatus.SAFE]
      : [ExitStatus.SAFE, ExitStatus.LOST];
    if (!allowed.includes(status ?? -1) || stderr.includes('internal error')) {
      throw new Error(`tsnbdfuse ended with ${String(status)}`);
    }
    const reconnects = reconnectsIn(stderr);
    this.#wasTortured(injector, reconnects);
    return {
      server: plan.server,
      fault: plan.fault,
      seed: plan.seed,
      operations: injector.steps,
      faults: injector.counts,
      refusals: injector.refusals,
      lostSectors: injector.lostSectors,
      crashes: this.#server?.crashes ?? [],
      reconnects,
      start,
      end,
    };
  }

  /** @throws Error where what was to go wrong did not, so that nothing is shown by a good end */
  #wasTortured({ steps, left, counts }: Injector, reconnects: number): void {
    const planned = this.#plan.steps;
    if (steps < planned) throw new Error(`only ${steps} steps of ${planned} were seen`);
    if (left > 0) throw new Error(`${left} faults were never begun`);
    if (counts.kill + counts.power > 0 && reconnects === 0) {
      throw new Error('the server was killed, and tsnbdfuse has told of no reconnection');
    }
  }

  /** @throws Error where what the programs saw was wrong, or where they see nothing any more */
  async #exercise(injector: Injector): Promise<void> {
    const { seed, steps, workers, cache, grain, fault } = this.#plan;
    const work = exercise(this.#place, {
      seed,
      steps: Math.ceil(steps / workers),
      workers,
      grain,
      cache,
      errors: fault === 'errors',
      dropCaches: process.getuid?.() === 0,
      onStep: () => injector.step(),
      onError: () => injector.refusals++,
      beforeCheck: () => injector.finish(),
      deadline: ROUND_DEADLINE,
    });
    const over = new AbortController();
    try {
      await Promise.race([work, this.#untilHang(injector, over.signal)]);
    } finally {
      over.abort();
      // What failed for the hang, or because it is taken down, is no news.
      work.catch(() => undefined);
    }
  }

  async #untilHang(injector: Injector, over: AbortSignal): Promise<void> {
    let [steps, since] = [-1, 0];
    await until(
      'the end',
      async () => {
        if (over.aborted) return true;
        if (steps !== injector.steps || (await injector.isBusy)) {
          [steps, since] = [injector.steps, performance.now()];
        }
        if (performance.now() - since > HANGS_AFTER) {
          throw new Error(`no step within ${HANGS_AFTER / 1000} s, after ${steps} of them`);
        }
        return false;
      },
      ROUND_DEADLINE,
    );
  }

  /** Waits until it has no more descriptors than at the start. */
  async #settle({ pid }: Mounted, start: Holdings): Promise<Holdings> {
    let end = holdingsOf(pid);
    try {
      await until(
        'descriptors are closed',
        () => (end = holdingsOf(pid)).descriptors <= start.descriptors,
        SETTLE_DEADLINE,
      );
    } catch {
      throw new Error(
        `tsnbdfuse had ${start.descriptors} descriptors at the start and has ${end.descriptors} now`,
      );
    }
    return end;
  }

  /** All that was written is in the image: the unmount said so. */
  async #compare({ files }: Victim): Promise<void> {
    const [is, should] = await Promise.all([
      rawImage(this.#place, SERVERS[this.#plan.server], files).then((path) => readFile(path)),
      readFile(this.#place.join('model')),
    ]);
    if (is.length < should.length) throw new Error(`the image has ${is.length} bytes only`);
    if (should.equals(is.subarray(0, should.length))) return;
    const wrong = [...should.keys()].filter((at) => is[at] !== should[at]);
    throw new Error(
      `the image differs from the model in ${wrong.length} bytes, from ${wrong[0] ?? 0} to ${wrong.at(-1) ?? 0}`,
    );
  }
}
