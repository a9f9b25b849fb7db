/** VMDK (VMware's "Virtual Disk Format 1.1"): a sparse file with a descriptor in it, or a descriptor that names files. */

import { ImageError } from './errors.js';
import type { ImageFile } from './image-file.js';
import type { Extent, NamedFiles } from './named-files.js';

const SPARSE_MAGIC = 'KDMV';
/** Of the sparse files of ESX, in which nothing stands that names others. */
const VMFS_SPARSE_MAGIC = 'COWD';
const SECTOR = 512;
const SPARSE_HEADER = 79;
/** As much of a descriptor as qemu reads: within a sparse file, and in a file of its own. */
const EMBEDDED_DESCRIPTOR = 20 * SECTOR;
const MAX_DESCRIPTOR = 1024 * 1024;
/** Bit 16 of the flags: the clusters are compressed. */
const COMPRESSED = 1 << 16;

// These find whatever qemu's own reading, by sscanf(3) and strstr(3), could find, and perhaps more: it is no
// loss to refuse a descriptor that nobody's tool writes, but one that we and qemu read differently would be. For
// sscanf(3) all is found once the name is: what follows it, be it the second quote, need not be there.
const EXTENT = /RW\s*[-+]?\d+\s*(\S{1,10}?)\s*"([^"\r\n]*)/g;
/** Types of extents that qemu does not look into for a header, or for another one than is checked here. */
const WITHOUT_SPARSE_HEADER: readonly string[] = ['FLAT', 'VMFS', 'SESPARSE'];
const PARENT = 'parentFileNameHint';

export async function filesOfVmdk(file: ImageFile): Promise<NamedFiles> {
  const header = await file.read(0, SECTOR);
  if (header.toString('latin1', 0, 4) !== SPARSE_MAGIC) {
    const text = (await file.read(0, MAX_DESCRIPTOR)).toString('utf8');
    return { extents: extentsOf(text), ...parentOf(text) };
  }
  checkSparse(file, header);
  const place = header.readBigUInt64LE(28);
  if (place > 1n) {
    throw new ImageError(
      `${file.shown} has its descriptor in sector ${place}, where no tool puts it: it may be damaged`,
    );
  }
  // qemu looks for a parent there also where the header says that there is no descriptor.
  const text = (await file.read(SECTOR, EMBEDDED_DESCRIPTOR)).toString('utf8');
  const isCompressed = (header.readUInt32LE(8) & COMPRESSED) !== 0;
  return {
    ...parentOf(text),
    ...(isCompressed
      ? {
          readOnly:
            'is compressed (streamOptimized), in which nothing can be written a second time',
        }
      : {}),
  };
}

/**
 * For a file that is an extent of another one.
 * @param type as the descriptor has it
 * @throws ImageError
 */
export async function checkExtent(file: ImageFile, type: string): Promise<void> {
  if (WITHOUT_SPARSE_HEADER.includes(type)) return;
  const header = await file.read(0, SECTOR);
  const magic = header.toString('latin1', 0, 4);
  if (magic === SPARSE_MAGIC) checkSparse(file, header);
  else if (magic !== VMFS_SPARSE_MAGIC) {
    throw new ImageError(`${file.shown} is named as a sparse part of a vmdk image, and is none`);
  }
}

function checkSparse(file: ImageFile, header: Buffer): void {
  if (header.length < SPARSE_HEADER) {
    throw new ImageError(`${file.shown} is damaged: it ends within its header`);
  }
  // qemu would take its descriptor for one that names files.
  if (header.readBigUInt64LE(12) === 0n) {
    throw new ImageError(`${file.shown} is damaged: its header says that the disk has no size`);
  }
}

function extentsOf(text: string): Extent[] {
  return Array.from(text.matchAll(EXTENT), ([, type = '', name = '']) => ({ type, name }));
}

function parentOf(text: string): Pick<NamedFiles, 'backing'> {
  const at = text.indexOf(PARENT);
  if (at < 0) return {};
  // After an equals sign and a quote, whatever stands in their place.
  const start = at + PARENT.length + 2;
  const end = text.indexOf('"', start);
  const name = end < 0 ? '' : text.slice(start, end);
  // The parent of such an image is one as well.
  return name === '' ? {} : { backing: { name, format: 'vmdk' } };
}
