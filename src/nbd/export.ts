/** What the two sides agreed on in a handshake. */

import type { BlockLimits } from '../disk/disk.js';
import { TransmissionFlag } from './constants.js';

export interface NegotiatedExport {
  /** In bytes. */
  readonly size: bigint;
  /** TransmissionFlag bits. */
  readonly flags: number;
  /** As the server told them, or the defaults of the protocol. */
  readonly limits: BlockLimits;
  /** Replies come in chunks. Extended headers imply it. */
  readonly structuredReplies: boolean;
  /** Requests and replies have headers of 32 bytes, with lengths of 64 bits, and there are no others. */
  readonly extendedHeaders: boolean;
  /** The id under which base:allocation is reported, or undefined where it was not agreed. */
  readonly allocationId: number | undefined;
  /** The same for further meta contexts, by name, where some were asked for and are there. */
  readonly contexts?: ReadonlyMap<string, number> | undefined;
}

/** What is agreed on where structured replies are not (doc/proto.md, NBD_FLAG_SEND_DF and "Metadata querying"). */
export function withoutChunks(agreed: NegotiatedExport): NegotiatedExport {
  return {
    ...agreed,
    flags: agreed.flags & ~TransmissionFlag.SEND_DF,
    structuredReplies: false,
    extendedHeaders: false,
    allocationId: undefined,
    contexts: undefined,
  };
}

export interface UnixAddress {
  readonly kind: 'unix';
  /** A leading NUL makes it abstract. */
  readonly path: string;
}

export interface TcpAddress {
  readonly kind: 'tcp';
  readonly host: string;
  readonly port: number;
}

/** A virtual machine, or its host (vsock(7)). */
export interface VsockAddress {
  readonly kind: 'vsock';
  readonly cid: number;
  readonly port: number;
}

/** On another machine, which ssh(1) leads to. */
export interface SshAddress {
  readonly kind: 'ssh';
  /** Also an alias of ssh's configuration. */
  readonly host: string;
  /** Undefined here and below: what ssh's configuration says. */
  readonly user: string | undefined;
  readonly port: number | undefined;
  readonly compress: boolean;
  /** As it is seen from there. */
  readonly remote: UnixAddress | TcpAddress;
}

/** Where a server listens. */
export type Address = UnixAddress | TcpAddress | VsockAddress | SshAddress | SocketAddress;

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

/**
 * For messages: `host:10809`, `/run/socket`, `@name` for an abstract socket, `vsock:2:10809`, or
 * `localhost:10809 on user@host` by way of ssh.
 */
export function addressText(address: Address): string {
  switch (address.kind) {
    case 'unix':
      // A path may hold what a terminal would obey.
      return address.path.replace(/^\0/, '@').replace(/\p{Cc}/gu, '?');
    case 'tcp':
      return withPort(address.host, address.port);
    case 'vsock':
      return `vsock:${address.cid}:${address.port}`;
    case 'ssh': {
      const { host, user, port, remote } = address;
      const machine = port === undefined ? host : withPort(host, port);
      return `${addressText(remote)} on ${user === undefined ? '' : `${user}@`}${machine}`;
    }
    case 'socket':
      return address.name;
  }
}

function withPort(host: string, port: number): string {
  return `${host.includes(':') ? `[${host}]` : host}:${port}`;
}
