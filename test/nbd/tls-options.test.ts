/** What is made of files with certificates and keys, before anybody is connected to. */

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { chmodSync, copyFileSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import fs from 'node:fs/promises';
import { mkdtemp, rm } from 'node:fs/promises';
import { syncBuiltinESMExports } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, afterEach, before, describe, it } from 'node:test';
import { HandshakeError, SetupError } from '../../src/nbd/errors.js';
import type { TlsSettings } from '../../src/nbd/export.js';
import { connectDisk } from '../../src/nbd/nbd-disk.js';
import { tlsProblem } from '../../src/nbd/tls-errors.js';
import { tlsOptions } from '../../src/nbd/tls-options.js';
import type { TlsOptions } from '../../src/nbd/tls-options.js';
import { PSK_USER, makeCertificates } from '../support/certificates.js';
import type { Certificates } from '../support/certificates.js';
import { requires } from '../support/requires.js';

const TIMED = { timeout: 60_000 };
const DEADLINE = 30_000;
const TARGET = { address: { kind: 'tcp', host: 'localhost', port: 1 }, exportName: '' } as const;
const FILES = ['ca-cert.pem', 'client-cert.pem', 'client-key.pem', 'ca-crl.pem'] as const;
const RUBBISH =
  '-----BEGIN CERTIFICATE-----\nTm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n';

describe('credentials', { ...TIMED, ...requires({ programs: ['openssl', 'mkfifo'] }) }, () => {
  let folder = '';
  let keys: Certificates;
  before(async () => {
    folder = await mkdtemp(join(tmpdir(), 'tsnbdfuse-test-'));
    keys = makeCertificates(folder);
  });
  after(() => rm(folder, { recursive: true }));

  const settings = (changes: Partial<TlsSettings>): TlsSettings => ({
    type: 'x509',
    hostname: undefined,
    verifyPeer: true,
    certificates: undefined,
    pskFile: undefined,
    username: undefined,
    ...changes,
  });
  const prepare = (changes: Partial<TlsSettings>, signal?: AbortSignal): Promise<TlsOptions> =>
    tlsOptions(TARGET, settings(changes), { deadline: DEADLINE, signal });

  let count = 0;
  /** A folder that has all four files, as they should be. */
  function complete(): string {
    const directory = join(folder, `d${count++}`);
    mkdirSync(directory);
    for (const name of FILES) {
      const from = name === 'ca-crl.pem' ? keys.clean : keys.clientWithKey;
      copyFileSync(join(from, name), join(directory, name));
      chmodSync(join(directory, name), 0o600);
    }
    return directory;
  }

  async function refused(changes: Partial<TlsSettings>, message: RegExp): Promise<void> {
    await assert.rejects(prepare(changes), (error) => {
      assert.ok(error instanceof SetupError, String(error));
      assert.equal(error.name, 'HandshakeError');
      assert.match(error.message, message);
      assert.doesNotMatch(error.message, /\p{Cc}|the server/u);
      return true;
    });
  }

  it('are taken as they should be', async () => {
    const { connection, warnings } = await prepare({ certificates: complete() });
    assert.deepEqual(warnings, []);
    assert.ok(connection.secureContext !== undefined);
  });

  for (const name of FILES) {
    const path = (directory: string): string => join(directory, name);
    const endsWith = (end: string): RegExp =>
      new RegExp(`^\\S*/${name.replace('.', '\\.')} ${end}$`);
    const cannotRead = (why: string): RegExp => new RegExp(`^cannot read \\S*/${name}: ${why}$`);

    it(`name the file that holds nothing of the kind: ${name}`, async () => {
      for (const content of ['', 'rubbish', '-----BEGIN DH PARAMETERS-----']) {
        const certificates = complete();
        writeFileSync(path(certificates), content);
        await refused({ certificates }, endsWith('holds no .* in PEM form'));
      }
    });

    it(`name the file that is damaged: ${name}`, async () => {
      const certificates = complete();
      const text = readFileSync(path(certificates), 'latin1');
      // In the middle of the base64.
      const middle = Math.floor(text.length / 2);
      writeFileSync(path(certificates), `${text.slice(0, middle)}AAAA${text.slice(middle + 40)}`);
      await refused({ certificates }, endsWith('holds .* that is damaged \\(.*\\)'));
    });

    it(`are not waited for in a FIFO: ${name}`, async () => {
      const certificates = complete();
      await rm(path(certificates));
      execFileSync('mkfifo', [path(certificates)]);
      await refused({ certificates }, cannotRead('it is not a regular file'));
    });

    it(`are in files only: ${name}`, async () => {
      const certificates = complete();
      await rm(path(certificates));
      mkdirSync(path(certificates));
      await refused({ certificates }, cannotRead('it is a directory'));
      await rm(path(certificates), { recursive: true });
      await fs.symlink('/dev/zero', path(certificates));
      await refused({ certificates }, cannotRead('it is not a regular file'));
      await rm(path(certificates));
      const server = createServer();
      await new Promise<void>((resolve) => server.listen(path(certificates), resolve));
      await refused({ certificates }, cannotRead('it is not a regular file'));
      await new Promise((resolve) => server.close(resolve));
    });

    it(`are not of any length: ${name}`, async () => {
      const certificates = complete();
      await fs.truncate(path(certificates), 2 ** 40);
      await refused({ certificates }, cannotRead('it is too long, or grows'));
    });
  }

  it('name a certificate that is damaged, behind one that is not', async () => {
    const certificates = complete();
    await fs.appendFile(join(certificates, 'ca-cert.pem'), RUBBISH);
    await refused({ certificates }, /ca-cert\.pem holds a certificate that is damaged \(.+\)$/);
  });

  it('take all of several lists of revoked certificates', async () => {
    const certificates = complete();
    await fs.appendFile(
      join(certificates, 'ca-crl.pem'),
      readFileSync(join(keys.revoking, 'ca-crl.pem')),
    );
    await prepare({ certificates });
    await fs.appendFile(
      join(certificates, 'ca-crl.pem'),
      RUBBISH.replaceAll('CERTIFICATE', 'X509 CRL'),
    );
    await refused({ certificates }, /ca-crl\.pem holds a list that is damaged \(.+\)$/);
  });

  it('name the key that is another one, or has a password', async () => {
    const certificates = complete();
    const key = join(certificates, 'client-key.pem');
    copyFileSync(join(keys.clientOfOthers, 'client-key.pem'), key);
    await refused({ certificates }, /client-key\.pem is not the key to \S+\/client-cert\.pem$/);
    const encrypted = join(certificates, 'encrypted.pem');
    execFileSync('openssl', [
      'pkey',
      '-in',
      key,
      '-aes128',
      '-passout',
      'pass:hunter2',
      '-out',
      encrypted,
    ]);
    await fs.rename(encrypted, key);
    await refused({ certificates }, /client-key\.pem: the key is encrypted with a password/);
  });

  it('end with the signal', async () => {
    const reason = new Error('not wanted');
    const ends = new AbortController();
    const preparing = prepare({ certificates: complete() }, ends.signal);
    ends.abort(reason);
    await assert.rejects(preparing, reason);
    await assert.rejects(prepare({ certificates: complete() }, ends.signal), reason);
  });

  describe('on a file system that hangs', () => {
    const real = fs.open;
    before(() => {
      fs.open = () => new Promise(() => undefined);
      syncBuiltinESMExports();
    });
    after(() => {
      fs.open = real;
      syncBuiltinESMExports();
    });

    it('are not waited for longer than they may take', async () => {
      for (const changes of [
        { certificates: '/somewhere' },
        { type: 'psk', pskFile: '/somewhere/keys' },
        {},
      ] as const) {
        await assert.rejects(
          tlsOptions(TARGET, settings(changes), { deadline: 50, signal: undefined }),
          /^HandshakeError: cannot read \S+: no answer within 0\.05 s$/,
        );
      }
    });
  });

  describe('of this machine', () => {
    const real = fs.open;
    const asked: string[] = [];
    /** Every file there is, as the code that is tested sees it. */
    function openAs(answer: (path: string) => Promise<fs.FileHandle>): void {
      asked.length = 0;
      fs.open = (path) => {
        asked.push(String(path));
        return answer(String(path));
      };
      syncBuiltinESMExports();
    }
    afterEach(() => {
      fs.open = real;
      syncBuiltinESMExports();
    });
    const failing = (code: string) => (): Promise<never> =>
      Promise.reject(Object.assign(new Error('it failed'), { code }));

    it('are nobody else in the place of those that cannot be read', async () => {
      openAs(failing('EACCES'));
      await refused({}, /^cannot read \/etc\/\S+: permission denied$/);
      assert.equal(asked.length, 1);
      openAs(failing('EIO'));
      await refused({}, /^cannot read \/etc\/\S+: EIO$/);
    });

    it('are nobody where there are none', async () => {
      openAs(failing('ENOENT'));
      await refused({}, /^this machine has no list of authorities/);
      assert.ok(asked.length > 1);
      // Who believes anybody does not need one.
      await prepare({ verifyPeer: false });
    });

    it('are those of the first list', async () => {
      openAs(() => real(join(keys.client, 'ca-cert.pem')));
      await prepare({});
      assert.equal(asked.length, 1);
      openAs(() => real(keys.pskFile));
      await refused({}, /^\S+ holds no certificate in PEM form$/);
    });
  });

  describe('with a key that both have', () => {
    const withFile = (content: string): Partial<TlsSettings> => {
      const pskFile = join(folder, `psk${count++}`);
      writeFileSync(pskFile, content, { mode: 0o600 });
      return { type: 'psk', pskFile, username: PSK_USER };
    };

    it('are taken', async () => {
      const { warnings } = await prepare({
        type: 'psk',
        pskFile: keys.pskFile,
        username: PSK_USER,
      });
      assert.deepEqual(warnings, []);
      await prepare(withFile(`# a line\n\n${PSK_USER}:${'ab'.repeat(256)}\r\n`));
    });

    it('never show the key', async () => {
      for (const [key, message] of [
        ['5ec4e7', /^\S+ has no key for the user bob; give another one/],
        ['5ec4e7x', /: the key of alice is not hexadecimal$/],
        ['5ec4e', /: the key of alice is not hexadecimal$/],
        ['5ec4e7'.repeat(86), /: the key of alice has more than 256 bytes$/],
      ] as const) {
        const changes = withFile(`${PSK_USER}:${key}\n`);
        const username = message.source.includes('bob') ? 'bob' : PSK_USER;
        await refused({ ...changes, username }, message);
        await assert.rejects(
          prepare({ ...changes, username }),
          (error) => !String(error).includes('5ec4e'),
        );
      }
    });

    it('have a user whose name is not too long', async () => {
      const username = 'u'.repeat(129);
      const changes = { ...withFile(`${username}:ab\n`), username };
      await refused(changes, /^the user name of the key has more than 128 bytes$/);
    });

    it('are in a file that is there, and no FIFO', async () => {
      const none = join(folder, 'none');
      await refused({ type: 'psk', pskFile: none }, /^cannot read \S+none: it does not exist$/);
      execFileSync('mkfifo', [none]);
      await refused(
        { type: 'psk', pskFile: none },
        /^cannot read \S+none: it is not a regular file$/,
      );
    });
  });

  it('are looked at before anybody is connected to', async () => {
    const server = createServer(() => assert.fail('it was connected to'));
    const path = join(folder, 'socket');
    await new Promise<void>((resolve) => server.listen(path, resolve));
    try {
      const certificates = complete();
      writeFileSync(join(certificates, 'ca-cert.pem'), 'rubbish');
      await assert.rejects(
        connectDisk(
          {
            address: { kind: 'unix', path },
            exportName: '',
            tls: settings({ certificates, hostname: 'h' }),
          },
          { deadline: DEADLINE, connections: 4 },
        ),
        /^HandshakeError: \S+ca-cert\.pem holds no certificate in PEM form$/,
      );
    } finally {
      await new Promise((resolve) => server.close(resolve));
    }
  });
});

describe('a problem of TLS', () => {
  const problem = (code: string, more: object = {}): Error =>
    Object.assign(new Error('0:error:../deps/openssl/ssl.c:1:'), { code, ...more });

  it("is the server's where it is", () => {
    const error = tlsProblem(problem('ERR_SSL_SOMETHING_NEW', { reason: 'something new' }));
    assert.ok(error instanceof HandshakeError && !(error instanceof SetupError));
    assert.equal(error.message, 'TLS: something new (ERR_SSL_SOMETHING_NEW)');
  });

  it('is that of this machine where nothing is left to begin with', () => {
    for (const code of ['ERR_SSL_NO_PROTOCOLS_AVAILABLE', 'ERR_SSL_NO_CIPHERS_AVAILABLE']) {
      const error = tlsProblem(problem(code));
      assert.ok(error instanceof SetupError);
      assert.match(error.message, /^OpenSSL is set up here so that no .* is left/);
    }
  });

  it('is ours where Node does not take what we give it', () => {
    const error = Object.assign(new TypeError('bad argument'), { code: 'ERR_INVALID_ARG_TYPE' });
    assert.equal(tlsProblem(error), error);
  });
});
