/** NBD URIs (doc/uri.md of the NBD project). */

import { isIPv6 } from 'node:net';
import { DEFAULT_PORT, MAX_STRING } from './constants.js';
import type { Address, Target } from './export.js';
import { printable } from './printing.js';

/** A URI that cannot be used. The message is for the user and names the URI. */
export class UriError extends Error {
  override readonly name = 'UriError';
}

const FORMS = 'write nbd://host[:port]/export or nbd+unix:///export?socket=PATH';

/** Schemes that other clients know. */
const UNSUPPORTED = ['nbds', 'nbds+unix', 'nbd+vsock', 'nbds+vsock', 'nbd+ssh', 'nbds+ssh'];

/** How much of a URI a message shows. */
const SHOWN = 500;

/** With the name of a network interface, if any: at most 15 bytes (IFNAMSIZ). */
const IPV6_ADDRESS = /^[^%]+(%[\w.-]{1,15})?$/;

type Fail = (problem: string) => never;

/**
 * `nbd://host[:port][/export]` or `nbd+unix:///[export]?socket=PATH`. The parts are taken as they are
 * written: a general URL parser would mend some of what is wrong without a word.
 * @throws UriError
 */
export function parseNbdUri(text: string): Target {
  const fail: Fail = (problem) => {
    throw new UriError(`${printable(text, SHOWN)}: ${problem}`);
  };
  if (/[\s\p{Cc}\\]/u.test(text)) {
    fail('a URI has no spaces, control characters or backslashes; write %20 for a space');
  }
  const parts = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/i.exec(text);
  if (parts === null) return fail(`it is not a URI of an NBD export; ${FORMS}`);
  const [, writtenScheme = '', authority = '', path = '', query = '', fragment] = parts;
  const scheme = writtenScheme.toLowerCase();
  if (UNSUPPORTED.includes(scheme)) fail(`the scheme ${scheme}: is not supported yet; ${FORMS}`);
  if (scheme !== 'nbd' && scheme !== 'nbd+unix') fail(`${scheme}: is not an NBD scheme; ${FORMS}`);
  if (fragment !== undefined) fail('an NBD URI has no #fragment; write %23 for a # in a name');
  if (authority.includes('@')) {
    fail('a user name before the host is of use with TLS only, which is not supported yet');
  }

  const socket = parseQuery(query, fail);
  const exportName = decode(path.replace(/^\//, ''), 'the export name', fail);
  if (exportName.includes('\0')) fail('an export name cannot hold a NUL (%00)');
  if (Buffer.byteLength(exportName) > MAX_STRING) {
    fail(`the export name has more than ${MAX_STRING} bytes`);
  }

  let address: Address;
  if (scheme === 'nbd+unix') {
    if (authority !== '') fail('a Unix socket has no host; write nbd+unix:///export?socket=PATH');
    if (socket === undefined || socket === '') {
      return fail('socket= is missing; write nbd+unix:///export?socket=PATH');
    }
    if (socket.lastIndexOf('\0') > 0)
      fail('a socket path cannot hold a NUL (%00), but at its start');
    address = { kind: 'unix', path: socket };
  } else {
    if (socket !== undefined) fail('socket= is for nbd+unix: only');
    address = parseAuthority(authority, fail);
  }
  return { address, exportName };
}

/** @returns the value of `socket`, the only parameter there is */
function parseQuery(query: string, fail: Fail): string | undefined {
  let socket: string | undefined;
  for (const parameter of query === '' ? [] : query.split('&')) {
    const [name = '', ...value] = parameter.split('=');
    if (name.startsWith('tls-')) fail(`${name}= is for TLS, which is not supported yet`);
    if (name === '') fail('a parameter has no name; the only one is socket=');
    if (name !== 'socket') fail(`there is no parameter ${name}; the only one is socket=`);
    if (socket !== undefined) fail('socket= is given twice');
    // A path may hold a "=".
    socket = decode(value.join('='), 'socket=', fail);
  }
  return socket;
}

function parseAuthority(authority: string, fail: Fail): Address {
  const parts = /^(\[[^\]]*\]|[^:[\]]*)(?::(.*))?$/.exec(authority);
  const [, written = '', digits = ''] = parts ?? [];
  if (parts === null || digits.includes(':')) {
    return fail('the host is malformed; an IPv6 address stands in brackets: nbd://[::1]:10809/');
  }
  const port = digits === '' ? DEFAULT_PORT : Number(digits);
  if (!/^\d*$/.test(digits) || port < 1 || port > 65535) {
    return fail(`the port ${digits} is not a number from 1 to 65535`);
  }
  if (written.startsWith('[')) {
    // The % before a scope (fe80::1%eth0) is written %25, but often is not (RFC 6874).
    const host = written.slice(1, -1).replace('%25', '%');
    if (!isIPv6(host) || !IPV6_ADDRESS.test(host)) {
      return fail(`${written} is not an IPv6 address`);
    }
    return { kind: 'tcp', host, port };
  }
  const host = decode(written, 'the host', fail);
  if (/[\s\p{Cc}/\\?#@:[\]%]/u.test(host)) return fail('the host is malformed');
  return { kind: 'tcp', host: host === '' ? 'localhost' : host, port };
}

function decode(part: string, what: string, fail: Fail): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return fail(
      `${what} has a % that does not lead in two hexadecimal digits of UTF-8; write %25 for a %`,
    );
  }
}
