/**
 * A captive server that listens: by systemd's socket activation (sd_listen_fds(3)), over a socket in a
 * directory that nobody else can enter.
 */

import { checkResult, errnoText } from '../errno.js';
import { native } from '../native.js';
import type { Address } from '../nbd/export.js';
import { CaptiveProcess, checkCommand, launch } from './captive-process.js';
import type { CaptiveCommand, CaptiveOptions, Launched } from './captive-process.js';
import { CommandError } from './errors.js';
import { PrivateDirectory } from './private-directory.js';

const BACKLOG = 64;

// LISTEN_PID has to be the id of the very process that is to listen, which Node cannot know before it
// exists: the shell sets it. Descriptor 3 is the socket, 4 leads to the guardian.
const BECOME_SERVER = `echo "-$$" >&4
exec 4>&-
LISTEN_PID=$$
export LISTEN_PID
exec "$@"`;

export class CaptiveServer extends CaptiveProcess {
  readonly mostConnections = Number.POSITIVE_INFINITY;
  readonly socketPath: string;

  private constructor(launched: Launched, socketPath: string) {
    super(launched);
    this.socketPath = socketPath;
  }

  /**
   * Returns once the server is started, when it may not listen to its socket yet: a connection made
   * before it does waits in the backlog.
   *
   * @throws CommandError
   */
  static async start(command: CaptiveCommand, options: CaptiveOptions): Promise<CaptiveServer> {
    await checkCommand(command, options.env ?? process.env);
    const directory = await PrivateDirectory.create(options.env);
    let listener = -1;
    try {
      const { socketPath } = directory;
      listener = native.unixListen(socketPath, BACKLOG);
      if (listener < 0) {
        throw new CommandError(`cannot listen on ${socketPath}: ${errnoText(-listener)}`, {
          failure: 'unreachable',
        });
      }
      // As systemd passes it: a server may wait in accept(2) without having polled before.
      checkResult(native.setNonblocking(listener, false), 'fcntl');
      const launched = await launch(command, options, {
        fd: listener,
        input: 'ignore',
        output: options.showOutput ? 'inherit' : 'ignore',
        descriptors: [listener],
        script: BECOME_SERVER,
        env: { LISTEN_FDS: '1', LISTEN_FDNAMES: 'unknown', LISTEN_PID: undefined },
        directory: directory.path,
        release: () => directory.remove(),
      });
      return new CaptiveServer(launched, socketPath);
    } catch (error) {
      directory.remove();
      throw error;
    } finally {
      // While we hold it, too, a connection to a server that has died would wait for ever.
      if (listener >= 0) native.close(listener);
    }
  }

  takeAddress(): Address {
    return { kind: 'unix', path: this.socketPath };
  }

  plainMessage(message: string): string {
    return message
      .replace(`NBD server at ${this.socketPath}: `, '')
      .replace(`cannot connect to ${this.socketPath}: `, 'cannot connect: ');
  }
}
