/** The command `tsnbdkit`: the embedded NBD server by itself. The entry point of bin/tsnbdkit. */

import { CommanderError } from 'commander';
import type { Disk } from '../disk/disk.js';
import { DEFAULT_PORT } from '../nbd/constants.js';
import { plugins } from '../server/plugins/index.js';
import type { Listener } from '../server/listen.js';
import type { Plugin } from '../server/plugins/index.js';
import { enableTrace, traceServer } from '../trace.js';
import { UsageError } from './errors.js';
import { print, say as tell, surviveClosedOutput } from './messages.js';
import { EXTRA_HELP, makeKitProgram } from './tsnbdkit-options.js';
import type { KitOptions } from './tsnbdkit-options.js';
import { version } from './version.js';

const USAGE = `usage: tsnbdkit [options] PLUGIN ARGUMENT
       tsnbdkit --help`;

/** The errors whose message is all that the user needs. By name: not all of their files are loaded. */
const EXPECTED = new Set(['AddonError', 'CommandError', 'PluginError', 'SizeError', 'ErrnoError']);

interface ServeCommand {
  readonly plugin: Plugin;
  readonly argument: string;
  readonly options: KitOptions;
  /** Whether a listening socket was passed to us. */
  readonly activated: boolean;
}

/**
 * @param args without those of the interpreter
 * @returns a text to be printed, or what to serve
 * @throws UsageError
 */
function parseCommandLine(args: readonly string[]): string | ServeCommand {
  const program = makeKitProgram();
  try {
    program.parse([...args], { from: 'user' });
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    if (error.code === 'commander.helpDisplayed') {
      return `${program.helpInformation()}${EXTRA_HELP}\n`;
    }
    throw UsageError.from(error);
  }
  const options = program.opts<KitOptions>();
  if (options.version === true) return `tsnbdkit ${version()}\n`;

  const [name, argument, extra] = program.args;
  if (name === undefined) throw new UsageError('the plugin is missing: what shall be served?');
  const plugin = plugins.find((row) => row.name === name);
  if (plugin === undefined) {
    const known = plugins.map((row) => row.name).join(', ');
    throw new UsageError(`there is no plugin ${name}; there are: ${known}`);
  }
  if (argument === undefined) throw new UsageError(`${name} needs a ${plugin.argument}`);
  if (extra !== undefined) throw new UsageError(`${extra}: ${name} takes one argument`);
  const activated = isActivated();
  const chosen = (['unix', 'port', 'ipaddr'] as const).find((key) => options[key] !== undefined);
  if (activated && chosen !== undefined) {
    throw new UsageError(`--${chosen} cannot be used with socket activation`);
  }
  if (options.unix !== undefined && (options.port ?? options.ipaddr) !== undefined) {
    throw new UsageError('--unix cannot be used with --port or --ipaddr');
  }
  return { plugin, argument, options, activated };
}

/** The first descriptor passed by socket activation (sd_listen_fds(3)). */
const FIRST_DESCRIPTOR = 3;

/**
 * Whether the socket activation in the environment, which is taken away from it, is meant for us.
 * @throws UsageError if more or less than one socket is passed
 */
function isActivated(): boolean {
  const { LISTEN_FDS: count, LISTEN_PID: pid } = process.env;
  for (const name of ['LISTEN_FDS', 'LISTEN_PID', 'LISTEN_FDNAMES']) {
    Reflect.deleteProperty(process.env, name);
  }
  // Without LISTEN_PID it is for us: not everybody who starts us can know our process id before.
  if (count === undefined || (pid !== undefined && pid !== String(process.pid))) return false;
  if (count !== '1') throw new UsageError(`socket activation: LISTEN_FDS is ${count}, and not 1`);
  return true;
}

async function listen({ options, activated }: ServeCommand): Promise<readonly Listener[]> {
  const { Listener: Listen } = await import('../server/listen.js');
  if (activated) return [Listen.inherited(FIRST_DESCRIPTOR)];
  if (options.unix !== undefined) return [Listen.unix(options.unix)];
  const port = options.port ?? DEFAULT_PORT;
  const { listenOnLoopback } = await import('../server/loopback.js');
  const listeners: readonly [Listener, ...Listener[]] =
    options.ipaddr === undefined ? listenOnLoopback(port) : [Listen.tcp(options.ipaddr, port)];
  if (port === 0) say(`listening on port ${listeners[0].port}`);
  return listeners;
}

/** The first signal that asks us to end. */
function untilSignal(): Promise<NodeJS.Signals> {
  // Those after the first change nothing: a terminal sends its own beside that of our parent, and
  // none of them may cut the last flush short.
  return new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, resolve);
  });
}

async function run(command: ServeCommand): Promise<void> {
  const { plugin, argument, options } = command;
  const signalled = untilSignal();
  const [{ serve }, { Pidfile }] = await Promise.all([
    import('../server/server.js'),
    import('./pidfile.js'),
  ]);
  const pidfile =
    options.pidfile === undefined ? undefined : await Pidfile.prepare(options.pidfile);
  let disk: Disk | undefined;
  let listeners: readonly Listener[] = [];
  // Also where a bug ends the process.
  process.on('exit', () => {
    for (const listener of listeners) listener.removeSocketFile();
    pidfile?.remove();
  });
  try {
    disk = await plugin.open(argument, { readOnly: options.readonly === true });
    listeners = await listen(command);
    let fail: (error: Error) => void = () => undefined;
    const failed = new Promise<never>((_resolve, reject) => (fail = reject));
    failed.catch(() => undefined);
    const server = serve(disk, listeners, { exportName: options.exportname, failed: fail });
    try {
      await pidfile?.write();
      const signal = await Promise.race([signalled, failed]);
      traceServer('ended by %s', signal);
    } finally {
      await server.close();
    }
  } finally {
    for (const listener of listeners) listener.close();
    pidfile?.remove();
    await disk?.close();
  }
}

/** @returns the exit status */
async function main(args: readonly string[]): Promise<number> {
  surviveClosedOutput();
  try {
    const command = parseCommandLine(args);
    if (typeof command === 'string') {
      return await print(command, 'tsnbdkit');
    }
    if (command.options.verbose === true) enableTrace();
    await run(command);
    return 0;
  } catch (error) {
    if (error instanceof UsageError) {
      say(error.message);
      process.stderr.write(`${USAGE}\n`);
      return 2;
    }
    if (error instanceof Error && EXPECTED.has(error.name)) {
      say(error.message);
      return 1;
    }
    say(`internal error (a bug; please report it with what follows)`);
    process.stderr.write(`${error instanceof Error ? (error.stack ?? '') : String(error)}\n`);
    return 1;
  }
}

const say = (message: string): void => tell(message, 'tsnbdkit');

// Milliseconds.
const LAST_RESORT = 1_000;

void main(process.argv.slice(2)).then((status) => {
  process.exitCode = status;
  // All that held the event loop is closed by now. Were anything forgotten, whoever waits for us should
  // not have to look at a server that has done its work and does not go. The timer itself holds nothing.
  setTimeout(() => {
    traceServer('still holding the event loop: %o', process.getActiveResourcesInfo());
    process.exit();
  }, LAST_RESORT).unref();
});
