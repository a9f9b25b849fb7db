/** What stands behind the "?" of an NBD URI. */

import type { TlsSettings } from './export.js';
import { printable } from './printing.js';

/** Throws a UriError. */
export type Fail = (problem: string) => never;

/** Where a scheme leads to, and whether with TLS. */
export interface Scheme {
  readonly name: string;
  readonly kind: 'tcp' | 'unix' | 'vsock' | 'ssh';
  readonly tls: boolean;
}

/**
 * The parameters of doc/uri.md and of libnbd, with the kinds of schemes that each is for; undefined
 * stands for all of those with TLS.
 */
const PARAMETERS = {
  socket: ['unix', 'ssh'],
  'nbd-port': ['ssh'],
  compress: ['ssh'],
  'tls-type': undefined,
  'tls-hostname': undefined,
  'tls-verify-peer': undefined,
  'tls-certificates': undefined,
  'tls-psk-file': undefined,
  'tls-username': undefined,
} as const satisfies Readonly<Record<string, readonly Scheme['kind'][] | undefined>>;

type ParameterName = keyof typeof PARAMETERS;
export type Parameters = ReadonlyMap<ParameterName, string>;

const TLS_TYPES: readonly TlsSettings['type'][] = ['x509', 'psk', 'anon'];
/** Of the domain name system (RFC 1035, section 3.1). */
const MAX_HOSTNAME = 253;
const YES = ['1', 'true', 'yes', 'on'];
const NO = ['0', 'false', 'no', 'off'];

const isParameter = (name: string): name is ParameterName => Object.hasOwn(PARAMETERS, name);

function isFor(name: ParameterName, scheme: Scheme): boolean {
  const kinds: readonly string[] | undefined = PARAMETERS[name];
  return kinds === undefined ? scheme.tls : kinds.includes(scheme.kind);
}

/** @returns the values, decoded, none of them empty or with a NUL but the one that begins a socket */
export function parseParameters(query: string, scheme: Scheme, fail: Fail): Parameters {
  const values = new Map<ParameterName, string>();
  for (const parameter of query === '' ? [] : query.split('&')) {
    const [written = '', ...rest] = parameter.split('=');
    const name = known(written, scheme, fail);
    if (values.has(name)) fail(`${name}= is given twice`);
    // A path may hold a "=".
    const value = decode(rest.join('='), `${name}=`, fail);
    if (value === '') fail(`${name}= is empty`);
    if (value.lastIndexOf('\0') > (name === 'socket' ? 0 : -1)) {
      const but = name === 'socket' ? ', but at its start' : '';
      fail(`${name}= cannot hold a NUL (%00)${but}`);
    }
    values.set(name, value);
  }
  return values;
}

function known(name: string, scheme: Scheme, fail: Fail): ParameterName {
  if (!isParameter(name)) {
    const all = Object.keys(PARAMETERS).filter((one) => isParameter(one) && isFor(one, scheme));
    const list = all.length === 0 ? 'none' : all.map((one) => `${one}=`).join(', ');
    return fail(
      name === ''
        ? `a parameter has no name; ${scheme.name}: has ${list}`
        : `there is no parameter ${printable(name, 50)}; ${scheme.name}: has ${list}`,
    );
  }
  if (isFor(name, scheme)) return name;
  const kinds: readonly string[] | undefined = PARAMETERS[name];
  if (kinds === undefined) {
    return fail(`${name}= is for TLS; write ${withTls(scheme)}: in place of ${scheme.name}:`);
  }
  const schemes = kinds.map((kind) => `${scheme.tls ? 'nbds' : 'nbd'}+${kind}:`);
  return fail(`${name}= is for ${schemes.join(' and ')} only`);
}

/** The name of the scheme that leads to the same place by TLS. */
export function withTls(scheme: Scheme): string {
  return scheme.name.replace(/^nbd(?=\+|$)/, 'nbds');
}

/** @returns undefined where the parameter is not given */
export function flagOf(
  parameters: Parameters,
  name: 'compress' | 'tls-verify-peer',
  fail: Fail,
): boolean | undefined {
  const value = parameters.get(name);
  if (value === undefined) return undefined;
  const word = value.toLowerCase();
  if (YES.includes(word)) return true;
  if (NO.includes(word)) return false;
  return fail(`${name}=${printable(value, 50)} is neither 1 nor 0`);
}

/**
 * What a URI says of the encryption.
 * @param user the name that stands before the host, where that is not another user's
 */
export function parseTls(
  parameters: Parameters,
  scheme: Scheme,
  user: string | undefined,
  fail: Fail,
): TlsSettings {
  const type = tlsType(parameters, fail);
  const hostname = parameters.get('tls-hostname');
  const verify = flagOf(parameters, 'tls-verify-peer', fail);
  if (hostname !== undefined) {
    if (type !== 'x509') fail(`tls-hostname= is for certificates (x509), not for tls-type=${type}`);
    if (/[\s\p{Cc}]/u.test(hostname) || hostname.length > MAX_HOSTNAME) {
      fail('tls-hostname= is malformed');
    }
  }
  if (type === 'anon' && verify === true) {
    fail('tls-type=anon cannot know who answers; leave out tls-verify-peer=, or use x509 or psk');
  }
  if (type === 'x509' && scheme.kind !== 'tcp' && hostname === undefined && verify !== false) {
    fail(
      `${scheme.name}: has no host to check the certificate against; add tls-hostname=NAME, ` +
        'or tls-verify-peer=0 to believe whoever answers',
    );
  }
  const username = parameters.get('tls-username');
  if (user !== undefined && username !== undefined) {
    fail('the user name is given twice, before the host and as tls-username=');
  }
  return {
    type,
    hostname,
    verifyPeer: verify ?? type !== 'anon',
    certificates: parameters.get('tls-certificates'),
    pskFile: parameters.get('tls-psk-file'),
    username: user ?? username,
  };
}

function tlsType(parameters: Parameters, fail: Fail): TlsSettings['type'] {
  const hasKey = parameters.has('tls-psk-file');
  const written = parameters.get('tls-type');
  const type =
    written === undefined ? (hasKey ? 'psk' : 'x509') : TLS_TYPES.find((one) => one === written);
  if (type === undefined) {
    const shown = printable(written ?? '', 50);
    return fail(`tls-type=${shown} is not known; it is x509, psk or anon`);
  }
  if (type === 'psk' && !hasKey) fail('tls-type=psk needs a file with the key: add tls-psk-file=');
  if (type !== 'psk' && hasKey) fail(`tls-psk-file= is for psk, not for tls-type=${type}`);
  if (type !== 'x509' && parameters.has('tls-certificates')) {
    fail(
      written === undefined
        ? 'either tls-certificates= or tls-psk-file= can be given'
        : `tls-certificates= is for x509, not for tls-type=${type}`,
    );
  }
  return type;
}

export function decode(part: string, what: string, fail: Fail): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return fail(
      `${what} has a % that does not lead in two hexadecimal digits of UTF-8; write %25 for a %`,
    );
  }
}
