/** The options of `tsnbdkit`, and the help that tells of them. */

import { Command, InvalidArgumentError } from 'commander';
import { DEFAULT_PORT, MAX_STRING } from '../nbd/constants.js';
import { plugins } from '../server/plugins/index.js';

export const EXTRA_HELP = `
Plugins:
${plugins.map(({ name, argument, help }) => `  ${`${name} ${argument}`.padEnd(13)} ${help}`).join('\n')}

Sizes are written 512, 10M, 1.5G, 1T. Without -U, -p and -i, and where no socket
is passed by socket activation, it listens on the loopback port ${DEFAULT_PORT}.

Examples:
  tsnbdkit -U /tmp/disk.sock memory 1G
  tsnbdkit -r -p 10809 file disk.img
  tsnbdfuse disk.raw [ tsnbdkit memory 1G ]`;

export interface KitOptions {
  readonly unix?: string;
  readonly port?: number;
  readonly ipaddr?: string;
  readonly exportname: string;
  readonly readonly?: true;
  readonly pidfile?: string;
  readonly verbose?: true;
  readonly version?: true;
}

function parsePort(text: string): number {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN;
  if (!(port <= 65535)) throw new InvalidArgumentError('It is a number up to 65535.');
  return port;
}

function parseExportName(text: string): string {
  if (Buffer.byteLength(text) > MAX_STRING) {
    throw new InvalidArgumentError(`It is at most ${MAX_STRING} bytes long.`);
  }
  return text;
}

export function makeKitProgram(): Command {
  return new Command('tsnbdkit')
    .usage('[options] PLUGIN ARGUMENT')
    .description('Serve a disk by the NBD protocol.')
    .argument('[words...]')
    .option('-U, --unix <socket>', 'listen on a Unix socket')
    .option('-p, --port <port>', 'listen on a TCP port; 0 takes a free one and tells', parsePort)
    .option('-i, --ipaddr <address>', 'listen on one address instead of loopback')
    .option('-e, --exportname <name>', 'a name for the default export', parseExportName, '')
    .option('-r, --readonly', 'refuse writes')
    .option('-P, --pidfile <file>', 'write the process id there once ready')
    .option('-v, --verbose', 'trace each request, as DEBUG=tsnbdfuse:server does')
    .option('-V, --version', 'print the version')
    .helpOption('--help', 'print this help')
    .configureHelp({ helpWidth: 80, visibleArguments: () => [] })
    .configureOutput({ writeOut: () => undefined, writeErr: () => undefined })
    .exitOverride();
}
