/** The servers that are tortured: a table of how each is started, and of what it serves. */

import { writeFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { TSNBDKIT } from '../support/mounts.js';
import type { Workplace } from '../support/mounts.js';
import type { Plan, ServerName } from './plan.js';

const POWER_CUT_SERVER = fileURLToPath(new URL('../support/power-cut-server.js', import.meta.url));
const PORT = 10809;

/** Some of the requests, so that a large one, in parts, is still likely to succeed some time. */
const ERROR_RATE = '15%';

export interface Files {
  readonly image: string;
  readonly socket: string;
  readonly pidfile: string;
  readonly config: string;
  /** The server refuses requests as long as it is there. */
  readonly errors: string;
}

export interface ServerSpec {
  /** What has to be installed. */
  readonly programs: readonly string[];
  readonly format: 'raw' | 'qcow2';
  /** @param address of the network to listen on; the Unix socket without it */
  readonly command: (files: Files, plan: Plan, address: string | undefined) => readonly string[];
  readonly config?: (files: Files, address: string | undefined) => string;
  readonly exportName?: string;
  /** What is started ends at once; the server is another process, which leads a process group. */
  readonly daemon?: boolean;
  /** Its last words are not waited for: what it knows and did not store is to be lost. */
  readonly forgets?: boolean;
  /** A crash of it is a bug of ours, and not one that others' servers have and users live with. */
  readonly isOurs?: boolean;
}

const qemuNbd =
  (format: string): ServerSpec['command'] =>
  ({ image, socket, pidfile }, _plan, address) => [
    ...['qemu-nbd', '--persistent', '--shared=0', '--discard=unmap', '--pid-file', pidfile],
    ...(address === undefined ? ['-k', socket] : ['-b', address, '-p', String(PORT)]),
    ...['-f', format, image],
  ];

const nbdkitFile = ({ image, errors }: Files, { fault, delay }: Plan): readonly string[] => [
  ...(fault === 'errors' ? ['--filter=error'] : []),
  ...(delay > 0 ? ['--filter=delay'] : []),
  ...['file', image],
  ...(fault === 'errors' ? ['error=EIO', `error-rate=${ERROR_RATE}`, `error-file=${errors}`] : []),
  ...(delay > 0 ? [`rdelay=${delay}ms`, `wdelay=${delay}ms`] : []),
];

export const SERVERS: Readonly<Record<ServerName, ServerSpec>> = {
  nbdkit: {
    programs: ['nbdkit'],
    format: 'raw',
    command: (files, plan, address) => [
      ...['nbdkit', '-f', '-P', files.pidfile],
      ...(address === undefined ? ['-U', files.socket] : ['-i', address, '-p', String(PORT)]),
      ...nbdkitFile(files, plan),
    ],
  },
  'qemu-raw': { programs: ['qemu-nbd'], format: 'raw', command: qemuNbd('raw') },
  'qemu-qcow2': { programs: ['qemu-nbd', 'qemu-img'], format: 'qcow2', command: qemuNbd('qcow2') },
  'nbd-server': {
    programs: ['nbd-server'],
    format: 'raw',
    exportName: 'disk',
    daemon: true,
    command: ({ config, pidfile }) => ['nbd-server', '-C', config, '-p', pidfile],
    config: ({ image, socket }, address) =>
      [
        '[generic]',
        ...(address === undefined ? [`unixsock = ${socket}`] : [`listenaddr = ${address}`]),
        '[disk]',
        `exportname = ${image}`,
        ...['flush = true', 'fua = true', 'trim = true', ''],
      ].join('\n'),
  },
  tsnbdkit: {
    programs: [],
    format: 'raw',
    isOurs: true,
    command: ({ image, socket, pidfile }, _plan, address) => [
      ...[TSNBDKIT, '-P', pidfile],
      ...(address === undefined ? ['-U', socket] : ['-i', address, '-p', String(PORT)]),
      ...['file', image],
    ],
  },
  'power-cut': {
    programs: [],
    format: 'raw',
    forgets: true,
    isOurs: true,
    command: ({ image, socket, pidfile }, { seed }, address) => [
      ...[process.execPath, POWER_CUT_SERVER, image, pidfile, String(seed)],
      ...(address === undefined ? [socket] : [address, String(PORT)]),
    ],
  },
  // Started by tsnbdfuse.
  captive: {
    programs: ['nbdkit'],
    format: 'raw',
    command: (files, plan) => ['nbdkit', ...nbdkitFile(files, plan)],
  },
};

export function uriOf({ exportName = '' }: ServerSpec, files: Files, address?: string): string {
  return address === undefined
    ? `nbd+unix:///${exportName}?socket=${files.socket}`
    : `nbd://${address}:${PORT}/${exportName}`;
}

/** What a server serves is made of the raw `image` of `prepare`. @returns its files */
export async function prepareServer(place: Workplace, { format }: ServerSpec): Promise<Files> {
  const files: Files = {
    image: place.join(format === 'raw' ? 'image' : 'image.qcow2'),
    socket: place.join('socket'),
    pidfile: place.join('pid'),
    config: place.join('config'),
    errors: place.join('errors'),
  };
  if (format === 'qcow2') {
    await place.ok('qemu-img', ['convert', '-f', 'raw', '-O', 'qcow2', 'image', files.image]);
  }
  return files;
}

/**
 * Looks whether the image of a server that was killed is in order. Clusters that were allocated and are not
 * used (leaks) are what a format may leave then; anything else is damage.
 */
export async function checkImage(
  place: Workplace,
  { format }: ServerSpec,
  { image }: Files,
): Promise<void> {
  if (format === 'raw') return;
  const { status, stdout, stderr } = await place.run('qemu-img', ['check', '-f', format, image]);
  const LEAKS = 3;
  if (status !== 0 && status !== LEAKS) throw new Error(`${image} is damaged: ${stdout}${stderr}`);
}

/** Writes what the server serves to a raw file, once the server has ended. @returns its path */
export async function rawImage(
  place: Workplace,
  { format }: ServerSpec,
  { image }: Files,
): Promise<string> {
  if (format === 'raw') return image;
  const raw = place.join('image.raw');
  await place.ok('qemu-img', ['convert', '-f', format, '-O', 'raw', image, raw]);
  return raw;
}

export async function writeConfig(
  { config }: ServerSpec,
  files: Files,
  address: string | undefined,
): Promise<void> {
  if (config !== undefined) await writeFile(files.config, config(files, address));
}
