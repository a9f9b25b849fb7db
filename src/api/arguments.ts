/** What a program written in JavaScript gives may be anything, and is told here by its own name. */

/**
 * @param what it is to be, as the beginning of a sentence
 * @throws TypeError
 */
export function checkObject(value: unknown, what: string): void {
  if (typeof value !== 'object' || value === null) throw new TypeError(`${what} is missing`);
}

/** As `checkObject`, for a string. */
export function checkText(value: unknown, what: string): void {
  if (typeof value !== 'string') throw new TypeError(`${what} is no string`);
}
