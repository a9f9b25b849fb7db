/** What formats are called, apart from all else about them, for whoever needs the names at the start. */

export const FORMAT_NAMES = ['raw', 'qcow2', 'vmdk', 'vdi', 'vhdx', 'vhd', 'qcow', 'qed'] as const;

export type FormatName = (typeof FORMAT_NAMES)[number];

/** What qemu calls them, where it has another name. */
export const FORMAT_ALIASES: ReadonlyMap<string, FormatName> = new Map([['vpc', 'vhd']]);
