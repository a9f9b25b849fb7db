/** NBD URIs (doc/uri.md of the NBD project, and what libnbd adds to it). */

import { isIPv6 } from 'node:net';
import { DEFAULT_PORT, MAX_STRING, MAX_VSOCK } from './constants.js';
import type { Address, SshAddress, Target, UnixAddress } from './export.js';
import { printable } from './printing.js';
import { decode, flagOf, parseParameters, parseTls, withTls } from './uri-parameters.js';
import type { Fail, Parameters, Scheme } from './uri-parameters.js';

/** A URI that cannot be used. The message is for the user and names the URI. */
export class UriError extends Error {
  /** Tells the kind of error. */
  override readonly name = 'UriError';
  /** The same for those who go by codes. */
  readonly code = 'ERR_NBD_URI';
}

const FORMS =
  'write nbd://host[:port]/export, nbd+unix:///export?socket=PATH, nbd+vsock://cid[:port]/export ' +
  'or nbd+ssh://[user@]host/export, and nbds for TLS';

/** How much of a URI a message shows. */
const SHOWN = 500;

/** With the name of a network interface, if any: at most 15 bytes (IFNAMSIZ). */
const IPV6_ADDRESS = /^[^%]+(%[\w.-]{1,15})?$/;

const MAX_TCP_PORT = 0xffff;
/** The host, as a virtual machine sees it (VMADDR_CID_HOST). */
const HOST_CID = 2;

/** What stands between the "//" and the path. */
interface Authority {
  readonly user: string | undefined;
  /** Empty where there is none; an IPv6 address stands in its brackets. */
  readonly host: string;
  readonly port: string;
}

/**
 * Takes the parts as they are written: a general URL parser would mend some of what is wrong without
 * a word.
 * @throws UriError
 */
export function parseNbdUri(text: string): Target {
  const fail: Fail = (problem) => {
    throw new UriError(`${printable(withoutPassword(text), SHOWN)}: ${problem}`);
  };
  if (/[\s\p{Cc}\\]/u.test(text)) {
    fail('a URI has no spaces, control characters or backslashes; write %20 for a space');
  }
  const parts = /^([a-z][a-z0-9+.-]*):\/\/([^/?#]*)([^?#]*)(?:\?([^#]*))?(#.*)?$/i.exec(text);
  if (parts === null) return fail(`it is not a URI of an NBD export; ${FORMS}`);
  const [, writtenScheme = '', writtenAuthority = '', path = '', query = '', fragment] = parts;
  const scheme = parseScheme(writtenScheme, fail);
  if (fragment !== undefined) fail('an NBD URI has no #fragment; write %23 for a # in a name');

  const authority = parseAuthority(writtenAuthority, scheme, fail);
  const parameters = parseParameters(query, scheme, fail);
  const exportName = decode(path.replace(/^\//, ''), 'the export name', fail);
  if (exportName.includes('\0')) fail('an export name cannot hold a NUL (%00)');
  if (Buffer.byteLength(exportName) > MAX_STRING) {
    fail(`the export name has more than ${MAX_STRING} bytes`);
  }
  const address = parseAddress(authority, parameters, scheme, fail);
  if (!scheme.tls) return { address, exportName };
  // With ssh it is the one who logs in.
  const user = address.kind === 'ssh' ? undefined : authority.user;
  return { address, exportName, tls: parseTls(parameters, scheme, user, fail) };
}

/** Who wrote one in all the same need not find it in a log. */
const withoutPassword = (text: string): string =>
  text.replace(/^([^/?#]*:\/\/[^/?#:@]*):[^/?#]*@/, '$1:***@');

function parseScheme(written: string, fail: Fail): Scheme {
  const name = written.toLowerCase();
  const parts = /^nbd(s?)(?:\+(unix|vsock|ssh))?$/.exec(name);
  if (parts === null) return fail(`${name}: is not an NBD scheme; ${FORMS}`);
  return { name, kind: (parts[2] ?? 'tcp') as Scheme['kind'], tls: parts[1] === 's' };
}

function parseAuthority(text: string, scheme: Scheme, fail: Fail): Authority {
  const at = text.lastIndexOf('@');
  const user = at < 0 ? undefined : parseUser(text.slice(0, at), scheme, fail);
  const parts = /^(\[[^\]]*\]|[^:[\]]*)(?::([^:]*))?$/.exec(text.slice(at + 1));
  if (parts === null) {
    return fail(
      `the host is malformed; an IPv6 address stands in brackets: ${scheme.name}://[::1]:10809/`,
    );
  }
  return { user, host: parts[1] ?? '', port: parts[2] ?? '' };
}

function parseUser(written: string, scheme: Scheme, fail: Fail): string {
  if (!scheme.tls && scheme.kind !== 'ssh') {
    fail(`a user name before the host is for TLS or ssh; for TLS write ${withTls(scheme)}:`);
  }
  if (written.includes(':'))
    fail('a password has no place in a URI; leave out the : behind the user name');
  if (written.includes('@')) fail('the user name is malformed; write %40 for an @');
  const user = decode(written, 'the user name', fail);
  if (user === '') fail('the user name before the @ is empty');
  if (/\p{Cc}/u.test(user)) fail('the user name is malformed');
  return user;
}

function parseAddress(
  authority: Authority,
  parameters: Parameters,
  scheme: Scheme,
  fail: Fail,
): Address {
  const { host, port } = authority;
  switch (scheme.kind) {
    case 'tcp':
      return {
        kind: 'tcp',
        host: parseHost(host, fail) ?? 'localhost',
        port: parsePort(port, MAX_TCP_PORT, fail) ?? DEFAULT_PORT,
      };
    case 'unix':
      return parseUnix(authority, parameters, scheme, fail);
    case 'vsock':
      return {
        kind: 'vsock',
        cid: parseNumber(host, 0, MAX_VSOCK) ?? (host === '' ? HOST_CID : badCid(host, fail)),
        port: parsePort(port, MAX_VSOCK, fail) ?? DEFAULT_PORT,
      };
    case 'ssh':
      return parseSsh(authority, parameters, scheme, fail);
  }
}

function badCid(host: string, fail: Fail): never {
  return fail(
    `${host} is not a context identifier of vsock, a number from 0 to ${MAX_VSOCK}; the host is 2`,
  );
}

function parseUnix(
  { host, port }: Authority,
  parameters: Parameters,
  scheme: Scheme,
  fail: Fail,
): UnixAddress {
  const form = `write ${scheme.name}:///export?socket=PATH`;
  if (host !== '' || port !== '') fail(`a Unix socket has no host; ${form}`);
  const path = parameters.get('socket');
  return path === undefined ? fail(`socket= is missing; ${form}`) : { kind: 'unix', path };
}

function parseSsh(
  { user, host, port }: Authority,
  parameters: Parameters,
  scheme: Scheme,
  fail: Fail,
): SshAddress {
  const machine = parseHost(host, fail);
  if (machine === undefined) {
    return fail(`the host is missing; write ${scheme.name}://[user@]host/export`);
  }
  for (const [what, word] of [
    ['host', machine],
    ['user name', user ?? ''],
  ] as const) {
    // Both become words of a command line, and may become words of another one that ssh makes of
    // them (ProxyCommand): none may pass for an option, or for more than a word.
    if (/^-|[\s'"`$\\;&<>|(){}]/.test(word)) {
      fail(`the ${what} ${printable(word, 50)} is not one that ssh can be given`);
    }
  }
  const path = parameters.get('socket');
  const nbdPort = parameters.get('nbd-port');
  if (path !== undefined && nbdPort !== undefined) {
    fail('either socket= or nbd-port= can be given');
  }
  if (path?.startsWith('\0') === true) fail('an abstract socket cannot be reached through ssh');
  return {
    kind: 'ssh',
    host: machine,
    user,
    port: parsePort(port, MAX_TCP_PORT, fail),
    compress: flagOf(parameters, 'compress', fail) ?? false,
    remote:
      path !== undefined
        ? { kind: 'unix', path }
        : {
            kind: 'tcp',
            host: 'localhost',
            port: parsePort(nbdPort ?? '', MAX_TCP_PORT, fail) ?? DEFAULT_PORT,
          },
  };
}

/** @returns undefined where there is none */
function parseHost(written: string, fail: Fail): string | undefined {
  if (written === '') return undefined;
  if (written.startsWith('[')) {
    // The % before a scope (fe80::1%eth0) is written %25, but often is not (RFC 6874).
    const host = written.slice(1, -1).replace('%25', '%');
    if (!isIPv6(host) || !IPV6_ADDRESS.test(host)) {
      return fail(`${written} is not an IPv6 address`);
    }
    return host;
  }
  const host = decode(written, 'the host', fail);
  if (/[\s\p{Cc}/\\?#@:[\]%]/u.test(host)) return fail('the host is malformed');
  return host;
}

/** @returns undefined where there is none */
function parsePort(digits: string, most: number, fail: Fail): number | undefined {
  if (digits === '') return undefined;
  return (
    parseNumber(digits, 1, most) ?? fail(`the port ${digits} is not a number from 1 to ${most}`)
  );
}

/** @returns undefined where it is not a decimal number within the bounds */
function parseNumber(digits: string, least: number, most: number): number | undefined {
  const number = Number(digits);
  return /^\d+$/.test(digits) && number >= least && number <= most ? number : undefined;
}
