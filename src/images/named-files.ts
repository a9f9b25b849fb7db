/** What an image says of other files. Names are as they stand in it, and nobody has looked for them yet. */

export interface NamedFiles {
  /** What shows through where the image has nothing of its own. */
  readonly backing?: {
    readonly name: string;
    /** As the image has it; undefined where it does not say. */
    readonly format?: string | undefined;
  };
  /** Where the content of the disk is, while the image has only the tables. */
  readonly dataFile?: string;
  /** The files that the disk is made of one after the other. */
  readonly extents?: readonly Extent[];
  /** Why it can only be read, as the end of a sentence about the image. */
  readonly readOnly?: string;
}

export interface Extent {
  readonly name: string;
  /** FLAT, SPARSE and the like. */
  readonly type: string;
}

export const NAMES_NOTHING: NamedFiles = {};

/** NUL ends a name in C, whatever its length says. */
export function nameOf(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString('utf8', 0, end < 0 ? bytes.length : end);
}
