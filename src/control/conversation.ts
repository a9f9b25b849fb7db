/** One who has connected to a control socket: a question, an answer, and that is all. */

import { Socket } from 'node:net';
import { STATUS_VERSION } from '../observe/mount-status.js';
import type { MountStatus } from '../observe/mount-status.js';

/** Bytes. There is not much that can be asked. */
const LONGEST_QUESTION = 1024;
/** Milliseconds for all of it: who asks nothing, or does not read, is let go. */
const DEADLINE = 5_000;

export const QUESTION = `${JSON.stringify({ version: STATUS_VERSION, ask: 'status' })}\n`;

function answerTo(question: string, status: () => MountStatus): object {
  let asked: unknown;
  try {
    asked = JSON.parse(question);
  } catch {
    return { version: STATUS_VERSION, error: 'a question is a line of JSON' };
  }
  const isStatus =
    typeof asked === 'object' && asked !== null && 'ask' in asked && asked.ask === 'status';
  if (!isStatus) return { version: STATUS_VERSION, error: 'not known here; ask for: status' };
  return { version: STATUS_VERSION, status: status() };
}

/**
 * Waits for the question and answers it.
 * @param fd of a connected socket, owned from now on
 * @returns the socket, which is destroyed after the deadline at the latest
 */
export function converse(fd: number, status: () => MountStatus): Socket {
  const socket = new Socket({ fd, readable: true, writable: true });
  const timer = setTimeout(() => socket.destroy(), DEADLINE);
  timer.unref();
  let question: string | undefined = '';
  socket.setEncoding('utf8');
  socket.on('data', (text: string) => {
    if (question === undefined) return;
    question += text;
    const end = question.indexOf('\n');
    if (end < 0 && question.length > LONGEST_QUESTION) socket.destroy();
    if (end < 0) return;
    const line = question.slice(0, end);
    // Whatever comes then is not kept.
    question = undefined;
    socket.end(`${JSON.stringify(answerTo(line, status))}\n`);
  });
  socket.on('error', () => undefined);
  socket.once('close', () => clearTimeout(timer));
  return socket;
}
