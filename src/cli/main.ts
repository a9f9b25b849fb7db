/** The command `tsnbdfuse`, from its arguments to its exit status. */

import { enableTrace } from '../trace.js';
import { parseCommandLine, USAGE } from './command-line.js';
import type { CommandLine, MountCommand } from './command-line.js';
import type { Daemon } from './daemon.js';
import { launchedDaemon } from './daemon-output.js';
import { InternalError, Interrupted, UsageError } from './errors.js';
import { ExitStatus, interruptedStatus, statusOf } from './exit-status.js';
import { print, say, surviveClosedOutput } from './messages.js';
import { helperStatus, isMountHelper, parseMountHelper } from './mount-helper.js';
import { takeServiceEnvironment } from './service-environment.js';
import { Interruptions } from './signals.js';
import { SummarySignal } from './summary-signal.js';
import { Supervisors } from './supervisors.js';
import { checkSurroundings } from './surroundings.js';
import { isUmountHelper, parseUmountHelper, unmountForUmount } from './umount-helper.js';
import { version } from './version.js';

/**
 * @param args without those of the interpreter
 * @param calledAs the name of the command, which may be a link
 * @returns the exit status; never rejects
 */
export async function main(args: readonly string[], calledAs: string): Promise<number> {
  const daemon =
    launchedDaemon === undefined ? undefined : (await import('./daemon.js')).Daemon.begin();
  const forMount = isMountHelper(args, calledAs);
  const status = await answer(args, calledAs, forMount, daemon);
  // Whoever asks for the end of a disk that was mounted is not mount(8).
  const isForMount = forMount && daemon?.isReady !== true;
  const told = isForMount || isUmountHelper(calledAs) ? helperStatus(status) : status;
  await daemon?.end();
  return told;
}

async function answer(
  args: readonly string[],
  calledAs: string,
  forMount: boolean,
  daemon: Daemon | undefined,
): Promise<number> {
  let commandLine: CommandLine;
  try {
    commandLine = parse(args, calledAs, forMount);
    if (commandLine.kind === 'mount' && commandLine.daemon && daemon === undefined) {
      // Before our streams are touched: what Node does to them would stay.
      const { becomeLauncher } = await import('./launcher.js');
      return becomeLauncher(args, forMount, descriptorsOf(commandLine));
    }
  } catch (error) {
    surviveClosedOutput();
    if (!(error instanceof UsageError)) return reportError(error);
    say(error.message);
    if (!forMount && !isUmountHelper(calledAs)) process.stderr.write(`${USAGE}\n`);
    return ExitStatus.USAGE;
  }
  surviveClosedOutput();
  switch (commandLine.kind) {
    case 'help':
      return print(commandLine.text);
    case 'version':
      return print(`tsnbdfuse ${version()}\n`);
    case 'completion': {
      const { completionScript } = await import('./completion/script.js');
      return print(completionScript(commandLine.shell));
    }
    case 'status': {
      const command = commandLine;
      return attempt(async () => {
        const { showStatus } = await import('./status.js');
        return showStatus(command);
      });
    }
    case 'mount':
      return runMount(commandLine, daemon);
    case 'unmount': {
      const command = commandLine;
      return run(command, async (interruptions) => {
        const { unmount } = await import('./unmount.js');
        return unmount(command, interruptions);
      });
    }
    case 'umount-helper': {
      const call = commandLine;
      return run(call.unmount, (interruptions) => unmountForUmount(call, interruptions));
    }
  }
}

/** @throws UsageError; CommandError */
function parse(args: readonly string[], calledAs: string, forMount: boolean): CommandLine {
  if (isUmountHelper(calledAs)) return parseUmountHelper(args);
  return forMount ? parseMountHelper(args) : parseCommandLine(args, calledAs);
}

type Work = (interruptions: Interruptions) => Promise<number>;

/** Those that the user gives us. */
function descriptorsOf({ source, readyFd }: MountCommand): number[] {
  return [
    ...(source.kind === 'fd' ? [source.fd] : []),
    ...(readyFd === undefined ? [] : [readyFd]),
  ];
}

function runMount(command: MountCommand, daemon: Daemon | undefined): Promise<number> {
  const service = takeServiceEnvironment(process.env);
  const summaries = new SummarySignal();
  return run(command, async (interruptions) => {
    const supervisors = await Supervisors.open(command, interruptions, daemon, service);
    try {
      const { serve } = await import('./serve.js');
      return await serve(command, interruptions, summaries, supervisors);
    } finally {
      supervisors.close();
    }
  });
}

/** @param work loads what it needs: a mistake in the command line, or a call for help, is answered without it */
async function run({ verbose }: { readonly verbose: boolean }, work: Work): Promise<number> {
  if (verbose) enableTrace();
  const interruptions = new Interruptions();
  const status = await attempt(() => work(interruptions));
  // Of what went wrong at the very end nobody else has told.
  const left = interruptions.close();
  if (left === undefined) return status;
  const leftStatus = reportError(left);
  return status === ExitStatus.SAFE ? leftStatus : status;
}

async function attempt(work: () => Promise<number>): Promise<number> {
  try {
    checkSurroundings();
    return await work();
  } catch (error) {
    return reportError(error);
  }
}

/** Any call may be the one that there is no descriptor for, the loading of our own files as well. */
function lacksDescriptors(error: unknown): boolean {
  const code = error instanceof Error && 'code' in error ? error.code : undefined;
  return code === 'EMFILE' || code === 'ENFILE';
}

/** @returns the exit status */
function reportError(error: unknown): number {
  if (error instanceof Interrupted) {
    say(error.message);
    return interruptedStatus(error);
  }
  const status = error instanceof Error ? statusOf(error) : undefined;
  if (error instanceof Error && status !== undefined) {
    say(error.message);
    return status;
  }
  if (lacksDescriptors(error instanceof InternalError ? error.cause : error)) {
    say('too many open files; allow more with: ulimit -n 1024');
    return ExitStatus.FAILED;
  }
  const internal = error instanceof InternalError ? error : new InternalError(error);
  say(`${internal.message} (a bug; please report it with what follows)`);
  const stack = internal.cause instanceof Error ? internal.cause.stack : internal.stack;
  process.stderr.write(`${stack ?? ''}\n`);
  return ExitStatus.FAILED;
}
