/** Names for messages and traces. */

import { Command } from './constants.js';

const COMMAND_NAMES = new Map<number, string>(
  Object.entries(Command).map(([name, value]) => [value, name]),
);

/** `READ` for 0. */
export function commandName(type: number): string {
  return COMMAND_NAMES.get(type) ?? `command ${type}`;
}

/** A text that a server sent, made safe for a terminal: no control characters, one line, not long. */
export function printable(text: Buffer | string, most = 200): string {
  const whole = typeof text === 'string' ? text : text.toString('utf8');
  const clean = whole.replace(/[\p{C}\p{Zl}\p{Zp}]+/gu, ' ').trim();
  return clean.length > most ? `${clean.slice(0, most)}...` : clean;
}
