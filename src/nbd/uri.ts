/** NBD URIs (doc/uri.md of the NBD project). */

import { DEFAULT_PORT, MAX_STRING } from './constants.js';
import type { Address, Target } from './export.js';

/** A URI that cannot be used. The message is for the user and names the URI. */
export class UriError extends Error {
  override readonly name = 'UriError';
}

const SCHEMES = ['nbd', 'nbds', 'nbd+unix', 'nbds+unix', 'nbd+vsock', 'nbds+vsock', 'nbd+ssh'];

/** Whether a word is meant as an NBD URI, right or wrong, and not as a path. */
export function isNbdUri(text: string): boolean {
  return /^nbds?(\+[a-z]*)?:/i.test(text);
}

/**
 * `nbd://host[:port]/export` or `nbd+unix:///export?socket=PATH`. The parts are taken as they are
 * written: a general URL parser would mend some of what is wrong without a word.
 * @throws UriError
 */
export function parseNbdUri(text: string): Target {
  const fail = (problem: string): never => {
    throw new UriError(`${text}: ${problem}`);
  };
  if (/[\s\p{Cc}\\]/u.test(text))
    fail('a URI has no spaces or backslashes; write them as %20, %5C');
  const parts = /^([a-z+]+):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/i.exec(text);
  if (parts === null)
    return fail('not a URI; write nbd://host[:port]/export or nbd+unix:///export?socket=PATH');
  const [, writtenScheme = '', authority = '', path = '', query = '', fragment] = parts;
  const scheme = writtenScheme.toLowerCase();
  if (!SCHEMES.includes(scheme)) fail(`there is no scheme ${scheme}:`);
  if (scheme !== 'nbd' && scheme !== 'nbd+unix') fail(`the scheme ${scheme}: is not supported yet`);
  if (fragment !== undefined) fail('an NBD URI has no #fragment');
  if (authority.includes('@'))
    fail('a user name is of use with TLS only, which is not supported yet');

  const decode = (part: string, what: string): string => {
    try {
      return decodeURIComponent(part);
    } catch {
      return fail(
        `${what} has a percent sign that does not lead in two hexadecimal digits of UTF-8`,
      );
    }
  };

  let socket: string | undefined;
  for (const parameter of query === '' ? [] : query.split('&')) {
    const [name = '', ...value] = parameter.split('=');
    if (name !== 'socket') fail(`there is no parameter ${name === '' ? 'without a name' : name}`);
    if (socket !== undefined) fail('socket= is given twice');
    socket = decode(value.join('='), 'socket=');
  }

  const exportName = decode(path.replace(/^\//, ''), 'the export name');
  if (exportName.includes('\0')) fail('an export name cannot hold a NUL');
  if (Buffer.byteLength(exportName) > MAX_STRING) {
    fail(`the export name has more than ${MAX_STRING} bytes`);
  }

  let address: Address;
  if (scheme === 'nbd+unix') {
    if (authority !== '') fail('a Unix socket has no host; write nbd+unix:///export?socket=PATH');
    if (socket === undefined || socket === '') return fail('socket=PATH is missing');
    if (socket.lastIndexOf('\0') > 0) fail('a socket path cannot hold a NUL, but at its start');
    address = { kind: 'unix', path: socket };
  } else {
    if (socket !== undefined) fail('socket= is for nbd+unix: only');
    address = parseAuthority(authority, fail);
  }
  return { address, exportName };
}

function parseAuthority(authority: string, fail: (problem: string) => never): Address {
  const parts = /^(\[[^\]]*\]|[^:[\]]*)(?::(\d*))?$/.exec(authority);
  if (parts === null)
    return fail('the host is malformed; an IPv6 address stands in brackets: nbd://[::1]:10809/');
  const [, written = '', digits] = parts;
  const port = digits === undefined || digits === '' ? DEFAULT_PORT : Number(digits);
  if (port < 1 || port > 65535) return fail(`there is no port ${String(digits)}`);
  const isV6 = written.startsWith('[');
  const host = isV6
    ? written.slice(1, -1).replace(/^([^%]*)%25/, '$1%')
    : decodeHost(written, fail);
  if (isV6 && !/^[0-9a-f:.]+(%[\w.-]+)?$/i.test(host)) return fail('the IPv6 address is malformed');
  return { kind: 'tcp', host: host === '' ? 'localhost' : host, port };
}

function decodeHost(host: string, fail: (problem: string) => never): string {
  try {
    return decodeURIComponent(host);
  } catch {
    return fail('the host has a percent sign that does not lead in two hexadecimal digits');
  }
}
