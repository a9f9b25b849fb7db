import assert from 'node:assert/strict';
import { describe, it } from 'node:test';
import { InvalidArgumentError } from 'commander';
import { metricsAddressText, parseMetricsAddress } from '../../src/cli/metrics-address.js';

describe('where metrics are served', () => {
  const good: readonly (readonly [string, object, string])[] = [
    ['9110', { kind: 'tcp', host: '127.0.0.1', port: 9110 }, '127.0.0.1:9110'],
    ['0', { kind: 'tcp', host: '127.0.0.1', port: 0 }, '127.0.0.1:0'],
    ['0.0.0.0:9110', { kind: 'tcp', host: '0.0.0.0', port: 9110 }, '0.0.0.0:9110'],
    ['host:1', { kind: 'tcp', host: 'host', port: 1 }, 'host:1'],
    ['[::1]:9110', { kind: 'tcp', host: '::1', port: 9110 }, '[::1]:9110'],
    ['./metrics', { kind: 'unix', path: './metrics' }, './metrics'],
    ['/run/m:1', { kind: 'unix', path: '/run/m:1' }, '/run/m:1'],
  ];
  for (const [text, address, shown] of good) {
    it(text, () => {
      assert.deepEqual(parseMetricsAddress(text), address);
      assert.equal(metricsAddressText(parseMetricsAddress(text)), shown);
    });
  }
  for (const text of ['', 'metrics', '65536', '-1', ':9110', 'a:b:1', '::1:9110', 'run/', '1x']) {
    it(`not ${text}`, () => assert.throws(() => parseMetricsAddress(text), InvalidArgumentError));
  }
});
