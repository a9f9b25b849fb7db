/**
 * Sessions of real servers and clients, as they were recorded by record.ts: each a stream in one direction,
 * cut into messages.
 */

import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Asked } from '../support/reply-client.js';
import { unpack } from './findings.js';

/** Seen from dist/test/fuzz/, where the compiled file is. */
export const CORPUS = fileURLToPath(new URL('../../../test/fuzz/corpus/', import.meta.url));

/** Of the disks that were recorded with. */
export const DISK_BYTES = 64 * 1024;

interface Session {
  /** What made it, with its version. */
  readonly of: string;
  readonly frames: readonly Buffer[];
}

/** What a server sends to our client, which asks for these things. */
export interface ServerSession extends Session {
  readonly from: 'server';
  readonly exportName: string;
  readonly asked: readonly Asked[];
  /** What our client made of it, in the order of the requests. */
  readonly answers: readonly string[];
}

/** What a client sends to tsnbdkit. */
export interface ClientSession extends Session {
  readonly from: 'client';
}

function all(): (ServerSession | ClientSession)[] {
  return readdirSync(CORPUS)
    .filter((name) => name.endsWith('.json'))
    .sort()
    .map(
      (name) => unpack(readFileSync(join(CORPUS, name), 'utf8')) as ServerSession | ClientSession,
    );
}

export function serverSessions(): ServerSession[] {
  return all().filter((one) => one.from === 'server');
}

export function clientSessions(): ClientSession[] {
  return all().filter((one) => one.from === 'client');
}
