/**
 * A captive server that speaks NBD on its standard input and output, as inetd(8) starts one: `nbdkit -s`
 * and the like. Both are one end of a socket pair, so that there is one connection.
 */

import { checkResult } from '../errno.js';
import { native } from '../native.js';
import type { Address } from '../nbd/export.js';
import { CaptiveProcess, checkCommand, launch } from './captive-process.js';
import type { CaptiveCommand, CaptiveOptions, Launched } from './captive-process.js';

// Descriptor 3 leads to the guardian.
const BECOME_SERVER = `echo "-$$" >&3
exec 3>&-
exec "$@"`;

/** Our end, until somebody has taken it over. */
class OurEnd {
  #fd: number;

  constructor(fd: number) {
    this.#fd = fd;
  }

  take(): number {
    const fd = this.#fd;
    if (fd < 0) throw new Error('the one connection was made before');
    this.#fd = -1;
    return fd;
  }

  close(): void {
    if (this.#fd >= 0) native.close(this.#fd);
    this.#fd = -1;
  }
}

export class CommandServer extends CaptiveProcess {
  readonly mostConnections = 1;
  readonly #end: OurEnd;

  private constructor(launched: Launched, end: OurEnd) {
    super(launched);
    this.#end = end;
  }

  /** @throws CommandError */
  static async start(command: CaptiveCommand, options: CaptiveOptions): Promise<CommandServer> {
    await checkCommand(command, options.env ?? process.env);
    const ends = new Int32Array(2);
    checkResult(native.socketpair(ends), 'socketpair');
    const [ours, theirs] = ends as unknown as [number, number];
    const end = new OurEnd(ours);
    try {
      checkResult(native.setNonblocking(ours, true), 'fcntl');
      const launched = await launch(command, options, {
        fd: theirs,
        input: theirs,
        output: theirs,
        descriptors: [],
        script: BECOME_SERVER,
        // What somebody else's socket activation has left is not meant for it.
        env: { LISTEN_FDS: undefined, LISTEN_FDNAMES: undefined, LISTEN_PID: undefined },
        directory: undefined,
        release: () => end.close(),
      });
      return new CommandServer(launched, end);
    } catch (error) {
      end.close();
      throw error;
    } finally {
      // It would hide the end of the server from us.
      native.close(theirs);
    }
  }

  takeAddress(): Address {
    return { kind: 'socket', fd: this.#end.take(), name: this.name };
  }

  plainMessage(message: string): string {
    return message.replace(`NBD server at ${this.name}: `, '');
  }
}
