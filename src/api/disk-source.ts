/** What can be mounted or served. */

import type { Disk } from '../disk/disk.js';

/** A disk, or something that has one, as a client of an NBD server. */
export type DiskSource = Disk | HasDisk;

/** Something that has a disk. */
export interface HasDisk {
  /** What is mounted or served. */
  readonly disk: Disk;
}

/**
 * The disk itself.
 * @param source from JavaScript it may be anything, as the functions that `diskOf` was forgotten for
 * @throws TypeError
 */
export function diskFrom(source: DiskSource): Disk {
  for (const one of [source, (source as Partial<HasDisk> | undefined)?.disk]) {
    if (isDisk(one)) return one;
  }
  if (source instanceof Promise) throw new TypeError('it is the promise of a disk: await it');
  throw new TypeError('it is no disk, nor has one: diskOf makes a disk of functions');
}

const isDisk = (value: unknown): value is Disk =>
  typeof value === 'object' && value !== null && 'info' in value;
