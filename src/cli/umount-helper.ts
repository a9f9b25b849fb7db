/**
 * As umount(8) calls us: `umount.fuse.tsnbdfuse DIR [-flnrv] [-N NAMESPACE] [-t TYPE]`. The kernel does not wait for
 * the last flush of a file system in user space, and neither would umount(8), which returns when this does.
 */

import { parseArgs } from 'node:util';
import type { CommandLine } from './command-line.js';
import { UsageError } from './errors.js';
import { DEFAULT_TIMEOUT } from './options.js';
import type { Interruptions } from './signals.js';
import type { UnmountCommand } from './unmount-command.js';

const HELPER = 'umount.fuse.tsnbdfuse';

const HELP = `usage: ${HELPER} DIR [-flnrv] [-N NAMESPACE] [-t TYPE]

Called by umount(8) for the type fuse.tsnbdfuse: unmounts as "tsnbdfuse -u DIR" does, and
returns when all that was written is safe. With -l or -f nothing is waited for.
`;

/** Where umount(8) may be besides. */
const PATH = '/usr/sbin:/usr/bin:/sbin:/bin';

/** As umount(8) hands them over; its own names, of which it uses the short ones. */
const OPTIONS = {
  force: { type: 'boolean', short: 'f' },
  help: { type: 'boolean', short: 'h' },
  lazy: { type: 'boolean', short: 'l' },
  'no-mtab': { type: 'boolean', short: 'n' },
  'read-only': { type: 'boolean', short: 'r' },
  verbose: { type: 'boolean', short: 'v' },
  version: { type: 'boolean', short: 'V' },
  namespace: { type: 'string', short: 'N' },
  types: { type: 'string', short: 't' },
} as const;

export interface UmountCall {
  readonly kind: 'umount-helper';
  /** What waits. */
  readonly unmount: UnmountCommand;
  /** What does not, for umount(8) itself. */
  readonly words: readonly string[];
  /** Waiting is not wanted, or the mount is out of sight for us. */
  readonly isPlain: boolean;
}

export const isUmountHelper = (calledAs: string): boolean => calledAs === HELPER;

/**
 * @param args without those of the interpreter
 * @throws UsageError
 */
export function parseUmountHelper(args: readonly string[]): CommandLine {
  const { values, positionals } = parsed(args);
  if (values.help === true) return { kind: 'help', text: HELP };
  if (values.version === true) return { kind: 'version' };
  const [mountpoint, extra] = positionals;
  if (mountpoint === undefined || mountpoint === '') throw new UsageError('DIR is missing');
  if (extra !== undefined) throw new UsageError(`${extra}: nothing can follow DIR`);
  return {
    kind: 'umount-helper',
    unmount: {
      kind: 'unmount',
      mountpoint,
      isLazy: false,
      patience: DEFAULT_TIMEOUT * 1000,
      verbose: false,
    },
    words: args,
    // A shutdown or an administrator takes these where nothing can be hoped for; it is in another namespace with -N.
    isPlain: values.lazy === true || values.force === true || values.namespace !== undefined,
  };
}

function parsed(args: readonly string[]): ReturnType<typeof parseWords> {
  try {
    return parseWords(args);
  } catch (error) {
    if (!(error instanceof TypeError)) throw error;
    throw new UsageError(error.message.split('. ', 1)[0] ?? '', { cause: error });
  }
}

const parseWords = (args: readonly string[]) =>
  parseArgs({ args: [...args], options: OPTIONS, allowPositionals: true });

/**
 * @returns the exit status, as that of tsnbdfuse -u; does not return where umount(8) has to do it
 * @throws CommandError; ErrnoError
 */
export async function unmountForUmount(
  { unmount: command, words, isPlain }: UmountCall,
  interruptions: Interruptions,
): Promise<number> {
  if (isPlain || !(await canWait(command.mountpoint))) {
    const { becomeShell } = await import('./become.js');
    // With -i, as it would call us again. There may be no environment at all.
    const path = process.env['PATH'] ?? '';
    const env = { ...process.env, PATH: path === '' ? PATH : `${path}:${PATH}` };
    return becomeShell(['sh', '-c', 'exec umount -i "$@"', 'sh', ...words], [], env);
  }
  const { unmount } = await import('./unmount.js');
  return unmount(command, interruptions);
}

/**
 * Whether the process of the mount can be asked by us. That of another user, in another network namespace or killed
 * cannot, which is no reason to leave the mount where it is.
 */
async function canWait(path: string): Promise<boolean> {
  const [{ findMountsAside, ownerOf }, { listSockets }] = await Promise.all([
    import('../fuse/mountpoint.js'),
    import('../control/socket-name.js'),
  ]);
  const mount = (await findMountsAside(path)).at(-1);
  // Its process may still be at its last flush.
  if (mount === undefined) return true;
  const us = process.geteuid?.() ?? 0;
  if (us !== 0 && us !== ownerOf(mount).uid) return false;
  return (await listSockets()).some(({ device }) => device === mount.device);
}
