/**
 * A page of the manual, from markdown to man(7). The markdown is what GitHub shows well, with two rules:
 *
 * - The title is `# name(section): what it is`, which makes the header and the section NAME.
 * - An item of a list that has more than one paragraph is an entry: the first one is its tag.
 *
 * `Code` is what is typed, and bold; _emphasis_ stands for something else, and is italic. Comments are for
 * the test that runs the commands (test/support/manual-sessions.ts). What there is no rule for is an error.
 */

import { marked } from 'marked';
import type { Token, Tokens } from 'marked';
import { bold, filled, guarded, italic, prose, quoted, typed } from './roff.js';

export interface Imprint {
  /** `tsnbdfuse 0.1.0`. */
  readonly product: string;
  /** As ISO 8601 writes it. */
  readonly date: string;
}

/** What the header says that the section is. */
const MANUALS: ReadonlyMap<string, string> = new Map([
  ['1', 'User Commands'],
  ['7', 'Miscellaneous Information'],
  ['8', 'System Administration'],
]);

const TITLE = /^([\w.@-]+)\((\d)\): (.+)$/;

/** @throws Error for what has no counterpart here */
export function manualPage(markdown: string, imprint: Imprint): string {
  const [title, ...blocks] = meaningful(marked.lexer(markdown));
  if (title === undefined || !isKind('heading', title) || title.depth !== 1) {
    throw new Error('a page begins with its title: # name(section): what it is');
  }
  const [, name = '', section = '', purpose = ''] = TITLE.exec(title.text) ?? [];
  const manual = MANUALS.get(section);
  if (manual === undefined) throw new Error(`no title of a page: ${title.text}`);
  const header = [name.toUpperCase(), section, imprint.date, imprint.product, manual];
  const lines = [
    `.\\" Made of man/${name}.${section}.md by "npm run manual"; changes go there.`,
    `.TH ${header.map(quoted).join(' ')}`,
    // Names of commands and files would be torn apart.
    '.nh',
    '.ad l',
    '.SH NAME',
    `${name} \\- ${prose(purpose)}`,
    ...blockLines(blocks, true),
  ];
  return `${lines.join('\n')}\n`;
}

/** Without blank lines and comments. */
function meaningful(tokens: readonly Token[]): Token[] {
  return tokens.filter(
    (token) =>
      token.type !== 'space' && !(isKind('html', token) && /^<!--[^]*-->\s*$/.test(token.raw)),
  );
}

interface Kinds {
  heading: Tokens.Heading;
  paragraph: Tokens.Paragraph;
  code: Tokens.Code;
  list: Tokens.List;
  html: Tokens.HTML;
  text: Tokens.Text;
  codespan: Tokens.Codespan;
  em: Tokens.Em;
  escape: Tokens.Escape;
  link: Tokens.Link;
}

/** The type of any token may be a word that an extension of the parser brought along. */
function isKind<Kind extends keyof Kinds>(
  kind: Kind,
  token: Token,
): token is Extract<Token, Kinds[Kind]> & Kinds[Kind] {
  return token.type === kind;
}

/** @param fresh nothing stands before it that it has to be set off from */
function blockLines(blocks: readonly Token[], fresh: boolean): string[] {
  return blocks.flatMap((block, index) => {
    const before = index === 0 ? undefined : blocks[index - 1];
    const first = before === undefined ? fresh : isKind('heading', before);
    if (isKind('heading', block)) return headingLines(block);
    if (isKind('code', block)) return codeLines(block, first);
    if (isKind('list', block)) return listLines(block);
    if (isKind('paragraph', block) || isKind('text', block)) {
      return [...(first ? [] : ['.PP']), ...textLines(inlineText(block.tokens))];
    }
    throw new Error(`${block.type} has no counterpart: ${block.raw}`);
  });
}

function headingLines({ depth, tokens }: Tokens.Heading): string[] {
  const text = inlineText(tokens);
  if (depth === 2) return [`.SH ${quoted(text.toUpperCase())}`];
  if (depth === 3) return [`.SS ${quoted(text)}`];
  throw new Error(`a heading of depth ${depth}: ${text}`);
}

/** Blank lines are paragraphs to nobody in there. */
function codeLines({ text }: Tokens.Code, first: boolean): string[] {
  const lines = text.split('\n').map((line) => (line === '' ? '\\&' : guarded(typed(line))));
  return [...(first ? [] : ['.PP']), '.RS 2', '.EX', ...lines, '.EE', '.RE'];
}

function listLines({ items, ordered }: Tokens.List): string[] {
  if (ordered) throw new Error('there are no numbered lists');
  return items.flatMap((item) => {
    const [tag, ...body] = meaningful(item.tokens);
    if (tag === undefined || !(isKind('paragraph', tag) || isKind('text', tag))) {
      throw new Error(`an item without a text: ${item.raw}`);
    }
    const text = inlineText(tag.tokens);
    if (body.length === 0) return ['.IP \\(bu 2', ...textLines(text)];
    const [first, ...more] = body;
    // What is no text of the entry itself has to be told where it stands.
    const opening = first !== undefined && !isKind('paragraph', first) ? body : more;
    return [
      '.TP',
      guarded(text.replace(/\s+/g, ' ')),
      ...(opening === body ? [] : blockLines(body.slice(0, 1), true)),
      ...(opening.length === 0
        ? []
        : ['.RS', ...blockLines(opening, opening === body || isList(opening[0])), '.RE']),
    ];
  });
}

const isList = (token: Token | undefined): boolean => token !== undefined && isKind('list', token);

/** The form of a command is a line of its own where the source has a break there. */
function textLines(text: string): string[] {
  return text
    .split('\n.br\n')
    .flatMap((part, index) => [...(index === 0 ? [] : ['.br']), ...filled(part)]);
}

function inlineText(tokens: readonly Token[] = []): string {
  return tokens
    .map((token) => {
      if (isKind('codespan', token)) return bold(typed(token.text));
      if (isKind('em', token)) return italic(inlineText(token.tokens));
      if (isKind('link', token)) return linkText(token);
      if (isKind('escape', token)) return prose(token.text);
      if (token.type === 'br') return '\n.br\n';
      if (isKind('text', token)) return prose(token.text);
      throw new Error(`${token.type} has no counterpart: ${token.raw}`);
    })
    .join('');
}

/** To another page, which a reader calls by its name and section. */
function linkText({ text, tokens }: Tokens.Link): string {
  const [, name, section] = /^([\w.@-]+)(\(\d\))$/.exec(text) ?? [];
  return name === undefined ? inlineText(tokens) : `${bold(typed(name))}${section ?? ''}`;
}
