/** Device numbers, which stat(2) has as one and proc(5) and sysfs as two. */

/** The two numbers in a dev_t, as makedev(3) of Linux puts them together. */
export function deviceNumbers(rdev: bigint): { major: number; minor: number } {
  return {
    major: Number(((rdev >> 32n) & 0xfffff000n) | ((rdev >> 8n) & 0xfffn)),
    minor: Number(((rdev >> 12n) & 0xffffff00n) | (rdev & 0xffn)),
  };
}
