/** Tells the user of a server that is gone, waited for, and back: a few lines, however often it happens. */

import { errorText } from '../errno.js';

/** Milliseconds into an outage for the first line that it lasts; the next ones are twice as far apart each. */
const FIRST_LASTING = 5_000;
/** So many outages are told of in so many milliseconds. */
const MOST_OUTAGES = 5;
const OUTAGE_PERIOD = 60_000;

/** `3.5 s`, `60 s` */
export function secondsText(milliseconds: number): string {
  const exact = milliseconds / 1000;
  return `${exact < 10 ? Number(exact.toFixed(1)) : Math.round(exact)} s`;
}

/** `3.5 MiB` */
export function bytesText(bytes: number): string {
  const units = ['bytes', 'KiB', 'MiB', 'GiB'];
  let unit = 0;
  let value = bytes;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 || value >= 100 ? Math.round(value) : Number(value.toFixed(1))} ${units[unit] ?? ''}`;
}

export class Progress {
  readonly #report: (line: string) => void;
  /** When outages were told of. */
  #told: number[] = [];
  #untold = 0;
  #isTold = false;
  #since = 0;
  #lastingFrom = 0;

  /** @param report gets the end of a sentence about the server */
  constructor(report: (line: string) => void) {
    this.#report = report;
  }

  /**
   * @param most milliseconds for which programs wait
   * @param forever it is tried on after that
   */
  lost(reason: string, most: number, forever: boolean): void {
    const now = performance.now();
    this.#since = now;
    this.#lastingFrom = FIRST_LASTING;
    this.#told = this.#told.filter((at) => now - at < OUTAGE_PERIOD);
    this.#isTold = this.#told.length < MOST_OUTAGES;
    if (!this.#isTold) {
      this.#untold++;
      return;
    }
    this.#told.push(now);
    const before =
      this.#untold === 0 ? '' : ` (and was lost ${this.#untold} times that were not told of)`;
    this.#untold = 0;
    const howLong = forever
      ? `reconnecting for ever, and programs wait for up to ${secondsText(most)}`
      : `reconnecting for up to ${secondsText(most)}`;
    this.#report(`${reason}${before}; ${howLong}`);
  }

  /** An attempt has failed. @param left milliseconds until it is given up */
  failed(error: unknown, left: number): void {
    const lasted = performance.now() - this.#since;
    if (lasted < this.#lastingFrom) return;
    this.#lastingFrom = 2 * lasted;
    this.#isTold = true;
    const goesOn = left > 0 ? `trying for another ${secondsText(left)}` : 'still trying';
    this.#report(`not back after ${secondsText(lasted)} (${errorText(error)}); ${goesOn}`);
  }

  /** @param requests how many were sent again */
  restored(requests: number): void {
    if (!this.#isTold) return;
    const lasted = secondsText(performance.now() - this.#since);
    this.#report(
      `restored after ${lasted}, ${requests} request${requests === 1 ? '' : 's'} sent again`,
    );
  }

  /** Something else. */
  tell(line: string): void {
    this.#report(line);
  }
}
