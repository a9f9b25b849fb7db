/** Images that are of no use without another one, which no server of ours finds. */

import { ImageError } from './errors.js';
import type { ImageFile } from './image-file.js';

/** @param by a program that can make one image of the two */
export function differencing(file: ImageFile, by: string): ImageError {
  return new ImageError(
    `${file.shown} has only what differs from a parent disk, which qemu-nbd cannot put together: merge the two with ${by} first`,
  );
}
