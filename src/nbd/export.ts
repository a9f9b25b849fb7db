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
  | { readonly kind: 'tcp'; readonly host: string; readonly port: number }
  | VsockAddress
  | SocketAddress;

/** A virtual machine, or its host (vsock(7)). */
export interface VsockAddress {
  readonly kind: 'vsock';
  readonly cid: number;
  readonly port: number;
}

/** A socket that is connected already, for one connection, which takes it over and closes it. */
export interface SocketAddress {
  readonly kind: 'socket';
  readonly fd: number;
  /** For messages. */
  readonly name: string;
}

/** What a connection has to be encrypted with. Its presence means: with TLS, or not at all. */
export interface TlsSettings {
  /** X.509 certificates, a pre-shared key, or encryption without knowing with whom. */
  readonly type: 'x509' | 'psk' | 'anon';
  /** Against which the server's certificate is checked, where it is not the host of the address. */
  readonly hostname: string | undefined;
  /** False: whoever answers is believed. */
  readonly verifyPeer: boolean;
  /** A folder with ca-cert.pem, and perhaps client-cert.pem, client-key.pem and ca-crl.pem. */
  readonly certificates: string | undefined;
  /** A file with lines of the form user:hexadecimal-key. */
  readonly pskFile: string | undefined;
  /** Which line of that file; otherwise the name of the user who runs us. */
  readonly username: string | undefined;
}

/** An export of a server. */
export interface Target {
  readonly address: Address;
  readonly exportName: string;
  /** Undefined: without encryption. */
  readonly tls?: TlsSettings | undefined;
}

/** For messages: `host:10809`, `/run/socket`, or `@name` for an abstract socket. */
export function addressText(address: Address): string {
  switch (address.kind) {
    case 'unix':
      // A path may hold what a terminal would obey.
      return address.path.replace(/^\0/, '@').replace(/\p{Cc}/gu, '?');
    case 'tcp': {
      const host = address.host.includes(':') ? `[${address.host}]` : address.host;
      return `${host}:${address.port}`;
    }
    case 'vsock':
      return `vsock:${address.cid}:${address.port}`;
    case 'socket':
      return address.name;
  }
}
