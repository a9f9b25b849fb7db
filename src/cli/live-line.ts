/**
 * The live line of `--stats`: one line at the end of what is on the terminal, drawn anew each second. It never
 * waits: a terminal that was stopped (Ctrl-S) would otherwise stop the disk.
 */

import { constants, openSync, readFileSync } from 'node:fs';
import { isatty } from 'node:tty';
import { native } from '../native.js';
import { bytesFigure, countFigure, printableText, rateFigure } from '../observe/figures.js';
import type { MountStatus, OperationStatus } from '../observe/mount-status.js';
import { stateText } from '../observe/summary.js';
import { launchedDaemon } from './daemon-output.js';
import { setAside } from './messages.js';

const INTERVAL = 1_000;
const STDERR = 2;
/** Where it does not tell. */
const COLUMNS = 80;

/** To the start of the line, and nothing behind the cursor. */
const ERASE = '\r\u001b[K';

/** What is compared from one line to the next. */
interface Moment {
  /** Milliseconds of performance.now(). */
  readonly at: number;
  readonly status: MountStatus;
}

function change(
  before: Moment,
  after: Moment,
  of: (operation: OperationStatus) => number,
  name: 'read' | 'write',
): number {
  const [first, last] = [before.status.operations, after.status.operations];
  const seconds = (after.at - before.at) / 1000;
  return first === null || last === null || seconds <= 0
    ? 0
    : (of(last[name]) - of(first[name])) / seconds;
}

/** `disk.raw  read 12.3 MB/s 3012 IOPS  written 0 B/s 0 IOPS  in flight 3  healthy`, no more than fits */
export function liveText(before: Moment, after: Moment, shown: string, columns: number): string {
  const flow = (verb: string, name: 'read' | 'write'): string => {
    const rate = rateFigure(change(before, after, ({ bytes }) => bytes, name));
    const operations = countFigure(Math.round(change(before, after, ({ count }) => count, name)));
    return `${verb} ${rate} ${operations} IOPS`;
  };
  const { state, inFlight, unflushedBytes } = after.status;
  const figures = [
    flow('read', 'read'),
    flow('written', 'write'),
    `in flight ${inFlight ?? 0}`,
    ...(unflushedBytes === null || unflushedBytes === 0
      ? []
      : [`unflushed ${bytesFigure(unflushedBytes)}`]),
    stateText(state),
  ].join('  ');
  // The last column stays free: a line that fills it goes on to the next one.
  const room = columns - 1 - figures.length - 2;
  const name = printableText(shown);
  const fits = name.length <= room ? name : room > 8 ? `...${name.slice(3 - room)}` : '';
  return (fits === '' ? figures : `${fits}  ${figures}`).slice(0, Math.max(0, columns - 1));
}

/** Whether our group has the terminal; one in the background would draw over what its user types. */
function isInForeground(): boolean {
  try {
    const stat = readFileSync('/proc/self/stat', 'latin1');
    // After the name, in brackets: state, parent, group, session, terminal, the group that has it (proc(5)).
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    return fields[2] === fields[5] || fields[4] === '0';
  } catch {
    return false;
  }
}

export class LiveLine {
  readonly #fd: number;
  readonly #shown: string;
  readonly #status: () => MountStatus;
  readonly #timer: NodeJS.Timeout;
  #before: Moment;
  #isDrawn = false;

  private constructor(fd: number, shown: string, status: () => MountStatus) {
    this.#fd = fd;
    this.#shown = shown;
    this.#status = status;
    this.#before = { at: performance.now(), status: status() };
    this.#timer = setInterval(() => this.#draw(), INTERVAL).unref();
    setAside(() => this.#erase());
  }

  /**
   * @param shown the file, as the user wrote it
   * @returns undefined where standard error is no terminal, or none that we may open; for a daemon as well, which
   *   still has that of its user, to leave it a moment later
   */
  static start(shown: string, status: () => MountStatus): LiveLine | undefined {
    if (launchedDaemon !== undefined || !isatty(STDERR)) return undefined;
    try {
      // For us alone: others who have the terminal would be surprised by a descriptor that does not wait.
      const flags = constants.O_WRONLY | constants.O_NONBLOCK | constants.O_NOCTTY;
      return new LiveLine(openSync(`/proc/self/fd/${STDERR}`, flags), shown, status);
    } catch {
      return undefined;
    }
  }

  #write(text: string): boolean {
    const bytes = Buffer.from(text);
    return native.write(this.#fd, bytes, 0, bytes.length) >= 0;
  }

  #draw(): void {
    const now = { at: performance.now(), status: this.#status() };
    if (isInForeground()) {
      const columns = process.stderr.columns > 0 ? process.stderr.columns : COLUMNS;
      const text = liveText(this.#before, now, this.#shown, columns);
      // The cursor goes back to where a message of a server would begin.
      if (this.#write(`${ERASE}${text}\r`)) this.#isDrawn = true;
    }
    this.#before = now;
  }

  #erase(): void {
    if (this.#isDrawn) this.#write(ERASE);
    this.#isDrawn = false;
  }

  close(): void {
    clearInterval(this.#timer);
    setAside(undefined);
    this.#erase();
    native.close(this.#fd);
  }
}
