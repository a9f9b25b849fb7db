/**
 * A server that ssh(1) leads to, as libnbd reaches it: on the far side, nc(1) is connected to the
 * socket of the server. Who that machine is, and how one logs in there, is all ssh's business.
 */

import { findProgram } from '../find-program.js';
import { ChildTransport } from '../transport/child-transport.js';
import type { SshAddress } from './export.js';

/** Where ssh is looked for when there is no PATH. */
const DEFAULT_PATH = '/usr/local/bin:/usr/bin:/bin';

/** @throws Error with a message that says why ssh could not be started */
export async function startSsh(address: SshAddress): Promise<ChildTransport> {
  const lookup = await findProgram('ssh', process.env['PATH'] ?? DEFAULT_PATH);
  if (!lookup.found) {
    throw new Error(`ssh ${lookup.reason}; on Debian: apt install openssh-client`);
  }
  return ChildTransport.start(lookup.path, sshArguments(address));
}

/** @returns what follows the name of the program */
export function sshArguments({ host, user, port, compress, remote }: SshAddress): string[] {
  return [
    // A terminal on the far side, as a configuration may ask for, would change the bytes.
    '-T',
    ...(compress ? ['-C'] : []),
    ...(port === undefined ? [] : ['-p', String(port)]),
    ...(user === undefined ? [] : ['-l', user]),
    '--',
    host,
    remote.kind === 'unix'
      ? `nc -U ${quoted(remote.path)}`
      : `nc ${quoted(remote.host)} ${remote.port}`,
  ];
}

/** A word for the shell of the far side, which nc does not take for an option. */
function quoted(word: string): string {
  const harmless = word.startsWith('-') ? `./${word}` : word;
  return `'${harmless.replaceAll("'", "'\\''")}'`;
}
