/** What the two sides agreed on in a handshake. */

import type { BlockLimits } from '../disk/disk.js';

export interface NegotiatedExport {
  /** In bytes. */
  readonly size: bigint;
  /** TransmissionFlag bits. */
  readonly flags: number;
  /** As the server told them, or the defaults of the protocol. */
  readonly limits: BlockLimits;
  readonly structuredReplies: boolean;
  /** The id under which base:allocation is reported, or undefined where it was not agreed. */
  readonly allocationId: number | undefined;
}

/** Where a server listens. */
export type Address =
  | { readonly kind: 'unix'; readonly path: string }
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number };

/** An export of a server. */
export interface Target {
  readonly address: Address;
  readonly exportName: string;
}

/** For messages: `host:10809`, `/run/socket`, or `@name` for an abstract socket. */
export function addressText(address: Address): string {
  // A path may hold what a terminal would obey.
  if (address.kind === 'unix') return address.path.replace(/^\0/, '@').replace(/\p{Cc}/gu, '?');
  const host = address.host.includes(':') ? `[${address.host}]` : address.host;
  return `${host}:${address.port}`;
}
