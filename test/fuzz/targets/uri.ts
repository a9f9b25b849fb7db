/** Whatever is given as a URI leads to a server, or is refused in one line. */

import assert from 'node:assert/strict';
import fc from 'fast-check';
import { addressText } from '../../../src/nbd/export.js';
import type { Target as NbdTarget } from '../../../src/nbd/export.js';
import { UriError, parseNbdUri } from '../../../src/nbd/uri.js';
import type { Target } from '../target.js';

interface UriInput {
  readonly uri: string;
}

const words = ['nbd', 'nbds', '+unix', '+vsock', '+ssh', '://', ':', '/', '?', '#', '&', '=', '@'];
const values = ['[', ']', '::1', 'host', '%', '%00', '%20', '%C3', ':10809', '\\', ' ', '..', '2'];
const parameters = ['socket=', 'nbd-port=1', 'compress=1', 'tls-type=', 'anon', 'psk', 'x509'];
const tls = ['tls-hostname=h', 'tls-verify-peer=0', 'tls-psk-file=k', 'tls-certificates=c'];
const pieces = fc.array(
  fc.oneof(
    fc.constantFrom(...words),
    fc.constantFrom(...values),
    fc.constantFrom(...parameters, ...tls, 'tls-username=u'),
    fc.string({ maxLength: 5, unit: 'binary' }),
  ),
  { maxLength: 12 },
);
const schemes = ['nbd', 'nbds'].flatMap((name) =>
  ['', '+unix', '+vsock', '+ssh'].map((kind) => `${name}${kind}`),
);

function check({ address, exportName, tls }: NbdTarget, scheme: string): void {
  assert.ok(!exportName.includes('\0'));
  assert.equal(tls !== undefined, scheme.startsWith('nbds'));
  // Nobody is believed who cannot be checked, but where that was asked for.
  if (tls?.type === 'x509' && tls.verifyPeer && address.kind !== 'tcp') {
    assert.notEqual(tls.hostname ?? '', '');
  }
  assert.equal(tls?.pskFile !== undefined, tls?.type === 'psk');
  assert.doesNotMatch(addressText(address), /\p{Cc}/u);
  switch (address.kind) {
    case 'unix': {
      assert.notEqual(address.path, '');
      return;
    }
    case 'vsock': {
      assert.ok(address.cid >= 0 && address.cid < 2 ** 32 - 1 && address.port > 0);
      return;
    }
    case 'ssh':
      for (const word of [address.host, address.user ?? 'u']) {
        assert.match(word, /^[^-\s'"`$\\;&<>|(){}\p{Cc}][^\s'"`$\\;&<>|(){}\p{Cc}]*$/u);
      }
      return;
    case 'tcp': {
      assert.match(address.host, /^[^\s/\\?#@[\]\p{Cc}]+$/u);
      return;
    }
    case 'socket':
      assert.fail('no URI leads to a descriptor');
  }
}

export const uriTarget: Target<UriInput> = {
  name: 'uri',
  inputs: fc
    .tuple(pieces, fc.constantFrom(...schemes), fc.constantFrom('', '://', ':///?'))
    .map(([parts, scheme, before]) => ({
      uri: `${before === '' ? '' : scheme}${before}${parts.join('')}`,
    })),
  frames: () => 1,

  run({ uri }) {
    let target: NbdTarget;
    try {
      target = parseNbdUri(uri);
    } catch (error) {
      assert.ok(error instanceof UriError, String(error));
      assert.doesNotMatch(error.message, /\p{Cc}/u);
      return;
    }
    check(target, uri.slice(0, uri.indexOf(':')).toLowerCase());
  },
};
