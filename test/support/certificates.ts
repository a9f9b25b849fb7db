/** Makes certificates and keys for servers and clients, with the openssl command. */

import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Certificates {
  /** Folders in the form of GnuTLS's tools, which servers and the client's URI parameters take. */
  readonly server: string;
  /** Knows the authority, and has no certificate of its own. */
  readonly client: string;
  /** With a certificate of its own. */
  readonly clientWithKey: string;
  /** With one of an authority that the server does not know. */
  readonly clientOfOthers: string;
  /** Knows another authority only. */
  readonly stranger: string;
  /** With a list on which the server is. */
  readonly revoking: string;
  /** With a list on which nobody is. */
  readonly clean: string;
  /** Of servers whose certificates are for other.example, or were valid long ago. */
  readonly otherServer: string;
  readonly expiredServer: string;
  /** For servers, and for clients, of the users of a pre-shared key. */
  readonly pskServer: string;
  readonly pskFile: string;
}

/** The user with a key. */
export const PSK_USER = 'alice';

/** @param folder where all of it goes @param group who may read the keys too, as a server's user */
export function makeCertificates(folder: string): Certificates {
  const at = (...names: string[]): string => join(folder, ...names);
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: folder, stdio: ['ignore', 'ignore', 'pipe'] });
  };
  const key = (path: string): void => {
    openssl('genpkey', '-algorithm', 'EC', '-pkeyopt', 'ec_paramgen_curve:P-256', '-out', path);
    chmodSync(path, 0o600);
  };
  const authority = (name: string): void => {
    key(at(`${name}-key.pem`));
    const subject = ['-subj', `/CN=${name}`, '-days', '30'];
    openssl('req', '-x509', '-new', '-key', `${name}-key.pem`, ...subject, '-out', `${name}.pem`);
  };
  let serial = 1;
  const certify = (
    ca: string,
    directory: string,
    role: 'server' | 'client',
    names: string,
    dates: readonly string[] = [],
  ): void => {
    const base = join(directory, role);
    key(at(`${base}-key.pem`));
    const subject = names === '' ? 'client' : (names.split(',')[0] ?? '').replace(/^\w+:/, '');
    openssl(
      'req',
      '-new',
      '-key',
      `${base}-key.pem`,
      '-subj',
      `/CN=${subject}`,
      '-out',
      'request.pem',
    );
    const usage = role === 'server' ? 'serverAuth' : 'clientAuth';
    const alternatives = names === '' ? '' : `subjectAltName=${names}\n`;
    writeFileSync(
      at('extensions'),
      `${alternatives}basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=${usage}\n`,
    );
    // ca and not x509: it alone takes dates of the past, and keeps the list of the revoked.
    const out = `${base}-cert.pem`;
    const range =
      dates.length === 2 ? ['-startdate', ...dates.slice(0, 1), '-enddate', ...dates.slice(1)] : [];
    openssl(
      'ca',
      '-batch',
      '-notext',
      '-config',
      `${ca}.cnf`,
      '-extfile',
      'extensions',
      '-in',
      'request.pem',
      '-out',
      out,
      '-days',
      '30',
      ...range,
    );
    serial++;
  };
  const config = (ca: string): void => {
    mkdirSync(at(`${ca}-new`));
    writeFileSync(at(`${ca}-index`), '');
    writeFileSync(at(`${ca}-index.attr`), 'unique_subject = no\n');
    writeFileSync(at(`${ca}-serial`), `${(serial + 16).toString(16).padStart(4, '0')}\n`);
    writeFileSync(at(`${ca}-crlnumber`), '01\n');
    writeFileSync(
      at(`${ca}.cnf`),
      `[ca]
default_ca = it
[it]
certificate = ${at(`${ca}.pem`)}
private_key = ${at(`${ca}-key.pem`)}
database = ${at(`${ca}-index`)}
serial = ${at(`${ca}-serial`)}
crlnumber = ${at(`${ca}-crlnumber`)}
new_certs_dir = ${at(`${ca}-new`)}
default_md = sha256
default_crl_days = 30
policy = any
[any]
commonName = supplied
`,
    );
  };
  const directory = (name: string, ca: string): string => {
    mkdirSync(at(name));
    copyFileSync(at(`${ca}.pem`), at(name, 'ca-cert.pem'));
    return at(name);
  };

  for (const ca of ['authority', 'others']) {
    authority(ca);
    config(ca);
  }
  const server = directory('server', 'authority');
  certify('authority', 'server', 'server', 'DNS:localhost,IP:127.0.0.1,IP:::1');
  const otherServer = directory('other-server', 'authority');
  certify('authority', 'other-server', 'server', 'DNS:other.example');
  const expiredServer = directory('expired-server', 'authority');
  certify('authority', 'expired-server', 'server', 'DNS:localhost,IP:127.0.0.1', [
    '20200101000000Z',
    '20200201000000Z',
  ]);
  const client = directory('client', 'authority');
  const clientWithKey = directory('client-with-key', 'authority');
  certify('authority', 'client-with-key', 'client', '');
  const clientOfOthers = directory('client-of-others', 'authority');
  certify('others', 'client-of-others', 'client', '');
  const stranger = directory('stranger', 'others');
  const clean = directory('clean', 'authority');
  openssl('ca', '-config', 'authority.cnf', '-gencrl', '-out', 'clean/ca-crl.pem');
  const revoking = directory('revoking', 'authority');
  openssl('ca', '-config', 'authority.cnf', '-revoke', 'server/server-cert.pem');
  openssl('ca', '-config', 'authority.cnf', '-gencrl', '-out', 'revoking/ca-crl.pem');

  const secret = '00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff';
  const pskServer = at('psk');
  mkdirSync(pskServer);
  const pskFile = at('psk', 'keys.psk');
  writeFileSync(pskFile, `bob:${'ab'.repeat(32)}\n${PSK_USER}:${secret}\n`, { mode: 0o600 });
  return {
    server,
    client,
    clientWithKey,
    clientOfOthers,
    stranger,
    revoking,
    clean,
    otherServer,
    expiredServer,
    pskServer,
    pskFile,
  };
}
