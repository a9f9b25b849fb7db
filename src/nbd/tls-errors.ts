/** What went wrong in a TLS handshake, for the user. */

import { DeadlineError } from '../transport/dialogue.js';
import { HandshakeError, SetupError } from './errors.js';
import { reasonOf } from './pem.js';
import { printable } from './printing.js';

const OUR_CERTIFICATE = 'client-cert.pem and client-key.pem in tls-certificates=';

/** Of OpenSSL and of Node, as they stand in `code`. */
const PROBLEMS: ReadonlyMap<string, string> = new Map([
  ['CERT_HAS_EXPIRED', 'its certificate has expired'],
  ['CERT_NOT_YET_VALID', 'its certificate is not valid yet'],
  ['CERT_REVOKED', 'its certificate was revoked (ca-crl.pem)'],
  ['CRL_HAS_EXPIRED', 'the list of revoked certificates has expired (ca-crl.pem)'],
  ['UNABLE_TO_GET_CRL', 'ca-crl.pem has no list of the authority that its certificate is from'],
  ['DEPTH_ZERO_SELF_SIGNED_CERT', 'its certificate is self-signed, and not one that is trusted'],
  ['SELF_SIGNED_CERT_IN_CHAIN', 'its certificate is from an authority that is not trusted'],
  ['UNABLE_TO_GET_ISSUER_CERT', 'its certificate is from an authority that is not trusted'],
  ['UNABLE_TO_GET_ISSUER_CERT_LOCALLY', 'its certificate is from an authority that is not trusted'],
  ['UNABLE_TO_VERIFY_LEAF_SIGNATURE', 'its certificate is from an authority that is not trusted'],
  ['CERT_UNTRUSTED', 'its certificate is from an authority that is not trusted'],
  ['INVALID_PURPOSE', 'its certificate is not for a server'],
  ['ERR_SSL_WRONG_VERSION_NUMBER', 'it agreed to TLS and then did not speak it'],
  ['ERR_SSL_PACKET_LENGTH_TOO_LONG', 'it agreed to TLS and then did not speak it'],
  ['ERR_SSL_UNSUPPORTED_PROTOCOL', 'it knows no version of TLS from 1.2 on'],
  ['ERR_SSL_TLSV1_ALERT_PROTOCOL_VERSION', 'it knows no version of TLS that we do'],
  [
    'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE',
    'it accepts nothing that we offer (is the tls-type right?)',
  ],
  [
    'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE',
    'it accepts nothing that we offer (is the tls-type right?)',
  ],
  [
    'ERR_SSL_TLSV1_ALERT_INSUFFICIENT_SECURITY',
    'it accepts nothing that we offer (is the tls-type right?)',
  ],
  [
    'ERR_SSL_TLSV13_ALERT_CERTIFICATE_REQUIRED',
    `it wants a certificate of ours: ${OUR_CERTIFICATE}`,
  ],
  ['ERR_SSL_SSLV3_ALERT_BAD_CERTIFICATE', 'it refuses our certificate'],
  ['ERR_SSL_SSLV3_ALERT_CERTIFICATE_UNKNOWN', 'it refuses our certificate'],
  ['ERR_SSL_SSLV3_ALERT_CERTIFICATE_EXPIRED', 'it refuses our certificate: it has expired'],
  ['ERR_SSL_SSLV3_ALERT_CERTIFICATE_REVOKED', 'it refuses our certificate: it was revoked'],
  [
    'ERR_SSL_TLSV1_ALERT_UNKNOWN_CA',
    'it does not trust the authority that our certificate is from',
  ],
  ['ERR_SSL_TLSV1_ALERT_ACCESS_DENIED', 'it does not let us in'],
  ['ERR_SSL_TLSV1_ALERT_UNKNOWN_PSK_IDENTITY', 'it does not know the user of the pre-shared key'],
  [
    'ERR_SSL_TLSV1_ALERT_DECRYPT_ERROR',
    'it has another pre-shared key for the user, or refuses our certificate',
  ],
  ['ERR_SSL_DECRYPTION_FAILED_OR_BAD_RECORD_MAC', 'it has another pre-shared key for the user'],
  ['ERR_SSL_SSLV3_ALERT_BAD_RECORD_MAC', 'it has another pre-shared key for the user'],
  ['ERR_SSL_BINDER_DOES_NOT_VERIFY', 'it has another pre-shared key for the user'],
]);

/** What OpenSSL refuses to start with: how it is set up on this machine, and not the server's doing. */
const OWN_PROBLEMS: ReadonlyMap<string, string> = new Map([
  ['ERR_SSL_NO_PROTOCOLS_AVAILABLE', 'no version of TLS'],
  ['ERR_SSL_NO_CIPHERS_AVAILABLE', 'no cipher'],
]);

/** What servers that want a certificate say to a client without one: that, something less clear, or nothing. */
const UNCLEAR: ReadonlySet<string> = new Set([
  'ERR_SSL_SSLV3_ALERT_HANDSHAKE_FAILURE',
  'ERR_SSL_SSL/TLS_ALERT_HANDSHAKE_FAILURE',
]);

const wantsOurs = (identified: boolean | undefined): string =>
  identified === false ? `; perhaps it wants a certificate of ours: ${OUR_CERTIFICATE}` : '';

/**
 * With TLS 1.3 a server checks who we are after the handshake; some hang up without a word, or so that it is lost.
 * @param identified as for `tlsProblem`
 */
export function hungUpAfterTls(cause: unknown, identified: boolean | undefined): HandshakeError {
  const why = wantsOurs(identified) || '; perhaps it refuses our certificate or key';
  return new HandshakeError(`it hung up right after the TLS handshake${why}`, {
    cause,
    failure: 'tls',
  });
}

/**
 * @param identified false where a server that asks for a certificate of ours gets none
 * @returns an error whose message is a sentence's end about the server: "its certificate has expired";
 *   or a SetupError; or the error itself, where it is one of ours
 */
export function tlsProblem(error: Error, identified?: boolean): Error {
  if (error instanceof HandshakeError || error instanceof DeadlineError) return error;
  // What Node does not take is what we should not have given it.
  if (error instanceof TypeError || error instanceof RangeError) return error;
  const code = 'code' in error ? String(error.code) : '';
  const lacking = OWN_PROBLEMS.get(code);
  if (lacking !== undefined) {
    return new SetupError(
      `OpenSSL is set up here so that ${lacking} is left for this tls-type (see its openssl.cnf)`,
      { cause: error },
    );
  }
  const known = PROBLEMS.get(code);
  if (known !== undefined) {
    const more = UNCLEAR.has(code) ? wantsOurs(identified) : '';
    return new HandshakeError(`TLS: ${known}${more}`, { cause: error, failure: 'tls' });
  }
  if (code === 'ECONNRESET' || code === '' || code === 'EPIPE') {
    return new HandshakeError(
      `it hung up during the TLS handshake (are the tls-type, the certificates or the key right?)${wantsOurs(identified)}`,
      { cause: error, failure: 'tls' },
    );
  }
  return new HandshakeError(`TLS: ${reasonOf(error)} (${printable(code)})`, {
    cause: error,
    failure: 'tls',
  });
}
