/** Agreeing on what BLOCK_STATUS tells of (doc/proto.md, "Metadata querying"). */

import { ByteWriter } from '../bytes.js';
import { traceNbd } from '../trace.js';
import type { Dialogue } from '../transport/dialogue.js';
import { Option, OptionReply } from './constants.js';
import { ProtocolError } from './errors.js';
import { isAck, isError, readOptionReply, sendOption, stopIfFinal, unexpected } from './options.js';
import { printable } from './printing.js';

/** How many contexts one answer may tell of; a server has a few, and one for each dirty bitmap. */
const MAX_CONTEXTS = 64;

/**
 * NBD_OPT_SET_META_CONTEXT.
 * @param wanted names of contexts, at least one
 * @returns those of them that the server has, by name, with the ids under which it will tell of them
 * @throws ProtocolError
 */
export function* setMetaContexts(
  exportName: string,
  wanted: readonly string[],
): Dialogue<Map<string, number>> {
  const name = Buffer.from(exportName, 'utf8');
  const request = new ByteWriter('big').u32(name.length).bytes(name).u32(wanted.length);
  for (const context of wanted) {
    const query = Buffer.from(context, 'utf8');
    request.u32(query.length).bytes(query);
  }
  yield* sendOption(Option.SET_META_CONTEXT, request.finish());
  const ids = new Map<string, number>();
  for (let i = 0; i < MAX_CONTEXTS; i++) {
    const answer = yield* readOptionReply(Option.SET_META_CONTEXT);
    if (isAck(answer)) return ids;
    if (isError(answer.type)) {
      // What came before the error does not count.
      yield* stopIfFinal(answer);
      return new Map();
    }
    if (answer.type !== OptionReply.META_CONTEXT || answer.data.length < 4) {
      throw unexpected(answer);
    }
    const context = answer.data.subarray(4).toString('utf8');
    const id = answer.data.readUInt32BE(0);
    if (!wanted.includes(context)) {
      traceNbd('the server answered with meta context %s', printable(context));
      continue;
    }
    for (const [other, taken] of ids) {
      if (taken === id && other !== context) {
        throw new ProtocolError(`gave the id ${id} to two meta contexts`);
      }
    }
    ids.set(context, id);
  }
  throw new ProtocolError('sent endless meta contexts');
}
