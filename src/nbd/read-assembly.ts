/** Puts a read together whose answer comes in several chunks, in any order. */

import { HEADROOM } from '../disk/disk.js';
import { ProtocolError } from './errors.js';
import type { PendingCommand } from './in-flight.js';

/**
 * Where a chunk of a read belongs in it, from 0 on.
 * @throws ProtocolError if any of it lies outside
 */
export function placeOf(command: PendingCommand, offset: bigint, count: number): number {
  const from = offset - command.offset;
  if (count === 0 || from < 0n || from + BigInt(count) > BigInt(command.length)) {
    throw new ProtocolError(
      `sent ${count} bytes for offset ${offset.toString()} in reply to a read of ${command.length} at ${command.offset.toString()}`,
    );
  }
  return Number(from);
}

/** Keeps a chunk of data. @throws ProtocolError if any of it was received before */
export function keepData(
  command: PendingCommand,
  from: number,
  bytes: Buffer,
  start: number,
  end: number,
): void {
  noteReceived(command, from, end - start);
  bytes.copy(assemblyOf(command), HEADROOM + from, start, end);
}

/** Keeps a hole. @throws ProtocolError if any of it was received before */
export function keepHole(command: PendingCommand, from: number, count: number): void {
  noteReceived(command, from, count);
  assemblyOf(command).fill(0, HEADROOM + from, HEADROOM + from + count);
}

function noteReceived(command: PendingCommand, from: number, count: number): void {
  if (!command.received.add(from, from + count)) {
    const offset = command.offset + BigInt(from);
    throw new ProtocolError(`sent data for offset ${offset.toString()} twice in reply to one read`);
  }
  if (command.received.overfull) {
    throw new ProtocolError('sent a read in too many pieces that do not belong together');
  }
}

function assemblyOf(command: PendingCommand): Buffer {
  command.place ??= Buffer.allocUnsafeSlow(HEADROOM + command.length);
  return command.place;
}
