/** A URI as others may see it: where it leads to, and not with which keys. */

/** Of the parameters, those that say where, and how. */
const PUBLIC = new Set(['socket', 'nbd-port', 'tls-type', 'tls-hostname', 'tls-verify-peer']);

/** Takes any text, and leaves out a password and all parameters that lead to a key or are not known. */
export function publicUri(text: string): string {
  const [before = '', ...rest] = text.split('?');
  const place = before.replace(/^([a-z][a-z0-9+.-]*:\/\/[^/?#:@]*):[^/?#]*@/i, '$1@');
  const shown = rest
    .join('?')
    .split('&')
    .filter((parameter) => PUBLIC.has(parameter.split('=', 1)[0] ?? ''));
  return shown.length === 0 ? place : `${place}?${shown.join('&')}`;
}
