/** Asks a running mount how it does. */

import { connect } from 'node:net';
import { errorText } from '../errno.js';
import { isMountStatus } from '../observe/mount-status.js';
import type { MountStatus } from '../observe/mount-status.js';
import { QUESTION } from './conversation.js';

/** Milliseconds; an answer takes less than one. */
export const ANSWER_DEADLINE = 2_000;
/** Bytes. More is no answer of ours. */
const LONGEST_ANSWER = 64 * 1024;

export type Answer =
  | { readonly kind: 'status'; readonly status: MountStatus }
  /** Nobody listens: the process is gone. */
  | { readonly kind: 'deserted' }
  /** @param why the end of a sentence about the mount */
  | { readonly kind: 'silent'; readonly why: string };

const GONE = new Set(['ECONNREFUSED', 'ENOENT']);

/**
 * @param path of its control socket
 * @param deadline milliseconds
 * @returns never rejects
 */
export function askControl(path: string, deadline = ANSWER_DEADLINE): Promise<Answer> {
  return new Promise((resolve) => {
    const socket = connect(path);
    let text = '';
    const tell = (answer: Answer): void => {
      clearTimeout(timer);
      socket.destroy();
      resolve(answer);
    };
    const timer = setTimeout(() => {
      tell({ kind: 'silent', why: `does not answer within ${deadline / 1000} s` });
    }, deadline);
    socket.setEncoding('utf8');
    socket.on('connect', () => socket.write(QUESTION));
    socket.on('data', (more: string) => {
      text += more;
      if (text.length > LONGEST_ANSWER) tell({ kind: 'silent', why: 'answers without end' });
    });
    socket.on('end', () => tell(answerIn(text)));
    socket.on('error', (error: NodeJS.ErrnoException) => {
      if (GONE.has(error.code ?? '')) tell({ kind: 'deserted' });
      else tell({ kind: 'silent', why: `cannot be asked: ${errorText(error)}` });
    });
  });
}

function answerIn(text: string): Answer {
  try {
    const answer: unknown = JSON.parse(text);
    if (typeof answer === 'object' && answer !== null && 'status' in answer) {
      const { status } = answer;
      if (isMountStatus(status)) return { kind: 'status', status };
    }
  } catch {
    // No JSON at all.
  }
  return { kind: 'silent', why: 'gives an answer that is not understood' };
}
