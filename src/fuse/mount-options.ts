/**
 * The options of `-o`, as libfuse's programs and fstab(5) have them: what each is, and what is made of
 * them. Nothing is mounted here, so that a mistake is told before anything is started.
 */

/** An option that cannot be. The message names it. */
export class MountOptionError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'MountOptionError';
}

export interface FuseOptions {
  /** All users may come in, and not the one alone who mounts. */
  readonly allowOther: boolean;
  /** Root may, too. The kernel does not know it, so that we see to it. */
  readonly allowRoot: boolean;
  /** The kernel checks the mode bits. */
  readonly defaultPermissions: boolean;
  /** It is unmounted whatever we die of. */
  readonly autoUnmount: boolean;
  /** An open leaves in the page cache what is there. */
  readonly kernelCache: boolean;
  readonly readOnly: boolean;
  readonly debug: boolean;
  /** Shown as the owner of the file; undefined: whoever mounts. */
  readonly uid: number | undefined;
  readonly gid: number | undefined;
  /** The permissions that the file does not have. */
  readonly umask: number | undefined;
  /** The most bytes of one READ. */
  readonly maxRead: number | undefined;
  /** What /proc/mounts has for the source, and behind `fuse.`. */
  readonly fsname: string | undefined;
  readonly subtype: string | undefined;
  /** Of mount(8), in the order in which they were given. */
  readonly flags: readonly MountFlag[];
}

/** mount(2). */
export const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_SYNCHRONOUS = 16;
const MS_DIRSYNC = 128;
const MS_NOATIME = 1024;

/** Those of mount(8) that fusermount3 knows as well: which bit, and whether it is set or cleared. */
const FLAGS = {
  suid: [MS_NOSUID, false],
  nosuid: [MS_NOSUID, true],
  dev: [MS_NODEV, false],
  nodev: [MS_NODEV, true],
  exec: [MS_NOEXEC, false],
  noexec: [MS_NOEXEC, true],
  async: [MS_SYNCHRONOUS, false],
  sync: [MS_SYNCHRONOUS, true],
  dirsync: [MS_DIRSYNC, true],
  atime: [MS_NOATIME, false],
  noatime: [MS_NOATIME, true],
} as const;
export type MountFlag = keyof typeof FLAGS;

/** They would let a disk grant what root alone can: mount(8) passes them for root by default. */
const ROOT_ONLY: readonly string[] = ['suid', 'dev'];

/** The bits for mount(2): what is not said is off, but for what no file of a disk needs. */
export function flagBits(flags: readonly MountFlag[]): number {
  let bits = MS_NOSUID | MS_NODEV;
  for (const flag of flags) {
    const [bit, on] = FLAGS[flag];
    bits = on ? bits | bit : bits & ~bit;
  }
  return bits;
}

type Draft = { -readonly [Key in keyof FuseOptions]: FuseOptions[Key] };

interface Row {
  /** How it is written: `uid=N` needs a value. */
  readonly form: string;
  readonly help: string;
  readonly take: (draft: Draft, value: string) => void;
}

const ROWS: readonly Row[] = [
  {
    form: 'allow_other',
    help: 'all users may use the file (mode 0666)',
    take: (draft) => (draft.allowOther = true),
  },
  {
    form: 'allow_root',
    help: 'root may use it as well',
    take: (draft) => (draft.allowRoot = true),
  },
  {
    form: 'default_permissions',
    help: 'the mode counts; allow_... imply it',
    take: (draft) => (draft.defaultPermissions = true),
  },
  {
    form: 'auto_unmount',
    help: 'unmount also when tsnbdfuse is killed',
    take: (draft) => (draft.autoUnmount = true),
  },
  {
    form: 'kernel_cache',
    help: 'an open keeps what is in the page cache',
    take: (draft) => (draft.kernelCache = true),
  },
  {
    form: 'uid=N',
    help: 'the owner of the file',
    take: (draft, value) => (draft.uid = parseId('uid', value)),
  },
  {
    form: 'gid=N',
    help: 'its group',
    take: (draft, value) => (draft.gid = parseId('gid', value)),
  },
  {
    form: 'umask=M',
    help: 'permissions that it does not have (octal)',
    take: (draft, value) => (draft.umask = parseUmask(value)),
  },
  {
    form: 'max_read=N',
    help: 'the most bytes that one read asks for',
    take: (draft, value) => (draft.maxRead = parseMaxRead(value)),
  },
  {
    form: 'fsname=NAME',
    help: 'the source that /proc/mounts shows',
    take: (draft, value) => (draft.fsname = notEmpty('fsname', value)),
  },
  {
    form: 'subtype=TYPE',
    help: 'its type: fuse.TYPE',
    take: (draft, value) => (draft.subtype = notEmpty('subtype', value)),
  },
  {
    form: 'ro',
    help: 'refuse writes, as -r does',
    take: (draft) => (draft.readOnly = true),
  },
  {
    form: 'rw',
    help: 'the opposite of ro',
    take: (draft) => (draft.readOnly = false),
  },
  {
    form: 'debug',
    help: 'trace each request, as -d does',
    take: (draft) => (draft.debug = true),
  },
];

/**
 * Taken without a word, so that command lines and lines of fstab(5) written for other programs work:
 *
 * - about threads and tables of inodes, which we have none of: clone_fd, max_idle_threads,
 *   max_threads, noforget, remember
 * - about how long names and attributes are cached: nobody but us changes them
 * - about what an open does to the page cache: each one drops what others may have changed already
 * - no_rofd_flush: a close flushes only where something was written
 * - about times of access, which the file takes from nobody; of mount(8) and systemd alone
 */
const NO_EFFECT: readonly (string | RegExp)[] = [
  'clone_fd',
  /^max_(idle_)?threads=-?\d+$/,
  'noforget',
  /^remember=-?\d+$/,
  /^(entry|negative|attr|ac_attr)_timeout=\d+(\.\d*)?$/,
  'auto_cache',
  'noauto_cache',
  'no_rofd_flush',
  /^(no)?(diratime|relatime|strictatime|lazytime|iversion|mand)$/,
  /^(defaults|auto|noauto|nofail|_r?netdev|(no)?(user|users|owner|group))$/,
  /^([xX]-|comment=|user=|u?helper=)/,
];

const LISTED = 'see --fuse-help for those there are';

/** The largest id is -1, which chown(2) takes for "leave it". */
function parseId(name: string, value: string): number {
  const id = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (!(id < 0xffffffff)) {
    throw new MountOptionError(`${name}=${value}: it is a number, as id(1) prints it`);
  }
  return id;
}

function parseUmask(value: string): number {
  const umask = /^[0-7]{1,4}$/.test(value) ? Number.parseInt(value, 8) : Number.NaN;
  if (!(umask <= 0o777)) {
    throw new MountOptionError(`umask=${value}: it is an octal number up to 777`);
  }
  return umask;
}

/** @returns undefined for 0, which stands for "no limit" */
function parseMaxRead(value: string): number | undefined {
  const bytes = /^\d{1,10}$/.test(value) ? Number(value) : Number.NaN;
  if (!(bytes <= 0xffffffff)) {
    throw new MountOptionError(`max_read=${value}: it is a number of bytes`);
  }
  return bytes === 0 ? undefined : bytes;
}

function notEmpty(name: string, value: string): string {
  if (value === '') throw new MountOptionError(`${name}= is without a value`);
  return value;
}

/**
 * Splits at commas. A backslash guards the character behind it, or stands with three octal digits for
 * a byte.
 */
export function splitOptions(text: string): string[] {
  const words: string[] = [];
  let word = '';
  // A character for each byte, since several of the digits may make one character of UTF-8.
  const bytes = Buffer.from(text).toString('latin1');
  for (const [part] of bytes.matchAll(/\\[0-3][0-7]{2}|\\.|[^]/gs)) {
    if (part === ',') {
      words.push(word);
      word = '';
    } else if (/^\\[0-3]/.test(part) && part.length === 4) {
      word += String.fromCharCode(Number.parseInt(part.slice(1), 8));
    } else {
      word += part.length > 1 && part.startsWith('\\') ? part.slice(1) : part;
    }
  }
  words.push(word);
  return words.filter((one) => one !== '').map((one) => Buffer.from(one, 'latin1').toString());
}

/** Where nothing is asked for. */
export const NO_FUSE_OPTIONS: FuseOptions = {
  allowOther: false,
  allowRoot: false,
  defaultPermissions: false,
  autoUnmount: false,
  kernelCache: false,
  readOnly: false,
  debug: false,
  uid: undefined,
  gid: undefined,
  umask: undefined,
  maxRead: undefined,
  fsname: undefined,
  subtype: undefined,
  flags: [],
};

/**
 * @param texts the arguments of all -o, in their order: of what is said twice the last one counts
 * @param isRoot whose options they are
 * @throws MountOptionError
 */
export function parseFuseOptions(texts: readonly string[], isRoot: boolean): FuseOptions {
  const draft: Draft = { ...NO_FUSE_OPTIONS };
  const flags: MountFlag[] = [];
  for (const word of texts.flatMap(splitOptions)) {
    if (Object.hasOwn(FLAGS, word)) {
      if (!isRoot && ROOT_ONLY.includes(word)) {
        throw new MountOptionError(`${word}: only root may ask for it`);
      }
      flags.push(word as MountFlag);
    } else if (
      !NO_EFFECT.some((one) => (typeof one === 'string' ? one === word : one.test(word)))
    ) {
      takeOption(draft, word);
    }
  }
  if (draft.allowOther && draft.allowRoot) {
    throw new MountOptionError('allow_other and allow_root: only one of them can be');
  }
  // Without it the kernel lets everybody in whatever the mode says, who could change the mode as well.
  if (draft.allowOther || draft.allowRoot) draft.defaultPermissions = true;
  return { ...draft, flags };
}

function takeOption(draft: Draft, word: string): void {
  const equals = word.indexOf('=');
  const name = equals < 0 ? word : word.slice(0, equals);
  const row = ROWS.find((one) => one.form.split('=', 1)[0] === name);
  if (row === undefined) throw new MountOptionError(`there is no option ${word}; ${LISTED}`);
  const takesValue = row.form.includes('=');
  if (takesValue !== equals >= 0) {
    throw new MountOptionError(
      takesValue ? `${name} needs a value: ${row.form}` : `${name} takes no value`,
    );
  }
  row.take(draft, word.slice(equals + 1));
}

/** All that are for a user to choose, as `uid=`: of each flag of mount(8) the one that changes something. */
export const fuseOptionWords = (): string[] => [
  ...ROWS.map(({ form }) => form.replace(/=.*/, '=')),
  ...(Object.keys(FLAGS) as MountFlag[]).filter((name) => FLAGS[name][1]),
];

/** For --fuse-help: the options, one a line. */
export function fuseOptionsHelp(): string {
  const rows = ROWS.map(({ form, help }) => `  -o ${form.padEnd(21)} ${help}`);
  return `${rows.join('\n')}
  -o ${'[no]exec, [no]atime,'.padEnd(21)} as mount(8) has them; suid and dev are for root
     [a]sync, dirsync,
     [no]suid, [no]dev

Options are separated by commas; a backslash guards a comma. Also taken, without
effect: the options of libfuse about threads, inodes and timeouts (clone_fd,
max_threads=, noforget, attr_timeout=, ...), auto_cache, and those that fstab
has for mount(8) and systemd (_netdev, nofail, user, x-..., ...).
`;
}

/** 0600, and where others are let in 0666; or what a umask leaves of 0666. */
export function filePermissions({ allowOther, umask }: FuseOptions): number {
  if (umask !== undefined) return 0o666 & ~umask;
  return allowOther ? 0o666 : 0o600;
}
