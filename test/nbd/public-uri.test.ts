import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { publicUri } from '../../src/nbd/public-uri.js';

describe('a URI as others may see it', () => {
  const table: readonly (readonly [string, string])[] = [
    ['nbd://host/export', 'nbd://host/export'],
    ['nbd://host', 'nbd://host'],
    ['nbd+unix:///e?socket=/run/a=b', 'nbd+unix:///e?socket=/run/a=b'],
    ['nbds://user:secret@host/e', 'nbds://user@host/e'],
    ['nbds://host/e?tls-psk-file=/k&tls-username=u', 'nbds://host/e'],
    ['nbds://host/e?tls-hostname=h&tls-certificates=/d', 'nbds://host/e?tls-hostname=h'],
    ['nbds://host/e?password=x?y&tls-verify-peer=0', 'nbds://host/e?tls-verify-peer=0'],
    ['[::1]:10809', '[::1]:10809'],
    ['/run/socket', '/run/socket'],
  ];
  for (const [uri, shown] of table) it(uri, () => assert.equal(publicUri(uri), shown));
});
