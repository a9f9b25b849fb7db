/** The header of qcow2 (docs/interop/qcow2.txt of QEMU), versions 2 and 3, and that of its predecessor. */

import { ImageError } from './errors.js';
import type { ImageFile } from './image-file.js';
import { nameOf } from './named-files.js';
import type { NamedFiles } from './named-files.js';

const HEADER_LENGTH_V2 = 72;
const HEADER_LENGTH_V3 = 104;
/** Bit 2 of the incompatible features. */
const EXTERNAL_DATA = 4n;
const BACKING_FORMAT = 0xe2792aca;
const DATA_FILE = 0x44415441;
const END_OF_EXTENSIONS = 0;
/** What a name may have, in bytes. */
const MAX_NAME = 1023;
/** Header extensions are within the first cluster, which has 512 bytes to 2 MiB. */
const MAX_CLUSTER_BITS = 21;
const MIN_CLUSTER_BITS = 9;

export async function filesOfQcow2(file: ImageFile): Promise<NamedFiles> {
  const header = await file.read(0, HEADER_LENGTH_V3);
  if (header.length < HEADER_LENGTH_V2) throw cutShort(file);
  const isV3 = header.readUInt32BE(4) >= 3;
  if (isV3 && header.length < HEADER_LENGTH_V3) throw cutShort(file);
  refuseEncrypted(file, header.readUInt32BE(32));

  const features = isV3 ? header.readBigUInt64BE(72) : 0n;
  const clusterBits = header.readUInt32BE(20);
  if (clusterBits < MIN_CLUSTER_BITS || clusterBits > MAX_CLUSTER_BITS) {
    throw new ImageError(
      `${file.shown} is damaged: its header says clusters of 2^${clusterBits} bytes`,
    );
  }
  const extensions = await readExtensions(file, {
    start: isV3 ? header.readUInt32BE(100) : HEADER_LENGTH_V2,
    end: 2 ** clusterBits,
  });
  const name = await backingName(file, header);
  const isExternal = (features & EXTERNAL_DATA) !== 0n;
  const dataFile = extensions.get(DATA_FILE);
  if (isExternal && dataFile === undefined) {
    throw new ImageError(`${file.shown} has its data in another file, and does not say in which`);
  }
  return {
    ...(name === '' ? {} : { backing: { name, format: extensions.get(BACKING_FORMAT) } }),
    // Without the bit the name is only a remark.
    ...(isExternal && dataFile !== undefined ? { dataFile } : {}),
  };
}

/** The texts of the header extensions, by their types. */
async function readExtensions(
  file: ImageFile,
  { start, end }: { readonly start: number; readonly end: number },
): Promise<ReadonlyMap<number, string>> {
  const found = new Map<number, string>();
  const bytes = await file.read(start, Math.max(0, end - start));
  for (let at = 0; at + 8 <= bytes.length;) {
    const [type, length] = [bytes.readUInt32BE(at), bytes.readUInt32BE(at + 4)];
    if (type === END_OF_EXTENSIONS) break;
    const text = bytes.subarray(at + 8, at + 8 + Math.min(length, MAX_NAME));
    if (type === BACKING_FORMAT || type === DATA_FILE) found.set(type, nameOf(text));
    // Padded to 8 bytes.
    at += 8 + Math.ceil(length / 8) * 8;
  }
  return found;
}

export async function filesOfQcow(file: ImageFile): Promise<NamedFiles> {
  const header = await file.read(0, 48);
  if (header.length < 48) throw cutShort(file);
  refuseEncrypted(file, header.readUInt32BE(36));
  const name = await backingName(file, header);
  return name === '' ? {} : { backing: { name } };
}

/** Its place and length are the same in all versions. @returns an empty text where there is none */
async function backingName(file: ImageFile, header: Buffer): Promise<string> {
  const offset = header.readBigUInt64BE(8);
  if (offset === 0n) return '';
  const length = header.readUInt32BE(16);
  if (length > MAX_NAME || offset + BigInt(length) > BigInt(file.size)) throw cutShort(file);
  return nameOf(await file.read(Number(offset), length));
}

function refuseEncrypted(file: ImageFile, method: number): void {
  if (method === 0) return;
  throw new ImageError(
    `${file.shown} is encrypted, and its server needs the key: write it as [ qemu-nbd --object secret,... ]`,
  );
}

function cutShort(file: ImageFile): ImageError {
  return new ImageError(`${file.shown} is damaged: it ends within its header`);
}
