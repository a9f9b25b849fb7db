/**
 * The commands that a page of the manual shows, as sessions at a terminal: all blocks of one heading are
 * typed into the same shell. Comments before a block, which no reader sees, begin a new session and say
 * what it needs:
 *
 *     <!-- needs: PROGRAM... -->       programs that have to be installed
 *     <!-- before: COMMANDS -->        what is there already, made by the shell; PORT is a free TCP port
 *     <!-- file: NAME -->              the block is what this file holds
 *     <!-- as: an ordinary user -->    not as root; or `root`, `root, with loop devices`, `root, with mounts
 *                                      of its own`
 *     <!-- ends: N... -->              how the mounts end, where it is not with 0 each
 *     <!-- status: N -->               how the last command of the block ends, where it is not with 0
 *     <!-- not run: REASON -->         for what cannot be had on the machine of a test
 *
 * A line that begins with `$ ` is a command, which goes on in the next line behind a backslash, and what
 * follows is what it says: three dots stand for any text, and alone in a line for any lines.
 */

import { marked } from 'marked';
import type { Tokens } from 'marked';

export interface Command {
  readonly text: string;
  /** What it says; undefined where the page does not show it. */
  readonly output: string | undefined;
  readonly status: number;
}

export interface Session {
  /** The heading that it stands under. */
  readonly name: string;
  readonly needs: readonly string[];
  readonly before: readonly string[];
  /** Whom it is for, if not for all. */
  readonly as: As | undefined;
  /** How the mounts end, in their order. */
  readonly ends: readonly number[];
  /** Why it is not run. */
  readonly notRun: string | undefined;
  readonly commands: readonly Command[];
}

const WHO = [
  'an ordinary user',
  'root',
  'root, with loop devices',
  'root, with mounts of its own',
] as const;
export type As = (typeof WHO)[number];

type Draft = { -readonly [Key in keyof Session]: Session[Key] };

const KEYS = ['needs', 'before', 'file', 'as', 'ends', 'status', 'not run'] as const;
type Key = (typeof KEYS)[number];

/** @throws Error for a comment that says nothing that is known here */
export function sessionsOf(markdown: string): Session[] {
  const sessions: Session[] = [];
  let heading = '';
  let notes: (readonly [Key, string])[] = [];
  let current: Draft | undefined;
  for (const token of marked.lexer(markdown)) {
    if (token.type === 'heading') {
      heading = (token as Tokens.Heading).text;
      current = undefined;
    } else if (token.type === 'html') {
      notes.push(...notesOf(token.raw));
    } else if (token.type === 'code') {
      const { text } = token as Tokens.Code;
      const [, file] = notes.find(([key]) => key === 'file') ?? [];
      if (file === undefined && !text.startsWith('$ ')) {
        // What root types, or a file: said of it alone.
        notes = [];
        continue;
      }
      if (current === undefined || notes.some(([key]) => key !== 'status')) {
        current = draft(heading, notes);
        sessions.push(current);
      }
      if (file !== undefined) {
        current.before = [...current.before, `cat >${file} <<'END_OF_FILE'\n${text}\nEND_OF_FILE`];
        notes = [];
        continue;
      }
      const status = Number(notes.find(([key]) => key === 'status')?.[1] ?? 0);
      current.commands = [...current.commands, ...commandsOf(text, status)];
      notes = [];
    }
  }
  return sessions;
}

function notesOf(html: string): (readonly [Key, string])[] {
  return [...html.matchAll(/<!-- *([a-z ]+): *(.+?) *-->/gs)].map(([comment, name, value = '']) => {
    const key = KEYS.find((one) => one === name);
    if (key === undefined) throw new Error(`a comment that says nothing: ${comment}`);
    return [key, value];
  });
}

function draft(name: string, notes: readonly (readonly [Key, string])[]): Draft {
  const all = (key: Key): string[] => notes.flatMap(([one, value]) => (one === key ? [value] : []));
  return {
    name,
    needs: all('needs').flatMap((words) => words.split(/\s+/)),
    before: all('before'),
    as: whoOf(all('as')[0]),
    ends: all('ends').flatMap((words) => words.split(' ').map(Number)),
    notRun: all('not run')[0],
    commands: [],
  };
}

function whoOf(text: string | undefined): As | undefined {
  const who = WHO.find((one) => one === text);
  if (who === undefined && text !== undefined)
    throw new Error(`nobody that is known here: ${text}`);
  return who;
}

/** @param lastStatus how the last one ends */
function commandsOf(text: string, lastStatus: number): Command[] {
  const parts = text.split(/^\$ /m).slice(1);
  return parts.map((part, index) => {
    const [, command = '', output = ''] = /^((?:.*\\\n)*.*)\n?([^]*)$/.exec(part) ?? [];
    return {
      text: command,
      output: output === '' ? undefined : output.trimEnd(),
      status: index === parts.length - 1 ? lastStatus : 0,
    };
  });
}

/** Whether a command said what the page shows. */
export function isSaid(shown: string, said: string): boolean {
  const pattern = shown.split('\n').map((line) => {
    if (line.trim() === '...') return '(?:.*\\n)*';
    const words = line.split('...').map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, '\\$&'));
    return `${words.join('.*')}[ \\t]*\\n`;
  });
  return new RegExp(`^${pattern.join('')}$`).test(`${said.trimEnd()}\n`);
}
