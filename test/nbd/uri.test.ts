import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import fc from 'fast-check';
import { printable } from '../../src/nbd/printing.js';
import { UriError, parseNbdUri } from '../../src/nbd/uri.js';
import type { Target } from '../../src/nbd/export.js';

const tcp = (host: string, port: number, exportName: string): Target => ({
  address: { kind: 'tcp', host, port },
  exportName,
});
const unix = (path: string, exportName: string): Target => ({
  address: { kind: 'unix', path },
  exportName,
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
  ['nbds://localhost/', /nbds: is not supported yet/],
  ['NBDS://localhost/', /nbds: is not supported yet/],
  ['nbds+unix:///?socket=s', /nbds\+unix: is not supported yet/],
  ['nbd+vsock://3/', /nbd\+vsock: is not supported yet/],
  ['nbds+vsock://3/', /nbds\+vsock: is not supported yet/],
  ['nbd+ssh://host/', /nbd\+ssh: is not supported yet/],

  // Host and port.
  ['nbd://user@host/', /user name.*TLS/],
  ['nbd://user:secret@host/', /user name.*TLS/],
  ['nbd://@/', /user name/],
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
  ['nbd+unix:///?socket', /socket= is missing/],
  ['nbd+unix:///?socket=', /socket= is missing/],
  ['nbd+unix:///?SOCKET=s', /no parameter SOCKET/],
  ['nbd+unix:///?socket=a&socket=b', /socket= is given twice/],
  ['nbd+unix:///?socket=a&nonsense=1', /no parameter nonsense/],
  ['nbd+unix:///?socket=a&', /no name/],
  ['nbd+unix:///?=a', /no name/],
  ['nbd+unix:///?socket=%zz', /socket= has a %/],
  ['nbd+unix:///?socket=/run/a%00b', /NUL/],
  ['nbd+unix:///?socket=%00a%00b', /NUL/],
  ['nbd+unix://host/?socket=s', /no host/],
  ['nbd+unix://socket=s', /no host/],
  ['nbd://h/?socket=s', /socket= is for nbd\+unix: only/],
  ['nbd://h/?nonsense', /no parameter nonsense/],
  ['nbd://h/?tls-type=psk', /tls-type= is for TLS, which is not supported yet/],
  ['nbd+unix:///?socket=s&tls-certificates=/etc', /tls-certificates= is for TLS/],
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
      const uriFirst = `${printable(uri, 500)}: `;
      assert.ok(message.startsWith(uriFirst), message);
      assert.match(message.slice(uriFirst.length), problem);
    });
  }

  it('is named, but not so that a terminal obeys it', () => {
    const { message } = errorOf('nbd://h/\x1b[2J\nall is well');
    assert.match(message, /^nbd:\/\/h\/ \[2J all is well: /);
    assert.ok(errorOf(`nbd://h/${'x'.repeat(100_000)}`).message.length < 1000);
  });
});

describe('any text', () => {
  const pieces = fc.array(
    fc.oneof(
      fc.constantFrom('nbd', '+unix', '://', ':', '/', '?', '#', '&', '=', '@', '[', ']', '::1'),
      fc.constantFrom(
        'socket=',
        'host',
        '%',
        '%00',
        '%20',
        '%C3',
        ':10809',
        '\\',
        ' ',
        '..',
        '%25',
      ),
      fc.string({ maxLength: 5, unit: 'binary' }),
    ),
    { maxLength: 12 },
  );

  it('is a target or a UriError', () =>
    fc.assert(
      fc.property(pieces, (parts) => {
        const text = parts.join('');
        for (const uri of [text, `nbd://${text}`, `nbd+unix:///${text}`]) {
          let target: Target;
          try {
            target = parseNbdUri(uri);
          } catch (error) {
            assert.ok(error instanceof UriError, String(error));
            assert.doesNotMatch(error.message, /\p{Cc}/u);
            continue;
          }
          assert.ok(!target.exportName.includes('\0'));
          if (target.address.kind === 'unix') assert.notEqual(target.address.path, '');
          else if (target.address.kind === 'tcp')
            assert.match(target.address.host, /^[^\s/\\?#@[\]\p{Cc}]+$/u);
        }
      }),
      { numRuns: 5000 },
    ));

  it('comes through as the name of an export and the path of a socket', () =>
    fc.assert(
      fc.property(
        fc.string({ maxLength: 100, unit: 'grapheme' }).filter((text) => !text.includes('\0')),
        fc.string({ minLength: 1, maxLength: 100 }).filter((text) => !text.includes('\0')),
        (exportName, path) => {
          const uri = `nbd+unix:///${encodeURIComponent(exportName)}?socket=${encodeURIComponent(path)}`;
          assert.deepEqual(parseNbdUri(uri), unix(path, exportName));
        },
      ),
      { numRuns: 2000 },
    ));
});
