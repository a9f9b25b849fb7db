/** What a server tells of one of its exports: NBD_OPT_INFO, and NBD_OPT_GO, which goes on to its data. */

import { ByteReader, ByteWriter } from '../bytes.js';
import type { BlockLimits } from '../disk/disk.js';
import type { Dialogue } from '../transport/dialogue.js';
import { UNTOLD_LIMITS, readBlockSizes } from './block-sizes.js';
import type { Option } from './constants.js';
import { Info, OptionReply, TransmissionFlag } from './constants.js';
import { ProtocolError } from './errors.js';
import { isAck, isError, readOptionReply, sendOption, unexpected } from './options.js';
import type { OptionAnswer } from './options.js';
import { printable } from './printing.js';

/** A server has a handful of things to tell of an export. */
const MAX_INFOS = 64;

export interface ExportInfo {
  /** In bytes. */
  readonly size: bigint;
  /** TransmissionFlag bits. */
  readonly flags: number;
  readonly limits: BlockLimits;
  /** For people; undefined where it was not asked for, or there is none. */
  readonly description: string | undefined;
}

/** One of the two. */
export type ExportAnswer =
  | { readonly told: ExportInfo; readonly refused?: undefined }
  | { readonly told?: undefined; readonly refused: OptionAnswer };

/**
 * @param option of the two that have this answer; after GO comes the transmission phase, unless it is refused
 * @param wanted what else shall be told (`Info`); a server may leave it out, or tell more
 * @throws ProtocolError
 */
export function* askExport(
  option: typeof Option.INFO | typeof Option.GO,
  exportName: string,
  wanted: readonly number[],
): Dialogue<ExportAnswer> {
  const name = Buffer.from(exportName, 'utf8');
  const request = new ByteWriter('big').u32(name.length).bytes(name).u16(wanted.length);
  for (const info of wanted) request.u16(info);
  yield* sendOption(option, request.finish());
  let size: bigint | undefined;
  let flags = 0;
  let limits = UNTOLD_LIMITS;
  let description: string | undefined;
  for (let i = 0; i < MAX_INFOS; i++) {
    const answer = yield* readOptionReply(option);
    if (isError(answer.type)) return { refused: answer };
    if (isAck(answer)) {
      if (size === undefined) {
        throw new ProtocolError('agreed to an export without telling its size');
      }
      return { told: { size, flags, limits, description } };
    }
    if (answer.type !== OptionReply.INFO || answer.data.length < 2) throw unexpected(answer);
    const reader = new ByteReader(answer.data, 'big');
    switch (reader.u16()) {
      case Info.EXPORT:
        if (answer.data.length !== 12) throw unexpected(answer);
        size = reader.u64();
        flags = transmissionFlags(reader.u16());
        break;
      case Info.BLOCK_SIZE:
        if (answer.data.length !== 14) throw unexpected(answer);
        limits = readBlockSizes(reader);
        break;
      case Info.DESCRIPTION:
        description = printable(answer.data.subarray(2));
        break;
      default:
      // What we did not ask for is ours to ignore.
    }
  }
  throw new ProtocolError('sent endless information about an export');
}

/** Without NBD_FLAG_HAS_FLAGS no other bit means anything. */
export function transmissionFlags(flags: number): number {
  return (flags & TransmissionFlag.HAS_FLAGS) === 0 ? 0 : flags;
}
