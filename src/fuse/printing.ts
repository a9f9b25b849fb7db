/** Names for traces. */

import { Opcode } from './constants.js';

const OPCODE_NAMES = new Map<number, string>(
  Object.entries(Opcode).map(([name, value]) => [value, name]),
);

/** `READ` for 15. */
export function opcodeName(opcode: number): string {
  return OPCODE_NAMES.get(opcode) ?? `opcode ${opcode}`;
}
