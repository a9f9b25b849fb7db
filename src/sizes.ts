/** Sizes as people write them: `512`, `10M`, `1.5G`, `1T`. */

/** The text is no size, or one that no disk can have. The message says which, and names the text. */
export class SizeError extends Error {
  override readonly name = 'SizeError';
}

/** Each letter is 1024 times the one before it. */
const UNITS = 'KMGTPE';
const SECTOR = 512n;
/** The protocol counts in 64 bits, the system's own offsets are signed; in whole sectors. */
export const MAX_SIZE = 2n ** 63n - SECTOR;

const SIZE = /^(\d+)(?:\.(\d+))?([A-Za-z]?)$/;
/** Longer than any number that can be meant; keeps the arithmetic small. */
const MAX_DIGITS = 40;

/**
 * Bytes, from a number with a letter for the unit, in either case. A number with a fraction is
 * rounded up to whole sectors of 512 bytes: `1.1G` is no whole number of bytes.
 *
 * @throws SizeError
 */
export function parseSize(text: string): bigint {
  const match = text.length <= MAX_DIGITS ? SIZE.exec(text) : null;
  if (match === null) {
    if (/^[-+]/.test(text)) throw new SizeError(`${text} is not a size: it has a sign`);
    throw new SizeError(
      `${text === '' ? 'an empty word' : text} is not a size; sizes are written 512, 10M, 1.5G, 1T`,
    );
  }
  const [, whole = '', fraction, letter = ''] = match;
  const power = letter === '' ? 0 : UNITS.indexOf(letter.toUpperCase()) + 1;
  if (letter !== '' && power === 0) {
    throw new SizeError(`${text} is not a size: the units are ${UNITS.split('').join(', ')}`);
  }
  const unit = 1024n ** BigInt(power);
  const size =
    fraction === undefined ? BigInt(whole) * unit : roundedUp(whole, fraction, unit, text);
  if (size > MAX_SIZE) throw new SizeError(`${text} is more than a disk can have (8E)`);
  return size;
}

function roundedUp(whole: string, fraction: string, unit: bigint, text: string): bigint {
  if (unit === 1n) throw new SizeError(`${text} is not a size: there is no part of a byte`);
  const scaled = BigInt(whole + fraction) * unit;
  const sector = 10n ** BigInt(fraction.length) * SECTOR;
  return ((scaled + sector - 1n) / sector) * SECTOR;
}
