/** What a connection is encrypted with, made ready: certificates and keys are read and looked at. */

import { isIP } from 'node:net';
import { userInfo } from 'node:os';
import { join } from 'node:path';
import { X509Certificate } from 'node:crypto';
import { checkServerIdentity, createSecureContext } from 'node:tls';
import type { ConnectionOptions, PeerCertificate, SecureContextOptions } from 'node:tls';
import { readCredentialFile, readNeeded } from './credential-files.js';
import type { CredentialFile, Patience } from './credential-files.js';
import { HandshakeError, SetupError } from './errors.js';
import type { Target, TlsSettings } from './export.js';
import { certificatesOf, privateKeyOf, reasonOf, revocationsOf } from './pem.js';
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

/** What OpenSSL takes of a key and of its owner's name, also in its older versions. */
const MAX_PSK_BYTES = 256;
const MAX_IDENTITY_BYTES = 128;

/** How connections are encrypted. */
export interface Encryption extends ConnectionOptions {
  /** False: a server that asks for a certificate of ours gets none. */
  readonly identified?: boolean;
}

export interface TlsOptions {
  /** For each connection alike: nothing is read again. */
  readonly connection: Encryption;
  /** Lines for the user: what is not wrong, but dangerous. */
  readonly warnings: readonly string[];
}

/** In the form in which one kind of credentials leaves them. */
interface Credentials {
  /** What OpenSSL is set up with. */
  readonly context: SecureContextOptions;
  /** The rest. */
  readonly connection: ConnectionOptions;
}

/**
 * Reads and checks all there is to it, so that what is wrong is told before anything is connected, and
 * is not taken for something that the server did.
 * @throws SetupError with one line for the user; the signal's reason
 */
export async function tlsOptions(
  target: Target,
  settings: TlsSettings,
  patience: Patience,
): Promise<TlsOptions> {
  const warnings: string[] = [];
  const { context, connection } = await credentials(target, settings, patience, warnings);
  try {
    // Where nobody is said to be trusted, Node would trust those authorities that it brings along.
    const secureContext = createSecureContext({ minVersion: 'TLSv1.2', ca: [], ...context });
    const identified = settings.type !== 'x509' || context.cert !== undefined;
    return { connection: { ...connection, secureContext, identified }, warnings };
  } catch (error) {
    throw new SetupError(
      `OpenSSL cannot be set up for tls-type=${settings.type}: ${reasonOf(error)}`,
      { cause: error },
    );
  }
}

async function credentials(
  target: Target,
  settings: TlsSettings,
  patience: Patience,
  warnings: string[],
): Promise<Credentials> {
  switch (settings.type) {
    case 'x509':
      return x509(target, settings, patience, warnings);
    case 'psk':
      return preSharedKey(settings, patience, warnings);
    case 'anon':
      return {
        context: { ciphers: ANONYMOUS_CIPHERS, maxVersion: 'TLSv1.2' },
        connection: { rejectUnauthorized: false },
      };
  }
}

async function x509(
  { address }: Target,
  { hostname, verifyPeer, certificates }: TlsSettings,
  patience: Patience,
  warnings: string[],
): Promise<Credentials> {
  const files =
    certificates === undefined ? {} : await readCertificates(certificates, patience, warnings);
  if (!verifyPeer) {
    return {
      context: files,
      connection: { rejectUnauthorized: false, checkServerIdentity: () => undefined },
    };
  }
  const name = hostname ?? (address.kind === 'tcp' ? address.host : undefined);
  if (name === undefined) {
    throw new SetupError(
      'there is no host name that the certificate of the server could be checked against; give tls-hostname=NAME, or tls-verify-peer=0 to believe whoever answers',
    );
  }
  return {
    context: certificates === undefined ? { ca: await systemAuthorities(patience) } : files,
    connection: {
      // The name is sent to servers that have several; an address is none.
      ...(isIP(name) === 0 ? { servername: name } : {}),
      rejectUnauthorized: true,
      checkServerIdentity: (_host, certificate) => identityProblem(name, certificate),
    },
  };
}

function identityProblem(name: string, certificate: PeerCertificate): Error | undefined {
  if (checkServerIdentity(name, certificate) === undefined) return undefined;
  const names = certificate.subjectaltname ?? certificate.subject.CN;
  const shown = Array.isArray(names) ? names.join(', ') : names;
  return new HandshakeError(
    `its certificate is for ${printable(shown ?? 'nobody')}, and not for ${printable(name)}`,
    { failure: 'tls' },
  );
}

/**
 * Of the first list that there is. Nobody else is trusted in its place: not if it cannot be read, and not
 * if there is none, when Node would trust those that it brings along.
 */
async function systemAuthorities(patience: Patience): Promise<string[]> {
  for (const path of SYSTEM_AUTHORITIES) {
    const file = await readCredentialFile(path, patience);
    if (file !== undefined) return certificatesOf(file);
  }
  throw new SetupError(
    'this machine has no list of authorities to check certificates with; give tls-certificates=DIRECTORY with a ca-cert.pem (or on Debian: apt install ca-certificates)',
  );
}

async function readCertificates(
  directory: string,
  patience: Patience,
  warnings: string[],
): Promise<SecureContextOptions> {
  const path = (name: string): string => join(directory, name);
  const optional = (name: string): Promise<CredentialFile | undefined> =>
    readCredentialFile(path(name), patience);
  const [authorities, certificate, key, revocations] = await Promise.all([
    readNeeded(path('ca-cert.pem'), patience),
    optional('client-cert.pem'),
    optional('client-key.pem'),
    optional('ca-crl.pem'),
  ]);
  if (certificate !== undefined && key === undefined) {
    throw new SetupError(
      `${directory} has client-cert.pem, but the key to it is missing: client-key.pem`,
    );
  }
  if (key !== undefined && certificate === undefined) {
    throw new SetupError(
      `${directory} has client-key.pem, but the certificate for it is missing: client-cert.pem`,
    );
  }
  return {
    ca: certificatesOf(authorities),
    ...(revocations === undefined ? {} : { crl: revocationsOf(revocations) }),
    ...(certificate === undefined || key === undefined
      ? {}
      : ownCertificate(certificate, key, warnings)),
  };
}

function ownCertificate(
  certificate: CredentialFile,
  key: CredentialFile,
  warnings: string[],
): SecureContextOptions {
  warnOfSecret(key, warnings);
  const chain = certificatesOf(certificate);
  if (!new X509Certificate(chain[0]).checkPrivateKey(privateKeyOf(key))) {
    throw new SetupError(`${key.path} is not the key to ${certificate.path}`);
  }
  const own = { cert: chain.join('\n'), key: key.content };
  try {
    // What OpenSSL has against it by its rules, as that it is too short, is against these files.
    createSecureContext({ ca: [], ...own });
  } catch (error) {
    throw new SetupError(`${certificate.path} cannot be used: ${reasonOf(error)}`, {
      cause: error,
    });
  }
  return own;
}

function warnOfSecret({ path, readableByOthers }: CredentialFile, warnings: string[]): void {
  if (!readableByOthers) return;
  warnings.push(`${path} holds a key and can be read by others; try: chmod 600 ${path}`);
}

async function preSharedKey(
  { pskFile, username }: TlsSettings,
  patience: Patience,
  warnings: string[],
): Promise<Credentials> {
  if (pskFile === undefined) {
    throw new SetupError(
      'a pre-shared key is wanted, but there is no file with it: give tls-psk-file=',
    );
  }
  const file = await readNeeded(pskFile, patience);
  warnOfSecret(file, warnings);
  const identity = username ?? ownName();
  if (Buffer.byteLength(identity) > MAX_IDENTITY_BYTES) {
    throw new SetupError(`the user name of the key has more than ${MAX_IDENTITY_BYTES} bytes`);
  }
  const psk = findKey(file.content.toString('utf8'), identity, pskFile);
  return {
    context: { ciphers: PSK_CIPHERS },
    connection: {
      rejectUnauthorized: true,
      pskCallback: () => ({ psk, identity }),
      // Called for a certificate too, which is not what was asked for.
      checkServerIdentity: (_host, certificate) =>
        Object.keys(certificate).length === 0
          ? undefined
          : new HandshakeError('it has sent a certificate, and not used the pre-shared key', {
              failure: 'tls',
            }),
    },
  };
}

function ownName(): string {
  try {
    return userInfo().username;
  } catch (error) {
    // As in a container, where nobody has made an entry for it.
    throw new SetupError('the user who runs this has no name; give one with tls-username=', {
      cause: error,
    });
  }
}

function findKey(content: string, user: string, path: string): Buffer {
  for (const line of content.split(/\r?\n/)) {
    const colon = line.lastIndexOf(':');
    if (line.startsWith('#') || colon < 0 || line.slice(0, colon) !== user) continue;
    const key = line.slice(colon + 1);
    if (!/^([0-9a-f]{2})+$/i.test(key)) {
      throw new SetupError(`${path}: the key of ${printable(user)} is not hexadecimal`);
    }
    if (key.length > 2 * MAX_PSK_BYTES) {
      throw new SetupError(
        `${path}: the key of ${printable(user)} has more than ${MAX_PSK_BYTES} bytes`,
      );
    }
    return Buffer.from(key, 'hex');
  }
  throw new SetupError(
    `${path} has no key for the user ${printable(user)}; give another one with tls-username=`,
  );
}
