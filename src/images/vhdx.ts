/** VHDX (Microsoft's [MS-VHDX]), as far as it says whether there is a parent. All in it is little-endian. */

import { differencing } from './differencing.js';
import type { ImageFile } from './image-file.js';
import { NAMES_NOTHING } from './named-files.js';
import type { NamedFiles } from './named-files.js';

const REGION_TABLES = [192 * 1024, 256 * 1024];
const TABLE = 64 * 1024;
const REGION_ENTRIES_AT = 16;
const METADATA_ENTRIES_AT = 32;
/** Both tables have entries of this length, which begin with a GUID, and no more of them than that. */
const ENTRY = 32;
const MAX_ENTRIES = 2047;

// As they stand in the file.
const METADATA_REGION = Buffer.from('06a27c8b90479a4bb8fe575f050f886e', 'hex');
const FILE_PARAMETERS = Buffer.from('3767a1ca36fa434db3b633f0aa44e76b', 'hex');
const HAS_PARENT = 2;

/** What is damaged is left to qemu, which checks sums and all. */
export async function filesOfVhdx(file: ImageFile): Promise<NamedFiles> {
  for (const at of REGION_TABLES) {
    const table = await file.read(at, TABLE);
    const region = entryOf(table, METADATA_REGION, REGION_ENTRIES_AT);
    if (region === undefined) continue;
    const start = Number(region.readBigUInt64LE(16));
    const parameters = entryOf(await file.read(start, TABLE), FILE_PARAMETERS, METADATA_ENTRIES_AT);
    if (parameters === undefined) continue;
    const flags = await file.read(start + parameters.readUInt32LE(16) + 4, 4);
    // qemu would show zeroes for what is in the parent.
    if (flags.length === 4 && (flags.readUInt32LE() & HAS_PARENT) !== 0) {
      throw differencing(file, 'Hyper-V');
    }
  }
  return NAMES_NOTHING;
}

function entryOf(table: Buffer, guid: Buffer, start: number): Buffer | undefined {
  for (let i = 0, at = start; i < MAX_ENTRIES && at + ENTRY <= table.length; i++, at += ENTRY) {
    if (guid.equals(table.subarray(at, at + guid.length))) return table.subarray(at, at + ENTRY);
  }
  return undefined;
}
