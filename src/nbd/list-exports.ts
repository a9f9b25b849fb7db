/** What exports a server has (doc/proto.md, NBD_OPT_LIST and NBD_OPT_INFO). */

import { ByteReader, ShortReadError } from '../bytes.js';
import type { Dialogue } from '../transport/dialogue.js';
import { Info, MAX_STRING, Option, OptionReply } from './constants.js';
import { HandshakeError, ProtocolError } from './errors.js';
import type { Target } from './export.js';
import { askExport } from './export-info.js';
import type { ExportInfo } from './export-info.js';
import { answerGreeting, greeting } from './greeting.js';
import { openDialogue } from './open.js';
import type { ReachOptions } from './open.js';
import {
  giveUp,
  isAck,
  isError,
  readOptionReply,
  refusal,
  sendOption,
  unexpected,
} from './options.js';
import type { OptionAnswer } from './options.js';
import { printable } from './printing.js';

/** How many exports are taken; with the longest names and descriptions they are 80 MB. */
const MAX_EXPORTS = 10_000;

const NO_DATA = Buffer.alloc(0);

export interface ListedExport {
  /** As the server has it; empty for its default export. */
  readonly name: string;
  /** For people, made safe for a terminal; undefined where there is none. */
  readonly description: string | undefined;
  /** Undefined where it was not asked for, or the server tells nothing of it. */
  readonly info: ExportInfo | undefined;
}

/**
 * @param details asks for what each of them is, which may take a server a while: it opens them for that
 * @throws HandshakeError with one line for the user that names the server
 */
export async function listExports(
  target: Target,
  options: ReachOptions,
  details: boolean,
): Promise<ListedExport[]> {
  const { transport, told } = await openDialogue(target, options, {
    plain: () => listing(details),
    encrypted: () => askForList(details),
  });
  transport.flush();
  transport.close();
  return told;
}

/** The whole of the conversation where it is not encrypted. @throws HandshakeError; ProtocolError */
export function* listing(details: boolean): Dialogue<ListedExport[]> {
  const offered = yield* greeting();
  const fixed = offered !== undefined && (yield* answerGreeting(offered)).fixed;
  if (!fixed) throw new HandshakeError('the server is of an old kind, and cannot tell its exports');
  return yield* askForList(details);
}

/** What follows the agreement on encryption, or on none. */
function* askForList(details: boolean): Dialogue<ListedExport[]> {
  yield* sendOption(Option.LIST, NO_DATA);
  const exports: ListedExport[] = [];
  for (;;) {
    const answer = yield* readOptionReply(Option.LIST);
    if (isAck(answer)) break;
    if (isError(answer.type)) return yield* giveUp(listRefusal(answer));
    if (answer.type !== OptionReply.SERVER) throw unexpected(answer);
    if (exports.length === MAX_EXPORTS) throw new ProtocolError('sent endless exports');
    exports.push(readExport(answer));
  }
  if (details) {
    for (const [i, one] of exports.entries()) exports[i] = yield* detailed(one);
  }
  yield* sendOption(Option.ABORT, NO_DATA);
  return exports;
}

function readExport(answer: OptionAnswer): ListedExport {
  const reader = new ByteReader(answer.data, 'big');
  try {
    const name = reader.bytes(reader.u32());
    if (name.length > MAX_STRING) throw unexpected(answer);
    const description = printable(reader.bytes(reader.left), MAX_STRING);
    return { name: name.toString('utf8'), description: description || undefined, info: undefined };
  } catch (error) {
    throw error instanceof ShortReadError ? unexpected(answer) : error;
  }
}

function* detailed(one: ListedExport): Dialogue<ListedExport> {
  const wanted = [Info.BLOCK_SIZE, Info.DESCRIPTION];
  const { told } = yield* askExport(Option.INFO, one.name, wanted);
  // Refused, for this one or for all: that there is one is known all the same.
  if (told === undefined) return one;
  return { ...one, description: one.description ?? told.description, info: told };
}

/** Why there is no list, for the user. */
function listRefusal(answer: OptionAnswer): HandshakeError {
  const said = printable(answer.data);
  const more = said === '' ? '' : ` (the server says: ${said})`;
  switch (answer.type) {
    case OptionReply.ERR_UNSUP:
      return new HandshakeError(`the server cannot tell its exports${more}`);
    case OptionReply.ERR_POLICY:
      return new HandshakeError(`the server does not tell its exports${more}`);
    default:
      return refusal(answer, 'list');
  }
}
