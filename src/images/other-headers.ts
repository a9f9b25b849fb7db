/** The headers of QED, VDI and VHD, as far as they say something of other files. */

import { differencing } from './differencing.js';
import { ImageError } from './errors.js';
import type { ImageFile } from './image-file.js';
import { NAMES_NOTHING, nameOf } from './named-files.js';
import type { NamedFiles } from './named-files.js';

const QED_BACKING = 1n;
/** The format of the backing file is raw; else it is to be found out. */
const QED_BACKING_RAW = 4n;
const QED_HEADER = 64;
const MAX_NAME = 1023;

/** QEMU's docs/interop/qed_spec.txt; all in it is little-endian. */
export async function filesOfQed(file: ImageFile): Promise<NamedFiles> {
  const header = await file.read(0, QED_HEADER);
  if (header.length < QED_HEADER) throw cutShort(file);
  const features = header.readBigUInt64LE(16);
  if ((features & QED_BACKING) === 0n) return NAMES_NOTHING;
  const length = header.readUInt32LE(60);
  const bytes = await file.read(header.readUInt32LE(56), Math.min(length, MAX_NAME));
  if (bytes.length < length) throw cutShort(file);
  const format = (features & QED_BACKING_RAW) === 0n ? undefined : 'raw';
  return { backing: { name: nameOf(bytes), format } };
}

const VDI_HEADER = 80;
const VDI_DIFFERENCING = 4;

export async function filesOfVdi(file: ImageFile): Promise<NamedFiles> {
  const header = await file.read(0, VDI_HEADER);
  if (header.length < VDI_HEADER) throw cutShort(file);
  if (header.readUInt32LE(76) === VDI_DIFFERENCING) throw differencing(file, 'VirtualBox');
  return NAMES_NOTHING;
}

const VHD_FOOTER = 512;
const VHD_DIFFERENCING = 4;

export async function filesOfVhd(file: ImageFile): Promise<NamedFiles> {
  for (const offset of [0, -VHD_FOOTER]) {
    const footer = await file.read(offset, VHD_FOOTER);
    if (footer.toString('latin1', 0, 8) !== 'conectix' || footer.length < 64) continue;
    // qemu would show zeroes for all that is in the parent.
    if (footer.readUInt32BE(60) === VHD_DIFFERENCING) throw differencing(file, 'Hyper-V');
  }
  return NAMES_NOTHING;
}

function cutShort(file: ImageFile): ImageError {
  return new ImageError(`${file.shown} is damaged: it ends within its header`);
}
