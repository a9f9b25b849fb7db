/** What a connection is encrypted with, made ready: certificates and keys are read and looked at. */

import { open, readFile } from 'node:fs/promises';
import { isIP } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { checkServerIdentity } from 'node:tls';
import type { ConnectionOptions, PeerCertificate } from 'node:tls';
import { HandshakeError } from './errors.js';
import type { Target, TlsSettings } from './export.js';
import { printable } from './printing.js';

/** Where Debian, Fedora and others keep the authorities that the machine's owner trusts. */
const SYSTEM_AUTHORITIES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
];

/**
 * With a pre-shared key, and keys that are made anew for each connection. Those of TLS 1.3 first: the key takes the place of a certificate in them, and a
 * server that sends one all the same is refused.
 */
const PSK_CIPHERS = [
  'TLS_AES_128_GCM_SHA256',
  'TLS_CHACHA20_POLY1305_SHA256',
  'ECDHE-PSK-CHACHA20-POLY1305',
  'ECDHE-PSK-AES128-CBC-SHA256',
  'DHE-PSK-AES256-GCM-SHA384',
  'DHE-PSK-AES128-GCM-SHA256',
  'DHE-PSK-CHACHA20-POLY1305',
].join(':');
/** TLS 1.3 has none of them; OpenSSL allows them at its lowest level only. */
const ANONYMOUS_CIPHERS = 'aNULL:!eNULL:!LOW:!EXPORT:@SECLEVEL=0';

export interface TlsOptions {
  readonly connection: ConnectionOptions;
  /** Lines for the user: what is not wrong, but dangerous. */
  readonly warnings: readonly string[];
}

/**
 * @throws HandshakeError with one line for the user
 */
export async function tlsOptions(target: Target, settings: TlsSettings): Promise<TlsOptions> {
  const warnings: string[] = [];
  const connection: ConnectionOptions = {
    minVersion: 'TLSv1.2',
    ...(await credentials(target, settings, warnings)),
  };
  return { connection, warnings };
}

async function credentials(
  target: Target,
  settings: TlsSettings,
  warnings: string[],
): Promise<ConnectionOptions> {
  switch (settings.type) {
    case 'x509':
      return x509(target, settings, warnings);
    case 'psk':
      return preSharedKey(settings, warnings);
    case 'anon':
      return { ciphers: ANONYMOUS_CIPHERS, maxVersion: 'TLSv1.2', rejectUnauthorized: false };
  }
}

async function x509(
  { address }: Target,
  { hostname, verifyPeer, certificates }: TlsSettings,
  warnings: string[],
): Promise<ConnectionOptions> {
  const files = certificates === undefined ? {} : await readCertificates(certificates, warnings);
  if (!verifyPeer) {
    return { ...files, rejectUnauthorized: false, checkServerIdentity: () => undefined };
  }
  const name = hostname ?? (address.kind === 'tcp' ? address.host : undefined);
  if (name === undefined) {
    throw new HandshakeError(
      'there is no host name that the certificate of the server could be checked against; give tls-hostname=NAME, or tls-verify-peer=0 to believe whoever answers',
    );
  }
  const ca = certificates === undefined ? await systemAuthorities() : undefined;
  return {
    ...files,
    ...(ca === undefined ? {} : { ca }),
    // The name is sent to servers that have several; an address is none.
    ...(isIP(name) === 0 ? { servername: name } : {}),
    rejectUnauthorized: true,
    checkServerIdentity: (_host, certificate) => identityProblem(name, certificate),
  };
}

function identityProblem(name: string, certificate: PeerCertificate): Error | undefined {
  if (checkServerIdentity(name, certificate) === undefined) return undefined;
  const names = certificate.subjectaltname ?? certificate.subject.CN;
  const shown = Array.isArray(names) ? names.join(', ') : names;
  return new HandshakeError(
    `its certificate is for ${printable(shown ?? 'nobody')}, and not for ${printable(name)}`,
  );
}

/** Undefined where there are none, which leaves those that Node brings along. */
async function systemAuthorities(): Promise<Buffer | undefined> {
  for (const path of SYSTEM_AUTHORITIES) {
    const found = await readFile(path).catch(() => undefined);
    if (found !== undefined) return found;
  }
  return undefined;
}

async function readCertificates(
  directory: string,
  warnings: string[],
): Promise<Pick<ConnectionOptions, 'ca' | 'cert' | 'key' | 'crl'>> {
  const path = (name: string): string => join(directory, name);
  const [ca, cert, key, crl] = await Promise.all([
    readWhole(path('ca-cert.pem')),
    readOptional(path('client-cert.pem')),
    readSecret(path('client-key.pem'), warnings),
    readOptional(path('ca-crl.pem')),
  ]);
  if (cert !== undefined && key === undefined) {
    throw new HandshakeError(
      `${directory} has client-cert.pem, but the key to it is missing: client-key.pem`,
    );
  }
  if (key !== undefined && cert === undefined) {
    throw new HandshakeError(
      `${directory} has client-key.pem, but the certificate for it is missing: client-cert.pem`,
    );
  }
  return {
    ca,
    ...(cert === undefined ? {} : { cert }),
    ...(key === undefined ? {} : { key }),
    ...(crl === undefined ? {} : { crl }),
  };
}

const isMissing = (error: unknown): boolean =>
  error instanceof Error && 'code' in error && error.code === 'ENOENT';

function unreadable(path: string, error: unknown): HandshakeError {
  const code = error instanceof Error && 'code' in error ? String(error.code) : String(error);
  const why = code === 'ENOENT' ? 'it does not exist' : code;
  return new HandshakeError(`cannot read ${path}: ${why}`, { cause: error });
}

async function readWhole(path: string): Promise<Buffer> {
  try {
    return await readFile(path);
  } catch (error) {
    throw unreadable(path, error);
  }
}

async function readOptional(path: string): Promise<Buffer | undefined> {
  try {
    return await readFile(path);
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw unreadable(path, error);
  }
}

/** A file that nobody else should be able to read; undefined if it does not exist. */
async function readSecret(path: string, warnings: string[]): Promise<Buffer | undefined> {
  try {
    const file = await open(path, 'r');
    try {
      const { mode } = await file.stat();
      if ((mode & 0o077) !== 0) {
        warnings.push(`${path} holds a key and can be read by others; try: chmod 600 ${path}`);
      }
      return await file.readFile();
    } finally {
      await file.close();
    }
  } catch (error) {
    if (isMissing(error)) return undefined;
    throw unreadable(path, error);
  }
}

async function preSharedKey(
  { pskFile, username }: TlsSettings,
  warnings: string[],
): Promise<ConnectionOptions> {
  if (pskFile === undefined) {
    throw new HandshakeError(
      'a pre-shared key is wanted, but there is no file with it: give tls-psk-file=',
    );
  }
  const content = await readSecret(pskFile, warnings);
  if (content === undefined) {
    throw new HandshakeError(`cannot read ${pskFile}: it does not exist`);
  }
  const identity = username ?? userInfo().username;
  const psk = findKey(content.toString('utf8'), identity, pskFile);
  return {
    ciphers: PSK_CIPHERS,
    rejectUnauthorized: true,
    pskCallback: () => ({ psk, identity }),
    // Called for a certificate too, which is not what was asked for.
    checkServerIdentity: (_host, certificate) =>
      Object.keys(certificate).length === 0
        ? undefined
        : new HandshakeError('it has sent a certificate, and not used the pre-shared key'),
  };
}

function findKey(content: string, user: string, path: string): Buffer {
  for (const line of content.split(/\r?\n/)) {
    const colon = line.lastIndexOf(':');
    if (line.startsWith('#') || colon < 0 || line.slice(0, colon) !== user) continue;
    const key = line.slice(colon + 1);
    if (!/^([0-9a-f]{2})+$/i.test(key)) {
      throw new HandshakeError(`${path}: the key of ${printable(user)} is not hexadecimal`);
    }
    return Buffer.from(key, 'hex');
  }
  throw new HandshakeError(
    `${path} has no key for the user ${printable(user)}; give another one with tls-username=`,
  );
}
