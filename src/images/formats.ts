/** The formats of disk images that are known here: one row for each. */

import { FORMAT_ALIASES } from './format-names.js';
import type { FormatName } from './format-names.js';
import type { ImageFile } from './image-file.js';
import { NAMES_NOTHING } from './named-files.js';
import type { NamedFiles } from './named-files.js';
import { filesOfQed, filesOfVdi, filesOfVhd } from './other-headers.js';
import { filesOfQcow, filesOfQcow2 } from './qcow2.js';
import { filesOfVhdx } from './vhdx.js';
import { filesOfVmdk } from './vmdk.js';

export interface Format {
  /** For `--format`. */
  readonly name: FormatName;
  /** What qemu calls it. */
  readonly driver: string;
  /** The ends of names, without the dot, in small letters. */
  readonly endings: readonly string[];
  /** The first of these endings, where the disk is not written to unless it is asked for. */
  readonly readOnlyEndings?: readonly string[];
  /** Any one of them tells the format; none of them is what raw has. */
  readonly magic: readonly Magic[];
  /** Whether an image can have a backing file that qemu follows. */
  readonly canBack: boolean;
  /** @throws ImageError for one that cannot be served */
  readonly namedFiles: (file: ImageFile) => Promise<NamedFiles>;
}

interface Magic {
  /** Bytes, from the end of the file where it is negative. */
  readonly at: number;
  /** A character for each byte. */
  readonly bytes: string;
}

const QFI = 'QFI\xfb';

export const RAW: Format = {
  name: 'raw',
  driver: 'raw',
  endings: ['raw', 'img', 'iso'],
  readOnlyEndings: ['iso'],
  magic: [],
  canBack: false,
  namedFiles: () => Promise.resolve(NAMES_NOTHING),
};

export const FORMATS: readonly Format[] = [
  RAW,
  {
    name: 'qcow2',
    driver: 'qcow2',
    endings: ['qcow2', 'qcow'],
    magic: [
      { at: 0, bytes: `${QFI}\0\0\0\x02` },
      { at: 0, bytes: `${QFI}\0\0\0\x03` },
    ],
    canBack: true,
    namedFiles: filesOfQcow2,
  },
  {
    name: 'vmdk',
    driver: 'vmdk',
    endings: ['vmdk'],
    magic: [
      { at: 0, bytes: 'KDMV' },
      { at: 0, bytes: '# Disk DescriptorFile' },
    ],
    canBack: true,
    namedFiles: filesOfVmdk,
  },
  {
    name: 'vdi',
    driver: 'vdi',
    endings: ['vdi'],
    magic: [{ at: 64, bytes: '\x7f\x10\xda\xbe' }],
    canBack: false,
    namedFiles: filesOfVdi,
  },
  {
    name: 'vhdx',
    driver: 'vhdx',
    endings: ['vhdx'],
    magic: [{ at: 0, bytes: 'vhdxfile' }],
    canBack: false,
    namedFiles: filesOfVhdx,
  },
  {
    name: 'vhd',
    driver: 'vpc',
    endings: ['vhd', 'vpc'],
    magic: [
      { at: 0, bytes: 'conectix' },
      // One of a fixed size has nothing else but the disk.
      { at: -512, bytes: 'conectix' },
    ],
    canBack: false,
    namedFiles: filesOfVhd,
  },
  {
    name: 'qcow',
    driver: 'qcow',
    endings: ['qcow'],
    magic: [{ at: 0, bytes: `${QFI}\0\0\0\x01` }],
    canBack: true,
    namedFiles: filesOfQcow,
  },
  {
    name: 'qed',
    driver: 'qed',
    endings: ['qed'],
    magic: [{ at: 0, bytes: 'QED\0' }],
    canBack: true,
    namedFiles: filesOfQed,
  },
];

/** @param name as `--format` or an image has it: ours, or qemu's */
export function formatNamed(name: string): Format | undefined {
  const ours = FORMAT_ALIASES.get(name) ?? name;
  return FORMATS.find((format) => format.name === ours);
}
