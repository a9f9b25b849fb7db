/** Where `--metrics` is to be served. */

import { InvalidArgumentError } from 'commander';

export type MetricsAddress =
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  /** As the user wrote it. */
  | { readonly kind: 'unix'; readonly path: string };

/** Nobody else is to see what is done here, unless a host is given. */
const LOOPBACK = '127.0.0.1';
const MAX_PORT = 65535;

/**
 * `9110`, `host:9110`, `[::1]:9110`, or the path of a socket, in which there is a slash.
 * @throws InvalidArgumentError
 */
export function parseMetricsAddress(text: string): MetricsAddress {
  if (text.includes('/')) {
    if (text.endsWith('/')) throw new InvalidArgumentError('That is the name of a directory.');
    return { kind: 'unix', path: text };
  }
  const parts = /^(?:(?:\[([^\]]+)\]|([^:[\]]+)):)?(\d{1,5})$/.exec(text);
  const port = Number(parts?.[3]);
  if (parts === null || port > MAX_PORT) {
    throw new InvalidArgumentError(
      `It is a port, 0 for a free one, HOST:PORT, or the path of a socket with a slash in it.`,
    );
  }
  return { kind: 'tcp', host: parts[1] ?? parts[2] ?? LOOPBACK, port };
}

/** For messages. */
export function metricsAddressText(address: MetricsAddress): string {
  if (address.kind === 'unix') return address.path;
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}
