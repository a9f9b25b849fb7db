import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { addressText } from '../../src/nbd/export.js';
import { printable } from '../../src/nbd/printing.js';
import { UriError, parseNbdUri } from '../../src/nbd/uri.js';
import type { SshAddress, Target, TlsSettings } from '../../src/nbd/export.js';

const tcp = (host: string, port: number, exportName: string): Target => ({
  address: { kind: 'tcp', host, port },
  exportName,
});
const unix = (path: string, exportName: string): Target => ({
  address: { kind: 'unix', path },
  exportName,
});
const vsock = (cid: number, port: number, exportName: string): Target => ({
  address: { kind: 'vsock', cid, port },
  exportName,
});
const ssh = (address: Partial<SshAddress>, exportName = ''): Target => ({
  address: {
    kind: 'ssh',
    host: 'h',
    user: undefined,
    port: undefined,
    compress: false,
    remote: { kind: 'tcp', host: 'localhost', port: 10809 },
    ...address,
  },
  exportName,
});
const withTls = (target: Target, tls: Partial<TlsSettings> = {}): Target => ({
  ...target,
  tls: {
    type: 'x509',
    hostname: undefined,
    verifyPeer: true,
    certificates: undefined,
    pskFile: undefined,
    username: undefined,
    ...tls,
  },
});

const GOOD: readonly (readonly [uri: string, target: Target])[] = [
  // The table of doc/uri.md.
  ['nbd://example.com/disk', tcp('example.com', 10809, 'disk')],
  ['nbd+unix:///disk?socket=sock', unix('sock', 'disk')],
  ['nbd://example.com/', tcp('example.com', 10809, '')],
  ['nbd://example.com', tcp('example.com', 10809, '')],
  ['nbd://example.com//disk', tcp('example.com', 10809, '/disk')],
  ['nbd://example.com/hello%20world', tcp('example.com', 10809, 'hello world')],
  ['nbd://example.com:10809/export', tcp('example.com', 10809, 'export')],
  ['nbd+unix:///export?socket=nbd.sock', unix('nbd.sock', 'export')],
  ['nbd+unix:///?socket=%00/abstract', unix('\0/abstract', '')],

  // Host and port.
  ['nbd://', tcp('localhost', 10809, '')],
  ['nbd:///', tcp('localhost', 10809, '')],
  ['nbd:///disk', tcp('localhost', 10809, 'disk')],
  ['nbd://:1/disk', tcp('localhost', 1, 'disk')],
  ['nbd://host:/disk', tcp('host', 10809, 'disk')],
  ['nbd://host:65535', tcp('host', 65535, '')],
  ['nbd://host:0080', tcp('host', 80, '')],
  ['nbd://Example.COM/', tcp('Example.COM', 10809, '')],
  ['nbd://127.0.0.1:1234/', tcp('127.0.0.1', 1234, '')],
  ['nbd://0x7f.1/', tcp('0x7f.1', 10809, '')],
  ['nbd://my%2Dhost/', tcp('my-host', 10809, '')],
  ['nbd://h%C3%B6st/', tcp('höst', 10809, '')],
  ['nbd://[::1]', tcp('::1', 10809, '')],
  ['nbd://[::1]:1234/disk', tcp('::1', 1234, 'disk')],
  ['nbd://[2001:DB8::1]/', tcp('2001:DB8::1', 10809, '')],
  ['nbd://[::ffff:1.2.3.4]/', tcp('::ffff:1.2.3.4', 10809, '')],
  ['nbd://[fe80::1%25eth0]/', tcp('fe80::1%eth0', 10809, '')],
  ['nbd://[fe80::1%eth0]/', tcp('fe80::1%eth0', 10809, '')],

  // The export: nothing is normalised.
  ['nbd://h/a/b/c', tcp('h', 10809, 'a/b/c')],
  ['nbd://h/a%2Fb', tcp('h', 10809, 'a/b')],
  ['nbd://h/../../a/./b', tcp('h', 10809, '../../a/./b')],
  ['nbd://h/a//b/', tcp('h', 10809, 'a//b/')],
  ['nbd://h///', tcp('h', 10809, '//')],
  ['nbd://h/%2e%2E', tcp('h', 10809, '..')],
  ['nbd://h/A%41', tcp('h', 10809, 'AA')],
  ['nbd://h/a+b', tcp('h', 10809, 'a+b')],
  ['nbd://h/%25', tcp('h', 10809, '%')],
  ['nbd://h/%2525', tcp('h', 10809, '%25')],
  ['nbd://h/%3F%23%5C', tcp('h', 10809, '?#\\')],
  ['nbd://h/%0A', tcp('h', 10809, '\n')],
  ['nbd://h/%E6%97%A5', tcp('h', 10809, '日')],
  ['nbd://h/日', tcp('h', 10809, '日')],
  ['nbd://h/a:b@c', tcp('h', 10809, 'a:b@c')],
  ['nbd://h/"<>^`{|}', tcp('h', 10809, '"<>^`{|}')],
  [`nbd://h/${'x'.repeat(4096)}`, tcp('h', 10809, 'x'.repeat(4096))],
  ['nbd://h/?', tcp('h', 10809, '')],

  // The socket.
  ['nbd+unix://?socket=/run/s', unix('/run/s', '')],
  ['nbd+unix:///?socket=/run/a%20b', unix('/run/a b', '')],
  ['nbd+unix:///?socket=/run/a+b', unix('/run/a+b', '')],
  ['nbd+unix:///?socket=/run/a=b=', unix('/run/a=b=', '')],
  ['nbd+unix:///?socket=/run/a?b', unix('/run/a?b', '')],
  ['nbd+unix:///?socket=/run/a%26b%23', unix('/run/a&b#', '')],
  ['nbd+unix:////?socket=s', unix('s', '/')],

  // Virtual machines.
  ['nbd+vsock://', vsock(2, 10809, '')],
  ['nbd+vsock:///disk', vsock(2, 10809, 'disk')],
  ['nbd+vsock://3/', vsock(3, 10809, '')],
  ['nbd+vsock://1:1234/a/b', vsock(1, 1234, 'a/b')],
  ['nbd+vsock://:4294967294', vsock(2, 4294967294, '')],
  ['nbd+vsock://4294967294', vsock(4294967294, 10809, '')],

  // By ssh.
  ['nbd+ssh://h', ssh({})],
  ['nbd+ssh://h/disk', ssh({}, 'disk')],
  ['nbd+ssh://user@h:2222/', ssh({ user: 'user', port: 2222 })],
  ['nbd+ssh://a%2Bb@h/', ssh({ user: 'a+b' })],
  ['nbd+ssh://[fe80::1%25eth0]:22/', ssh({ host: 'fe80::1%eth0', port: 22 })],
  [
    'nbd+ssh://h/?nbd-port=1234&compress=true',
    ssh({ compress: true, remote: { kind: 'tcp', host: 'localhost', port: 1234 } }),
  ],
  ['nbd+ssh://h/?compress=0', ssh({})],
  [
    'nbd+ssh://h/disk?socket=/run/a%20b',
    ssh({ remote: { kind: 'unix', path: '/run/a b' } }, 'disk'),
  ],
  ["nbd+ssh://h/?socket='$(x)", ssh({ remote: { kind: 'unix', path: "'$(x)" } })],

  // TLS.
  ['nbds://example.com/disk', withTls(tcp('example.com', 10809, 'disk'))],
  ['NBDS://h/', withTls(tcp('h', 10809, ''))],
  ['nbds://alice@h:1/', withTls(tcp('h', 1, ''), { username: 'alice' })],
  ['nbds://al%40ice@h/', withTls(tcp('h', 10809, ''), { username: 'al@ice' })],
  ['nbds://h/?tls-username=bob', withTls(tcp('h', 10809, ''), { username: 'bob' })],
  ['nbds://h/?tls-type=x509', withTls(tcp('h', 10809, ''))],
  ['nbds://h/?tls-type=anon', withTls(tcp('h', 10809, ''), { type: 'anon', verifyPeer: false })],
  [
    'nbds://h/?tls-type=anon&tls-verify-peer=0',
    withTls(tcp('h', 10809, ''), { type: 'anon', verifyPeer: false }),
  ],
  ...['0', 'false', 'FALSE', 'no', 'off'].map(
    (no) =>
      [
        `nbds://h/?tls-verify-peer=${no}`,
        withTls(tcp('h', 10809, ''), { verifyPeer: false }),
      ] as const,
  ),
  ...['1', 'true', 'True', 'yes', 'on'].map(
    (yes) => [`nbds://h/?tls-verify-peer=${yes}`, withTls(tcp('h', 10809, ''))] as const,
  ),
  [
    'nbds://h/?tls-hostname=disk.example',
    withTls(tcp('h', 10809, ''), { hostname: 'disk.example' }),
  ],
  [
    'nbds://h/?tls-certificates=/etc/pki%20x',
    withTls(tcp('h', 10809, ''), { certificates: '/etc/pki x' }),
  ],
  [
    'nbds://alice@h/?tls-psk-file=keys.psk',
    withTls(tcp('h', 10809, ''), { type: 'psk', pskFile: 'keys.psk', username: 'alice' }),
  ],
  [
    'nbds://h/?tls-psk-file=k&tls-type=psk&tls-verify-peer=0',
    withTls(tcp('h', 10809, ''), { type: 'psk', pskFile: 'k', verifyPeer: false }),
  ],
  [
    'nbds+unix://alice@/?socket=s&tls-certificates=certs&tls-hostname=h',
    withTls(unix('s', ''), { certificates: 'certs', hostname: 'h', username: 'alice' }),
  ],
  ['nbds+unix:///?socket=s&tls-verify-peer=0', withTls(unix('s', ''), { verifyPeer: false })],
  ['nbds+unix:///?tls-psk-file=k&socket=s', withTls(unix('s', ''), { type: 'psk', pskFile: 'k' })],
  [
    'nbds+unix:///?socket=s&tls-type=anon',
    withTls(unix('s', ''), { type: 'anon', verifyPeer: false }),
  ],
  ['nbds+vsock://3:9/d?tls-hostname=h', withTls(vsock(3, 9, 'd'), { hostname: 'h' })],
  [
    'nbds+vsock://alice@2/?tls-psk-file=k',
    withTls(vsock(2, 10809, ''), { type: 'psk', pskFile: 'k', username: 'alice' }),
  ],
  [
    'nbds+ssh://root@h/?tls-psk-file=k&tls-username=alice',
    withTls(ssh({ user: 'root' }), { type: 'psk', pskFile: 'k', username: 'alice' }),
  ],
  ['nbds+ssh://root@h/?tls-hostname=disk', withTls(ssh({ user: 'root' }), { hostname: 'disk' })],

  // A scheme has no case (RFC 3986, 3.1).
  ['NBD://h/', tcp('h', 10809, '')],
  ['Nbd+Unix:///?socket=s', unix('s', '')],
];

const BAD: readonly (readonly [uri: string, problem: RegExp])[] = [
  // Not of the form.
  ['', /not a URI.*nbd:\/\/host/],
  ['nbd', /not a URI/],
  ['nbd:', /not a URI.*nbd:\/\/host.*nbd\+unix:/],
  ['nbd:host', /not a URI/],
  ['nbd:/host', /not a URI/],
  ['nbd:unix:/run/socket', /not a URI/],
  ['nbd+unix:/export?socket=s', /not a URI/],
  ['nbd+unix:?socket=s', /not a URI/],
  ['//host/export', /not a URI/],
  ['host:10809', /not a URI/],
  ['/path', /not a URI/],
  ['nbd ://host', /spaces/],
  [' nbd://host', /spaces/],
  ['nbd://host ', /spaces/],
  ['nbd://host\n', /control characters/],
  ['nbd://ho\tst/', /control characters/],
  ['nbd://h/hello world', /%20/],
  ['nbd:\\\\host\\export', /backslashes/],
  ['nbd://h/a\\b', /backslashes/],
  ['nbd://h/\u00a0', /spaces/],

  // Schemes.
  ['http://localhost/', /http: is not an NBD scheme.*nbd:\/\/host/],
  ['ndb://localhost/', /ndb: is not an NBD scheme/],
  ['nbd+tcp://localhost/', /nbd\+tcp: is not an NBD scheme/],
  ['nbd+tls://localhost/', /nbd\+tls: is not an NBD scheme/],
  ['nbdss://localhost/', /nbdss: is not an NBD scheme.*nbds for TLS/],
  ['nbds+tcp://localhost/', /nbds\+tcp: is not an NBD scheme/],

  // Host and port.
  ['nbd://user@host/', /user name.*for TLS write nbds:$/],
  ['nbd://user:secret@host/', /user name.*TLS/],
  ['nbd://@/', /user name/],
  ['nbd+unix://user@/?socket=s', /user name.*for TLS write nbds\+unix:$/],
  ['nbd+vsock://user@2/', /user name.*for TLS write nbds\+vsock:$/],
  ['nbds://user:secret@host/', /a password has no place in a URI/],
  ['nbd+ssh://user:@host/', /a password has no place in a URI/],
  ['nbds://@host/', /the user name before the @ is empty/],
  ['nbds://a@b@host/', /the user name is malformed; write %40/],
  ['nbds://a%00b@host/', /the user name is malformed/],
  ['nbds://a%zz@host/', /the user name has a %/],
  ['nbd://host:port/', /port port is not a number from 1 to 65535/],
  ['nbd://host:0/', /port 0 /],
  ['nbd://host:65536/', /port 65536 /],
  ['nbd://host:-1/', /port -1 /],
  ['nbd://host:+1/', /port \+1 /],
  ['nbd://host:1e3/', /port 1e3 /],
  ['nbd://host:0x10/', /port 0x10 /],
  ['nbd://host:1.5/', /port 1\.5 /],
  ['nbd://host:%31/', /port %31 /],
  ['nbd://host:99999999999999999999/', /port 9+ /],
  ['nbd://::1/', /brackets: nbd:\/\/\[::1\]/],
  ['nbd://2001:db8::1/', /brackets/],
  ['nbd://[::1/', /malformed/],
  ['nbd://::1]/', /malformed/],
  ['nbd://[::1]x/', /malformed/],
  ['nbd://[::1]1234/', /malformed/],
  ['nbd://[]/', /\[\] is not an IPv6 address/],
  ['nbd://[1.2.3.4]/', /\[1\.2\.3\.4\] is not an IPv6 address/],
  ['nbd://[::g]/', /\[::g\] is not an IPv6 address/],
  ['nbd://[::1::2]/', /is not an IPv6 address/],
  ['nbd://[host]/', /is not an IPv6 address/],
  ['nbd://[fe80::1%25]/', /is not an IPv6 address/],
  ['nbd://[fe80::1%25a%2Fb]/', /is not an IPv6 address/],
  [`nbd://[fe80::1%25${'e'.repeat(100)}]/`, /is not an IPv6 address/],
  ['nbd://a%20b/', /host is malformed/],
  ['nbd://a%00b/', /host is malformed/],
  ['nbd://a%2Fb/', /host is malformed/],
  ['nbd://a%3A1/', /host is malformed/],
  ['nbd://a%40b/', /host is malformed/],
  ['nbd://a%25b/', /host is malformed/],
  ['nbd://a%zz/', /the host has a %/],

  // The export.
  ['nbd://h/a#b', /fragment.*%23/],
  ['nbd://h/#', /fragment/],
  ['nbd+unix:///?socket=s#b', /fragment/],
  ['nbd://h/a%00b', /NUL/],
  ['nbd://h/%', /the export name has a %/],
  ['nbd://h/%4', /the export name has a %/],
  ['nbd://h/%zz', /the export name has a %/],
  ['nbd://h/%FF', /the export name has a %.*UTF-8/],
  [`nbd://h/${'x'.repeat(4097)}`, /more than 4096 bytes/],
  [`nbd://h/${'%C3%AF'.repeat(2049)}`, /more than 4096 bytes/],

  // Parameters.
  ['nbd+unix:///', /socket= is missing/],
  ['nbd+unix:///export', /socket= is missing.*nbd\+unix:\/\/\/export\?socket=PATH/],
  ['nbd+unix:///?', /socket= is missing/],
  ['nbd+unix:///?socket', /socket= is empty/],
  ['nbd+unix:///?socket=', /socket= is empty/],
  ['nbd+unix:///?SOCKET=s', /no parameter SOCKET; nbd\+unix: has socket=$/],
  ['nbd+unix:///?toString=s', /no parameter toString/],
  ['nbd+unix:///?socket=a&socket=b', /socket= is given twice/],
  ['nbd+unix:///?socket=a&nonsense=1', /no parameter nonsense/],
  ['nbd+unix:///?socket=a&', /no name/],
  ['nbd+unix:///?=a', /no name/],
  ['nbd+unix:///?socket=%zz', /socket= has a %/],
  ['nbd+unix:///?socket=/run/a%00b', /NUL/],
  ['nbd+unix:///?socket=%00a%00b', /NUL/],
  ['nbd+unix://host/?socket=s', /no host/],
  ['nbd+unix://socket=s', /no host/],
  ['nbds+unix://host/?socket=s', /no host; write nbds\+unix:\/\/\/export\?socket=PATH/],
  ['nbds+unix://u@host/?socket=s', /no host/],
  ['nbd+unix://:1/?socket=s', /no host/],
  ['nbd://h/?socket=s', /socket= is for nbd\+unix: and nbd\+ssh: only/],
  ['nbds+vsock://2/?socket=s', /socket= is for nbds\+unix: and nbds\+ssh: only/],
  ['nbd://h/?nonsense', /no parameter nonsense; nbd: has none$/],
  [
    'nbds://h/?tls-priority=NORMAL',
    /no parameter tls-priority; nbds: has tls-type=, .*tls-username=$/,
  ],
  ['nbd+unix:///?socket=s&nbd-port=1', /nbd-port= is for nbd\+ssh: only/],
  ['nbds://h/?compress=1', /compress= is for nbds\+ssh: only/],

  // Virtual machines.
  ['nbd+vsock://host/', /host is not a context identifier of vsock.*the host is 2/],
  ['nbd+vsock://-1/', /-1 is not a context identifier/],
  ['nbd+vsock://0x2/', /0x2 is not a context identifier/],
  ['nbd+vsock://4294967295/', /4294967295 is not a context identifier/],
  ['nbd+vsock://[::1]/', /\[::1\] is not a context identifier/],
  ['nbd+vsock://2:0/', /port 0 is not a number from 1 to 4294967294/],
  ['nbd+vsock://2:4294967295/', /port 4294967295 is not a number/],
  ['nbd+vsock://2:3:4/', /malformed/],

  // By ssh.
  ['nbd+ssh:///disk', /host is missing; write nbd\+ssh:\/\/\[user@\]host\/export/],
  ['nbd+ssh://-oProxyCommand=x/', /host -oProxyCommand=x is not one that ssh can be given/],
  ['nbd+ssh://%2DoProxyCommand=x/', /host -oProxyCommand=x is not one/],
  ['nbd+ssh://-l@h/', /user name -l is not one that ssh can be given/],
  ['nbd+ssh://$(x)/', /host \$\(x\) is not one/],
  ['nbd+ssh://a;b@h/', /user name a;b is not one/],
  ['nbd+ssh://a%20b@h/', /user name a b is not one that ssh can be given/],
  ['nbd+ssh://a%20-oProxyCommand=x@h/', /user name a -oProxyCommand=x is not one/],
  ['nbd+ssh://h:70000/', /port 70000 is not a number from 1 to 65535/],
  ['nbd+ssh://h/?nbd-port=x', /port x is not a number/],
  ['nbd+ssh://h/?nbd-port=1&socket=s', /either socket= or nbd-port= can be given/],
  ['nbd+ssh://h/?socket=%00s', /an abstract socket cannot be reached through ssh/],
  ['nbd+ssh://h/?compress=maybe', /compress=maybe is neither 1 nor 0/],
  ['nbd+ssh://h/?tls-type=anon', /tls-type= is for TLS; write nbds\+ssh: in place of nbd\+ssh:/],
  ['nbds+ssh://h/', /nbds\+ssh: has no host to check/],

  // TLS.
  ['nbd://h/?tls-type=psk', /tls-type= is for TLS; write nbds: in place of nbd:/],
  [
    'nbd+unix:///?socket=s&tls-certificates=/etc',
    /tls-certificates= is for TLS; write nbds\+unix: in place of nbd\+unix:/,
  ],
  ['nbds://h/?tls-type=PSK', /tls-type=PSK is not known; it is x509, psk or anon/],
  ['nbds://h/?tls-type=', /tls-type= is empty/],
  ['nbds://h/?tls-type=anon&tls-type=anon', /tls-type= is given twice/],
  ['nbds://h/?tls-type=psk', /tls-type=psk needs a file with the key: add tls-psk-file=/],
  ['nbds://h/?tls-type=x509&tls-psk-file=k', /tls-psk-file= is for psk, not for tls-type=x509/],
  ['nbds://h/?tls-type=anon&tls-psk-file=k', /tls-psk-file= is for psk/],
  ['nbds://h/?tls-type=anon&tls-certificates=c', /tls-certificates= is for x509/],
  ['nbds://h/?tls-psk-file=k&tls-certificates=c', /either tls-certificates= or tls-psk-file=/],
  ['nbds://h/?tls-type=anon&tls-hostname=h', /tls-hostname= is for certificates/],
  ['nbds://h/?tls-psk-file=k&tls-hostname=h', /tls-hostname= is for certificates/],
  ['nbds://h/?tls-hostname=a%20b', /tls-hostname= is malformed/],
  [`nbds://h/?tls-hostname=${'a'.repeat(254)}`, /tls-hostname= is malformed/],
  ['nbds://h/?tls-hostname=', /tls-hostname= is empty/],
  ['nbds://h/?tls-type=anon&tls-verify-peer=1', /tls-type=anon cannot know who answers/],
  ['nbds://h/?tls-verify-peer=2', /tls-verify-peer=2 is neither 1 nor 0/],
  ['nbds://h/?tls-certificates=a%00b', /tls-certificates= cannot hold a NUL/],
  ['nbds://h/?tls-psk-file=%00a', /tls-psk-file= cannot hold a NUL/],
  ['nbds://a@h/?tls-username=a', /the user name is given twice/],
  ['nbds+unix:///?socket=s', /add tls-hostname=NAME, or tls-verify-peer=0/],
  ['nbds+unix:///?socket=s&tls-certificates=c', /add tls-hostname=NAME/],
  ['nbds+unix:///?socket=s&tls-verify-peer=1', /add tls-hostname=NAME/],
  ['nbds+vsock://2/', /nbds\+vsock: has no host to check.*tls-hostname=NAME/],
];

function errorOf(uri: string): UriError {
  try {
    parseNbdUri(uri);
  } catch (error) {
    assert.ok(error instanceof UriError, String(error));
    return error;
  }
  return assert.fail(`${uri} was taken`);
}

describe('a URI', () => {
  for (const [uri, target] of GOOD) {
    it(uri.slice(0, 60), () => assert.deepEqual(parseNbdUri(uri), target));
  }
});

describe('a URI that is refused', () => {
  for (const [uri, problem] of BAD) {
    it(JSON.stringify(uri.slice(0, 60)), () => {
      const { message } = errorOf(uri);
      // A password that has no place in it is not told to everybody either.
      const uriFirst = `${printable(uri.replace(/:(secret)?@/, ':***@'), 500)}: `;
      assert.ok(message.startsWith(uriFirst), message);
      assert.match(message.slice(uriFirst.length), problem);
    });
  }

  it('is named, but not so that a terminal obeys it', () => {
    const { message } = errorOf('nbd://h/\x1b[2J\nall is well');
    assert.match(message, /^nbd:\/\/h\/ \[2J all is well: /);
    assert.ok(errorOf(`nbd://h/${'x'.repeat(100_000)}`).message.length < 1000);
  });

  it('is told in one line when its name is too long', () => {
    assert.equal(parseNbdUri(`nbd://h/${'x'.repeat(4096)}`).exportName.length, 4096);
    for (const name of ['x'.repeat(4097), '%C3%A9'.repeat(2049)]) {
      const { message } = errorOf(`nbd://h/${name}`);
      assert.match(message, /^nbd:\/\/h\/.{400,600}: the export name has more than 4096 bytes$/);
    }
  });
});

describe('any text', () => {
  const text = (minLength: number): fc.Arbitrary<string> =>
    fc
      .string({ minLength, maxLength: 100, unit: 'grapheme' })
      .filter((value) => !value.includes('\0') && !/\p{Cc}/u.test(value));

  it('comes through as the name of an export and the path of a socket', () =>
    fc.assert(
      fc.property(
        fc.string({ maxLength: 100, unit: 'grapheme' }).filter((value) => !value.includes('\0')),
        fc.string({ minLength: 1, maxLength: 100 }).filter((value) => !value.includes('\0')),
        (exportName, path) => {
          const uri = `nbd+unix:///${encodeURIComponent(exportName)}?socket=${encodeURIComponent(path)}`;
          assert.deepEqual(parseNbdUri(uri), unix(path, exportName));
        },
      ),
      { numRuns: 2000 },
    ));

  it('comes through as what TLS is to be done with', () =>
    fc.assert(
      fc.property(text(1), text(1), text(1), (username, path, pskFile) => {
        const [user, socket, file] = [username, path, pskFile].map(encodeURIComponent);
        assert.deepEqual(
          parseNbdUri(
            `nbds+unix://${user ?? ''}@/?tls-psk-file=${file ?? ''}&socket=${socket ?? ''}`,
          ),
          withTls(unix(path, ''), { type: 'psk', pskFile, username }),
        );
      }),
      { numRuns: 1000 },
    ));

  it('comes through as a number of vsock', () =>
    fc.assert(
      fc.property(fc.nat(0xffff_fffe), fc.integer({ min: 1, max: 0xffff_fffe }), (cid, port) =>
        assert.deepEqual(parseNbdUri(`nbd+vsock://${cid}:${port}/`), vsock(cid, port, '')),
      ),
    ));
});

describe('an address in a message', () => {
  for (const [uri, shown] of [
    ['nbd://h/x', 'h:10809'],
    ['nbd://[::1]:1/', '[::1]:1'],
    ['nbd+unix:///?socket=/run/a%0Ab', '/run/a?b'],
    ['nbd+unix:///?socket=%00name', '@name'],
    ['nbd+vsock://3/', 'vsock:3:10809'],
    ['nbd+ssh://h/', 'localhost:10809 on h'],
    ['nbd+ssh://root@h:22/?socket=/run/s', '/run/s on root@h:22'],
    ['nbd+ssh://[::1]:22/?nbd-port=1', 'localhost:1 on [::1]:22'],
  ] as const) {
    it(uri, () => assert.equal(addressText(parseNbdUri(uri).address), shown));
  }
});
