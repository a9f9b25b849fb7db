/** What can be mounted or served. */

import type { Disk } from '../disk/disk.js';

/** A disk, or something that has one, as a client of an NBD server. */
export type DiskSource = Disk | HasDisk;

/** Something that has a disk. */
export interface HasDisk {
  /** What is mounted or served. */
  readonly disk: Disk;
}

/** The disk itself. */
export const diskFrom = (source: DiskSource): Disk => ('info' in source ? source : source.disk);
