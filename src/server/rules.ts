/** Which requests are refused before the disk hears of them, and with which error. */

import { errno } from '../errno.js';
import type { DiskInfo } from '../disk/disk.js';
import { Command, CommandFlag } from '../nbd/constants.js';
import { offersFua } from './export.js';
import type { Agreed } from './export.js';

export interface Refusal {
  /** A positive Linux errno. */
  readonly code: number;
  /** For people, as the protocol lets us send one. */
  readonly message: string;
}

interface Rule {
  /** The flags that it may carry, other than FUA. */
  readonly flags: number;
  readonly writes: boolean;
  /** Its length is that of a payload, or of a read. */
  readonly carries: boolean;
  readonly pastEnd: Refusal;
  /** Whether the handshake said that it may be asked for. */
  readonly offered: (info: DiskInfo, agreed: Agreed) => boolean;
}

const invalid = (message: string): Refusal => ({ code: errno.EINVAL, message });

const UNKNOWN = invalid('the command is not known, or was not offered');
const BAD_FLAGS = invalid('the command carries a flag that it must not');
const NOT_ZERO = invalid('a flush has no offset and no length');
const EMPTY = invalid('the length is 0');
const TOO_LONG = invalid('the length is over the maximum');
const UNALIGNED = invalid('the request is not aligned to the minimum block size');
const READ_PAST_END = invalid('the range reaches past the end of the export');
const WRITE_PAST_END: Refusal = { code: errno.ENOSPC, message: READ_PAST_END.message };
const READ_ONLY: Refusal = { code: errno.EPERM, message: 'the export is read-only' };
export const NO_MEMORY: Refusal = {
  code: errno.ENOMEM,
  message: 'the server has no memory for the request',
};

/** By command; DISC is none of them, as it has no reply (doc/proto.md, "Request types"). */
const RULES: readonly (Rule | undefined)[] = ruleTable([
  [
    Command.READ,
    {
      flags: CommandFlag.DF,
      writes: false,
      carries: true,
      pastEnd: READ_PAST_END,
      offered: () => true,
    },
  ],
  [
    Command.WRITE,
    { flags: 0, writes: true, carries: true, pastEnd: WRITE_PAST_END, offered: () => true },
  ],
  [
    Command.TRIM,
    {
      flags: 0,
      writes: true,
      carries: false,
      pastEnd: READ_PAST_END,
      offered: (info) => info.canTrim,
    },
  ],
  [
    Command.WRITE_ZEROES,
    {
      flags: CommandFlag.NO_HOLE,
      writes: true,
      carries: false,
      pastEnd: WRITE_PAST_END,
      offered: (info) => info.canZero,
    },
  ],
  [
    Command.BLOCK_STATUS,
    {
      flags: CommandFlag.REQ_ONE,
      writes: false,
      carries: false,
      pastEnd: READ_PAST_END,
      offered: (_info, agreed) => agreed.allocation,
    },
  ],
]);

function ruleTable(rows: readonly (readonly [number, Rule])[]): (Rule | undefined)[] {
  const table: (Rule | undefined)[] = [];
  for (const [type, rule] of rows) table[type] = rule;
  return table;
}

/**
 * What is wrong with a request, or undefined. The errors are those of doc/proto.md ("Error values"):
 * ENOSPC for a write past the end, EPERM for one to a read-only export, and EINVAL otherwise.
 */
export function refusalOf(
  info: DiskInfo,
  agreed: Agreed,
  type: number,
  flags: number,
  offset: bigint,
  length: number,
): Refusal | undefined {
  const rule = RULES[type];
  // Clients are known to set FUA on commands that do not write; it is to be accepted on all.
  const always = offersFua(info) ? CommandFlag.FUA : 0;
  if (rule === undefined) {
    if (type !== Command.FLUSH || !info.canFlush) return UNKNOWN;
    if ((flags & ~always) !== 0) return BAD_FLAGS;
    return offset === 0n && length === 0 ? undefined : NOT_ZERO;
  }
  if (rule.writes && info.readOnly) return READ_ONLY;
  if (!rule.offered(info, agreed)) return UNKNOWN;
  const structured = agreed.structuredReplies ? rule.flags : rule.flags & ~CommandFlag.DF;
  if ((flags & ~(structured | always)) !== 0) return BAD_FLAGS;
  if (length === 0) return EMPTY;
  const { minimum, maximum } = info.limits;
  if (rule.carries && length > maximum) return TOO_LONG;
  if (offset + BigInt(length) > info.size) return rule.pastEnd;
  if (minimum > 1 && (length % minimum !== 0 || offset % BigInt(minimum) !== 0n)) return UNALIGNED;
  return undefined;
}
