/** Whether a connection leads to the disk that another one had led to. */

import { TransmissionFlag } from './constants.js';
import { withoutChunks } from './export.js';
import type { NegotiatedExport } from './export.js';

/** What is relied on. Other flags may come and go with the version of a server. */
const RELIED_ON: readonly (readonly [flag: number, name: string])[] = [
  [TransmissionFlag.SEND_FLUSH, 'flush'],
  [TransmissionFlag.SEND_FUA, 'write through (FUA)'],
  [TransmissionFlag.SEND_TRIM, 'trim'],
  [TransmissionFlag.SEND_WRITE_ZEROES, 'zero'],
  [TransmissionFlag.CAN_MULTI_CONN, 'be used over several connections'],
];

/** @returns the first difference, as it is now and was before, or undefined if there is none */
export function differenceBetween(
  before: NegotiatedExport,
  now: NegotiatedExport,
): string | undefined {
  if (now.size !== before.size) {
    return `it has ${now.size.toString()} bytes, and had ${before.size.toString()}`;
  }
  const isSet = ({ flags }: NegotiatedExport, flag: number): boolean => (flags & flag) !== 0;
  const readOnly = isSet(now, TransmissionFlag.READ_ONLY);
  if (readOnly !== isSet(before, TransmissionFlag.READ_ONLY)) {
    return readOnly ? 'it is read-only, and was not' : 'it can be written, and was read-only';
  }
  for (const [flag, name] of RELIED_ON) {
    if (isSet(now, flag) !== isSet(before, flag)) {
      return isSet(now, flag) ? `it can ${name}, and could not` : `it cannot ${name}, and could`;
    }
  }
  for (const which of ['minimum', 'maximum'] as const) {
    if (now.limits[which] !== before.limits[which]) {
      return `its ${which} block size is ${now.limits[which]}, and was ${before.limits[which]}`;
    }
  }
  if ((now.allocationId === undefined) !== (before.allocationId === undefined)) {
    return now.allocationId === undefined
      ? 'it does not tell where its holes are, and did'
      : 'it tells where its holes are, and did not';
  }
  for (const context of before.contexts?.keys() ?? []) {
    if (now.contexts?.has(context) !== true) return `it tells nothing of ${context}, and did`;
  }
  if (now.extendedHeaders !== before.extendedHeaders) {
    return now.extendedHeaders
      ? 'it has extended headers, and had none'
      : 'it has no extended headers, and had them';
  }
  return undefined;
}

/** The same for a further connection that was made without structured replies, where the first has them. */
export function simpleDifferenceBetween(
  before: NegotiatedExport,
  now: NegotiatedExport,
): string | undefined {
  return differenceBetween(withoutChunks(before), withoutChunks(now));
}
