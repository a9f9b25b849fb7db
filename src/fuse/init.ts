/** FUSE_INIT: what kernel and file system agree on for the life of a mount. */

import {
  InitFlag,
  InitFlag2,
  KERNEL_MINOR_VERSION,
  KERNEL_VERSION,
  LEAST_MINOR_VERSION,
} from './constants.js';
import { MountError } from './errors.js';

export const INIT_OUT_BYTES = 64;

/** The most a READ or a WRITE carries: 256 pages, the kernel's own limit unless it was raised. */
export const MAX_TRANSFER = 1024 * 1024;
const MAX_PAGES = 256;

/** How many requests the kernel may have under way that nobody waits for: read-ahead, writeback, O_DIRECT by AIO. */
const MAX_BACKGROUND = 256;
/** From how many on it takes the mount for congested. */
const CONGESTION_THRESHOLD = 192;

/**
 * ATOMIC_O_TRUNC is not among them: the kernel would set the size to 0 by itself. Nor is
 * AUTO_INVAL_DATA: a changed mtime would throw the cache away.
 */
const WANTED =
  InitFlag.ASYNC_READ |
  InitFlag.BIG_WRITES |
  // Without it O_DIRECT by AIO goes one request at a time.
  InitFlag.ASYNC_DIO |
  InitFlag.MAX_PAGES |
  InitFlag.EXPLICIT_INVAL_DATA |
  InitFlag.HANDLE_KILLPRIV_V2 |
  InitFlag.INIT_EXT;

export interface InitIn {
  readonly major: number;
  readonly minor: number;
  readonly maxReadahead: number;
  readonly flags: number;
  readonly flags2: number;
}

/** struct fuse_init_in, whose second word of flags older kernels leave out. */
export function getInitIn(view: DataView, at: number, length: number): InitIn {
  return {
    major: view.getUint32(at, true),
    minor: view.getUint32(at + 4, true),
    maxReadahead: view.getUint32(at + 8, true),
    flags: view.getUint32(at + 12, true),
    flags2: length >= 20 ? view.getUint32(at + 16, true) : 0,
  };
}

/**
 * Writes struct fuse_init_out.
 * @returns whether the kernel's page cache is written back, as was wished
 * @throws MountError if the kernel's protocol is too old
 */
export function putInitOut(
  view: DataView,
  at: number,
  kernel: InitIn,
  wish: { readonly writeback: boolean },
): { writeback: boolean } {
  if (kernel.major !== KERNEL_VERSION || kernel.minor < LEAST_MINOR_VERSION) {
    throw new MountError(
      `the kernel speaks FUSE ${kernel.major}.${kernel.minor}; at least ${KERNEL_VERSION}.${LEAST_MINOR_VERSION} (Linux 3.15) is needed`,
    );
  }
  const flags = kernel.flags & (WANTED | (wish.writeback ? InitFlag.WRITEBACK_CACHE : 0));
  for (let i = 0; i < INIT_OUT_BYTES; i += 4) view.setUint32(at + i, 0, true);
  view.setUint32(at, KERNEL_VERSION, true);
  view.setUint32(at + 4, Math.min(KERNEL_MINOR_VERSION, kernel.minor), true);
  view.setUint32(at + 8, kernel.maxReadahead, true);
  view.setUint32(at + 12, flags, true);
  view.setUint16(at + 16, MAX_BACKGROUND, true);
  view.setUint16(at + 18, CONGESTION_THRESHOLD, true);
  view.setUint32(at + 20, MAX_TRANSFER, true); // max_write
  view.setUint32(at + 24, 1, true); // time_gran, in nanoseconds
  view.setUint16(at + 28, MAX_PAGES, true);
  view.setUint32(at + 32, kernel.flags2 & InitFlag2.DIRECT_IO_ALLOW_MMAP, true);
  return { writeback: (flags & InitFlag.WRITEBACK_CACHE) !== 0 };
}
