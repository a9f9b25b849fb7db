/** Numbers for people: three digits and a unit. */

function scaled(value: number, step: number, units: readonly string[]): string {
  let unit = 0;
  let rest = value;
  // What would be rounded to four digits has the next unit.
  while (rest >= step - 0.5 && unit < units.length - 1) {
    rest /= step;
    unit++;
  }
  const digits =
    rest >= 99.95 || (unit === 0 && Number.isInteger(rest)) ? 0 : rest >= 9.995 ? 1 : 2;
  return `${Number(rest.toFixed(digits))} ${units[unit] ?? ''}`.trimEnd();
}

const BINARY = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB', 'EiB'] as const;

/** `1.5 GiB` */
export const bytesFigure = (bytes: number): string => scaled(bytes, 1024, BINARY);

/** `12.3 MB/s`, decimal as tools that measure have it. */
export const rateFigure = (bytesPerSecond: number): string =>
  `${scaled(bytesPerSecond, 1000, ['B', 'kB', 'MB', 'GB', 'TB'])}/s`;

/** All digits, as long as a column of a table has room for them. */
export const countFigure = (count: number): string =>
  count < 100_000_000
    ? String(Math.round(count))
    : scaled(count, 1000, ['', 'k', 'M', 'G', 'T', 'P']);

/** `85 µs`, `1.2 ms`, `3 s` */
export const latencyFigure = (seconds: number): string =>
  seconds >= 1
    ? `${Number(seconds.toPrecision(3))} s`
    : scaled(Math.round(seconds * 1e6), 1000, ['µs', 'ms', 's']);

/** `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h` */
export function durationFigure(seconds: number): string {
  const whole = Math.max(0, Math.floor(seconds));
  if (whole < 60) return `${whole} s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Somebody else's text on a terminal: what would move the cursor, or begin a line, is not passed on. */
export const printableText = (text: string): string => text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, '?');
