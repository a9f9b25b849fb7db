/** What the server offers, and what a client and it have agreed on. */

import type { DiskInfo } from '../disk/disk.js';
import { TransmissionFlag } from '../nbd/constants.js';

export interface Export {
  /** Which the default export, the empty name, always leads to as well. */
  readonly name: string;
  readonly info: DiskInfo;
}

export interface Agreed {
  readonly structuredReplies: boolean;
  /** base:allocation was selected for the export. */
  readonly allocation: boolean;
}

/** The id under which base:allocation is reported; the only context there is. */
export const ALLOCATION_ID = 1;

/** The flags that tell a client what it may ask for (doc/proto.md, "Transmission flags"). */
export function transmissionFlags(info: DiskInfo, structuredReplies: boolean): number {
  const writable = !info.readOnly;
  return (
    TransmissionFlag.HAS_FLAGS |
    (info.readOnly ? TransmissionFlag.READ_ONLY : 0) |
    (info.canFlush ? TransmissionFlag.SEND_FLUSH : 0) |
    (offersFua(info) ? TransmissionFlag.SEND_FUA : 0) |
    (info.rotational ? TransmissionFlag.ROTATIONAL : 0) |
    (info.canTrim && writable ? TransmissionFlag.SEND_TRIM : 0) |
    (info.canZero && writable ? TransmissionFlag.SEND_WRITE_ZEROES : 0) |
    (structuredReplies ? TransmissionFlag.SEND_DF : 0) |
    (info.canMultiConn ? TransmissionFlag.CAN_MULTI_CONN : 0)
  );
}

/** A disk that can flush, but knows no FUA of its own, gets a flush after the write. */
export function offersFua(info: DiskInfo): boolean {
  return info.canFua || info.canFlush;
}
