/** Inputs that showed a mistake once, kept as files: each is a test from then on (fuzz.test.ts). */

import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** Seen from dist/test/fuzz/, where the compiled file is. */
const FOLDER = fileURLToPath(new URL('../../../test/fuzz/findings/', import.meta.url));

export interface Finding {
  readonly target: string;
  /** What went wrong. */
  readonly why: string;
  readonly input: unknown;
}

/** JSON with what it does not have: `{"hex": "00ff"}` is a Buffer, `{"bigint": "1"}` a BigInt. */
export function pack(value: unknown): string {
  const put = (one: unknown): unknown => {
    if (one instanceof Uint8Array) return { hex: Buffer.from(one).toString('hex') };
    if (typeof one === 'bigint') return { bigint: one.toString() };
    if (Array.isArray(one)) return one.map(put);
    if (typeof one !== 'object' || one === null) return one;
    return Object.fromEntries(Object.entries(one).map(([key, part]) => [key, put(part)]));
  };
  return `${JSON.stringify(put(value), undefined, 1)}\n`;
}

/** The reverse of `pack`. */
export function unpack(text: string): unknown {
  return JSON.parse(text, (_key, value: unknown) => {
    if (typeof value !== 'object' || value === null) return value;
    const { hex, bigint } = value as { hex?: unknown; bigint?: unknown };
    if (typeof hex === 'string') return Buffer.from(hex, 'hex');
    return typeof bigint === 'string' ? BigInt(bigint) : value;
  });
}

/** @returns the path of the file */
export function saveFinding(finding: Finding): string {
  const text = pack(finding);
  const name = createHash('sha256').update(pack(finding.input)).digest('hex').slice(0, 8);
  const path = join(FOLDER, `${finding.target}-${name}.json`);
  writeFileSync(path, text);
  return path;
}

/** By the names of their files. */
export function findings(): [name: string, finding: Finding][] {
  return readdirSync(FOLDER)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map((name) => [name, unpack(readFileSync(join(FOLDER, name), 'utf8')) as Finding]);
}
