/** What is in a file with certificates, keys or lists of revoked ones (RFC 7468), looked at before it is used. */

import { X509Certificate, createPrivateKey } from 'node:crypto';
import type { KeyObject } from 'node:crypto';
import { createSecureContext } from 'node:tls';
import type { CredentialFile } from './credential-files.js';
import { SetupError } from './errors.js';
import { printable } from './printing.js';

const CERTIFICATE = /-----BEGIN ((?:X509 |TRUSTED )?CERTIFICATE)-----[^]*?-----END \1-----/g;
const REVOCATIONS = /-----BEGIN X509 CRL-----[^]*?-----END X509 CRL-----/g;

/**
 * OpenSSL reads up to the first certificate that it does not understand, and says nothing of it.
 * @returns each in a text of its own, at least one
 * @throws SetupError
 */
export function certificatesOf(file: CredentialFile): [string, ...string[]] {
  const certificates = blocksOf(file, CERTIFICATE, 'certificate');
  for (const one of certificates) {
    mustParse(file, 'a certificate', () => new X509Certificate(one));
  }
  return certificates;
}

/** @returns each in a text of its own: of several in one, OpenSSL would take the first. @throws SetupError */
export function revocationsOf(file: CredentialFile): string[] {
  const lists = blocksOf(file, REVOCATIONS, 'list of revoked certificates (X509 CRL)');
  // Node has no other way to look at one.
  for (const one of lists)
    mustParse(file, 'a list', () => createSecureContext({ ca: [], crl: one }));
  return lists;
}

/** @throws SetupError */
export function privateKeyOf(file: CredentialFile): KeyObject {
  const text = file.content.toString('latin1');
  if (!/-----BEGIN [A-Z ]*PRIVATE KEY-----/.test(text)) {
    throw new SetupError(`${file.path} holds no private key in PEM form`);
  }
  if (/-----BEGIN ENCRYPTED PRIVATE KEY-----|^Proc-Type: 4,ENCRYPTED/m.test(text)) {
    throw new SetupError(
      `${file.path}: the key is encrypted with a password, which cannot be asked for here`,
    );
  }
  return mustParse(file, 'a private key', () => createPrivateKey(text));
}

function blocksOf(file: CredentialFile, pattern: RegExp, what: string): [string, ...string[]] {
  const [first, ...rest] = file.content.toString('latin1').match(pattern) ?? [];
  if (first === undefined) throw new SetupError(`${file.path} holds no ${what} in PEM form`);
  return [first, ...rest];
}

function mustParse<T>({ path }: CredentialFile, what: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new SetupError(`${path} holds ${what} that is damaged (${reasonOf(error)})`, {
      cause: error,
    });
  }
}

/** OpenSSL's word for it, without the places in its sources that its messages are made of. */
export function reasonOf(error: unknown): string {
  if (!(error instanceof Error)) return printable(String(error));
  return printable('reason' in error ? String(error.reason) : error.message);
}
